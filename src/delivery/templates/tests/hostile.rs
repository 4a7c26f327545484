//! Data from strangers changes no more than the words.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

/// The variables of a template with one of them replaced.
fn with(data: &str, name: &str, value: &str) -> String {
    let mut fields: serde_json::Map<String, Json> = serde_json::from_str(data).expect("an object");
    fields.insert(name.to_owned(), Json::from(value));
    Json::from(fields).to_string()
}

fn names(data: &str) -> Vec<String> {
    serde_json::from_str::<serde_json::Map<String, Json>>(data)
        .expect("an object")
        .into_iter()
        .map(|(k, _)| k)
        .collect()
}

#[test]
fn no_variable_can_bring_markup_into_html() {
    let templates = built_in();
    let attack = "\"'><script>alert(1)</script><img src=x onerror=y>{{ 7 * 7 }}{% raw %}&lt;";
    for (template, data) in FULL {
        for (name, locale) in names(data).iter().flat_map(|name| [(name, "en"), (name, "de")]) {
            let data = with(data, name, attack);
            let mail = render_for(&templates, template, Channel::Email, Some(locale), &data);
            let mail = mail.unwrap_or_else(|e| panic!("{template} {name}: {e}"));
            let html = mail.html.expect("HTML");
            assert!(!html.contains("<script") && !html.contains("<img"), "{template} {name}:\n{html}");
            assert!(!html.contains("{{ 49 }}") && !html.contains(">49<"), "{template} {name} is evaluated");
            assert!(html.contains("&lt;script&gt;"), "{template} {name} is shown:\n{html}");
        }
    }
}

#[test]
fn a_subject_is_one_line_whatever_the_data() {
    let templates = built_in();
    for (template, data) in FULL {
        for name in names(data) {
            let data = with(data, &name, "1\r\nBcc: x@y.z\u{0}\u{85}\u{2028}\u{2029}\u{b}\u{1b}[31m");
            let mail = render_for(&templates, template, Channel::Email, None, &data).expect("renders");
            let subject = mail.subject.expect("a subject");
            let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            assert!(!subject.contains(breaks) && !subject.is_empty(), "{template} {name}: {subject:?}");
            let sms = render_for(&templates, template, Channel::Sms, None, &data).expect("renders");
            assert!(!sms.text.contains(breaks), "{template} {name}: {:?}", sms.text);
        }
    }
}

#[test]
fn right_to_left_text_stays_in_its_place() {
    let (template, data) = FULL[5];
    let mail = render_for(&built_in(), template, Channel::Email, None, &with(data, "firstName", "שלום \u{202e}evil"));
    let mail = mail.expect("renders");
    assert!(mail.html.is_some_and(|html| html.contains("<span dir=\"auto\">שלום \u{202e}evil</span>")));
    assert!(mail.text.contains("שלום"));
}

#[test]
fn long_and_deep_data_is_bounded() {
    let templates = built_in();
    let (template, data) = FULL[4];
    let long = "x".repeat(100_000);
    let mail = render_for(&templates, template, Channel::Email, None, &with(data, "reason", &long)).expect("renders");
    assert!(mail.text.contains(&long));
    let huge = with(data, "reason", &"<".repeat(200_000));
    let error = render_for(&templates, template, Channel::Email, None, &huge).expect_err("too large");
    assert_eq!(error.code, "rendered_too_large");
    let deep = format!(r#"{{"orderId":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    assert_eq!(
        render_for(&templates, template, Channel::Email, None, &deep).expect_err("too deep").code,
        "invalid_data"
    );
}

#[test]
fn a_text_is_made_of_any_html_that_data_can_make() {
    let folder = Folder::new(&[(
        "t/body.html",
        "<table><tr>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr></table><p>{{ text }}</p>",
    )]);
    let templates = folder.load();
    let cells = vec!["\"<&\u{202e}"; 3000];
    for text in ["x".repeat(150_000), "x ".repeat(75_000), "\u{5d0}\n\t ".repeat(20_000)] {
        let data = serde_json::json!({ "cells": cells, "text": text }).to_string();
        let mail = render_for(&templates, "t", Channel::Email, None, &data).expect("renders");
        assert!(mail.text.contains('x') || mail.text.contains('\u{5d0}'));
        let data = serde_json::json!({ "cells": [], "text": text.repeat(4) }).to_string();
        let error = render_for(&templates, "t", Channel::Email, None, &data).err().map(|error| error.code);
        assert!(error.is_none() || error == Some("rendered_too_large"), "{error:?}");
    }
}

#[test]
fn names_in_data_cannot_take_the_place_of_the_template_s_own() {
    let (template, data) = FULL[0];
    let data = ["row", "money", "date", "content", "title", "loop", "self", "caller"]
        .iter()
        .fold(data.to_owned(), |data, name| with(&data, name, "<b>mine</b>"));
    let mail = render_for(&built_in(), template, Channel::Email, None, &data).expect("renders");
    assert!(mail.html.is_some_and(|html| !html.contains("mine") && html.contains("€1,234.50")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_text_in_any_variable_renders(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}", which in 0_usize..7, locale in "en|de-AT|xx|\\PC{0,5}") {
        thread_local!(static TEMPLATES: Templates = built_in());
        let (template, data) = FULL[which];
        for name in names(data) {
            let data = with(data, &name, &text);
            let mail = TEMPLATES.with(|t| render_for(t, template, Channel::Email, Some(&locale), &data));
            let mail = mail.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(!mail.subject.unwrap_or_default().contains(char::is_control));
            let html = mail.html.unwrap_or_default();
            prop_assert_eq!(html.matches('<').count(), html.matches('>').count());
        }
    }
}
