//! Products.

use std::borrow::Cow;

use serde::Deserialize;

use super::Payload;
use crate::domain::envelope::non_empty;
use crate::domain::error::DecodeError;

/// The last piece of a product was sold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ProductOutOfStock<'a> {
    #[serde(borrow)]
    pub product_id: Cow<'a, str>,
    #[serde(borrow)]
    pub product_name: Cow<'a, str>,
}

/// A product's description changed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ProductUpdated<'a> {
    #[serde(borrow)]
    pub product_id: Cow<'a, str>,
}

/// A product's price changed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct PriceChanged<'a> {
    #[serde(borrow)]
    pub product_id: Cow<'a, str>,
}

macro_rules! product_payload {
    ($($name:ident),*) => {$(
        impl<'a> Payload<'a> for $name<'a> {
            fn check_identifiers(&self) -> Result<(), DecodeError> {
                non_empty("data.productId", &self.product_id)
            }
        }
    )*};
}
product_payload!(ProductOutOfStock, ProductUpdated, PriceChanged);
