//! Mistakes are found at start, all at once, with file and line.

use super::*;

#[test]
fn each_mistake_names_its_file_and_line() {
    for (file, text, expected) in [
        ("t/body.txt", "ok\n{{ broken", "template t/body.txt, line 2: "),
        ("t/body.txt", "ok\n\n{% if x %}", "template t/body.txt, line 3: "),
        ("t/body.txt", "a\n{{ x | mony }}", "template t/body.txt, line 2: there is no filter `mony`"),
        (
            "t/body.txt",
            "a\n{% if x is definde %}{% endif %}",
            "template t/body.txt, line 2: there is no test `definde`",
        ),
        (
            "t/body.html",
            "\n{% extends \"layouts/bsae.html\" %}",
            "template t/body.html, line 2: there is no file `layouts/bsae.html`",
        ),
        ("t/body.html", "{% include [\"a\"] %}", "template t/body.html, line 1: names another file by an expression"),
        ("t/body.txt", "{% extends layout %}", "template t/body.txt, line 1: names another file by an expression"),
        ("layouts/base.de.html", "{% block %}", "template layouts/base.de.html, line 1: "),
        ("layouts/base.css", "", "template layouts/base.css: expected NAME.html"),
        (
            "t/bdoy.txt",
            "text",
            "template t/bdoy.txt: a template has no file of this name; expected subject.txt, body.txt",
        ),
        ("t/body.v2.txt", "text", "template t/body.v2.txt: `v2` is no BCP 47 tag"),
        ("t/subject.txt", "text", "template t: has no body"),
        ("t/body.fr.txt", "text", "template t: has words in fr only"),
        ("t/old/body.txt", "text", "template t/old: cannot be read"),
        ("t/template.toml", "a = 1", "template t/template.toml, line 1: unknown field"),
        (
            "welcome/template.toml",
            "\nsupersedes = [\"welcom\"]",
            "template welcome/template.toml, line 2: supersedes: there is no template `welcom`",
        ),
        ("a template/body.txt", "text", "template a template/body.txt: a template's name has only"),
    ] {
        let mistakes = Folder::new(&[(file, text)]).mistakes();
        assert!(mistakes.lines().any(|line| line.starts_with(expected)), "expected {expected}\nfound {mistakes}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let folder = Folder::new(&[
        ("a/body.txt", "{{ x"),
        ("b/bdoy.txt", "text"),
        ("b/body.txt", "text"),
        ("c/body.txt", "text"),
        ("c/body.de.txt", "text"),
        ("c/body.DE.txt", "text"),
    ]);
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    let mistakes = folder.mistakes();
    let lines: Vec<&str> = mistakes.lines().collect();
    assert_eq!(lines.len(), 4, "{mistakes}");
    for (line, file) in lines.iter().zip(["a/body.txt", "b/bdoy.txt", "c/body.de.txt", "empty"]) {
        assert!(line.starts_with(&format!("template {file}")), "{mistakes}");
    }
    assert!(Templates::load(Some(Path::new("/no/such/folder")), "en").is_err());
    assert!(Templates::load(None, "no tag").is_err());
}

#[test]
fn what_does_not_belong_to_templates_is_left_alone() {
    let folder = Folder::new(&[
        ("README.md", "about"),
        (".git/config", "x"),
        ("t/.body.txt.swp", "x"),
        ("t/body.txt", "text {% include \"layouts/no.txt\" ignore missing %}{# {{ comment #}"),
    ]);
    assert!(folder.load().has("t"));
}

#[test]
fn a_bad_file_of_bytes_is_named() {
    let folder = Folder::new(&[("t/body.txt", "text")]);
    std::fs::write(folder.path().join("t/sms.txt"), [0xff, 0xfe]).expect("written");
    let mistakes = folder.mistakes();
    assert!(mistakes.starts_with("template t/sms.txt: cannot be read"), "{mistakes}");
}
