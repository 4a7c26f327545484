//! Values that must not be seen: they print and serialize as a mask, and are read through `expose`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// What stands in the place of a secret.
pub(super) const MASK: &str = "********";

/// A secret text, such as a signing key.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself; not for logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// A URL that may hold a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct SecretUrl {
    text: String,
    /// Whoever knows what follows the host may use it.
    path_is_secret: bool,
}

impl From<String> for SecretUrl {
    fn from(text: String) -> Self {
        Self { text, path_is_secret: false }
    }
}

impl SecretUrl {
    /// The URL as it was given; not for logs.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Masks from now on what follows the host, as well.
    pub(super) fn hide_path(&mut self) {
        self.path_is_secret = true;
    }

    /// The URL with its password masked, for logs and answers.
    pub fn masked(&self) -> String {
        if self.path_is_secret { mask_path(&self.text) } else { mask_url(&self.text) }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

/// True for the name of a setting whose value is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passphrase", "secret"].iter().any(|part| name.contains(part))
        || name.ends_with(".pem")
        || name.ends_with("key")
}

/// Serializes librdkafka's properties with the secret ones masked.
pub(super) fn masked_properties<S: Serializer>(
    properties: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mask = |name: &str, value: &str| if is_secret_name(name) { MASK.to_owned() } else { mask_url(value) };
    serializer.collect_map(properties.iter().map(|(name, value)| (name, mask(name, value))))
}

/// Leaves the scheme and the host.
fn mask_path(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() && url.username().is_empty() && url.password().is_none() => {
            format!("{}/{MASK}", &url[..url::Position::BeforePath])
        }
        _ => MASK.to_owned(),
    }
}

/// Masks the password before the host and secret parameters of the query; leaves a text without them as it is.
fn mask_url(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        // What looks like a URL but does not parse may hide its password anywhere.
        return match text.split_once("://") {
            Some((scheme, rest)) if rest.contains('@') => format!("{scheme}://{MASK}"),
            _ => text.to_owned(),
        };
    };
    // An `@` behind the host belongs to a password that was not percent-encoded and that the parser cut in two.
    let behind_host = &url[url::Position::BeforePath..];
    if text.contains("://") && behind_host.contains('@') {
        return format!("{}://{MASK}", url.scheme());
    }
    let in_query = url.query_pairs().any(|(name, _)| is_secret_name(&name));
    if url.password().is_none() && !in_query {
        return text.to_owned();
    }
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return format!("{}://{MASK}", url.scheme());
    }
    if in_query {
        let mask = |name: &str, value: &str| if is_secret_name(name) { MASK.to_owned() } else { value.to_owned() };
        let pairs: Vec<_> = url.query_pairs().map(|(name, value)| (name.to_string(), mask(&name, &value))).collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_path_is_masked_as_a_whole() {
        let masked = |text: &str| {
            let mut url = SecretUrl::from(text.to_owned());
            url.hide_path();
            (url.masked(), format!("{url:?}"))
        };
        let expected = "https://hooks.example:8443/********".to_owned();
        assert_eq!(masked("https://hooks.example:8443/services/T0/B0/x?y=z"), (expected.clone(), expected));
        assert_eq!(masked("https://u:p@hooks.example/x").0, "********");
        assert_eq!(masked("no url").0, "********");
    }

    #[test]
    fn passwords_in_urls_are_masked_and_nothing_else_changes() {
        for (url, masked) in [
            ("postgres://u:p@db:5432/x?sslmode=require", "postgres://u:********@db:5432/x?sslmode=require"),
            ("postgres:///x?host=db&password=p", "postgres:///x?host=db&password=********"),
            ("postgres://u:p@q/r@db/x", "postgres://********"),
            ("postgres://u:12/r@db/x", "postgres://********"),
            ("postgres://u:p/r@db/x", "postgres://********"),
            ("redis://:p@cache", "redis://:********@cache"),
            ("https://hooks.example/a%20b?c=d", "https://hooks.example/a%20b?c=d"),
            ("sqlite://data/my notes.db", "sqlite://data/my notes.db"),
            ("kafka/host@REALM", "kafka/host@REALM"),
        ] {
            assert_eq!(mask_url(url), masked);
        }
    }
}
