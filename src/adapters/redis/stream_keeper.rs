//! Keeps what a consumer has in hand: acknowledges what is settled, shows signs of life for the rest, measures the lag,
//! trims the stream where that is asked for, and hands back what is unfinished at an orderly end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::stream_commands::{StreamCommands, StreamError};
use super::stream_entry::EntryId;
use super::stream_hand::{Hand, Waiting};
use super::stream_replies::{Group, Pending};
use crate::resilience::retry::Waits;

/// Entries of one command.
const TOGETHER: usize = 1000;
/// Between two looks at the lag.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// The last acknowledgements are given up after this time; what they were for comes again.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How a source ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Another one of the same name may be at work already: only what is settled is acknowledged.
    Abrupt,
    /// Nobody works under this name any more: what is unfinished is handed back, at the delivery count of before.
    Orderly,
}

/// See the module.
pub struct Keeper {
    /// On a connection of its own: the reader's blocks.
    pub commands: StreamCommands,
    /// The group's name.
    pub group: String,
    /// What it keeps.
    pub hand: Arc<Hand>,
    /// Without a sign of life for so long, entries are taken over by others.
    pub claim_idle: Duration,
    /// A longer stream is trimmed.
    pub trim_max_length: Option<u64>,
    /// Nobody will use this consumer's name again: it leaves the group when nothing is pending.
    pub leaves: bool,
}

impl Keeper {
    /// Runs until the stop, and then ends as it is told.
    pub async fn run(mut self, stop: CancellationToken, end: impl Fn() -> End) {
        let mut signs = interval(self.claim_idle / 3);
        let mut measures = interval(MEASURE_EVERY);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        measures.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(2));
        while !stop.is_cancelled() {
            let hand = Arc::clone(&self.hand);
            let done = tokio::select! {
                () = stop.cancelled() => break,
                // A page at a time: signs of life must not starve.
                () = hand.settled.notified() => self.acknowledge().await.map(|more| if more { hand.settled.notify_one() }),
                _ = signs.tick() => self.give_signs().await,
                _ = measures.tick() => self.measure().await,
            };
            match done {
                Ok(()) => waits = Waits::new(Duration::from_millis(100), Duration::from_secs(2)),
                // The reader says what is wrong with Redis; here it is only waited for.
                Err(error) => {
                    tracing::debug!(%error, "entries wait for their acknowledgement");
                    hand.settled.notify_one();
                    tokio::select! {
                        () = tokio::time::sleep(waits.next_wait()) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
        match tokio::time::timeout(LAST_WORDS, self.end(end())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last acknowledgements failed; their entries come again"),
            Err(_) => tracing::warn!("the last acknowledgements took too long; their entries come again"),
        }
    }

    /// Acknowledges a page of what is settled; true when there may be more.
    async fn acknowledge(&mut self) -> Result<bool, StreamError> {
        let ids = self.hand.unacknowledged(TOGETHER);
        if ids.is_empty() {
            return Ok(false);
        }
        // Also when another consumer took one over meanwhile: its effect is durable, whoever has it now.
        self.commands.acknowledge(&ids).await?;
        self.hand.acknowledged(&ids);
        Ok(true)
    }

    async fn acknowledge_all(&mut self) -> Result<(), StreamError> {
        while self.acknowledge().await? {}
        Ok(())
    }

    /// Only for what is still this consumer's: an entry that another one took over is not taken back.
    async fn give_signs(&mut self) -> Result<(), StreamError> {
        let mut from = EntryId::default();
        while let Some(page) = self.own(&mut from).await? {
            let ids: Vec<EntryId> = page.iter().map(|p| p.id).filter(|id| self.hand.knows(*id)).collect();
            if !ids.is_empty() {
                self.commands.refresh(&ids).await?;
            }
        }
        Ok(())
    }

    /// The next page of what is pending for this consumer.
    async fn own(&mut self, from: &mut EntryId) -> Result<Option<Vec<Pending>>, StreamError> {
        let page = self.commands.pending(*from, TOGETHER).await?;
        let Some(last) = page.last() else { return Ok(None) };
        *from = last.id.next();
        Ok(Some(page))
    }

    async fn measure(&mut self) -> Result<(), StreamError> {
        let groups = self.commands.groups().await?;
        let Some(own) = groups.iter().find(|group| group.name == self.group.as_bytes()) else { return Ok(()) };
        let undelivered = self.undelivered(own).await?;
        self.hand.set_waiting(Waiting { undelivered, pending: own.pending });
        match self.trim_max_length {
            Some(most) => self.trim(&groups, most).await,
            None => Ok(()),
        }
    }

    /// Redis knows it but after some deletions, and before version 7; then the stream's length is what it is at most.
    async fn undelivered(&mut self, group: &Group) -> Result<u64, StreamError> {
        match group.lag {
            Some(lag) => Ok(lag),
            None if self.commands.has_any_from(group.last_delivered.next()).await? => self.commands.length().await,
            None => Ok(0),
        }
    }

    /// Removes what every group of the stream has read and acknowledged, once the stream is long.
    async fn trim(&mut self, groups: &[Group], most: u64) -> Result<(), StreamError> {
        if self.commands.length().await? <= most {
            return Ok(());
        }
        let mut done_with = None;
        for group in groups {
            // Asked for after the group's position: what is delivered in between is behind both.
            let pending = self.commands.oldest_pending(&group.name).await?;
            let first = pending.map_or(group.last_delivered.next(), |id| id.min(group.last_delivered.next()));
            done_with = Some(done_with.map_or(first, |before: EntryId| before.min(first)));
        }
        if let Some(before) = done_with {
            let trimmed = self.commands.trim(before).await?;
            tracing::debug!(trimmed, %before, "the stream was trimmed");
        }
        Ok(())
    }

    async fn end(&mut self, end: End) -> Result<(), StreamError> {
        let began = Instant::now();
        while let Err(error) = self.acknowledge_all().await {
            if matches!(error, StreamError::NoGroup) || began.elapsed() > LAST_WORDS {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if end == End::Abrupt {
            return Ok(());
        }
        let mut from = EntryId::default();
        let mut unfinished = 0;
        while let Some(page) = self.own(&mut from).await? {
            unfinished += page.len();
            for run in page.chunk_by(|a, b| a.deliveries == b.deliveries) {
                let ids: Vec<EntryId> = run.iter().map(|pending| pending.id).collect();
                // That it was in hand at an orderly end says nothing against an entry.
                let before = run[0].deliveries.saturating_sub(1);
                self.commands.hand_back(&ids, self.claim_idle, before).await?;
            }
        }
        if self.leaves && unfinished == 0 { self.commands.leave().await } else { Ok(()) }
    }
}
