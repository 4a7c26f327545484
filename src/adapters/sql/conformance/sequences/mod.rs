//! Any sequence of what happens to a ledger, compared with a model: nothing is lost, held twice or sent twice, and what
//! is settled stays so until a person opens it again.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::*;
use crate::adapters::sql::dialect::Dialect;

mod model;
mod run;
mod steps;

use run::Run;
use steps::{Arrival, Ending, Kind, Step, arrival, step};

on_both_databases! {
    no_sequence_loses_a_notification_or_gives_it_to_two_owners,
    one_sequence_goes_every_way,
}

/// The events of all ends, in the order of their texts.
async fn play(db: &Database, first: &[Arrival], steps: &[Step]) -> Result<Vec<String>, TestCaseError> {
    for clear in [
        "DELETE FROM requests",
        "DELETE FROM notifications",
        "DELETE FROM attempts",
        "DELETE FROM recipients",
        "DELETE FROM outbox",
    ] {
        query(clear).execute(&db.write).await.expect("is cleared");
    }
    let mut run = Run::new(db);
    run.arrive(first).await?;
    run.check().await?;
    for step in steps {
        run.apply(*step).await?;
        run.check().await?;
    }
    run.finish().await?;
    Ok(run.model.told)
}

async fn no_sequence_loses_a_notification_or_gives_it_to_two_owners(db: &Fresh) {
    // Each step of a sequence is a few round trips to a server.
    let cases = match db.dialect {
        Dialect::Sqlite => 32,
        Dialect::Postgres => 12,
    };
    let config =
        ProptestConfig { cases, max_shrink_iters: 1000, source_file: Some(file!()), ..ProptestConfig::default() };
    let sequences = (prop::collection::vec(arrival(), 1..=6), prop::collection::vec(step(), 1..80));
    // A sequence is tried, and made shorter, by a function that awaits nothing.
    let outcome = TestRunner::new(config).run(&sequences, |(first, steps)| {
        block_in_place(|| Handle::current().block_on(play(db, &first, &steps))).map(drop)
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// What chance may leave out, and what the model itself is held to.
async fn one_sequence_goes_every_way(db: &Fresh) {
    let of = |kind, recipient, expires| Arrival { kind, recipient, expires };
    let first = [
        of(Kind::Collected, 0, false),
        of(Kind::Collected, 0, false),
        of(Kind::Plain, 1, false),
        of(Kind::Plain, 1, false),
        of(Kind::Plain, 1, true),
    ];
    let (left, right) = (0, 1);
    let (sent, failed) = (Ending::Final(State::Sent), Ending::Final(State::Failed));
    let lease = Step::Pass { millis: LEASE + 1 };
    let steps = [
        Step::Claim { owner: left, limit: 5 },
        // Numbers 2 and 3 lack a contact, which comes; number 4 is put off for longer than it is worth anything.
        Step::Settle { owner: left, which: 0, ending: Ending::Awaiting },
        Step::Settle { owner: left, which: 0, ending: Ending::Awaiting },
        Step::Settle { owner: left, which: 0, ending: Ending::Again { wait: 3 * LEASE } },
        Step::Learn { recipient: 1 },
        lease,
        // All but number 4; number 0 leads number 1.
        Step::Claim { owner: left, limit: 5 },
        Step::TakeAlong { owner: left },
        Step::Begin { owner: left, which: 0 },
        lease,
        Step::TakeOver { owner: right, limit: 5 },
        // Too late.
        Step::SettleAll { owner: left, ending: sent },
        // Numbers 0 to 3, each the first of those that are left. The last one has waited for long when it waits again.
        Step::Settle { owner: right, which: 0, ending: failed },
        Step::Settle { owner: right, which: 0, ending: Ending::Again { wait: 0 } },
        Step::Settle { owner: right, which: 0, ending: sent },
        Step::Settle { owner: right, which: 0, ending: Ending::Awaiting },
        Step::Expire,
        // Of numbers 0, 2, 3 and 4 the second, which was sent, and the last.
        Step::Reopen { which: 1 },
        Step::Reopen { which: 3 },
        // Number 1 goes on without its leader, and number 4 is replaced.
        Step::Release,
        Step::Arrive(of(Kind::Newer, 1, false)),
        Step::Copy { which: 5 },
        Step::Cancel { which: 1 },
        Step::Reopen { which: 0 },
        Step::Renew { owner: left },
    ];
    let told = play(db, &first, &steps).await.expect("the model agrees");
    let expected = ["0 failed", "0 sent", "1 cancelled", "2 sent", "3 expired", "4 expired", "4 suppressed", "5 sent"];
    assert_eq!(told, expected);
}
