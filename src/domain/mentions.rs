//! The strings in a dead letter, however it is written: as JSON in any spelling, broken, in base64, or JSON in a string.
//! Who is to be erased is found by them.

use std::collections::HashSet;

use super::bytes;

/// JSON in a string in a string: a letter of another service about a letter of another service.
const MOST_NESTED: usize = 4;

/// All strings of a letter and of its parked payload.
pub fn strings_of(letter: &str, payload: Option<&[u8]>) -> HashSet<String> {
    let mut found = HashSet::new();
    collect(letter.as_bytes(), MOST_NESTED, &mut found);
    collect(payload.unwrap_or_default(), MOST_NESTED, &mut found);
    found
}

/// What stands between two quotes that follow each other, on whichever side of a string: in broken JSON nobody knows.
fn collect(text: &[u8], nested: usize, found: &mut HashSet<String>) {
    let mut opening = None;
    let mut escaped = false;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b'"' if !escaped => {
                if let Some(opening) = opening.replace(index)
                    && let Ok(string) = serde_json::from_slice::<String>(&text[opening..=index])
                {
                    look_into(&string, nested, found);
                    found.insert(string);
                }
                escaped = false;
            }
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
}

fn look_into(string: &str, nested: usize, found: &mut HashSet<String>) {
    let Some(left) = nested.checked_sub(1) else { return };
    if string.contains('"') {
        collect(string.as_bytes(), left, found);
    } else if let Ok(inner) = bytes::decode(string) {
        collect(&inner, left, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn has(letter: &str, payload: Option<&[u8]>, id: &str) -> bool {
        strings_of(letter, payload).contains(id)
    }

    #[test]
    fn a_person_is_found_in_json_base64_and_payload() {
        let json = r#"{"originalMessageEncoding":"json","originalMessage":{"customerId":"c-1"}}"#;
        assert!(has(json, None, "c-1") && !has(json, None, "c-"));
        let encoded = bytes::encode(br#"broken {"customerId":"c-1""#);
        let base64 = format!(r#"{{"originalMessageEncoding":"base64","originalMessage":"{encoded}"}}"#);
        assert!(has(&base64, None, "c-1") && !has(&base64, None, "c-2"));
        assert!(has("{}", Some(br#"{"customerId":"c-1"}"#), "c-1"));
        assert!(has("{}", Some(b"\xff {\"customerId\":\"c-1\"} \xfe"), "c-1"), "what is no text has strings too");
    }

    #[test]
    fn a_person_is_found_in_any_spelling_and_on_either_side_of_a_lost_quote() {
        assert!(has(r#"{"customerId":"\u0063-\u0031"}"#, None, "c-1"));
        assert!(has(r#"{"customerId":"a\/b"}"#, None, "a/b"));
        assert!(has(r#"{"lost: "customerId":"c-1"}"#, None, "c-1"));
        assert!(has(r#"{"path":"c:\\","customerId":"c-1"}"#, None, "c-1"), "a backslash that ends a string");
    }

    proptest! {
        #[test]
        fn any_id_is_found_in_any_nesting(id in "\\PC{1,20}", around in "\\PC{0,20}", depth in 0..MOST_NESTED) {
            let mut letter = json!({ around: id });
            for _ in 0..depth {
                letter = json!({ "originalMessage": letter.to_string() });
            }
            prop_assert!(has(&letter.to_string(), None, &id));
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            strings_of("{}", Some(&bytes));
        }
    }
}
