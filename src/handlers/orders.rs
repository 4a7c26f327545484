//! Orders and payments: confirmations by e-mail, receipts by SMS.

use super::payload::DataObject;
use super::registry::{HandlerError, Output};
use crate::domain::channel::Channel;
use crate::domain::envelope::Envelope;
use crate::domain::events::{OrderCancelled, OrderCreated, OrderShipped, Payment, PaymentFailed, payload};
use crate::domain::notification::Draft;

pub(super) fn order_created(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: OrderCreated<'_> = payload(envelope)?;
    let data = DataObject::new()
        .with("orderId", &event.order_id)
        .with("amount", &event.amount)
        .with_some("currency", &event.currency)
        .with("orderDate", &envelope.timestamp);
    Ok(draft("order_confirmation", Channel::Email, &event.order_id, "", &event.customer_id, data))
}

pub(super) fn order_paid(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: Payment<'_> = payload(envelope)?;
    let data = DataObject::new()
        .with("orderId", &event.order_id)
        .with_some("paymentMethod", &event.payment_method)
        .with("paidAt", &envelope.timestamp);
    Ok(draft("payment_confirmation", Channel::Sms, &event.order_id, "-payment", &event.customer_id, data))
}

pub(super) fn order_shipped(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: OrderShipped<'_> = payload(envelope)?;
    let data = DataObject::new()
        .with("orderId", &event.order_id)
        .with_some("trackingNumber", &event.tracking_number)
        .with_some("carrier", &event.carrier)
        .with_some("estimatedDelivery", &event.estimated_delivery);
    Ok(draft("order_shipped", Channel::Email, &event.order_id, "-shipping", &event.customer_id, data))
}

pub(super) fn order_cancelled(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: OrderCancelled<'_> = payload(envelope)?;
    let data = DataObject::new()
        .with("orderId", &event.order_id)
        .with_some("reason", &event.reason)
        .with_some("refundAmount", &event.refund_amount);
    Ok(draft("order_cancelled", Channel::Email, &event.order_id, "-cancelled", &event.customer_id, data))
}

pub(super) fn payment_failed(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: PaymentFailed<'_> = payload(envelope)?;
    let data = DataObject::new().with("orderId", &event.order_id).with_some("reason", &event.reason);
    Ok(draft("payment_failed", Channel::Email, &event.order_id, "-payment-failed", &event.customer_id, data))
}

fn draft(
    template: &'static str,
    channel: Channel,
    order_id: &str,
    suffix: &str,
    customer_id: &str,
    data: DataObject,
) -> Output {
    Output::one(Draft {
        aggregate_id: format!("notification-{order_id}{suffix}"),
        channel,
        template: template.into(),
        recipient: Some(customer_id.to_owned()),
        data: data.finish(),
    })
}
