//! Processed events in Redis, shared by all instances, each forgotten after a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::link::{RedisFailure, RedisLink};
use crate::domain::record::Coordinates;
use crate::ports::processed_events::{Candidate, Claim, ProcessedEvents, StoreError};

/// KEYS: the events. ARGV: the lease in milliseconds, then the owner of each claim. One script is one step for Redis:
/// between the look and the claim nobody comes.
const CLAIM: &str = "
local answers = {}
for i, key in ipairs(KEYS) do
  local owner = redis.call('GET', key)
  if owner == '' then
    answers[i] = 1
  elseif not owner or owner == ARGV[i + 1] then
    redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1])
    answers[i] = 0
  else
    answers[i] = 2
  end
end
return answers";

/// The value of an event that is processed; no owner is empty.
const PROCESSED: &str = "";

/// Events of one call: a script holds up every other client of the server.
const CHUNK: usize = 500;

/// See the module.
pub struct RedisProcessedEvents {
    link: Arc<RedisLink>,
    /// The group in braces keeps its events together in one slot of a cluster, so that one script may touch them.
    prefix: String,
    remember: Duration,
}

impl RedisProcessedEvents {
    /// The processed events of one group, remembered so long.
    pub fn new(link: Arc<RedisLink>, group: &str, remember: Duration) -> Self {
        Self { link, prefix: format!("processed:{{{group}}}:"), remember }
    }

    fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }
}

fn owner(at: &Coordinates) -> String {
    format!("{}/{}/{}", at.topic, at.partition, at.offset)
}

#[async_trait]
impl ProcessedEvents for RedisProcessedEvents {
    async fn claim(&self, candidates: &[Candidate<'_>], lease: Duration) -> Result<Vec<Claim>, StoreError> {
        let mut claims = Vec::with_capacity(candidates.len());
        for chunk in candidates.chunks(CHUNK) {
            let mut pipeline = redis::pipe();
            pipeline.cmd("EVAL").arg(CLAIM).arg(chunk.len());
            for candidate in chunk {
                pipeline.arg(self.key(candidate.id));
            }
            pipeline.arg(lease.as_millis() as u64);
            for candidate in chunk {
                pipeline.arg(owner(candidate.at));
            }
            let (answers,): (Vec<u8>,) = self.link.ask(&pipeline).await.map_err(unknown)?;
            if answers.len() != chunk.len() {
                return Err(StoreError(format!("Redis answered {} of {} claims", answers.len(), chunk.len())));
            }
            claims.extend(answers.into_iter().map(|answer| match answer {
                0 => Claim::Granted,
                1 => Claim::Processed,
                _ => Claim::Held,
            }));
        }
        Ok(claims)
    }

    async fn mark(&self, ids: &[&str]) -> Result<(), StoreError> {
        for chunk in ids.chunks(CHUNK) {
            let mut pipeline = redis::pipe();
            for id in chunk {
                pipeline.cmd("SET").arg(self.key(id)).arg(PROCESSED).arg("PX");
                pipeline.arg(self.remember.as_millis() as u64).ignore();
            }
            self.link.ask::<()>(&pipeline).await.map_err(unknown)?;
        }
        Ok(())
    }
}

fn unknown(failure: RedisFailure) -> StoreError {
    StoreError(failure.to_string())
}
