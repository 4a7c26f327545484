//! What is read, taken, settled and acknowledged; and when reading waits.

use super::stream_entry::{EntryId, PARTITION};
use super::stream_hand::{Hand, Waiting};
use crate::domain::record::{Coordinates, Headers, Record};
use crate::ports::source::{PartitionStatus, PauseReason, Settled};
use tokio_util::sync::CancellationToken;

fn id(seq: u64) -> EntryId {
    EntryId { ms: 1, seq }
}

fn entry(seq: u64) -> (EntryId, Record) {
    let at = Coordinates { topic: "shop".into(), partition: PARTITION, offset: id(seq).offset() };
    (id(seq), Record { at, assignment: 0, key: None, value: None, headers: Headers::default(), flaw: None })
}

fn settled(records: &[Record]) -> Vec<Settled> {
    records.iter().map(Settled::from).collect()
}

fn status(hand: &Hand) -> PartitionStatus {
    hand.status(&"shop".into()).assigned.remove(0)
}

#[test]
fn only_what_is_settled_may_be_acknowledged() {
    let hand = Hand::default();
    hand.put((0..5).map(entry).collect());
    let taken = hand.take(3);
    assert_eq!(status(&hand).in_hand, 3, "two are queued");
    hand.settle(&settled(&taken[1..]));
    assert_eq!(hand.unacknowledged(10), [id(1), id(2)]);
    assert_eq!(status(&hand).head.map(|(offset, _)| offset), Some(id(0).offset()));
    hand.acknowledged(&[id(1)]);
    assert_eq!(hand.unacknowledged(10), [id(2)]);
    assert!(hand.knows(id(0)) && !hand.knows(id(1)) && hand.knows(id(2)) && hand.knows(id(4)));
    assert_eq!(hand.known().len(), 4);
    hand.settle(&settled(&taken[..1]));
    assert_eq!(status(&hand).position, Some(id(2).offset() + 1));
}

#[test]
fn what_is_in_hand_is_not_queued_twice() {
    let hand = Hand::default();
    hand.put(vec![entry(1)]);
    hand.put(vec![entry(1), entry(2)]);
    assert_eq!(hand.take(10).len(), 2);
}

#[test]
fn a_new_life_acknowledges_nothing_of_the_old_one() {
    let hand = Hand::default();
    hand.put((0..4).map(entry).collect());
    let old = hand.take(2);
    assert!(!hand.notice_rebirth(&[id(7)]));
    assert!(hand.notice_rebirth(&[id(1), id(7)]), "what is in hand cannot be new");
    hand.settle(&settled(&old));
    assert!(hand.unacknowledged(10).is_empty(), "another entry may have its id now");
    hand.put(vec![entry(1)]);
    let rest = hand.take(10);
    assert_eq!(rest.len(), 3, "what was queued is worked on, and what is new");
    hand.settle(&settled(&rest));
    assert_eq!(hand.unacknowledged(10), [id(1)]);
}

#[tokio::test]
async fn reading_waits_for_room_and_for_the_end_of_pauses() {
    let (hand, stop) = (Hand::default(), CancellationToken::new());
    assert!(hand.room(2, &stop).await);
    hand.put(vec![entry(1), entry(2)]);
    assert!(hand.is_full(2));
    let taken = hand.take(2);
    assert!(hand.is_full(2), "taken is not settled");
    hand.settle(&settled(&taken));
    assert!(hand.is_full(2), "and settled not acknowledged");
    hand.acknowledged(&[id(1), id(2)]);
    assert!(hand.room(2, &stop).await && hand.empty(&stop).await);
    let breaker = PauseReason::Breaker("kafka".into());
    hand.set_pause(breaker.clone(), true);
    hand.set_pause(PauseReason::Away, true);
    let waiting = hand.room(2, &stop);
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    hand.set_pause(breaker, false);
    assert!(waiting.await, "its own reasons do not keep it from trying");
    stop.cancel();
    assert!(!hand.room(2, &stop).await);
}

#[test]
fn the_end_is_reached_when_nothing_is_left_for_this_consumer() {
    let hand = Hand::default();
    hand.set_waiting(Waiting { undelivered: 0, pending: 3 });
    assert!(status(&hand).at_end, "what others have in hand is theirs");
    assert_eq!(status(&hand).lag, Some(3), "but it waits");
    hand.put(vec![entry(1)]);
    assert!(!status(&hand).at_end);
}
