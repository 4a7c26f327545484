//! Products: alerts to the shop's administrators.

use serde::Serialize;

use super::payload::variables;
use super::registry::{HandlerError, Output};
use crate::domain::channel::Channel;
use crate::domain::envelope::Envelope;
use crate::domain::events::{ProductOutOfStock, payload};
use crate::domain::notification::Draft;

pub(super) fn product_out_of_stock(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: ProductOutOfStock<'_> = payload(envelope)?;
    let alert = Alert {
        product_id: &event.product_id,
        product_name: &event.product_name,
        out_of_stock_at: &envelope.timestamp,
    };
    Ok(Output::one(Draft {
        aggregate_id: format!("notification-product-{}", event.product_id),
        channel: Channel::AdminAlert,
        template: "product_out_of_stock".into(),
        recipient: None,
        data: variables(&alert),
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    product_id: &'a str,
    product_name: &'a str,
    out_of_stock_at: &'a str,
}
