//! What every store of processed events must do, asked of all of them alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::adapters::memory::MemoryProcessedEvents;
use crate::adapters::redis::{RedisLink, RedisProcessedEvents};
use crate::domain::record::Coordinates;
use crate::ports::clock::SystemClock;
use crate::ports::processed_events::{Candidate, Claim, ProcessedEvents};

/// Gives the store of a consumer group; asked twice, that of two instances.
pub type Stores<'a> = dyn Fn(&str) -> Arc<dyn ProcessedEvents> + Sync + 'a;

const LONG: Duration = Duration::from_secs(60);

fn at(offset: i64) -> Coordinates {
    Coordinates { topic: "t".into(), partition: 0, offset }
}

async fn claim(store: &dyn ProcessedEvents, id: &str, offset: i64, lease: Duration) -> Claim {
    let claims = store.claim(&[Candidate { id, at: &at(offset) }], lease).await.expect("answers");
    assert_eq!(claims.len(), 1);
    claims[0]
}

pub async fn a_crash_before_the_effect_does_not_lose_it(stores: &Stores<'_>) {
    assert_eq!(claim(&*stores("g"), "a", 1, LONG).await, Claim::Granted);
    // The process died, and the same record comes again, to whichever instance.
    assert_eq!(claim(&*stores("g"), "a", 1, LONG).await, Claim::Granted);
}

pub async fn a_claim_in_flight_is_not_taken_for_a_duplicate(stores: &Stores<'_>) {
    let store = stores("g");
    assert_eq!(claim(&*store, "a", 1, LONG).await, Claim::Granted);
    assert_eq!(claim(&*store, "a", 2, LONG).await, Claim::Held);
    assert_eq!(claim(&*stores("g"), "a", 2, LONG).await, Claim::Held);
    store.mark(&["a"]).await.expect("marks");
    assert_eq!(claim(&*store, "a", 2, LONG).await, Claim::Processed);
}

pub async fn the_claim_of_a_record_that_never_comes_back_ends_with_its_lease(stores: &Stores<'_>) {
    let store = stores("g");
    assert_eq!(claim(&*store, "a", 1, Duration::from_millis(300)).await, Claim::Granted);
    let begun = Instant::now();
    let mut held = 0;
    while claim(&*store, "a", 2, LONG).await == Claim::Held {
        held += 1;
        assert!(begun.elapsed() < Duration::from_secs(20), "its lease never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(held > 0, "the claim held");
    assert_eq!(claim(&*store, "a", 1, LONG).await, Claim::Held, "it belongs to the other record now");
}

pub async fn what_is_processed_is_so_for_every_record_claimed_or_not(stores: &Stores<'_>) {
    let store = stores("g");
    claim(&*store, "a", 1, LONG).await;
    store.mark(&["a", "b"]).await.expect("marks");
    store.mark(&["b"]).await.expect("marks again");
    for offset in [1, 2] {
        assert_eq!(claim(&*store, "a", offset, LONG).await, Claim::Processed);
        assert_eq!(claim(&*store, "b", offset, Duration::ZERO).await, Claim::Processed);
    }
}

pub async fn many_answers_keep_their_places(stores: &Stores<'_>) {
    let store = stores("g");
    let ids: Vec<String> = (0..1_300).map(|n| format!("event-{n}")).collect();
    let processed: Vec<&str> = ids.iter().step_by(3).map(String::as_str).collect();
    store.mark(&processed).await.expect("marks");
    let held: Vec<(&String, Coordinates)> = ids.iter().skip(1).step_by(3).map(|id| (id, at(-1))).collect();
    let held: Vec<Candidate<'_>> = held.iter().map(|(id, at)| Candidate { id, at }).collect();
    store.claim(&held, LONG).await.expect("answers");
    let places: Vec<Coordinates> = (0..1_300).map(at).collect();
    let all: Vec<Candidate<'_>> = ids.iter().zip(&places).map(|(id, at)| Candidate { id, at }).collect();
    let claims = store.claim(&all, LONG).await.expect("answers");
    let expected = [Claim::Processed, Claim::Held, Claim::Granted].into_iter().cycle().take(1_300);
    assert_eq!(claims, expected.collect::<Vec<_>>());
}

pub async fn groups_know_nothing_of_each_other(stores: &Stores<'_>) {
    let store = stores("g");
    store.mark(&["a"]).await.expect("marks");
    claim(&*store, "b", 1, LONG).await;
    assert_eq!(claim(&*stores("other"), "a", 2, LONG).await, Claim::Granted);
    assert_eq!(claim(&*stores("other"), "b", 2, LONG).await, Claim::Granted);
}

pub async fn any_text_is_an_id(stores: &Stores<'_>) {
    let store = stores("g");
    let long = "x".repeat(1_024);
    let ids = ["nul \0", "quote ' \" \\", "line\nbreak", "{brace}", "ü 漢 \u{1F600}", " ", "a", "A", long.as_str()];
    store.mark(&ids[..5]).await.expect("marks");
    for (offset, id) in ids.iter().enumerate() {
        let expected = if offset < 5 { Claim::Processed } else { Claim::Granted };
        assert_eq!(claim(&*store, id, offset as i64, LONG).await, expected, "{id:?}");
    }
}

/// One test for each case.
macro_rules! of_every_store {
    ($with_store:path, $($(#[$ignored:meta])? $case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[$ignored])?
            async fn $case() {
                $with_store(super::$case).await;
            }
        )+
    };
}

mod memory {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(&Stores<'_>)) {
        let new = || Arc::new(MemoryProcessedEvents::new(10_000, Arc::new(SystemClock::default())));
        let stores = [("g", new()), ("other", new())];
        let of = |group: &str| -> Arc<dyn ProcessedEvents> {
            stores.iter().find(|(name, _)| *name == group).expect("is one of them").1.clone()
        };
        case(&of).await;
    }

    of_every_store! {
        with_store,
        a_crash_before_the_effect_does_not_lose_it,
        a_claim_in_flight_is_not_taken_for_a_duplicate,
        the_claim_of_a_record_that_never_comes_back_ends_with_its_lease,
        what_is_processed_is_so_for_every_record_claimed_or_not,
        many_answers_keep_their_places,
        groups_know_nothing_of_each_other,
        any_text_is_an_id,
    }
}

mod redis {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(&Stores<'_>)) {
        let url = std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL, see scripts/services.sh env");
        let own = uuid::Uuid::new_v4().simple().to_string();
        let of = |group: &str| -> Arc<dyn ProcessedEvents> {
            let link = Arc::new(RedisLink::new(&url).expect("a URL"));
            Arc::new(RedisProcessedEvents::new(link, &format!("{own}-{group}"), LONG))
        };
        case(&of).await;
    }

    of_every_store! {
        with_store,
        #[ignore = "needs Redis: TEST_REDIS_URL"]
        a_crash_before_the_effect_does_not_lose_it,
        #[ignore = "needs Redis: TEST_REDIS_URL"]
        a_claim_in_flight_is_not_taken_for_a_duplicate,
        #[ignore = "needs Redis: TEST_REDIS_URL"]
        the_claim_of_a_record_that_never_comes_back_ends_with_its_lease,
        #[ignore = "needs Redis: TEST_REDIS_URL"]
        what_is_processed_is_so_for_every_record_claimed_or_not,
        #[ignore = "needs Redis: TEST_REDIS_URL"]
        many_answers_keep_their_places,
        #[ignore = "needs Redis: TEST_REDIS_URL"]
        groups_know_nothing_of_each_other,
        #[ignore = "needs Redis: TEST_REDIS_URL"]
        any_text_is_an_id,
    }
}
