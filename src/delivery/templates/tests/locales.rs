//! Which language a reader gets.

use super::*;

fn text(templates: &Templates, template: &str, locale: Option<&str>) -> (String, String) {
    let mail = render_for(templates, template, Channel::Email, locale, "{}").expect("renders");
    (mail.text, mail.locale)
}

#[test]
fn the_nearest_locale_is_taken() {
    let folder = Folder::new(&[
        ("t/body.txt", "default"),
        ("t/body.de.txt", "German"),
        ("t/body.de-AT.txt", "Austrian"),
        ("t/body.zh-Hant.txt", "Traditional"),
    ]);
    let templates = folder.load();
    for (asked, expected, locale) in [
        (Some("de-AT"), "Austrian", "de-AT"),
        (Some("de-at"), "Austrian", "de-AT"),
        (Some("de_AT"), "Austrian", "de-AT"),
        (Some("de-CH"), "German", "de"),
        (Some("de-Latn-AT-1996"), "German", "de"),
        (Some("de"), "German", "de"),
        (Some("zh-Hant-TW"), "Traditional", "zh-Hant"),
        (Some("zh"), "default", "en"),
        (Some("en-GB"), "default", "en"),
        (Some("fr"), "default", "en"),
        (Some("nonsense!"), "default", "en"),
        (Some(""), "default", "en"),
        (None, "default", "en"),
    ] {
        assert_eq!(text(&templates, "t", asked), (expected.into(), locale.into()), "{asked:?}");
    }
}

#[test]
fn the_default_locale_serves_readers_of_other_languages() {
    let folder = Folder::new(&[("t/body.txt", "ohne"), ("u/body.fr.txt", "French"), ("u/body.de.txt", "German")]);
    let templates = folder.load_with("de-AT");
    for (asked, expected, locale) in
        [(None, "German", "de"), (Some("it"), "German", "de"), (Some("fr-CA"), "French", "fr")]
    {
        assert_eq!(text(&templates, "u", asked), (expected.into(), locale.into()), "{asked:?}");
    }
    assert_eq!(
        text(&templates, "t", None),
        ("ohne".into(), "de-AT".into()),
        "files without a locale are in the default"
    );
    // The built-in templates know which of their words are English, whatever the default is.
    let order = FULL[0];
    for (asked, locale) in [(None, "de"), (Some("fr"), "de"), (Some("en-GB"), "en")] {
        let mail = render_for(&templates, order.0, Channel::Email, asked, order.1).expect("renders");
        assert_eq!(mail.locale, locale, "{asked:?}");
    }
    let templates = Templates::load(None, "pt").expect("loads");
    assert_eq!(render_for(&templates, order.0, Channel::Email, None, order.1).expect("renders").locale, "en");
}

#[test]
fn languages_are_not_mixed() {
    let folder = Folder::new(&[
        ("t/subject.txt", "subject"),
        ("t/body.txt", "text"),
        ("t/body.html", "<p>html</p>"),
        ("t/sms.txt", "sms"),
        ("t/subject.de.txt", "Betreff"),
        ("t/body.de.html", "<p>Deutsch</p>"),
        ("t/body.fr.txt", "français"),
        ("t/subject.it.txt", "oggetto"),
    ]);
    let templates = folder.load();
    let mail = |locale| render_for(&templates, "t", Channel::Email, Some(locale), "{}").expect("renders");
    let german = mail("de");
    assert_eq!((german.subject.as_deref(), german.text.as_str()), (Some("Betreff"), "Deutsch"), "text from the HTML");
    let french = mail("fr");
    assert_eq!((french.text.as_str(), french.html), ("français", None), "no English HTML beside French text");
    assert_eq!(french.subject.as_deref(), Some("subject"), "a mail without a subject would be worse");
    let italian = mail("it");
    assert_eq!((italian.subject.as_deref(), italian.text.as_str()), (Some("subject"), "text"), "no body, no Italian");
    let sms = render_for(&templates, "t", Channel::Sms, Some("de"), "{}").expect("renders");
    assert_eq!(sms.text, "Deutsch", "the language comes before the length");
}

