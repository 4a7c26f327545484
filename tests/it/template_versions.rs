//! Which words were sent: each attempt names the version of its template.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::provider::{Answer, FakeProvider};
use crate::support::service::attempts;
use crate::support::setup::Setup;
use crate::support::wait::secs;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn each_attempt_names_the_version_of_the_words_that_it_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let templates = folder.path().join("templates");
    let (body, data) = (templates.join("greeting/body.txt"), folder.path().join("data.json"));
    fs::create_dir_all(templates.join("greeting")).expect("a folder");
    let write = |path: &Path, text: &str| fs::write(path, text).expect("written");
    write(&body, "old words");
    write(&data, "{}");
    let is_well = Arc::new(AtomicBool::new(false));
    let provider = FakeProvider::answering({
        let is_well = Arc::clone(&is_well);
        move |_| if is_well.load(Ordering::SeqCst) { Answer::Accept } else { Answer::Status(503) }
    });
    let settings = format!(
        "[delivery]\ntemplates_dir = \"{}\"\n[delivery.retry]\nschedule_ms = {:?}\n",
        templates.display(),
        [1000; 12]
    );
    let setup = Setup::new(&settings, &provider.named("email", "email", secs(1)));
    let (config, data) = (setup.config_file(), data.display().to_string());
    let version = || {
        let args = ["templates", "preview", "greeting", "--data", &data, "--json", "--config", &config];
        let shown = setup.command(&args).run(secs(20)).expect_code(0).json_object();
        shown["version"].as_str().expect("a version").to_owned()
    };

    let mut service = setup.start();
    let id = service.submit(&json!({"channel": "email", "recipient": "a@example.com", "template": "greeting"}));
    service.wait_for_state(&id, "retrying", secs(20));
    service.terminate();
    assert!(service.wait_for_exit(secs(30)).success());
    let old = version();
    write(&body, "new words");
    let new = version();
    assert_ne!(old, new);
    is_well.store(true, Ordering::SeqCst);

    let service = setup.start();
    let sent = service.wait_for_state(&id, "sent", secs(40));
    let versions = attempts(&sent, "templateVersion");
    let (last, before) = versions.split_last().expect("attempts");
    assert!(!before.is_empty() && before.iter().all(|version| *version == old), "{sent}");
    assert_eq!(*last, new, "{sent}");
    let arrivals = provider.arrivals_of(&id);
    let words: Vec<String> = arrivals.iter().map(|arrival| arrival.document().body.trim().to_owned()).collect();
    assert_eq!(words.len(), versions.len(), "{words:?}");
    assert_eq!(
        (words.first().map(String::as_str), words.last().map(String::as_str)),
        (Some("old words"), Some("new words"))
    );
}
