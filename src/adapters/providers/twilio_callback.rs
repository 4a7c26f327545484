//! Twilio's status callbacks: whether one is Twilio's, and what it says of a message.
//!
//! Pure functions; the HTTP endpoint is elsewhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use url::{Url, form_urlencoded};

use super::exchange::decoded;

/// A callback has a dozen fields.
const MOST_FIELDS: usize = 100;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageStatus {
    /// It is on its way.
    InProgress,
    /// The carrier says that the handset has it.
    Delivered,
    /// It did not arrive, and will not.
    Failed {
        /// Twilio's error code, if it gave one.
        code: Option<u32>,
        /// The number shall get nothing further: no such mobile number, or its owner said STOP.
        suppress: bool,
    },
}

/// What a callback says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCallback {
    /// The message's id: the receipt of the attempt.
    pub message_sid: String,
    /// The number that it was sent to.
    pub to: Option<String>,
    /// What became of it.
    pub status: MessageStatus,
}

/// Why a callback makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// A field that every status callback has is missing.
    #[error("the callback has no {0}")]
    Missing(&'static str),
    /// Twilio has no such status.
    #[error("unknown message status")]
    UnknownStatus,
    /// Nothing of Twilio's has that many fields.
    #[error("the callback has more than 100 fields")]
    TooLarge,
}

/// The token with which the account of a provider's URL signs its callbacks.
pub fn auth_token(provider_url: &str) -> Option<String> {
    let url = Url::parse(provider_url).ok()?;
    url.password().map(decoded).filter(|token| !token.is_empty())
}

/// The fields of a form, decoded.
///
/// # Errors
/// [`CallbackError::TooLarge`].
pub fn fields(body: &[u8]) -> Result<Vec<(String, String)>, CallbackError> {
    let fields: Vec<_> = form_urlencoded::parse(body).into_owned().take(MOST_FIELDS + 1).collect();
    if fields.len() > MOST_FIELDS { Err(CallbackError::TooLarge) } else { Ok(fields) }
}

/// True when `X-Twilio-Signature` was made with the account's token, for this URL and these fields.
///
/// `url` is the one that Twilio called, query included: behind a proxy that ends TLS it is not what the server sees.
/// Twilio signs some URLs with the scheme's standard port and some without it, so both count; and credentials in the URL
/// may be left out. The comparison takes the
/// same time for every signature.
pub fn is_genuine(auth_token: &str, url: &str, fields: &[(String, String)], signature: &str) -> bool {
    let Ok(given) = STANDARD.decode(signature.trim()) else { return false };
    let mut sorted: Vec<&(String, String)> = fields.iter().collect();
    sorted.sort();
    sorted.dedup();
    let matches = |url: &str| {
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()) else { return false };
        mac.update(url.as_bytes());
        for (name, value) in &sorted {
            mac.update(name.as_bytes());
            mac.update(value.as_bytes());
        }
        mac.verify_slice(&given).is_ok()
    };
    !auth_token.is_empty() && spellings(url).iter().any(|url| matches(url))
}

/// The URL as it is given, and the other ways in which it may have been signed: with the scheme's standard port added or
/// taken away, and without credentials.
fn spellings(url: &str) -> Vec<String> {
    let mut spellings = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return spellings };
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return spellings,
    };
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    for authority in [authority, host] {
        match authority.strip_suffix(port) {
            Some(without) => spellings.push(format!("{scheme}://{without}{behind}")),
            // A colon behind the brackets of an IPv6 address begins another port.
            None if !host.rsplit(']').next().is_some_and(|host| host.contains(':')) => {
                spellings.push(format!("{scheme}://{authority}{port}{behind}"));
            }
            None => {}
        }
        spellings.push(format!("{scheme}://{authority}{behind}"));
    }
    spellings
}

/// Reads a callback's fields.
///
/// # Errors
/// See [`CallbackError`].
pub fn parse(fields: &[(String, String)]) -> Result<StatusCallback, CallbackError> {
    let field = |name: &str| {
        let found = fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    };
    // The older names are still sent along by some compatible servers.
    let message_sid = field("MessageSid").or_else(|| field("SmsSid")).ok_or(CallbackError::Missing("MessageSid"))?;
    let status =
        field("MessageStatus").or_else(|| field("SmsStatus")).ok_or(CallbackError::Missing("MessageStatus"))?;
    let code = field("ErrorCode").and_then(|code| code.parse().ok());
    let status = match status.to_ascii_lowercase().as_str() {
        "accepted" | "scheduled" | "queued" | "sending" | "sent" => MessageStatus::InProgress,
        "delivered" | "read" => MessageStatus::Delivered,
        "undelivered" | "failed" | "canceled" => {
            MessageStatus::Failed { code, suppress: code.is_some_and(ends_for_good) }
        }
        _ => return Err(CallbackError::UnknownStatus),
    };
    Ok(StatusCallback { message_sid: message_sid.to_owned(), to: field("To").map(str::to_owned), status })
}