#[test]
fn parts_of_one_language_complete_each_other() {
    let folder = Folder::new(&[
        ("t/subject.de.txt", "Betreff"),
        ("t/body.txt", "text"),
        ("t/body.de.txt", "Deutsch"),
        ("t/body.de-AT.txt", "Österreichisch"),
        ("t/body.de.html", "<p>Deutsch</p>"),
    ]);
    let mail = render_for(&folder.load(), "t", Channel::Email, Some("de-AT"), "{}").expect("renders");
    let parts = (mail.subject.as_deref(), mail.text.as_str(), mail.html.as_deref());
    assert_eq!(parts, (Some("Betreff"), "Österreichisch", Some("<p>Deutsch</p>")));
}

#[test]
fn a_file_without_a_locale_replaces_all_built_in_languages() {
    let folder = Folder::new(&[("welcome/body.txt", "Hi {{ firstName }}")]);
    let (name, data) = FULL[5];
    let mail = render_for(&folder.load(), name, Channel::Email, Some("de"), data).expect("renders");
    assert_eq!((mail.text.as_str(), mail.locale.as_str()), ("Hi Ada", "en"));
    // With a locale it replaces that one alone.
    let folder = Folder::new(&[("welcome/body.de.txt", "Hallo {{ firstName }}")]);
    let templates = folder.load();
    let mail = render_for(&templates, name, Channel::Email, Some("de"), data).expect("renders");
    assert!(mail.text == "Hallo Ada" && mail.html.is_some_and(|html| html.contains("lang=\"de\"")));
    let mail = render_for(&templates, name, Channel::Email, None, data).expect("renders");
    assert!(mail.text.contains("Your account is ready"));
}

#[test]
fn layouts_follow_the_language_of_the_words() {
    let folder = Folder::new(&[
        ("layouts/frame.txt", "[{% block b %}{% endblock %}|{% include \"layouts/foot.txt\" %}]"),
        ("layouts/foot.txt", "bye"),
        ("layouts/foot.de.txt", "tschüss"),
        ("layouts/frame.de.txt", "{% extends \"layouts/frame.txt\" %}"),
        ("layouts/frame.de-AT.txt", "{% extends \"layouts/frame.txt\" %}{% block b %}servus{% endblock %}"),
        ("t/body.de-AT.txt", "{% extends \"layouts/frame.txt\" %}"),
        ("t/body.txt", "{% extends \"layouts/frame.txt\" %}{% block b %}hello{% endblock %}"),
        ("t/body.de.txt", "{% extends \"layouts/frame.txt\" %}{% block b %}hallo{% endblock %}"),
        ("t/body.fr.txt", "{% extends \"layouts/frame.txt\" %}{% block b %}salut{% endblock %}"),
    ]);
    let templates = folder.load();
    assert_eq!(text(&templates, "t", None).0, "[hello|bye]");
    assert_eq!(text(&templates, "t", Some("fr")).0, "[salut|bye]");
    // Also where a frame without a locale stands between.
    assert_eq!(text(&templates, "t", Some("de")).0, "[hallo|tschüss]");
    assert_eq!(text(&templates, "t", Some("de-AT")).0, "[servus|tschüss]");
}

#[test]
fn numbers_follow_the_reader_within_the_language_of_the_words() {
    let folder = Folder::new(&[("t/body.txt", "{{ a | money('USD') }}"), ("t/body.de.txt", "{{ a | money('EUR') }}")]);
    let money = |templates: &Templates, locale| {
        render_for(templates, "t", Channel::Email, locale, r#"{"a":1234.5}"#).expect("renders").text
    };
    let templates = folder.load();
    for (locale, expected) in [
        (None, "$1,234.50"),
        (Some("en-GB"), "US$1,234.50"),
        (Some("fr"), "$1,234.50"),
        (Some("de"), "1.234,50\u{a0}€"),
        (Some("de-AT"), "€\u{a0}1.234,50"),
    ] {
        assert_eq!(money(&templates, locale), expected, "{locale:?}");
    }
    assert_eq!(money(&folder.load_with("en-GB"), Some("fr")), "US$1,234.50");
}
