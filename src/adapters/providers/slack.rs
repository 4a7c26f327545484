//! The `slack` provider: posts to an incoming webhook as Slack has them, and servers that are compatible with it.

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use serde_json::{Value, json};

use super::exchange::{Answer, Exchange, web_url};
use super::{ProviderSettings, ProviderSetupError, excerpt};
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// Slack's limit for the text of a header block, in characters.
const HEADER_CHARS: usize = 150;
/// Slack's limit for the text of a section block, in characters.
const SECTION_CHARS: usize = 3000;
/// With the longest text, escaped, below the 40,000 characters at which Slack cuts messages off.
const MOST_SECTIONS: usize = 12;
/// What is wrong with the webhook, its channel or its workspace, in Slack's words: an operator has to put it right.
const ABOUT_THE_WEBHOOK: [&str; 11] = [
    "action_prohibited",
    "channel_is_archived",
    "channel_not_found",
    "invalid_token",
    "no_active_hooks",
    "no_service",
    "no_service_id",
    "no_team",
    "posting_to_general_channel_denied",
    "team_disabled",
    "user_not_found",
];

/// Posts to one incoming webhook.
pub struct SlackProvider {
    exchange: Exchange,
    url: Url,
}

impl SlackProvider {
    /// A provider for the settings' URL; nothing is sent yet.
    ///
    /// # Errors
    /// A [`ProviderSetupError`] for a URL that is not http(s).
    pub fn new(settings: &ProviderSettings) -> Result<Self, ProviderSetupError> {
        let url = web_url(&settings.url).map_err(|problem| settings.at_fault("url", problem))?;
        Ok(Self { exchange: Exchange::new(settings)?, url })
    }

    fn refused(&self, answer: &Answer) -> SendError {
        if answer.status.is_redirection() {
            // Without the target's path the URL, which is a secret, is not in the reason.
            return SendError::Transient(answer.redirection(&self.url));
        }
        let reason = answer.reason();
        let word = excerpt(&String::from_utf8_lossy(&answer.body));
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS => answer.rate_limited(reason),
            _ if ABOUT_THE_WEBHOOK.contains(&word.as_str()) => SendError::Transient(reason),
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::GONE => SendError::Transient(reason),
            status if status.is_server_error() => SendError::Transient(reason),
            status if status.is_client_error() => SendError::Permanent(reason),
            _ => SendError::Unknown(reason),
        }
    }
}

#[async_trait]
impl Provider for SlackProvider {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let request = self
            .exchange
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(payload(message).to_string());
        let answer = self.exchange.send(request).await?;
        // Slack says `ok`; compatible servers say something of their own, or nothing. None gives an id.
        if answer.status.is_success() { Ok(Accepted::default()) } else { Err(self.refused(&answer)) }
    }
}

/// Blocks for Slack, and the same as one text for notifications on screens and for servers without blocks.
fn payload(message: &Message) -> Value {
    let sections = sections(&message.body);
    let body = sections.concat();
    let subject = message.subject.as_deref().map(one_line).filter(|subject| !subject.is_empty());
    let subject = subject.and_then(|subject| sections_of(&escape(&subject), HEADER_CHARS).into_iter().next());
    let header = subject
        .as_deref()
        .map(|subject| json!({"type": "header", "text": {"type": "plain_text", "text": subject, "emoji": false}}));
    // Verbatim: a customer's name must not turn into a mention of a channel.
    let sections = sections
        .iter()
        .filter(|text| !text.trim().is_empty())
        .map(|text| json!({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": true}}));
    let blocks: Vec<Value> = header.into_iter().chain(sections).collect();
    let text = match subject {
        Some(subject) => format!("{subject}\n{body}"),
        None => body,
    };
    if blocks.is_empty() { json!({"text": text}) } else { json!({"text": text, "blocks": blocks}) }
}

/// The text, escaped, in pieces that fit into sections; what does not fit into all of them is cut off.
fn sections(text: &str) -> Vec<String> {
    let mut sections = sections_of(&escape(text), SECTION_CHARS);
    if sections.len() > MOST_SECTIONS {
        sections.truncate(MOST_SECTIONS - 1);
        sections.push(format!("\n… (cut off: the text has {} characters)", text.chars().count()));
    }
    sections
}

/// Pieces of escaped text with at most so many characters each, none of which ends within an escape.
fn sections_of(escaped: &str, most: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let (mut piece, mut length) = (String::new(), 0);
    for unit in escaped.split_inclusive(';').flat_map(units) {
        let added = unit.chars().count();
        if length + added > most {
            pieces.push(std::mem::take(&mut piece));
            length = 0;
        }
        piece.push_str(unit);
        length += added;
    }
    pieces.push(piece);
    pieces
}

/// Characters one by one, but an escape at the end as a whole.
fn units(text: &str) -> impl Iterator<Item = &str> {
    let escape = ["&amp;", "&lt;", "&gt;"].into_iter().find(|escape| text.ends_with(escape));
    let (plain, escape) = text.split_at(text.len() - escape.map_or(0, str::len));
    let escape = Some(escape).filter(|escape| !escape.is_empty());
    plain.char_indices().map(move |(at, c)| &plain[at..at + c.len_utf8()]).chain(escape)
}

/// Slack's three control characters as it wants them (<https://docs.slack.dev/messaging/formatting-message-text>).
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn one_line(text: &str) -> String {
    text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}
