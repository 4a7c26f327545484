//! Orders and payments: confirmations by e-mail, receipts by SMS.

use serde::Serialize;

use super::payload::variables;
use super::registry::{HandlerError, Output};
use crate::domain::channel::Channel;
use crate::domain::envelope::Envelope;
use crate::domain::events::{OrderCancelled, OrderCreated, OrderShipped, Payment, PaymentFailed, payload};
use crate::domain::notification::Draft;
use crate::domain::number::JsonNumber;

pub(super) fn order_created(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: OrderCreated<'_> = payload(envelope)?;
    let variables = Confirmation {
        order_id: &event.order_id,
        amount: event.amount,
        currency: event.currency.as_deref(),
        order_date: &envelope.timestamp,
    };
    Ok(draft("order_confirmation", Channel::Email, &event.order_id, "", &event.customer_id, &variables))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Confirmation<'a> {
    order_id: &'a str,
    amount: JsonNumber<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    order_date: &'a str,
}

pub(super) fn order_paid(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: Payment<'_> = payload(envelope)?;
    let variables = Receipt {
        order_id: &event.order_id,
        payment_method: event.payment_method.as_deref(),
        paid_at: &envelope.timestamp,
    };
    Ok(draft("payment_confirmation", Channel::Sms, &event.order_id, "-payment", &event.customer_id, &variables))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt<'a> {
    order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<&'a str>,
    paid_at: &'a str,
}

pub(super) fn order_shipped(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: OrderShipped<'_> = payload(envelope)?;
    let variables = Shipment {
        order_id: &event.order_id,
        tracking_number: event.tracking_number.as_deref(),
        carrier: event.carrier.as_deref(),
        estimated_delivery: event.estimated_delivery.as_deref(),
    };
    Ok(draft("order_shipped", Channel::Email, &event.order_id, "-shipping", &event.customer_id, &variables))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shipment<'a> {
    order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_delivery: Option<&'a str>,
}

pub(super) fn order_cancelled(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: OrderCancelled<'_> = payload(envelope)?;
    let variables =
        Cancellation { order_id: &event.order_id, reason: event.reason.as_deref(), refund_amount: event.refund_amount };
    Ok(draft("order_cancelled", Channel::Email, &event.order_id, "-cancelled", &event.customer_id, &variables))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cancellation<'a> {
    order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_amount: Option<JsonNumber<'a>>,
}

pub(super) fn payment_failed(envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
    let event: PaymentFailed<'_> = payload(envelope)?;
    let variables = Refusal { order_id: &event.order_id, reason: event.reason.as_deref() };
    Ok(draft("payment_failed", Channel::Email, &event.order_id, "-payment-failed", &event.customer_id, &variables))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refusal<'a> {
    order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

fn draft<T: Serialize>(
    template: &'static str,
    channel: Channel,
    order_id: &str,
    suffix: &str,
    customer_id: &str,
    data: &T,
) -> Output {
    Output::one(Draft {
        aggregate_id: ["notification-", order_id, suffix].concat(),
        channel,
        template: template.into(),
        recipient: Some(customer_id.to_owned()),
        data: variables(data),
    })
}
