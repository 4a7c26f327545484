//! The fastest that this machine could do: a loop that copies records from topic to topic.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::Consumer as _;
use rdkafka::message::{BorrowedHeaders, Message as _};

use crate::cluster::{Cluster, Stall, Topics};
use crate::machine::{cpu_seconds, progress};
use crate::produce::Sender;

pub struct Bare {
    pub elapsed: Duration,
    pub cpu: f64,
}

pub fn copy(cluster: &Cluster, topics: &Topics<'_>, events: u64) -> Result<Bare> {
    let (from, to) = (topics.orders(), topics.copy());
    let cpu_before = cpu_seconds("self")?;
    let consumer = cluster.consumer(&to)?;
    let mut sender = Sender::new(&cluster.settings)?;
    consumer.subscribe(&[&from])?;
    let mut began = None;
    let mut stall = Stall::new();
    while sender.sent < events {
        match consumer.poll(Duration::from_millis(1)) {
            Some(Ok(message)) => {
                began.get_or_insert_with(Instant::now);
                let headers = message.headers().map(BorrowedHeaders::detach);
                sender.send(&to, message.key(), message.payload(), headers)?;
            }
            Some(Err(error)) => progress(&format!("the bare loop's consumer goes on after an error: {error}")),
            None => {
                sender.producer.poll(Duration::ZERO);
                stall.check(sender.sent)?;
            }
        }
    }
    sender.finish()?;
    let elapsed = began.map(|began| began.elapsed()).context("no record")?;
    Ok(Bare { elapsed, cpu: cpu_seconds("self")? - cpu_before })
}
