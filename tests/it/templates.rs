//! `templates check` and `templates preview`: what people who write templates work with.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::command::{Finished, Invocation};
use crate::support::wait::secs;

const FINE: i32 = 0;
const FAILED: i32 = 1;
const MISTAKE: i32 = 2;

const ORDER: &str =
    r#"{"orderId":"4711","amount":1234.5,"currency":"EUR","orderDate":"2026-01-15T23:30:00Z","note":"<b>"}"#;

/// A folder with templates, and a configuration that names it.
struct Shop(TempDir);

impl Shop {
    fn new(files: &[(&str, &str)]) -> Self {
        let shop = Self(tempfile::tempdir().expect("a folder"));
        fs::create_dir(shop.path().join("templates")).expect("a folder");
        shop.write("service.toml", "[delivery]\ntemplates_dir = \"templates\"\n");
        shop.write("order.json", ORDER);
        files.iter().for_each(|(path, text)| shop.write(&format!("templates/{path}"), text));
        shop
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Finished {
        Invocation::new(self.path(), &[&["templates"], args, &["--config", "service.toml"]].concat()).run(secs(20))
    }
}

#[test]
fn a_check_lists_templates_with_locales_and_versions() {
    let shop = Shop::new(&[("order_delivered/body.txt", "{{ orderId }} is there"), ("welcome/body.fr.txt", "Bonjour")]);
    let listed = shop.run(&["check"]).expect_code(FINE).expect_words(&["the templates are fine"]);
    let lines =
        |name: &str| listed.stdout.lines().filter(|l| l.starts_with(name)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines("order_confirmation").len(), 2, "{}", listed.stdout);
    assert_eq!(lines("welcome").len(), 3, "{}", listed.stdout);
    let delivered = lines("order_delivered");
    assert!(delivered.len() == 1 && delivered[0].contains("en *") && delivered[0].contains("email"), "{delivered:?}");
    // The same sources have the same versions, other ones have others.
    assert_eq!(shop.run(&["check"]).stdout, listed.stdout);
    shop.write("templates/order_delivered/body.txt", "{{ orderId }} has arrived");
    let later = shop.run(&["check"]).stdout;
    let changed: Vec<&str> = later.lines().filter(|line| !listed.stdout.contains(line)).collect();
    assert!(changed.len() == 1 && changed[0].starts_with("order_delivered"), "{changed:?}");
}

#[test]
fn a_check_names_all_mistakes_with_file_and_line() {
    let shop = Shop::new(&[
        ("a/body.txt", "fine\n{{ broken"),
        ("b/bdoy.txt", "text"),
        ("b/body.txt", "text"),
        ("c/body.html", "\n\n{% extends \"layouts/none.html\" %}"),
        ("d/subject.txt", "a subject alone"),
        ("e/body.txt", "text"),
        ("e/template.toml", "supersedes = [\"nothing\"]"),
        ("f/body.txt", "{{ amount | mony }}"),
    ]);
    let words = [
        "delivery.templates_dir",
        "a/body.txt, line 2",
        "b/bdoy.txt",
        "expected subject.txt, body.txt",
        "c/body.html, line 3",
        "layouts/none.html",
        "template d: has no body",
        "e/template.toml, line 1",
        "`nothing`",
        "f/body.txt, line 1",
        "`mony`",
    ];
    shop.run(&["check"]).expect_code(MISTAKE).expect_words(&words);
    shop.run(&["preview", "welcome", "--data", "order.json"]).expect_code(MISTAKE).expect_words(&words);
}

#[test]
fn a_preview_shows_the_words_of_a_reader() {
    let shop = Shop::new(&[]);
    let preview =
        |args: &[&str]| shop.run(&[&["preview", "order_confirmation", "--data", "order.json"], args].concat());
    preview(&[]).expect_code(FINE).expect_words(&[
        "Your order 4711 is confirmed",
        "email, en, version ",
        "€1,234.50",
        "January 15, 2026",
    ]);
    preview(&["--locale", "de-AT", "--time-zone", "Europe/Vienna"]).expect_code(FINE).expect_words(&[
        "Ihre Bestellung 4711 ist bestätigt",
        "email, de, version ",
        "€\u{a0}1.234,50",
        "16. Jänner 2026",
    ]);
    let html = preview(&["--html", "--locale", "de"]).expect_code(FINE).stdout;
    assert!(html.trim_start().starts_with("<!DOCTYPE html>") && html.contains("lang=\"de\""), "{html}");
    let object = preview(&["--json", "--channel", "sms"]).expect_code(FINE).json_object();
    assert!(object["text"].as_str().is_some_and(|text| text.contains("4711")), "{object:?}");
    assert!(object["html"].is_null() && object["subject"].is_null() && object["locale"] == "en", "{object:?}");
    assert_eq!(object["version"].as_str().map(str::len), Some(12));
}

#[test]
fn a_preview_has_a_link_where_its_e_mails_have_one() {
    let shop = Shop::new(&[
        ("news/template.toml", "category = \"news\"\n"),
        ("news/body.txt", "{{ unsubscribeUrl }}"),
        ("receipt/body.txt", "{{ unsubscribeUrl }}"),
    ]);
    let preview = |name, channel| shop.run(&["preview", name, "--data", "order.json", "--channel", channel]);
    preview("news", "email").expect_code(FAILED).expect_words(&["unsubscribeUrl"]);
    let links = "unsubscribe_base_url = \"https://n.example\"\nunsubscribe_secret = \"0123456789abcdef\"\n";
    let settings = format!("[delivery]\ntemplates_dir = \"templates\"\n[delivery.recipients]\n{links}");
    shop.write("service.toml", &settings);
    preview("news", "email").expect_code(FINE).expect_words(&["https://n.example/unsubscribe/"]);
    preview("news", "sms").expect_code(FAILED).expect_words(&["unsubscribeUrl"]);
    preview("receipt", "email").expect_code(FAILED).expect_words(&["unsubscribeUrl"]);
}

#[test]
fn a_preview_for_nobody_in_particular_has_the_configured_zone() {
    let shop = Shop::new(&[("paid/body.txt", "paid {{ orderDate | datetime }}.")]);
    let preview = |args: &[&str]| shop.run(&[&["preview", "paid", "--data", "order.json"], args].concat());
    preview(&[]).expect_code(FINE).expect_words(&["paid January 15, 2026 at 11:30 PM UTC."]);
    preview(&["--time-zone", "Europe/Vienna"]).expect_code(FINE).expect_words(&["January 16, 2026 at 12:30 AM."]);
    let settings = "[delivery]\ntemplates_dir = \"templates\"\n\
                    [delivery.recipients]\ndefault_time_zone = \"Asia/Tokyo\"\n";
    shop.write("service.toml", settings);
    preview(&[]).expect_code(FINE).expect_words(&["paid January 16, 2026 at 8:30 AM."]);
}

#[test]
fn a_digest_is_previewed_with_one_notification_or_several() {
    let shop = Shop::new(&[
        ("prices/template.toml", "digest_window_ms = 60000\n"),
        ("prices/subject.txt", "{{ count }} prices"),
        ("prices/body.txt", "{% for item in items %}{{ item.name }};{% endfor %} newest {{ name }}"),
    ]);
    shop.write("one.json", r#"{"name": "tea"}"#);
    shop.write("two.json", r#"[{"name": "tea"}, {"name": "jam"}]"#);
    let preview = |data| shop.run(&["preview", "prices", "--data", data]);
    preview("one.json").expect_code(FINE).expect_words(&["1 prices", "tea; newest tea"]);
    preview("two.json").expect_code(FINE).expect_words(&["2 prices", "tea;jam; newest jam"]);
}

#[test]
fn a_preview_says_what_is_wrong() {
    let shop = Shop::new(&[]);
    shop.write("empty.json", "{}");
    shop.write("list.json", "[1]");
    shop.write("broken.json", "{");
    shop.write("two.json", "[{}, {}]");
    let cases: [(&[&str], i32, &[&str]); 10] = [
        (&["welcom", "--data", "order.json"], MISTAKE, &["welcom", "order_confirmation", "welcome"]),
        (&["welcome", "--data", "none.json"], MISTAKE, &["none.json"]),
        (&["welcome", "--data", "list.json"], MISTAKE, &["list.json", "object"]),
        (&["welcome", "--data", "two.json"], MISTAKE, &["two.json", "no digest"]),
        (&["welcome", "--data", "broken.json"], MISTAKE, &["broken.json", "line 1"]),
        (&["welcome"], MISTAKE, &["--data"]),
        (&["welcome", "--data", "empty.json", "--locale", "germanish!"], MISTAKE, &["germanish!", "BCP 47"]),
        (&["welcome", "--data", "empty.json", "--time-zone", "Berlin"], MISTAKE, &["Berlin", "IANA"]),
        (&["welcome", "--data", "empty.json", "--channel", "fax"], MISTAKE, &["fax", "email"]),
        (&["welcome", "--data", "empty.json"], FAILED, &["welcome/body.html", "line", "firstName"]),
    ];
    for (args, code, words) in cases {
        shop.run(&[&["preview"], args].concat()).expect_code(code).expect_words(words);
    }
    let sms = ["preview", "order_confirmation", "--data", "order.json", "--html", "--channel", "sms"];
    shop.run(&sms).expect_code(FAILED).expect_words(&["no HTML"]);
}
