//! Fingerprints of failures: the same for failures of one kind, so that a thousand letters are one cause to look at.

use sha2::{Digest as _, Sha256};

use super::bytes::hex;

/// The fingerprint of a class, a code, an event type and a reason without its particulars: sixteen hexadecimal digits.
pub fn fingerprint(class: &str, code: &str, event_type: Option<&str>, reason: &str) -> String {
    let mut hash = Sha256::new();
    for part in [class, code, event_type.unwrap_or(""), &normalise(reason)] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize()[..8])
}

/// Ids, numbers, addresses and quoted values differ between two failures of one kind; the words do not, and neither do
/// the names of fields, which stand in backticks and of which only the digits go (positions in lists).
fn normalise(reason: &str) -> String {
    let mut out = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(first) = rest.chars().next() {
        let after_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '#');
        let taken = match first {
            '"' => skip_quoted(rest, '"', &mut out),
            // Behind a word it is an apostrophe.
            '\'' if !after_word => skip_quoted(rest, '\'', &mut out),
            '`' => name(rest, &mut out),
            c if is_word(c) => word(rest, &mut out),
            c => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

/// Leaves the quotes of a quoted value; one that was cut ends with the text. Returns the bytes that were read.
fn skip_quoted(text: &str, quote: char, out: &mut String) -> usize {
    out.push(quote);
    out.push(quote);
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn name(text: &str, out: &mut String) -> usize {
    let end = text[1..].find('`').map_or(text.len(), |at| at + 2);
    for c in text[..end].chars() {
        match c {
            c if !c.is_numeric() => out.push(c),
            _ if out.ends_with('#') => {}
            _ => out.push('#'),
        }
    }
    end
}

/// A word with a digit in it is an id, a number, an address, a time; one without is a word.
fn word(text: &str, out: &mut String) -> usize {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let word = &text[..end];
    if word.contains(char::is_numeric) {
        // The comma or colon behind a number belongs to the sentence.
        out.push('#');
        out.push_str(&word[word.trim_end_matches(['.', ':']).len()..]);
    } else {
        out.push_str(word);
    }
    end
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@' | '/' | '+')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(reason: &str) -> String {
        fingerprint("permanent", "x", Some("OrderCreated"), reason)
    }

    #[test]
    fn particulars_make_no_difference() {
        for (one, other) in [
            ("invalid string \"abc\" at 17", "invalid string \"x\" at 4"),
            ("invalid string \"a \\\" b\", expected u8", "invalid string \"\", expected u8"),
            ("unknown variant 'blue', not a colour", "unknown variant 'pale green', not a colour"),
            ("order 6f0c9a0e-54c3-5b0e-8f5c-2f6d93d1a7b4 is gone", "order evt-17 is gone"),
            ("connect to 10.0.0.7:9092: refused", "connect to mail-3.example.com:25: refused"),
            ("`data.items[3].sku` is missing", "`data.items[12].sku` is missing"),
            ("invalid number at line 1 column 181", "invalid number at line 20 column 3"),
            ("not before 2026-01-15T10:30:00.5Z.", "not before 1999-12-31T00:00:00+02:00."),
            ("a value cut in \"the mid", "a value cut in \"another pla"),
        ] {
            assert_eq!(of(one), of(other), "{} | {}", normalise(one), normalise(other));
        }
    }

    #[test]
    fn words_and_names_of_fields_make_a_difference() {
        for (one, other) in [
            ("`data.amount` is missing", "`data.orderId` is missing"),
            ("`data.amount` is missing", "`data.amount` appears twice"),
            ("the customer's order can't be read", "the customer's order can't be written"),
            ("invalid type: string \"a\", expected a list", "invalid type: string \"a\", expected an object"),
            ("`a` is \"x\"", "`a` is x"),
        ] {
            assert_ne!(of(one), of(other), "{}", normalise(one));
        }
    }

    #[test]
    fn class_code_and_type_make_a_difference() {
        let base = fingerprint("permanent", "code", Some("A"), "reason");
        assert_ne!(base, fingerprint("transient", "code", Some("A"), "reason"));
        assert_ne!(base, fingerprint("permanent", "other", Some("A"), "reason"));
        assert_ne!(base, fingerprint("permanent", "code", Some("B"), "reason"));
        assert_ne!(base, fingerprint("permanent", "code", None, "reason"));
        assert_eq!(base.len(), 16);
    }

    proptest! {
        #[test]
        fn any_value_in_quotes_and_any_number_group(
            a in any::<String>(), b in any::<String>(), n in any::<i64>(), m in prop::num::f64::NORMAL
        ) {
            prop_assert_eq!(of(&format!("got {a:?} at {n}, sorry")), of(&format!("got {b:?} at {m}, sorry")));
        }

        #[test]
        fn any_id_with_a_digit_groups(a in "[A-Za-z_-]{0,9}[0-9][0-9a-zA-Z_-]{0,20}", b in "[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}") {
            prop_assert_eq!(of(&format!("no customer {a} here")), of(&format!("no customer {b} here")));
        }

        #[test]
        fn words_without_digits_stay(words in "[a-z]{1,9}( [a-z]{1,9}){0,9}") {
            prop_assert_eq!(normalise(&words), words);
        }

        #[test]
        fn any_text_is_normalised(text in any::<String>()) {
            prop_assert!(normalise(&text).len() <= 2 * text.len().max(1));
        }
    }
}
