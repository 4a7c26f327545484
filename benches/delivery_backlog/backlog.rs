//! The notifications of a backlog: what the service itself makes of orders, each to its customer's e-mail address.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use notification_service::adapters::sql::Database;
use notification_service::delivery::desk::Desk;
use notification_service::delivery::rules::TemplateRules;
use notification_service::domain::dead_letter::Origin;
use notification_service::domain::envelope::Envelope;
use notification_service::domain::notification::Request;
use notification_service::domain::record::Headers;
use notification_service::handlers::Registry;
use notification_service::ports::ledger::NewNotification;

use crate::produce::{Event, event};

/// Rows of one statement, here and in the bare loop: as many as the service's own intake writes at once.
pub const ROWS: u64 = 500;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An order whose customer is named by an address, so that no directory is needed.
pub fn addressed_event(order: u64) -> Event {
    let event = event(order);
    let value = event.value.replacen(r#"","amount""#, r#"@shop.example","amount""#, 1);
    Event { value, ..event }
}

pub struct Backlog {
    registry: Registry,
    rules: TemplateRules,
}

impl Backlog {
    pub fn new(rules: TemplateRules) -> Self {
        Self { registry: Registry::built_in(), rules }
    }

    pub fn notification(&self, number: u64) -> Result<NewNotification> {
        let event = addressed_event(1_000_000 + number);
        let cause = Envelope::decode(Some(event.value.as_bytes()))?;
        let [handler] = self.registry.handlers_of(&cause.event_type) else { anyhow::bail!("an order has one handler") };
        let draft = handler(&cause)?.drafts.pop().context("an order asks for a notification")?;
        let json = draft.to_request(&cause, &cause.timestamp).json;
        let request = Request::decode(&Envelope::decode(Some(&json))?)?;
        let received_at = Timestamp::now();
        let handling = self.rules.handling(&request);
        let mut headers = Headers::with_room();
        for (name, value) in [
            ("eventType", "NotificationRequested"),
            ("source", "notification-service"),
            ("timestamp", &cause.timestamp),
            ("aggregateId", &request.aggregate_id),
            ("traceparent", TRACEPARENT),
        ] {
            headers.push(name, Some(value.as_bytes()));
        }
        let origin = Origin {
            topic: "notification-events".to_owned(),
            partition: Some((number % 3) as i32),
            offset: Some(number as i64),
            key: Some(request.aggregate_id.clone().into_bytes()),
            value: Some(json),
            headers,
        };
        Ok(NewNotification { request, origin, received_at, handling })
    }

    pub fn batch(&self, from: u64, to: u64) -> Result<Vec<NewNotification>> {
        (from..to).map(|number| self.notification(number)).collect()
    }

    /// Puts so many into the ledger.
    pub async fn insert(&self, database: &Database, count: u64) -> Result<()> {
        let desk = Desk { ledger: Arc::new(database.clone()) };
        for from in (0..count).step_by(ROWS as usize) {
            let batch = self.batch(from, count.min(from + ROWS))?;
            let new = desk.add(&batch).await?;
            ensure!(new == batch.len() as u64, "only {new} of {} are new", batch.len());
        }
        Ok(())
    }
}
