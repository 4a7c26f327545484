//! What each kind of provider needs, and what its keys give away.

use super::tests::{good, mistakes, one_mistake};
use super::*;

/// The mistakes of one provider, without the way to it.
fn provider_mistakes(provider: &str) -> Vec<String> {
    let found = mistakes(&format!("[[delivery.providers]]\nname = \"p\"\n{provider}"), &[]);
    found.into_iter().map(|mistake| mistake.replace("delivery.providers[0].", "")).collect()
}

#[test]
fn every_kind_says_what_it_needs() {
    for (provider, expected) in [
        ("kind = \"http\"\nchannel = \"sms\"", vec!["url: is missing: `http` needs it"]),
        (
            "kind = \"twilio\"\nchannel = \"sms\"\nurl = \"https://SID@api.example\"",
            vec!["from: is missing: a number", "url: must have account SID and token"],
        ),
        (
            "kind = \"twilio\"\nchannel = \"push\"\nurl = \"https://S:T@api.example\"\nfrom = \"MG1\"\n\
             status_callback_url = \"ftp://x\"",
            vec!["kind: `twilio` carries only the channel sms, not push", "status_callback_url: must begin with http"],
        ),
        ("kind = \"fcm\"\nchannel = \"push\"\nurl = \"https://fcm.example\"", vec!["credentials_file: is missing"]),
        (
            "kind = \"fcm\"\nchannel = \"sms\"\nurl = \"fcm.example\"\ncredentials_file = \"/no/such.json\"",
            vec![
                "credentials_file: the file `/no/such.json` does not exist",
                "kind: `fcm` carries only the channel push, not sms",
                "url: must begin with http:// or https://",
            ],
        ),
        (
            "kind = \"slack\"\nchannel = \"email\"\nurl = \"https://hooks.example/x\"",
            vec!["kind: `slack` carries only the channels admin_alert and webhook, not email"],
        ),
        ("kind = \"inbox\"\nchannel = \"email\"", vec!["kind: `inbox` carries only the channel in_app, not email"]),
        (
            "kind = \"smtp\"\nchannel = \"email\"\nurl = \"smtp://h\"\ndkim = { selector = \"a b\" }",
            vec!["dkim.domain: is missing", "dkim.private_key_file: is missing", "dkim.selector: must be a DNS name"],
        ),
        (
            "kind = \"smtp\"\nchannel = \"email\"\nurl = \"smtp://h\"\ndkim = { selectr = \"a\" }",
            vec!["dkim.domain: is missing", "dkim.private_key_file: ", "dkim.selector: ", "dkim.selectr: unknown key"],
        ),
        (
            "kind = \"smtp\"\nchannel = \"email\"\nurl = \"smtp://h\"\nreports = {}",
            vec!["reports.format: is missing: sendgrid or mailgun", "reports.key: is missing"],
        ),
        (
            "kind = \"http\"\nchannel = \"email\"\nurl = \"http://h\"\n\
             reports = { format = \"postmark\", key = 5, kye = \"k\" }",
            vec![
                "reports.format: `postmark` is none of mailgun, sendgrid",
                "reports.key: must be a string",
                "reports.kye: unknown key",
            ],
        ),
    ] {
        let found = provider_mistakes(provider);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.starts_with(expected), "expected {expected}\nfound    {found}");
        }
    }
}

#[test]
fn an_unknown_outcome_is_held_only_where_a_repetition_harms() {
    let of = |provider: &str| {
        let file = format!("[[delivery.providers]]\nname = \"p\"\n{provider}");
        let config = good(&file, &[]);
        config.delivery.providers[0].on_unknown()
    };
    let twilio = "kind = \"twilio\"\nchannel = \"sms\"\nurl = \"https://S:T@api.example\"\nfrom = \"+15550100123\"";
    assert_eq!(of(twilio), OnUnknown::Hold);
    assert_eq!(of(&format!("{twilio}\non_unknown = \"retry_once\"")), OnUnknown::RetryOnce);
    let slack = "kind = \"slack\"\nchannel = \"webhook\"\nurl = \"http://h\"";
    assert_eq!(of(slack), OnUnknown::RetryOnce);
    for other in [
        "kind = \"smtp\"\nchannel = \"email\"\nurl = \"smtp://h\"",
        "kind = \"http\"\nchannel = \"sms\"\nurl = \"http://h\"",
        "kind = \"inbox\"\nchannel = \"in_app\"",
        "kind = \"file\"\nchannel = \"sms\"\nurl = \"file:x\"",
    ] {
        assert_eq!(of(other), OnUnknown::Retry, "{other}");
    }
    one_mistake(
        "[[delivery.providers]]\nname = \"p\"\nkind = \"inbox\"\nchannel = \"in_app\"\non_unknown = \"never\"",
        &[],
        "delivery.providers[0].on_unknown: `never` is none of retry, retry_once, hold",
    );
}

