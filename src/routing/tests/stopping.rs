//! What a stop finishes, so that it does not come again.

use super::*;
use crate::resilience::breaker::Order;

#[tokio::test]
async fn a_record_that_is_tried_again_is_finished_first() {
    let (tries, tried) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, trying) = (Arc::clone(&tries), Arc::clone(&tried));
    let flaky: crate::handlers::Handler = Arc::new(move |_| {
        trying.notify_one();
        match counted.fetch_add(1, Ordering::SeqCst) {
            0..=2 => Err(HandlerError::Transient { code: "busy", reason: "try again".into() }),
            _ => Ok(Output::default()),
        }
    });
    let records = vec![event(0, "a", "Odd"), event(1, "a", "OrderCreated"), event(2, "b", "OrderCreated")];
    let bench = start(records, flaky, 0);
    tried.notified().await;
    let (source, broker) = (Arc::clone(&bench.source), Arc::clone(&bench.broker));
    bench.end().await;
    assert_eq!(tries.load(Ordering::SeqCst), 4, "it was being tried again");
    let mut settled = source.settled.lock().expect("lock").clone();
    settled.sort_unstable();
    assert_eq!(settled, [0, 1, 2], "what was written behind it would come again");
    assert_eq!(*broker.written.lock().expect("lock"), ["notification-b", "notification-a"]);
}

#[tokio::test]
async fn acknowledgements_on_their_way_are_awaited_although_the_breaker_is_open() {
    let late = Arc::new(Notify::new());
    let broker = MemoryBroker { late: Some(Arc::clone(&late)), ..MemoryBroker::default() };
    let bench = build(vec![event(0, "a", "OrderCreated")], panicking(), 0, broker, remembering());
    while bench.written().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.breaker.obey(Order::Open);
    bench.stop.cancel();
    // It has seen both by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    late.notify_one();
    let source = Arc::clone(&bench.source);
    bench.end().await;
    assert_eq!(*source.settled.lock().expect("lock"), [0], "it is written, and would be written again");
}

#[tokio::test]
async fn an_open_breaker_does_not_keep_it_for_long() {
    let broker = MemoryBroker { late: Some(Arc::new(Notify::new())), ..MemoryBroker::default() };
    let bench = build(vec![event(0, "a", "OrderCreated")], panicking(), 0, broker, remembering());
    while bench.written().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.breaker.obey(Order::Open);
    let source = Arc::clone(&bench.source);
    bench.end().await;
    assert!(source.settled.lock().expect("lock").is_empty(), "nobody acknowledged it");
}
