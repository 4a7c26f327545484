//! Turns a notification into an e-mail as it goes over the wire.

use lettre::Address;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use sha2::{Digest, Sha256};

use crate::domain::bytes::hex;
use crate::domain::recipient::is_web_url;
use crate::ports::provider::Message;

/// The longest part of an id that is taken over into `Message-ID` as it is.
const ID_CHARS: usize = 64;
/// Told to mail programs, so that out-of-office replies and the like are not sent (RFC 3834).
const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");
const LIST_UNSUBSCRIBE: HeaderName = HeaderName::new_from_ascii_str("List-Unsubscribe");
const LIST_UNSUBSCRIBE_POST: HeaderName = HeaderName::new_from_ascii_str("List-Unsubscribe-Post");
/// A header line has at most 998 characters (RFC 5322, 2.1.1), and a URL cannot be folded.
const LONGEST_UNSUBSCRIBE_URL: usize = 900;

/// An e-mail with its envelope.
pub struct Mail {
    /// The envelope's sender.
    pub from: Address,
    /// The envelope's recipient.
    pub to: Address,
    /// Headers and body.
    pub content: Vec<u8>,
}

impl Mail {
    /// Writes the notification as an e-mail: text alone, or text and HTML as alternatives.
    ///
    /// # Errors
    /// Why it can never be one.
    pub fn compose(message: &Message, from: &Mailbox) -> Result<Self, String> {
        let to = recipient(message.to.as_deref())?;
        let from = Mailbox::new(from.name.clone(), ascii_domain(&from.email));
        let mut builder = lettre::Message::builder()
            .from(from.clone())
            .to(to.clone())
            .date_now()
            .message_id(Some(format!("<{}@{}>", id_left(&message.id), from.email.domain())))
            .raw_header(HeaderValue::new(AUTO_SUBMITTED, "auto-generated".to_owned()));
        if let Some(subject) = &message.subject {
            builder = builder.subject(one_line(subject));
        }
        if let Some(url) = &message.unsubscribe_url {
            // The mail is worth more than the offer.
            match unsubscribe(url) {
                Some([target, post]) => builder = builder.raw_header(target).raw_header(post),
                None => tracing::warn!(notification = message.id, "the URL for unsubscribing fits into no header"),
            }
        }
        let text = line_feeds(&message.body);
        let mail = match &message.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(text, line_feeds(html))),
            None => builder.singlepart(SinglePart::plain(text)),
        };
        let mail = mail.map_err(|error| format!("the e-mail cannot be written: {error}"))?;
        Ok(Self { from: from.email, to: to.email, content: mail.formatted() })
    }

    /// True when an address has characters that only servers with SMTPUTF8 understand.
    pub fn needs_utf8(&self) -> bool {
        [&self.from, &self.to].into_iter().any(|address| !AsRef::<str>::as_ref(address).is_ascii())
    }
}

/// The headers by which mail programs offer to unsubscribe with one click (RFC 8058). Both or none.
fn unsubscribe(url: &str) -> Option<[HeaderValue; 2]> {
    let plain = url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b','));
    if !plain || !is_web_url(url) || url.len() > LONGEST_UNSUBSCRIBE_URL {
        return None;
    }
    // As it is: an encoded or folded URL is none for many mail programs.
    let raw = |name, value: String| HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value);
    Some([
        raw(LIST_UNSUBSCRIBE, format!("<{url}>")),
        raw(LIST_UNSUBSCRIBE_POST, "List-Unsubscribe=One-Click".to_owned()),
    ])
}

fn recipient(to: Option<&str>) -> Result<Mailbox, String> {
    let to = to.ok_or("the notification has no e-mail address")?;
    // Before the parser sees it: some controls are legal in quoted local parts, and none of them is ever meant.
    if to.chars().any(char::is_control) {
        return Err(format!("`{}` is not an e-mail address: it has control characters", one_line(to)));
    }
    let mailbox: Mailbox = to.parse().map_err(|error| format!("`{to}` is not an e-mail address: {error}"))?;
    Ok(Mailbox::new(mailbox.name, ascii_domain(&mailbox.email)))
}

/// International domains have an ASCII form that every server understands.
fn ascii_domain(address: &Address) -> Address {
    let ascii = || match url::Host::parse(address.domain()).ok()? {
        url::Host::Domain(domain) => Address::new(address.user(), domain).ok(),
        url::Host::Ipv4(_) | url::Host::Ipv6(_) => None,
    };
    let converted = if address.domain().is_ascii() { None } else { ascii() };
    converted.unwrap_or_else(|| address.clone())
}

/// The left part of `Message-ID`: always the same for an id, so that mail programs recognise a repetition.
fn id_left(id: &str) -> String {
    let is_atext = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let clean: String = id.chars().take(ID_CHARS).map(|c| if is_atext(c) { c } else { '-' }).collect();
    if clean == id && !clean.is_empty() {
        return clean;
    }
    // What was replaced or cut off could have been the difference to another id.
    let digest = Sha256::digest(id.as_bytes());
    format!("{clean}-{}", hex(&digest[..8]))
}

/// No line breaks, so that nothing can follow the header's end.
fn one_line(text: &str) -> String {
    text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Every kind of line end as one line feed, of which the mail library makes CRLF: servers disagree about bare carriage
/// returns, and a body must not be able to end the mail for one of them.
fn line_feeds(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_valid_and_differ() {
        assert_eq!(id_left("0b9f6f0e-7a36-5b1c-9d0a-2f6f3c1f9b11"), "0b9f6f0e-7a36-5b1c-9d0a-2f6f3c1f9b11");
        let (dot, space) = (id_left("a.b"), id_left("a b"));
        assert!(dot.starts_with("a-b-") && space.starts_with("a-b-") && dot != space, "{dot} {space}");
        assert_eq!(id_left("x>\r\nBcc: y"), id_left("x>\r\nBcc: y"));
        for id in ["x>\r\nBcc: y", "ä", "", &"n".repeat(500)] {
            let left = id_left(id);
            assert!(!left.is_empty() && left.len() <= 81 && left.chars().all(|c| c.is_ascii_graphic()), "{left}");
            assert!(!left.contains(['<', '>', '@', '.', ':']), "{left}");
        }
    }

    #[test]
    fn only_mailboxes_are_recipients() {
        for good in ["a@b.example", "o'brien+tag@sub.example.com", "root@localhost", "Ann <ann@b.example>"] {
            assert!(recipient(Some(good)).is_ok(), "{good}");
        }
        for bad in ["", "ann", "a@b.example, c@d.example", "a@b.example\r\nRCPT TO:<c@d.example>", "<>"] {
            assert!(recipient(Some(bad)).is_err(), "{bad}");
        }
        assert!(recipient(Some("customer-7")).is_err_and(|reason| reason.contains("`customer-7`")));
        assert!(recipient(None).is_err());
    }

    #[test]
    fn international_domains_become_ascii() {
        let mailbox = recipient(Some("ann@bücher.example")).expect("a mailbox");
        assert_eq!(mailbox.email.to_string(), "ann@xn--bcher-kva.example");
    }

    #[test]
    fn text_is_tamed() {
        assert_eq!(one_line(" a\r\nBcc: x\n\n\tb "), "a Bcc: x b");
        assert_eq!(line_feeds("a\r\nb\rc\nd"), "a\nb\nc\nd");
    }
}
