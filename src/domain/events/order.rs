//! Orders and payments.

use std::borrow::Cow;

use serde::Deserialize;

use super::Payload;
use crate::domain::envelope::non_empty;
use crate::domain::error::DecodeError;
use crate::domain::number::JsonNumber;

/// A customer placed an order.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct OrderCreated<'a> {
    #[serde(borrow)]
    pub order_id: Cow<'a, str>,
    #[serde(borrow)]
    pub customer_id: Cow<'a, str>,
    #[serde(borrow)]
    pub amount: JsonNumber<'a>,
    #[serde(borrow, default)]
    pub currency: Option<Cow<'a, str>>,
}

/// An order was paid (`OrderPaid`), or a payment went through (`PaymentCompleted`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Payment<'a> {
    #[serde(borrow)]
    pub order_id: Cow<'a, str>,
    #[serde(borrow)]
    pub customer_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub payment_method: Option<Cow<'a, str>>,
}

/// An order left the warehouse.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct OrderShipped<'a> {
    #[serde(borrow)]
    pub order_id: Cow<'a, str>,
    #[serde(borrow)]
    pub customer_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub tracking_number: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub carrier: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub estimated_delivery: Option<Cow<'a, str>>,
}

/// An order was called off.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct OrderCancelled<'a> {
    #[serde(borrow)]
    pub order_id: Cow<'a, str>,
    #[serde(borrow)]
    pub customer_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub refund_amount: Option<JsonNumber<'a>>,
}

/// A payment was refused.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct PaymentFailed<'a> {
    #[serde(borrow)]
    pub order_id: Cow<'a, str>,
    #[serde(borrow)]
    pub customer_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub reason: Option<Cow<'a, str>>,
}

macro_rules! order_payload {
    ($($name:ident),*) => {$(
        impl<'a> Payload<'a> for $name<'a> {
            fn check_identifiers(&self) -> Result<(), DecodeError> {
                non_empty("data.orderId", &self.order_id)?;
                non_empty("data.customerId", &self.customer_id)
            }
        }
    )*};
}
order_payload!(OrderCreated, Payment, OrderShipped, OrderCancelled, PaymentFailed);
