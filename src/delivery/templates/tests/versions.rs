//! A version changes exactly when a source changes that is used.

use super::*;

const FILES: [(&str, &str); 8] = [
    ("layouts/frame.html", "<html>{% block b %}{% endblock %}</html>"),
    ("layouts/frame.de.html", "{% extends \"layouts/frame.html\" %}"),
    ("layouts/unused.html", "nobody"),
    ("t/body.html", "{% extends \"layouts/frame.html\" %}{% block b %}hello{% endblock %}"),
    ("t/body.de.html", "{% extends \"layouts/frame.html\" %}{% block b %}hallo{% endblock %}"),
    ("t/subject.txt", "subject"),
    ("u/body.txt", "{% include \"t/subject.txt\" %}"),
    ("t/template.toml", "critical = true"),
];

fn versions(templates: &Templates) -> [String; 3] {
    [("t", "en"), ("t", "de"), ("u", "en")].map(|(template, locale)| {
        let version = render_for(templates, template, Channel::Email, Some(locale), "{}").expect("renders").version;
        assert!(version.len() == 12 && version.bytes().all(|b| b.is_ascii_hexdigit()), "{version}");
        version
    })
}

#[test]
fn a_version_changes_exactly_when_a_used_source_does() {
    let before = versions(&Folder::new(&FILES).load());
    assert_eq!(before, versions(&Folder::new(&FILES).load()), "stable");
    for (file, changed) in [
        ("layouts/frame.html", [true, true, false]),
        ("layouts/frame.de.html", [false, true, false]),
        ("layouts/unused.html", [false, false, false]),
        ("t/body.html", [true, false, false]),
        ("t/body.de.html", [false, true, false]),
        ("t/subject.txt", [true, true, true]),
        ("u/body.txt", [false, false, true]),
        ("t/template.toml", [false, false, false]),
    ] {
        let folder = Folder::new(&FILES);
        let text = FILES.iter().find(|(name, _)| *name == file).expect("a file").1;
        folder.write(file, &format!("{text}\n\n"));
        let after = versions(&folder.load());
        assert_eq!([0, 1, 2].map(|i| before[i] != after[i]), changed, "{file}");
    }
}

#[test]
fn the_version_is_that_of_the_locale_that_is_used_and_is_listed() {
    let templates = Folder::new(&FILES).load();
    let version =
        |locale: &str, channel| render_for(&templates, "t", channel, Some(locale), "{}").expect("renders").version;
    assert_eq!(version("de-AT", Channel::Email), version("de", Channel::Sms));
    assert_eq!(version("fr", Channel::Email), version("en", Channel::Email));
    let listed: Vec<Listed<'_>> = templates.list().filter(|listed| listed.template == "t").collect();
    let found: Vec<_> = listed.iter().map(|l| (l.locale, l.is_fallback, l.version.to_owned())).collect();
    let expected = [("de", false, version("de", Channel::Email)), ("en", true, version("en", Channel::Email))];
    assert_eq!(found, expected);
    assert!(listed[0].channels.contains(&Channel::Email) && !listed[0].channels.contains(&Channel::Sms));
}
