//! Reads entries into the hand: first what this consumer has pending, then what nobody has had; and takes over what
//! dead consumers left behind.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stream_commands::{StreamCommands, StreamError};
use super::stream_entry::{Entry, EntryId, Reading};
use super::stream_hand::Hand;
use super::stream_replies::Pending;
use crate::ports::source::PauseReason;
use crate::resilience::retry::Waits;
use crate::telemetry::events::{self, StreamIncident};

/// A read waits so long for the first new entry: the latency of an orderly end.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Entries of one read, whatever their size.
const MOST_ENTRIES: usize = 256;
/// Bytes of one read; how many entries that are is learnt from those before.
const READ_BYTES: usize = 2 << 20;
/// Entries of one look for what was left behind.
const TAKEN_OVER: usize = 100;
/// Delivered so often without an end, an entry may be what ends the process: it is delivered again only alone, so that
/// what is in hand beside it does not come to look like poison too.
const SUSPECT: u64 = 2;
/// Room is waited for this long before that shows as a pause.
const BACKPRESSURE_AFTER: Duration = Duration::from_millis(500);
/// The same complaint is logged this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub struct Reader {
    /// On a connection of its own, for its reads block.
    pub commands: StreamCommands,
    /// How entries become records.
    pub reading: Reading,
    /// Where they go.
    pub hand: Arc<Hand>,
    /// Entries in hand at most.
    pub most: usize,
    /// What others had in hand for so long without a sign of life is taken over.
    pub claim_idle: Duration,
    /// Ends it.
    pub stop: CancellationToken,
}

/// What a reader knows beyond one connection.
#[derive(Default)]
struct Memory {
    /// The group was there before.
    had_group: bool,
    /// The group was not there any more.
    lost_group: bool,
    /// What others left was looked for.
    looked: bool,
    complained: Option<(String, Instant)>,
}