/// True for codes about the number itself (<https://www.twilio.com/docs/api/errors>): the recipient said STOP, the number
/// is unknown or out of service, or a landline's. A handset that is off (30003), a filter (30007) or a block by the
/// carrier (30004) may pass.
fn ends_for_good(code: u32) -> bool {
    matches!(code, 21610 | 21211 | 21614 | 30005 | 30006)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "12345";
    const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
    /// Of the example in Twilio's documentation of request validation.
    const SIGNATURE: &str = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";

    fn example() -> Vec<(String, String)> {
        let body = b"To=%2B18005551212&Digits=1234&Caller=%2B14158675309&From=%2B14158675309&CallSid=CA1234567890ABCDE";
        fields(body).expect("fields")
    }

    fn signature(url: &str, fields: &[(&str, &str)]) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(TOKEN.as_bytes()).expect("a key");
        mac.update(url.as_bytes());
        for (name, value) in fields {
            mac.update(format!("{name}{value}").as_bytes());
        }
        STANDARD.encode(mac.finalize().into_bytes())
    }

    fn read(body: &str) -> Result<StatusCallback, CallbackError> {
        parse(&fields(body.as_bytes())?)
    }

    #[test]
    fn agrees_with_twilio_s_example_and_with_nothing_else() {
        let fields = example();
        assert!(is_genuine(TOKEN, URL, &fields, SIGNATURE));
        assert!(!is_genuine("12346", URL, &fields, SIGNATURE));
        assert!(!is_genuine(TOKEN, "https://mycompany.com/myapp.php?foo=1&bar=3", &fields, SIGNATURE));
        assert!(!is_genuine(TOKEN, URL, &fields[1..], SIGNATURE));
        let mut more = fields.clone();
        more.push(("X".into(), "y".into()));
        assert!(!is_genuine(TOKEN, URL, &more, SIGNATURE));
        for bad in
            ["", "RSOYDt4T1cUTdK1PDd93/VVr8B8", "RSOYDt4T1cUTdK1PDd93", "not base64", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="]
        {
            assert!(!is_genuine(TOKEN, URL, &fields, bad), "{bad}");
        }
        assert!(!is_genuine("", URL, &fields, SIGNATURE), "a token that is not configured opens nothing");
    }

    #[test]
    fn the_standard_port_may_be_written_or_not() {
        let (with, without) = ("https://a.example:443/x?y=1", "https://a.example/x?y=1");
        for (signed, seen) in [(with, without), (without, with), (with, with)] {
            assert!(is_genuine(TOKEN, seen, &[], &signature(signed, &[])), "{signed} {seen}");
        }
        let other = "https://a.example:8443/x";
        assert!(is_genuine(TOKEN, other, &[], &signature(other, &[])));
        assert!(!is_genuine(TOKEN, other, &[], &signature("https://a.example/x", &[])));
        assert!(is_genuine(TOKEN, "no url", &[], &signature("no url", &[])));
        let six = "http://[::1]:80/x";
        assert!(is_genuine(TOKEN, six, &[], &signature("http://[::1]/x", &[])));
        assert!(is_genuine(TOKEN, "http://[::1]/x", &[], &signature(six, &[])));
    }

    #[test]
    fn credentials_in_the_url_may_be_left_out() {
        let configured = "https://u:p@a.example/x";
        for signed in [configured, "https://a.example/x", "https://a.example:443/x", "https://u:p@a.example:443/x"] {
            assert!(is_genuine(TOKEN, configured, &[], &signature(signed, &[])), "{signed}");
        }
        assert!(!is_genuine(TOKEN, configured, &[], &signature("https://p@a.example/x", &[])));
        assert_eq!(auth_token("https://AC1:to%2Fken@api.example").as_deref(), Some("to/ken"));
        assert_eq!((auth_token("https://AC1@api.example"), auth_token("no url")), (None, None));
    }

    #[test]
    fn repeated_fields_count_once_and_in_order() {
        let fields = fields(b"b=2&a=2&a=1&a=1").expect("fields");
        assert!(is_genuine(TOKEN, URL, &fields, &signature(URL, &[("a", "1"), ("a", "2"), ("b", "2")])));
    }

    #[test]
    fn statuses_are_told_apart() {
        let of = |rest: &str| read(&format!("MessageSid=SM1&To=%2B15550100123&{rest}")).map(|callback| callback.status);
        for status in ["accepted", "scheduled", "queued", "sending", "sent", "Sent"] {
            assert_eq!(of(&format!("MessageStatus={status}")), Ok(MessageStatus::InProgress));
        }
        assert_eq!(of("MessageStatus=delivered"), Ok(MessageStatus::Delivered));
        let failed = |code, suppress| Ok(MessageStatus::Failed { code, suppress });
        assert_eq!(of("MessageStatus=undelivered&ErrorCode=30003"), failed(Some(30003), false));
        assert_eq!(of("MessageStatus=undelivered&ErrorCode=30005"), failed(Some(30005), true));
        assert_eq!(of("MessageStatus=undelivered&ErrorCode=30006"), failed(Some(30006), true));
        assert_eq!(of("MessageStatus=failed&ErrorCode=21610"), failed(Some(21610), true));
        assert_eq!(of("MessageStatus=failed&ErrorCode="), failed(None, false));
        assert_eq!(of("MessageStatus=failed&ErrorCode=soon"), failed(None, false));
        assert_eq!(of("MessageStatus=eaten"), Err(CallbackError::UnknownStatus));
    }

    #[test]
    fn fields_that_matter_must_be_there() {
        let callback = read("SmsSid=SM1&SmsStatus=sent&To=%2B15550100123").expect("a callback");
        assert_eq!((callback.message_sid.as_str(), callback.to.as_deref()), ("SM1", Some("+15550100123")));
        assert_eq!(read("MessageStatus=sent"), Err(CallbackError::Missing("MessageSid")));
        assert_eq!(read("MessageSid=SM1"), Err(CallbackError::Missing("MessageStatus")));
        assert_eq!(read("\0&%ff&="), Err(CallbackError::Missing("MessageSid")));
        assert_eq!(read(&"a=b&".repeat(101)), Err(CallbackError::TooLarge));
    }
}
