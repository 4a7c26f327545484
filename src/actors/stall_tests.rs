//! A group whose source falls silent is found by the monitor and rebuilt; one that has a reason to stand still is not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor as _, Arbiter, Context};
use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::consumer_group::{ConsumerGroupActor, Running, StartGroup};
use super::messages::{GroupStatus, Supervise};
use super::monitor::{MonitorActor, MonitorDuty, Picture};
use super::slot::Slot;
use super::supervisor::{Lifeline, RestartBudget, ServiceSupervisor};
use crate::domain::record::Record;
use crate::ports::clock::SystemClock;
use crate::ports::cluster::ClusterView;
use crate::ports::source::{EventSource, PartitionStatus, PauseReason, Settled, SourceEnded, SourceStatus};
use crate::resilience::retry::RetryPolicy;

/// A source that never brings anything.
#[derive(Clone, Default)]
struct Silent {
    paused: BTreeSet<PauseReason>,
    hung: Duration,
}

#[async_trait]
impl EventSource for Silent {
    async fn next_batch(&self, _: usize) -> Result<Vec<Record>, SourceEnded> {
        std::future::pending().await
    }

    fn settle(&self, _: &[Settled]) {}

    fn pause(&self, _: PauseReason) {}

    fn resume(&self, _: &PauseReason) {}

    fn status(&self) -> SourceStatus {
        let partition = PartitionStatus {
            topic: "order-events".into(),
            partition: 0,
            position: Some(3),
            committed: None,
            in_hand: 0,
            head: None,
            at_end: false,
            lag: None,
        };
        SourceStatus {
            assigned: vec![partition],
            paused: self.paused.clone(),
            hung: self.hung,
            ..SourceStatus::default()
        }
    }

    async fn close(&self, _: Duration) {}
}

struct TenRecords;

#[async_trait]
impl ClusterView for TenRecords {
    async fn offsets(&self, _: &str, _: i32, _: Duration) -> Result<Vec<(i64, i64)>, String> {
        Ok(vec![(0, 10)])
    }
}

/// Watches a group over this source, and counts how often it was started.
async fn watched(source: Silent) -> Arc<AtomicU64> {
    let millis = Duration::from_millis;
    let budget = RestartBudget {
        restarts: 1_000,
        window: Duration::from_secs(60),
        waits: RetryPolicy { max_retries: u32::MAX, initial: millis(1), max: millis(2) },
    };
    let clock = Arc::new(SystemClock::default());
    let supervisor = ServiceSupervisor::new(clock.clone(), budget).0.start();
    let (io, slot) = (Handle::current(), Slot::<ConsumerGroupActor>::default());
    let starts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&starts);
    let start: StartGroup = Arc::new(move |stop: CancellationToken| {
        counted.fetch_add(1, Ordering::Relaxed);
        let engine = Box::pin(async move {
            stop.cancelled().await;
            Ok(())
        });
        Ok(Running { source: Arc::new(source.clone()), engine })
    });
    let (published, group_io) = (slot.clone(), io.clone());
    let group = Box::new(move |lifeline: Lifeline| {
        let arbiter = Arbiter::new().handle();
        let (start, io, lifeline) = (Arc::clone(&start), group_io.clone(), lifeline.on(arbiter.clone()));
        let build = move |_: &mut Context<_>| ConsumerGroupActor::new(start, Vec::new(), io, lifeline);
        published.publish(ConsumerGroupActor::start_in_arbiter(&arbiter, build));
        Ok(())
    });
    supervisor.send(Supervise { name: "group".into(), factory: group }).await.expect("lives").expect("starts");
    assert!(slot.send(GroupStatus).await.flatten().is_some(), "the group runs");
    let duty = MonitorDuty {
        probes: Vec::new(),
        topics: vec![("order-events".into(), 1)],
        cluster: Arc::new(TenRecords),
        groups: vec![("group".into(), slot)],
        interval: millis(5),
        stall_after: millis(50),
        clock,
        deadline: millis(100),
        picture: watch::Sender::new(Picture::default()),
    };
    let monitor = Box::new(move |lifeline: Lifeline| {
        MonitorActor::new(duty.clone(), io.clone(), lifeline).start();
        Ok(())
    });
    supervisor.send(Supervise { name: "monitor".into(), factory: monitor }).await.expect("lives").expect("starts");
    starts
}

async fn is_rebuilt_twice(starts: Arc<AtomicU64>) {
    let rebuilt = async {
        while starts.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), rebuilt).await.expect("rebuilt, and again when that did not help");
}

fn paused() -> BTreeSet<PauseReason> {
    [PauseReason::Breaker("kafka".into())].into()
}

#[actix::test]
async fn a_silent_group_is_rebuilt() {
    is_rebuilt_twice(watched(Silent::default()).await).await;
}

#[actix::test]
async fn a_group_whose_consumer_hangs_is_rebuilt_even_while_it_is_paused() {
    is_rebuilt_twice(watched(Silent { paused: paused(), hung: Duration::from_secs(1) }).await).await;
}

#[actix::test]
async fn a_paused_group_is_left_alone() {
    let starts = watched(Silent { paused: paused(), ..Silent::default() }).await;
    // Many times the length of a stall.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(starts.load(Ordering::Relaxed), 1);
}
