//! Users.

use std::borrow::Cow;

use serde::Deserialize;

use super::Payload;
use crate::domain::envelope::non_empty;
use crate::domain::error::DecodeError;

/// Somebody opened an account.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct UserRegistered<'a> {
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    #[serde(borrow)]
    pub first_name: Cow<'a, str>,
    #[serde(borrow)]
    pub email: Cow<'a, str>,
}

/// Somebody changed their account. What changed is read by the recipients directory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct UserUpdated<'a> {
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
}

/// Somebody logged in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct UserLogin<'a> {
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
}

macro_rules! user_payload {
    ($($name:ident),*) => {$(
        impl<'a> Payload<'a> for $name<'a> {
            fn check_identifiers(&self) -> Result<(), DecodeError> {
                non_empty("data.userId", &self.user_id)
            }
        }
    )*};
}
user_payload!(UserRegistered, UserUpdated, UserLogin);
