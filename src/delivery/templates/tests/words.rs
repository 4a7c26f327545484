//! The built-in words, for every channel and locale, and digests.

use super::*;

#[test]
fn all_kinds_render_for_every_channel_with_required_variables_only() {
    let templates = built_in();
    for (template, data) in [
        ("order_confirmation", r#"{"orderId":"1","amount":99.10,"orderDate":"2026-01-15T10:30:00Z"}"#),
        ("payment_confirmation", r#"{"orderId":"1","paidAt":"2026-01-15T10:30:00Z"}"#),
        ("order_shipped", r#"{"orderId":"1"}"#),
        ("order_cancelled", r#"{"orderId":"1"}"#),
        ("payment_failed", r#"{"orderId":"1"}"#),
        ("welcome", r#"{"firstName":"Ada","email":"a@b.c","registeredAt":"2026-01-15T10:30:00Z"}"#),
        ("product_out_of_stock", r#"{"productId":"p","productName":"Lamp","outOfStockAt":"2026-01-15T10:30:00Z"}"#),
    ] {
        for (locale, channel) in ["en", "de"].into_iter().flat_map(|l| Channel::ALL.map(|channel| (l, channel))) {
            let words = render_for(&templates, template, channel, Some(locale), data);
            let words = words.unwrap_or_else(|e| panic!("{template} {channel} {locale}: {e}"));
            assert_eq!(words.locale, locale);
            assert!(
                !words.text.trim().is_empty() && !words.text.contains("{{"),
                "{template} {channel}: {}",
                words.text
            );
            assert_eq!(words.html.is_some(), channel == Channel::Email);
            assert_eq!(words.subject.is_some(), channel != Channel::Sms);
            if let Some(html) = words.html {
                assert!(html.contains(&format!("<html lang=\"{locale}\">")), "{template}: {html}");
            }
            assert!(channel != Channel::Sms || !words.text.contains('\n'));
        }
    }
}

#[test]
fn german_readers_get_german_words_and_ways_of_writing() {
    let templates = built_in();
    for (template, data) in FULL {
        let mail = render_for(&templates, template, Channel::Email, Some("de-AT"), data).expect("renders");
        let html = mail.html.expect("HTML");
        for word in ["Your", "your", " the ", "Total", "automated"] {
            assert!(!mail.text.contains(word) && !html.contains(word), "{template} says {word}:\n{}", mail.text);
        }
    }
    let order = FULL[0];
    let mail = render_for(&templates, order.0, Channel::Email, Some("de"), order.1).expect("renders");
    for text in [&mail.text, mail.html.as_ref().expect("HTML")] {
        assert!(text.contains("1.234,50\u{a0}€") && text.contains("16. Januar 2026"), "{text}");
    }
    assert_eq!(mail.subject.as_deref(), Some("Ihre Bestellung 4711 ist bestätigt"));
    let sms = render_for(&templates, order.0, Channel::Sms, Some("de"), order.1).expect("renders");
    assert!(sms.text.ends_with("Gesamtbetrag: 1.234,50 €"), "without the spaces that make an SMS long: {}", sms.text);
    let paid = FULL[1];
    for channel in [Channel::Email, Channel::Sms] {
        let words = render_for(&templates, paid.0, channel, Some("de"), paid.1).expect("renders");
        assert!(words.text.contains("Kreditkarte"), "{}", words.text);
    }
}

#[test]
fn the_text_of_a_mail_is_laid_out_as_written() {
    let shipped = FULL[2];
    let mail = render_for(&built_in(), shipped.0, Channel::Email, None, shipped.1).expect("renders");
    let expected = "Hello,\n\nGood news: your order has been shipped.\n\nOrder number:      4711\n\
                    Carrier:           DHL\nTracking number:   JD01\nExpected delivery: January 20, 2026\n\n\
                    Thank you for shopping with us.\n\n--\nThis is an automated message about one of your orders.";
    assert_eq!(mail.text, expected);
    let paid = FULL[1];
    let mail = render_for(&built_in(), paid.0, Channel::Email, None, paid.1).expect("renders");
    assert!(mail.text.starts_with("Hello,\n\nWe have") && mail.text.contains("\nPayment method: credit card\n"));
}

#[test]
fn every_digit_of_an_amount_survives() {
    let data = r#"{"orderId":"1","amount":98765432109876543210.50,"currency":null,"orderDate":"2026-01-15T10:30:00Z"}"#;
    let mail = render_for(&built_in(), "order_confirmation", Channel::Email, None, data).expect("renders");
    assert!(mail.text.contains("98765432109876543210.50"), "{}", mail.text);
    let data = r#"{"orderId":"1","amount":1e3,"currency":"SEK","orderDate":"yesterday"}"#;
    let mail = render_for(&built_in(), "order_confirmation", Channel::Email, None, data).expect("renders");
    assert!(mail.text.contains("SEK\u{a0}1,000.00") && mail.text.contains("yesterday"), "{}", mail.text);
}

#[test]
fn what_is_missing_is_named() {
    let templates = built_in();
    let render = |template: &str, data: &str| {
        render_for(&templates, template, Channel::Email, None, data).expect_err("something is missing")
    };
    let error = render("order_confirmation", r#"{"orderId":"1","orderDate":"2026-01-15"}"#);
    assert_eq!(error.code, "missing_variable");
    for word in ["order_confirmation/body.", ", line ", "amount"] {
        assert!(error.reason.contains(word), "{word}: {}", error.reason);
    }
    let error = render("welcome", r#"{"firstName":"Ada","registeredAt":"2026-01-15"}"#);
    assert!(error.code == "missing_variable" && error.reason.contains("email"), "{}", error.reason);
    let error = render("no_such", "{}");
    assert!(error.code == "unknown_template" && error.reason.contains("no_such"), "{}", error.reason);
    let folder = Folder::new(&[
        ("layouts/base.html", "\n{{ shopName }}{% block content %}{% endblock %}"),
        ("t/body.html", "{% extends \"layouts/base.html\" %}"),
        ("u/body.txt", "{{ a.b.c }}"),
    ]);
    let templates = folder.load();
    let error = render_for(&templates, "t", Channel::Email, None, "{}").expect_err("no shop");
    assert!(error.reason.contains("layouts/base.html, line 2") && error.reason.contains("shopName"), "{error}");
    let error = render_for(&templates, "u", Channel::Email, None, r#"{"a":{}}"#).expect_err("no b");
    assert!(error.code == "missing_variable" && error.reason.contains("a.b"), "{error}");
}

#[test]
fn every_required_variable_is_named_when_it_is_missing() {
    let templates = built_in();
    let mut found = Vec::new();
    for (template, data) in FULL {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(data).expect("an object");
        for name in fields.keys() {
            let mut rest = fields.clone();
            rest.remove(name);
            let rest = serde_json::Value::from(rest).to_string();
            for (locale, channel) in [("en", Channel::Email), ("de", Channel::Email), ("de", Channel::InApp)] {
                if let Err(error) = render_for(&templates, template, channel, Some(locale), &rest) {
                    assert_eq!(error.code, "missing_variable", "{error}");
                    assert!(error.reason.contains(&format!("`{name}`")), "{name}: {error}");
                    found.push(name.clone());
                }
            }
        }
    }
    found.sort();
    found.dedup();
    let required = [
        "amount",
        "email",
        "firstName",
        "orderDate",
        "orderId",
        "outOfStockAt",
        "paidAt",
        "productId",
        "productName",
        "registeredAt",
    ];
    assert_eq!(found, required);
}

#[test]
fn a_mail_with_html_alone_has_a_text_of_the_same_words() {
    let folder = Folder::new(&[
        ("news/subject.txt", "News"),
        (
            "news/body.html",
            "{% extends \"layouts/base.html\" %}{% block preheader %}preview{% endblock %}{% block content %}\
             <h1>Hello {{ name }}</h1><table>\
             {% set label = \"Order\" %}{% set value = 4711 %}{% include \"layouts/row.html\" %}\
             {% set label = \"Total\" %}{% set value = \"5 €\" %}{% include \"layouts/row.html\" %}</table>\
             <p>See <a href=\"https://shop.example/{{ name }}\">the shop</a></p>{% endblock %}",
        ),
    ]);
    let templates = folder.load();
    let mail = render_for(&templates, "news", Channel::Email, None, r#"{"name":"A&B"}"#).expect("renders");
    for word in ["Hello A&B", "Order", "4711", "Total", "the shop", "https://shop.example/A&B", "automated message"] {
        assert!(mail.text.contains(word), "{word} in:\n{}", mail.text);
    }
    assert!(!mail.text.contains("preview") && !mail.text.contains('<'), "{}", mail.text);
    assert!(mail.html.is_some_and(|html| html.contains("Hello A&amp;B")));
    let sms = render_for(&templates, "news", Channel::Sms, None, r#"{"name":"Ada"}"#).expect("renders");
    assert!(sms.html.is_none() && sms.text.contains("Hello Ada") && !sms.text.contains('\n'), "{}", sms.text);
}

#[test]
fn each_channel_prefers_its_own_part() {
    let parts = [("t/sms.txt", "sms"), ("t/push.txt", "push"), ("t/body.txt", "text"), ("t/body.html", "<p>html</p>")];
    let templates = Folder::new(&parts).load();
    let text = |templates: &Templates, channel| render_for(templates, "t", channel, None, "{}").expect("renders").text;
    let own = Channel::ALL.map(|channel| text(&templates, channel));
    assert_eq!(own, ["text", "sms", "push", "text", "text", "text"]);
    for (part, content) in parts {
        let templates = Folder::new(&[(part, content)]).load();
        for channel in Channel::ALL {
            let expected = content.trim_start_matches("<p>").trim_end_matches("</p>");
            assert_eq!(text(&templates, channel), expected, "{part} stands in for {channel}");
        }
    }
}

#[test]
fn a_digest_has_the_variables_of_all_and_of_the_newest() {
    let folder = Folder::new(&[
        ("prices/subject.txt", "{{ count }} prices, last {{ name }}"),
        ("prices/body.txt", "{% for item in items %}{{ item.name }}: {{ item.price | money('EUR') }}\n{% endfor %}"),
        ("prices/template.toml", "digest_window_ms = 60000\n"),
    ]);
    let templates = folder.load();
    assert_eq!(templates.settings("prices").digest_window_ms, Some(60_000));
    let items = [json(r#"{"name":"Lamp","price":5}"#), json(r#"{"name":"Mug","price":1.5,"items":"shadowed"}"#)];
    let request = RenderRequest {
        template: "prices",
        channel: Channel::Email,
        locale: Some("de"),
        time_zone: None,
        data: &items[1],
        unsubscribe_url: None,
    };
    let digest = templates.render_digest(&request, &items).expect("renders");
    assert_eq!(digest.subject.as_deref(), Some("2 prices, last Mug"));
    assert_eq!(digest.text, "Lamp: €5.00\nMug: €1.50\n", "English words are written in English");
    let error = templates.render(&request).expect_err("one alone has no items but its own");
    assert!(matches!(error.code, "missing_variable" | "template_failed"), "{error}");
    let broken = [json("[1]")];
    assert_eq!(templates.render_digest(&request, &broken).expect_err("no object").code, "invalid_data");
}

#[test]
fn settings_are_read_and_default() {
    let templates = built_in();
    assert_eq!(templates.settings("order_shipped").supersedes, ["order_confirmation"]);
    assert_eq!(*templates.settings("welcome"), TemplateSettings::default());
    assert_eq!(*templates.settings("no_such"), TemplateSettings::default());
}