impl Reader {
    /// Runs until the stop, however often Redis goes away.
    pub async fn run(mut self) {
        let mut memory = Memory::default();
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        while !self.stop.is_cancelled() {
            let Err(error) = self.session(&mut memory, &mut waits).await else { return };
            if matches!(error, StreamError::NoGroup) && memory.had_group && !memory.lost_group {
                memory.lost_group = true;
                continue;
            }
            self.hand.set_pause(PauseReason::Away, true);
            self.complain(&mut memory, &error);
            tokio::select! {
                () = tokio::time::sleep(waits.next_wait()) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Reads for as long as Redis answers. Returns without an error when it is time to stop.
    async fn session(&mut self, memory: &mut Memory, waits: &mut Waits) -> Result<(), StreamError> {
        let created = self.commands.create_group().await?;
        if memory.had_group && (created || memory.lost_group) {
            self.hand.begin_life();
            events::stream_incident(&self.reading.stream, StreamIncident::GroupRecreated, 1);
        }
        (memory.had_group, memory.lost_group) = (true, false);
        // What was pending before, and what Redis delivered in an answer that never arrived.
        self.recover().await?;
        self.hand.set_pause(PauseReason::Away, false);
        *waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        // After an outage nobody's signs of life were heard: owners get the time to give one.
        let mut look_at = Instant::now() + self.claim_idle / 2;
        let (mut cursor, mut count) = (EntryId::default(), MOST_ENTRIES / 16);
        // What an orderly end left to anybody stands before all that is new.
        while !memory.looked && self.has_room().await {
            cursor = self.take_over(cursor).await?;
            memory.looked = cursor == EntryId::default();
        }
        while self.has_room().await {
            if Instant::now() >= look_at {
                cursor = self.take_over(cursor).await?;
                look_at =
                    Instant::now() + if cursor == EntryId::default() { self.claim_idle / 4 } else { Duration::ZERO };
            }
            let entries = self.commands.read_new(count, READ_WAIT).await?;
            count = next_count(count, &entries);
            let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
            if self.hand.notice_rebirth(&ids) {
                events::stream_incident(&self.reading.stream, StreamIncident::GroupRecreated, 1);
            }
            self.put(entries.into_iter().map(|entry| (entry, 1)));
        }
        Ok(())
    }

    /// Delivers again what is pending for this consumer and not in hand, in the stream's order.
    async fn recover(&mut self) -> Result<(), StreamError> {
        // As of now: what is acknowledged from here on may still be on a page, and is nothing to deliver again.
        let known = self.hand.known();
        let mut from = EntryId::default();
        loop {
            let page = self.commands.pending(from, MOST_ENTRIES / 4).await?;
            let Some(last) = page.last() else { return Ok(()) };
            from = last.id.next();
            let fresh: Vec<Pending> = page.into_iter().filter(|pending| !known.contains(&pending.id)).collect();
            for run in fresh.chunk_by(|a, b| a.deliveries.max(b.deliveries) < SUSPECT) {
                if !self.deliver_again(run).await? {
                    return Ok(());
                }
            }
        }
    }

    /// False when it is time to stop.
    async fn deliver_again(&mut self, run: &[Pending]) -> Result<bool, StreamError> {
        let alone = run.iter().any(|pending| pending.deliveries >= SUSPECT);
        if (alone && !self.hand.empty(&self.stop).await) || !self.has_room().await {
            return Ok(false);
        }
        let ids: Vec<EntryId> = run.iter().map(|pending| pending.id).collect();
        let entries = self.commands.claim(&ids).await?;
        let gone: Vec<EntryId> = ids.into_iter().filter(|id| entries.iter().all(|entry| entry.id != *id)).collect();
        if !gone.is_empty() {
            events::stream_incident(&self.reading.stream, StreamIncident::EntryGone, gone.len());
            // Before version 7 Redis keeps them pending for ever.
            self.commands.acknowledge(&gone).await?;
        }
        let deliveries = |id| run.iter().find(|pending| pending.id == id).map_or(1, |pending| pending.deliveries + 1);
        self.put(entries.into_iter().map(|entry| {
            let deliveries = deliveries(entry.id);
            (entry, deliveries)
        }));
        Ok(!alone || self.hand.empty(&self.stop).await)
    }

    /// Makes entries of silent consumers this one's own, and delivers them. Returns where the next look begins.
    async fn take_over(&mut self, from: EntryId) -> Result<EntryId, StreamError> {
        let found = self.commands.take_over(self.claim_idle, from, TAKEN_OVER).await?;
        let others = found.ids.iter().filter(|id| !self.hand.knows(**id)).count();
        events::stream_incident(&self.reading.stream, StreamIncident::EntryClaimed, others);
        events::stream_incident(&self.reading.stream, StreamIncident::EntryGone, found.gone);
        if others > 0 {
            self.recover().await?;
        }
        Ok(found.cursor)
    }

    /// Waits for room; a wait that lasts shows as a pause. False when it is time to stop.
    async fn has_room(&self) -> bool {
        let room = self.hand.room(self.most, &self.stop);
        tokio::pin!(room);
        if let Ok(room) = tokio::time::timeout(BACKPRESSURE_AFTER, &mut room).await {
            return room;
        }
        self.hand.set_pause(PauseReason::Backpressure, self.hand.is_full(self.most));
        let room = room.await;
        self.hand.set_pause(PauseReason::Backpressure, false);
        room
    }

    fn put(&self, entries: impl Iterator<Item = (Entry, u64)>) {
        let now = Timestamp::now();
        let record = |(entry, deliveries): (Entry, u64)| (entry.id, self.reading.record(entry, deliveries, now));
        self.hand.put(entries.map(record).collect());
    }

    fn complain(&self, memory: &mut Memory, error: &StreamError) {
        let text = error.to_string();
        let repeated =
            memory.complained.as_ref().is_some_and(|(said, when)| *said == text && when.elapsed() < COMPLAIN_EVERY);
        if !repeated {
            tracing::warn!(stream = &*self.reading.stream, %error, "the stream cannot be read; trying again");
            memory.complained = Some((text, Instant::now()));
        }
    }
}

/// How many entries to ask for next: twice as many while they are small, fewer when they turn out large.
fn next_count(count: usize, entries: &[Entry]) -> usize {
    let size = |entry: &Entry| entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let bytes: usize = entries.iter().map(size).sum();
    let fit = if entries.is_empty() {
        count
    } else {
        (READ_BYTES * entries.len()).checked_div(bytes).unwrap_or(MOST_ENTRIES)
    };
    fit.clamp(1, MOST_ENTRIES).min(count * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_size(bytes: usize) -> Entry {
        Entry { id: EntryId::default(), fields: vec![(Vec::new(), vec![0; bytes])] }
    }

    #[test]
    fn large_entries_are_read_in_small_numbers() {
        assert_eq!(next_count(16, &[]), 16, "nothing was learnt");
        assert_eq!(next_count(16, &vec![of_size(400); 16]), 32);
        assert_eq!(next_count(200, &vec![of_size(400); 200]), MOST_ENTRIES);
        assert_eq!(next_count(256, &vec![of_size(1 << 20); 256]), 2, "as many as fit");
        assert_eq!(next_count(2, &[of_size(64 << 20)]), 1);
        assert_eq!(next_count(1, &[of_size(0)]), 2);
    }
}
