//! Processes are killed, databases restarted and instances added in the middle of delivery: what a provider accepted
//! once is sent again only when nobody could know it, and that is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::database::{Fate, Kind};
use crate::support::events::{Event, Input, request};
use crate::support::provider::{Answer, Arrival, Document, FakeProvider};
use crate::support::published::Story;
use crate::support::random::Random;
use crate::support::servers::Outage;
use crate::support::service::{Service, attempts, outcomes};
use crate::support::setup::Setup;
use crate::support::verify;
use crate::support::wait::{self, secs};

/// As long as the shortest lease allows: a slow machine must not make an answer late.
const TIMEOUT: Duration = Duration::from_millis(1900);
/// Each interruption costs a step. The instance keeps its name, so that Kafka does not wait for the one that was killed.
const SETTINGS: &str = "[kafka]\ninstance_id = \"phoenix\"\n[breaker]\nrecovery_timeout_ms = 1000\n\
    [http]\nrate_limit_per_second = 1000\nrate_limit_burst = 10000\n[delivery]\nlease_ms = 7000\nmax_in_flight = 50\n\
    [delivery.retry]\nschedule_ms = [300, 300, 300, 300, 300, 300, 300, 300, 300, 300, 300, 300]\n";

/// Each life of the service but the last one ends with a kill.
struct Lives {
    kind: Kind,
    notifications: usize,
    kills: usize,
    /// In this life the work of those before is taken over: no other one is sure to last as long as a lease.
    long: usize,
    /// The database is away in the middle of this life…
    outage: Option<usize>,
    /// …and at the end of this one.
    kill_in_outage: Option<usize>,
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn every_notification_is_accepted_through_ten_kills_and_two_restarts_of_the_database() {
    every_notification_is_accepted_through(&Lives {
        kind: Kind::Postgres,
        notifications: 10_000,
        kills: 10,
        long: 6,
        outage: Some(4),
        kill_in_outage: Some(8),
    });
}

#[test]
#[ignore = "needs Kafka: scripts/test.sh"]
fn every_notification_is_accepted_through_five_kills_on_sqlite() {
    every_notification_is_accepted_through(&Lives {
        kind: Kind::Sqlite,
        notifications: 3_000,
        kills: 5,
        long: 3,
        outage: None,
        kill_in_outage: None,
    });
}

/// At least once, and more than once only where a kill met the send: under the same key, and shown.
#[track_caller]
fn every_notification_is_accepted_through(lives: &Lives) {
    let all = lives.notifications;
    let wave = all / lives.kills;
    let provider = FakeProvider::answering(thinks_up_to_50_ms(31));
    let setup = Setup::on(lives.kind, SETTINGS, &provider.named("email", "email", TIMEOUT));
    let mut service = setup.spawn();
    let mut kills = Vec::new();
    for life in 1..=lives.kills {
        let (passes, outlives_it) = (lives.outage == Some(life), lives.kill_in_outage == Some(life));
        if life == lives.long {
            wait::until("what was interrupted is sent again", secs(60), || accepted_again(&provider).next());
        }
        let before = provider.accepted_count();
        setup.kafka.produce(requests((life - 1) * wave..life * wave));
        provider.wait_for_accepted(before + wave / 3, secs(60));
        let mut outage = (passes || outlives_it).then(|| database_is_away(&setup, &service));
        if passes {
            let before = provider.accepted_count();
            outage.take().into_iter().for_each(Outage::end);
            provider.wait_for_accepted(before + wave / 10, secs(60));
        }
        service.kill();
        kills.push(Instant::now());
        service = setup.spawn();
        outage.into_iter().for_each(Outage::end);
    }
    provider.wait_for_accepted(all, secs(120));
    setup.database.wait_until_settled(secs(60));
    let (fates, story) = (setup.database.fates(), told(&setup, all));

    let accepted = provider.accepted();
    assert_eq!((fates.len(), accepted.len()), (all, all), "nothing is lost and nothing made up");
    for (id, fate) in &fates {
        only_the_last_was_accepted(id, fate, &["unknown"]);
        let times = accepted[id].len();
        assert!(times <= fate.outcomes.len(), "{id} was accepted {times} times: {fate:?}");
    }
    each_was_sent(&fates, &story);
    assert_eq!((story.letters.len(), setup.database.dead_letter_count()), (0, 0), "no fault of theirs");

    let again: Vec<Vec<Arc<Arrival>>> = accepted_again(&provider).collect();
    assert!(!again.is_empty(), "sends were under way when it died");
    let unknown = fates.values().filter(|fate| fate.outcomes.iter().any(|outcome| outcome == "unknown")).count();
    println!(
        "{all} notifications on {:?}, {} kills, {} restarts of the database: 0 lost, {unknown} with an unknown \
         outcome, {} accepted more than once, each under its own key",
        lives.kind,
        kills.len(),
        lives.outage.iter().chain(&lives.kill_in_outage).count(),
        again.len()
    );
    service.wait_until_ready();
    for arrivals in again {
        let id = &arrivals[0].key;
        for pair in arrivals.windows(2) {
            // The provider may have read it a little later; a lease takes longer to expire.
            let interrupted =
                kills.iter().map(|kill| *kill + secs(1)).any(|kill| pair[0].at < kill && kill < pair[1].at);
            assert!(interrupted, "{id} was sent again, and nothing had interrupted it");
        }
        assert!(arrivals.iter().all(|arrival| arrival.document().id == *id), "always under the same key");
        let shown = service.notification(id).expect("it is known");
        let outcomes = outcomes(&shown);
        assert!(
            outcomes.len() >= arrivals.len() && outcomes[outcomes.len() - 2..] == ["unknown", "accepted"],
            "{shown}"
        );
        assert_eq!(shown["state"], "sent", "{shown}");
    }
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn instances_keep_a_provider_s_rate_together() {
    const RATE: usize = 40;
    let provider = FakeProvider::accepting();
    let redis = std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL, see scripts/services.sh env");
    let providers = format!("{}max_per_second = {RATE}\n", provider.named("email", "email", secs(1)));
    let setup = Setup::new(&format!("[redis]\nurl = \"{redis}\"\n[delivery]\nbatch = 10\n"), &providers);
    let services = [setup.start(), setup.start()];
    setup.kafka.produce(requests(0..5 * RATE));
    provider.wait_for_accepted(5 * RATE, secs(60));

    let mut times: Vec<Instant> = provider.arrivals().iter().map(|arrival| arrival.at).collect();
    times.sort();
    for (first, begin) in times.iter().enumerate() {
        let within = times[first..].iter().take_while(|at| **at - *begin < secs(1)).count();
        // The way to the provider takes a little longer for one than for the other.
        assert!(within <= RATE + RATE / 10, "{within} within a second");
    }
    let labels = [("provider", "email"), ("outcome", "accepted")];
    let shares: Vec<u64> = services.iter().map(|s| s.metrics().sum("provider_requests_total", &labels)).collect();
    assert!(shares.iter().all(|share| *share > 0), "each sent some: {shares:?}");
}

/// Stops PostgreSQL; returns when the service has noticed it.
#[track_caller]
fn database_is_away(setup: &Setup, service: &Service) -> Outage {
    let outage = Outage::of("postgres");
    wait::until("the service misses its database", secs(15), || {
        service.try_get("/health").ok().filter(|answer| answer.status == 503).map(drop)
    });
    assert!(!setup.database.answers(), "it is really away");
    outage
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn instances_that_share_a_database_send_nothing_twice() {
    const HALF: usize = 2_500;
    let provider = FakeProvider::answering(thinks_up_to_50_ms(32));
    // So few at once that none can do all the work before the others look for some.
    let setup = Setup::new("[delivery]\nmax_in_flight = 10\n", &provider.named("email", "email", secs(5)));
    let mut services = vec![setup.start(), setup.start()];
    setup.kafka.produce(requests(0..HALF));
    provider.wait_for_accepted(HALF, secs(60));
    services.push(setup.start());
    setup.kafka.produce(requests(HALF..2 * HALF));
    provider.wait_for_accepted(2 * HALF, secs(60));
    setup.database.wait_until_settled(secs(30));

    let fates = setup.database.fates();
    assert_eq!((fates.len(), provider.arrivals().len()), (2 * HALF, 2 * HALF), "each was sent once");
    for (id, fate) in &fates {
        only_the_last_was_accepted(id, fate, &[]);
    }
    let labels = [("provider", "email"), ("outcome", "accepted")];
    let shares: Vec<u64> =
        services.iter().map(|service| service.metrics().sum("provider_requests_total", &labels)).collect();
    assert!(shares.iter().all(|share| *share > 0), "each instance did a part of it: {shares:?}");
    assert_eq!(shares.iter().sum::<u64>(), 2 * HALF as u64, "{shares:?}");
    let story = told(&setup, 2 * HALF);
    each_was_sent(&fates, &story);
    assert_eq!(story.lifecycle.len(), 2 * HALF, "and nothing is told twice");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn what_was_in_flight_is_left_to_a_person_where_the_policy_is_to_hold() {
    let provider = FakeProvider::answering(|_| Answer::After(Duration::from_millis(1500), Box::new(Answer::Accept)));
    let holding = format!("{}on_unknown = \"hold\"\n", provider.named("email", "email", TIMEOUT));
    let setup = Setup::new(SETTINGS, &holding);
    let service = setup.start();
    setup.kafka.produce(requests(0..1));
    let id = &name(0);
    provider.wait_for_arrival(id, 1, secs(20));
    service.kill();
    let service = setup.start();
    let held = service.wait_for_state(id, "failed", secs(30));
    assert_eq!(outcomes(&held), ["unknown"]);
    let letter = wait::until("its dead letter", secs(20), || Story::of(&setup.kafka).letters.pop());
    verify::sound_letter(&letter);
    assert_eq!((letter.error_class.as_str(), letter.error_code.as_str()), ("ambiguous", "unknown_outcome"));
    assert_eq!(provider.arrivals().len(), 1, "it may have been taken: nobody sends it again");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_digest_carries_all_and_survives_a_kill() {
    let (_templates, settings) = digests_of(2000);
    // The first one thinks for long enough to be interrupted.
    let provider = FakeProvider::answering(|arrival| match arrival.nth {
        1 => Answer::After(Duration::from_millis(1500), Box::new(Answer::Accept)),
        _ => Answer::Accept,
    });
    let setup = Setup::new(&settings, &provider.named("email", "email", TIMEOUT));
    let service = setup.start();
    // All of them on one partition: in one batch, as far as that can be had.
    let all: Vec<Input> = (1..=5).map(|n| collected(n, "someone@example.com").input().with_key("one")).collect();
    setup.kafka.produce([all.clone(), all.clone()].concat());
    let first = wait::until("the digest", secs(20), || provider.arrivals().first().cloned());
    service.kill();

    let service = setup.start();
    let second = provider.wait_for_arrival(&first.key, 2, secs(40));
    for n in 1..=5 {
        service.wait_for_state(&format!("d-{n}"), "sent", secs(20));
    }
    let (before, after) = (first.document(), second.document());
    carries_each_once(&before, 5);
    assert_eq!((&before.body, before.data.get()), (&after.body, after.data.get()), "the same content");
    assert_eq!((before.attempt, after.attempt), (1, 2));
    let leader = service.notification(&first.key).expect("it is known");
    assert_eq!(outcomes(&leader), ["unknown", "accepted"], "{leader}");

    // Once more, now that they are settled; what comes behind them shows that they were read.
    setup
        .kafka
        .produce([all, vec![request("behind", "email", "someone@example.com").input().with_key("one")]].concat());
    service.wait_for_state("behind", "sent", secs(20));
    assert_eq!(provider.arrivals().len(), 3, "no follower is sent by itself: {:?}", provider.arrivals());
    each_was_sent(&setup.database.fates(), &told(&setup, 6));
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_digest_goes_to_the_next_provider_as_a_whole() {
    const COUNT: usize = 5;
    let (_templates, settings) = digests_of(2000);
    let provider = FakeProvider::answering(|a| if a.path == "/first" { Answer::Status(503) } else { Answer::Accept });
    let providers = provider.first_and_second(TIMEOUT);
    let setup = Setup::new(&settings, &providers);
    let service = setup.start();
    let all = (1..=COUNT).map(|n| collected(n, "someone@example.com").input().with_key("one"));
    setup.kafka.produce(all.collect());
    let ids = (1..=COUNT).map(|n| format!("d-{n}"));
    let sent: Vec<_> = ids.map(|id| service.wait_for_state(&id, "sent", secs(20))).collect();

    let arrivals = provider.arrivals();
    let [refused, taken] = &arrivals[..] else { panic!("one message, tried twice: {arrivals:?}") };
    assert_eq!([refused.path.as_str(), taken.path.as_str()], ["/first", "/second"]);
    assert_eq!(refused.key, taken.key, "the key stays the same");
    let (before, after) = (refused.document(), taken.document());
    carries_each_once(&before, COUNT);
    assert_eq!((&before.body, before.data.get()), (&after.body, after.data.get()), "the same content");
    assert_eq!((before.attempt, after.attempt), (1, 2));

    let (leaders, followers): (Vec<_>, Vec<_>) = sent.iter().partition(|shown| shown["id"] == taken.key);
    let [leader] = leaders[..] else { panic!("one of them leads: {sent:?}") };
    assert_eq!(outcomes(leader), ["transient", "accepted"], "{leader}");
    assert_eq!(attempts(leader, "provider"), ["first", "second"], "{leader}");
    for follower in followers {
        assert!(follower["digestId"] == taken.key && outcomes(follower).is_empty(), "it travelled with it: {follower}");
    }
    let (fates, story) = (setup.database.fates(), told(&setup, COUNT));
    assert_eq!(fates.len(), COUNT);
    each_was_sent(&fates, &story);
    assert_eq!((story.letters.len(), setup.database.dead_letter_count()), (0, 0));
}

/// More followers than are asked for together: no digest is cut because of others.
#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn digests_that_are_due_together_stay_whole() {
    const RECIPIENTS: usize = 11;
    const EACH: usize = 100;
    let (_templates, settings) = digests_of(20_000);
    let provider = FakeProvider::accepting();
    let setup = Setup::new(&settings, &provider.named("email", "email", TIMEOUT));
    let service = setup.start();
    let of = |n: usize| collected(n, &format!("someone-{}@example.com", n % RECIPIENTS)).input().with_key("one");
    setup.kafka.produce((0..RECIPIENTS * EACH).map(of).collect());
    for n in 0..RECIPIENTS * EACH {
        service.wait_for_state(&format!("d-{n}"), "sent", secs(60));
    }
    let arrivals = provider.arrivals();
    let sizes: Vec<String> =
        arrivals.iter().filter_map(|a| a.document().body.split(':').next().map(str::to_owned)).collect();
    assert_eq!(sizes, vec![EACH.to_string(); RECIPIENTS]);
}

/// Templates with a digest that collects for so long, and the settings that name them.
fn digests_of(window_ms: u32) -> (TempDir, String) {
    let templates = tempfile::tempdir().expect("a folder");
    let folder = templates.path().join("digest");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("template.toml"), format!("digest_window_ms = {window_ms}\n")).expect("written");
    let words = "{{ count }}:{% for item in items %} {{ item.orderId }}{% endfor %}\n";
    fs::write(folder.join("body.txt"), words).expect("written");
    let named = format!("[delivery]\ntemplates_dir = \"{}\"\n", templates.path().display());
    (templates, SETTINGS.replacen("[delivery]\n", &named, 1))
}

/// A request that is collected with others of its template.
fn collected(n: usize, recipient: &str) -> Event {
    let mut event = request(&format!("d-{n}"), "email", recipient);
    event.data = event.data.replacen("order_confirmation", "digest", 1).replacen("4711", &format!("order-{n}"), 1);
    event
}

/// A digest's message has something of so many, and of each once.
#[track_caller]
fn carries_each_once(digest: &Document, count: usize) {
    let items: BTreeSet<&str> = digest.body.split_whitespace().skip(1).collect();
    let whole = digest.body.starts_with(&format!("{count}: ")) && items.len() == count;
    assert!(whole, "it carries each of them once: {}", digest.body);
}

fn name(number: usize) -> String {
    format!("n-{number}")
}

fn requests(numbers: std::ops::Range<usize>) -> Vec<Input> {
    numbers.map(|n| request(&name(n), "email", &format!("customer-{n}@example.com")).input()).collect()
}

fn thinks_up_to_50_ms(seed: u64) -> impl Fn(&Arrival) -> Answer + Send + Sync {
    let random = Mutex::new(Random::new(seed));
    move |_| {
        let wait = random.lock().expect("no panic").below(51);
        Answer::After(Duration::from_millis(wait as u64), Box::new(Answer::Accept))
    }
}

/// The requests of what was accepted more than once.
fn accepted_again(provider: &FakeProvider) -> impl Iterator<Item = Vec<Arc<Arrival>>> {
    provider.accepted().into_values().filter(|arrivals| arrivals.len() > 1)
}

/// It is sent, and the attempts before the last one ended in nothing but these.
#[track_caller]
fn only_the_last_was_accepted(id: &str, fate: &Fate, others: &[&str]) {
    let (last, before) = fate.outcomes.split_last().unwrap_or_else(|| panic!("{id} was not tried: {fate:?}"));
    let expected = before.iter().all(|outcome| others.contains(&outcome.as_str()));
    assert!(fate.state == "sent" && last == "accepted" && expected, "{id}: {fate:?}");
}

/// What is told, once that is something about so many notifications.
#[track_caller]
fn told(setup: &Setup, count: usize) -> Story {
    wait::until("a lifecycle event for each notification", secs(60), || {
        (Story::of(&setup.kafka).lifecycle_by_request().len() >= count).then_some(())
    });
    setup.kafka.wait_until_drained(secs(60));
    Story::of(&setup.kafka)
}

/// Each has its one `NotificationSent`; a kill may repeat the record, under the same id.
#[track_caller]
fn each_was_sent(fates: &BTreeMap<String, Fate>, story: &Story) {
    let told = story.lifecycle_by_request();
    assert_eq!(told.len(), fates.len());
    for id in fates.keys() {
        let events = &told[id.as_str()];
        let same = events.iter().all(|e| e.event_type == "NotificationSent" && e.event_id == events[0].event_id);
        assert!(same, "{id} is settled once: {events:?}");
    }
}
