//! Products: alerts to the shop's administrators.

use super::payload::DataObject;
use super::registry::{HandlerError, Output};
use crate::domain::channel::Channel;
use crate::domain::envelope::Envelope;
use crate::domain::events::{ProductOutOfStock, payload};
use crate::domain::notification::Draft;

pub(super) fn product_out_of_stock(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: ProductOutOfStock<'_> = payload(envelope)?;
    let data = DataObject::new()
        .with("productId", &event.product_id)
        .with("productName", &event.product_name)
        .with("outOfStockAt", &envelope.timestamp);
    Ok(Output::one(Draft {
        aggregate_id: format!("notification-product-{}", event.product_id),
        channel: Channel::AdminAlert,
        template: "product_out_of_stock".into(),
        recipient: None,
        data: data.finish(),
    }))
}
