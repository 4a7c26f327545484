//! Looks at `/health` all along, as a load balancer would.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http_client;
use super::service::Service;
use super::wait;

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Look {
    pub at: Instant,
    pub took: Duration,
    /// `healthy`, `degraded`, `unhealthy`, or why there was no answer.
    pub status: Result<String, String>,
}

pub struct HealthWatch {
    looks: Arc<Mutex<Vec<Look>>>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl HealthWatch {
    pub fn over(service: &Service) -> Self {
        let (looks, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (theirs, stopped) = (Arc::clone(&looks), Arc::clone(&stop));
        let url = format!("{}/health", service.base());
        let watcher = thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let look = look_at(&url);
                theirs.lock().expect("no panic").push(look);
                thread::sleep(BETWEEN_LOOKS);
            }
        });
        Self { looks, stop, watcher: Some(watcher) }
    }

    /// Waits for a look after this moment that finds the service healthy, or not healthy.
    #[track_caller]
    pub fn wait_until_healthy(&self, healthy: bool, since: Instant, within: Duration) {
        let what = if healthy { "the service is healthy" } else { "the service notices the outage" };
        let is_wanted = |look: &Look| look.at >= since && (look.status.as_deref() == Ok("healthy")) == healthy;
        let seen = wait::until_or_end(within.saturating_sub(since.elapsed()), || {
            self.looks.lock().expect("no panic").iter().any(is_wanted).then_some(())
        });
        assert!(seen.is_some(), "not within {within:?}: {what}; last seen {:?}", self.looks().last());
    }

    pub fn looks(&self) -> Vec<Look> {
        self.looks.lock().expect("no panic").clone()
    }

    /// Every look was answered, in this time.
    #[track_caller]
    pub fn every_look_was_answered_within(&self, limit: Duration) {
        let bad: Vec<_> = self.looks().into_iter().filter(|l| l.status.is_err() || l.took > limit).collect();
        assert!(bad.is_empty(), "{} looks at /health went wrong, such as {:?}", bad.len(), bad[0]);
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

fn look_at(url: &str) -> Look {
    let at = Instant::now();
    let status = http_client::get(url).and_then(|answer| {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
        let word = body["status"].as_str().ok_or_else(|| format!("no status: {body}"))?;
        let code = if word == "unhealthy" { 503 } else { 200 };
        if answer.status == code { Ok(word.to_owned()) } else { Err(format!("{word} with {}", answer.status)) }
    });
    Look { at, took: at.elapsed(), status }
}