#[test]
fn the_environment_gives_a_number_as_a_text() {
    let twilio = "[[delivery.providers]]\nname = \"p\"\nkind = \"twilio\"\nchannel = \"sms\"\n";
    let env = [
        ("NOTIFICATION__DELIVERY__PROVIDERS__0__FROM", "+15550100123"),
        ("NOTIFICATION__DELIVERY__PROVIDERS__0__URL", "https://S:T@api.example"),
    ];
    assert_eq!(good(twilio, &env).delivery.providers[0].from.as_deref(), Some("+15550100123"));
}

#[test]
fn reports_are_read_in_the_format_that_is_named() {
    let smtp = "[[delivery.providers]]\nname = \"p\"\nkind = \"smtp\"\nchannel = \"email\"\nurl = \"smtp://h\"\n\
                reports = { format = \"mailgun\" }\n";
    let config = good(smtp, &[("NOTIFICATION__DELIVERY__PROVIDERS__0__REPORTS__KEY", "1234567890123")]);
    let reports = config.delivery.providers[0].reports.as_ref().expect("reports");
    let key = reports.key.as_ref().map(Secret::expose);
    assert_eq!(
        (reports.format, key),
        (Some(ReportFormat::Mailgun), Some("1234567890123")),
        "a text, whatever it looks like"
    );
    for text in [config.show(), format!("{config:?}")] {
        assert!(!text.contains("1234567890123") && text.to_ascii_lowercase().contains("mailgun"), "{text}");
    }
    assert_eq!(good(&config.show(), &[]).show(), config.show(), "what is shown loads");

    let warnings = |provider: &str| {
        let reports = "reports = { format = \"sendgrid\", key = \"k\" }\nsecret = \"s\"";
        let warnings = good(&format!("[[delivery.providers]]\nname = \"p\"\n{provider}\n{reports}"), &[]).warnings();
        warnings.into_iter().filter(|warning| warning.starts_with("provider `p`: ")).collect::<Vec<_>>()
    };
    assert!(warnings("kind = \"http\"\nchannel = \"email\"\nurl = \"http://h\"").is_empty());
    for (provider, idle) in [
        ("kind = \"smtp\"\nchannel = \"email\"\nurl = \"smtp://h\"", "`secret` has no effect beside `reports`"),
        ("kind = \"http\"\nchannel = \"sms\"\nurl = \"http://h\"", "`reports` has no effect for channel sms"),
    ] {
        assert_eq!(warnings(provider), [format!("provider `p`: {idle}")]);
    }
    assert_eq!(warnings("kind = \"file\"\nchannel = \"email\"\nurl = \"file:x\"").len(), 2);
}

#[test]
fn what_is_secret_by_its_kind_is_masked_too() {
    let file = r#"
        [[delivery.providers]]
        name = "chat"
        channel = "admin_alert"
        kind = "slack"
        url = "https://hooks.slack.com/services/T0/B0/hunter2"
        [[delivery.providers]]
        name = "sms"
        channel = "sms"
        kind = "twilio"
        url = "https://AC1:hunter2@api.twilio.com"
        from = "+15550100123"
        status_callback_url = "https://u:hunter2@n.example/x"
    "#;
    let config = good(file, &[]);
    for text in [config.show(), format!("{config:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("https://hooks.slack.com/********") && text.contains("https://AC1:********@"), "{text}");
    }
    assert_eq!(good(&config.show(), &[]).show(), config.show(), "what is shown loads");
    assert!(config.delivery.providers[0].url.as_ref().is_some_and(|url| url.expose().ends_with("hunter2")));
}

#[test]
fn a_signature_that_dmarc_does_not_count_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("dkim.pem");
    std::fs::write(&key, "").expect("written");
    let warnings = |domain: &str| {
        let file = format!(
            "[delivery]\nemail_from = \"Shop <no-reply@mail.example.com>\"\n[[delivery.providers]]\nname = \"p\"\n\
             kind = \"smtp\"\nchannel = \"email\"\nurl = \"smtp://h\"\n\
             dkim = {{ selector = \"s\", domain = \"{domain}\", private_key_file = \"{}\" }}",
            key.display()
        );
        good(&file, &[]).warnings().iter().filter(|warning| warning.contains("DMARC")).count()
    };
    assert_eq!((warnings("example.com"), warnings("Mail.example.com")), (0, 0));
    assert_eq!((warnings("ample.com"), warnings("sub.mail.example.com")), (1, 1));
}

#[test]
fn a_mail_server_gets_few_connections_at_once() {
    let most = |kind: &str, url: &str, more: &str| {
        let file = format!(
            "[[delivery.providers]]\nname = \"p\"\nchannel = \"email\"\nkind = \"{kind}\"\nurl = \"{url}\"\n{more}"
        );
        good(&file, &[]).delivery.providers[0].max_in_flight(800)
    };
    assert_eq!((most("smtp", "smtp://h", ""), most("http", "https://h", "")), (20, 800));
    assert_eq!(
        (most("smtp", "smtp://h", "max_in_flight = 5"), most("http", "https://h", "max_in_flight = 900")),
        (5, 800)
    );
}
