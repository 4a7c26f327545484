//! An independent judge: reads the input alone and says what must come of it, by the contract's tables.

use std::collections::BTreeMap;

use super::json_object::{Object, canonical};
use super::kafka::USERS;
use super::producer::Sent;

/// What a request says, in a form that compares: numbers by their text, strings by their characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    pub causation_id: String,
    pub correlation_id: String,
    pub aggregate_id: String,
    pub channel: String,
    pub template: String,
    pub recipient: Option<String>,
    pub data: BTreeMap<String, String>,
}

/// What else is known about an expected request.
#[derive(Debug, Default)]
pub struct Expectation {
    /// How often its event was sent.
    pub times: usize,
    /// The address it goes to.
    pub to: Option<String>,
    /// The `traceparent` that it continues.
    pub trace: Option<String>,
}

/// A record that must become a dead letter.
#[derive(Debug)]
pub struct Refused<'a> {
    pub sent: &'a Sent,
    pub stage: &'static str,
    /// Fields that are wrong: the reason names one of them.
    pub names: Vec<String>,
}

/// The verdict over a whole input.
pub struct Oracle<'a> {
    pub requests: BTreeMap<Content, Expectation>,
    pub refused: Vec<Refused<'a>>,
    pub skipped: usize,
}

/// What must come of one record.
pub enum Verdict {
    Request(Box<Content>),
    Skip,
    /// A dead letter, whose reason names one of these fields.
    Refuse(Vec<String>),
}

/// A field of a template's data and where it comes from.
enum Field {
    Text(&'static str),
    Number(&'static str),
    MaybeText(&'static str),
    MaybeNumber(&'static str),
    /// The event's timestamp.
    When(&'static str),
}
use Field::{MaybeNumber, MaybeText, Number, Text, When};

struct Rule {
    event: &'static str,
    channel: &'static str,
    template: &'static str,
    /// Around the value of `about`.
    aggregate: (&'static str, &'static str),
    about: &'static str,
    recipient: Option<&'static str>,
    fields: &'static [Field],
}

const PAID: &[Field] = &[Text("orderId"), MaybeText("paymentMethod"), When("paidAt")];

const RULES: [Rule; 8] = [
    order(
        "OrderCreated",
        "email",
        "order_confirmation",
        "",
        &[Text("orderId"), Number("amount"), MaybeText("currency"), When("orderDate")],
    ),
    order("OrderPaid", "sms", "payment_confirmation", "-payment", PAID),
    order("PaymentCompleted", "sms", "payment_confirmation", "-payment", PAID),
    order(
        "OrderShipped",
        "email",
        "order_shipped",
        "-shipping",
        &[Text("orderId"), MaybeText("trackingNumber"), MaybeText("carrier"), MaybeText("estimatedDelivery")],
    ),
    order(
        "OrderCancelled",
        "email",
        "order_cancelled",
        "-cancelled",
        &[Text("orderId"), MaybeText("reason"), MaybeNumber("refundAmount")],
    ),
    order("PaymentFailed", "email", "payment_failed", "-payment-failed", &[Text("orderId"), MaybeText("reason")]),
    Rule {
        event: "UserRegistered",
        channel: "email",
        template: "welcome",
        aggregate: ("notification-user-", ""),
        about: "userId",
        recipient: Some("userId"),
        fields: &[Text("firstName"), Text("email"), When("registeredAt")],
    },
    Rule {
        event: "ProductOutOfStock",
        channel: "admin_alert",
        template: "product_out_of_stock",
        aggregate: ("notification-product-", ""),
        about: "productId",
        recipient: None,
        fields: &[Text("productId"), Text("productName"), When("outOfStockAt")],
    },
];

const fn order(
    event: &'static str,
    channel: &'static str,
    template: &'static str,
    suffix: &'static str,
    fields: &'static [Field],
) -> Rule {
    let aggregate = ("notification-", suffix);
    Rule { event, channel, template, aggregate, about: "orderId", recipient: Some("customerId"), fields }
}

impl<'a> Oracle<'a> {
    pub fn of(input: &'a [Sent]) -> Self {
        let contacts = contacts(input);
        let mut oracle = Self { requests: BTreeMap::new(), refused: Vec::new(), skipped: 0 };
        for sent in input {
            match judge(sent.input.value.as_deref()) {
                Verdict::Skip => oracle.skipped += 1,
                Verdict::Refuse(names) => oracle.refused.push(Refused { sent, stage: "routing", names }),
                Verdict::Request(content) => {
                    let known = content.recipient.as_ref().and_then(|recipient| contacts.get(recipient));
                    let to = known.and_then(|known| known.get(content.channel.as_str()).cloned());
                    let expected = oracle.requests.entry(*content).or_default();
                    expected.times += 1;
                    expected.to = to;
                    expected.trace = incoming_trace(sent);
                }
            }
        }
        oracle
    }
}

/// Addresses by user and channel.
fn contacts(input: &[Sent]) -> BTreeMap<String, BTreeMap<&'static str, String>> {
    let mut contacts: BTreeMap<String, BTreeMap<&'static str, String>> = BTreeMap::new();
    for sent in input.iter().filter(|sent| sent.input.topic == USERS) {
        let Some(envelope) = sent.input.value.as_deref().and_then(Object::parse) else { continue };
        let Some(data) = envelope.raw("data").map(str::as_bytes).and_then(Object::parse) else { continue };
        let Some(user) = data.text("userId") else { continue };
        let known = contacts.entry(user).or_default();
        known.extend(data.text("email").map(|email| ("email", email)));
        known.extend(data.text("phone").map(|phone| ("sms", phone)));
    }
    contacts
}

/// The trace in the input's header, if it is one.
fn incoming_trace(sent: &Sent) -> Option<String> {
    let header = sent.input.headers.iter().rfind(|(name, _)| name == "traceparent")?;
    let trace = String::from_utf8(header.1.clone()?).ok()?;
    let parts: Vec<&str> = trace.split('-').collect();
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let valid = parts.len() == 4
        && [2, 32, 16, 2].iter().zip(&parts).all(|(length, part)| hex(part, *length))
        && parts[0] == "00"
        && [1, 2].iter().all(|at| parts[*at].bytes().any(|digit| digit != b'0'));
    valid.then_some(trace)
}

/// The verdict over the value of a record.
pub fn judge(value: Option<&[u8]>) -> Verdict {
    let Some(envelope) = value.and_then(Object::parse) else { return Verdict::Refuse(Vec::new()) };
    let wrong = envelope_mistakes(&envelope);
    if !wrong.is_empty() {
        return Verdict::Refuse(wrong);
    }
    let event_type = envelope.text("eventType").unwrap_or_default();
    let Some(rule) = RULES.iter().find(|rule| rule.event == event_type) else { return Verdict::Skip };
    if envelope.raw("version") != Some("1") {
        return Verdict::Refuse(vec!["version".to_owned()]);
    }
    let Some(data) = envelope.raw("data").map(str::as_bytes).and_then(Object::parse) else {
        return Verdict::Refuse(vec!["data".to_owned()]);
    };
    apply(rule, &envelope, &data)
}

fn apply(rule: &Rule, envelope: &Object, data: &Object) -> Verdict {
    let mut wrong = Vec::new();
    let mut required = |name: &str| {
        data.text(name).unwrap_or_else(|| {
            wrong.push(name.to_owned());
            String::new()
        })
    };
    let about = required(rule.about);
    let recipient = rule.recipient.map(&mut required);
    let mut picked = BTreeMap::new();
    for field in rule.fields {
        let (name, raw) = match field {
            When(name) => (name, envelope.raw("timestamp")),
            Text(name) | Number(name) | MaybeText(name) | MaybeNumber(name) => (name, data.raw(name)),
        };
        let optional = matches!(field, MaybeText(_) | MaybeNumber(_));
        let is_number = matches!(field, Number(_) | MaybeNumber(_));
        match raw {
            None | Some("null") if optional => {}
            Some(raw) if is_number && raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                picked.insert((*name).to_owned(), raw.to_owned());
            }
            Some(raw) if !is_number && raw.starts_with('"') => {
                picked.insert((*name).to_owned(), canonical(raw));
            }
            _ => wrong.push((*name).to_owned()),
        }
    }
    if !wrong.is_empty() {
        return Verdict::Refuse(wrong);
    }
    let id = envelope.text("eventId").unwrap_or_default();
    let metadata = envelope.raw("metadata").map(str::as_bytes).and_then(Object::parse);
    Verdict::Request(Box::new(Content {
        correlation_id: metadata.and_then(|m| m.text("correlationId")).unwrap_or_else(|| id.clone()),
        causation_id: id,
        aggregate_id: format!("{}{about}{}", rule.aggregate.0, rule.aggregate.1),
        channel: rule.channel.to_owned(),
        template: rule.template.to_owned(),
        recipient,
        data: picked,
    }))
}

fn envelope_mistakes(envelope: &Object) -> Vec<String> {
    let texts = ["eventId", "eventType", "aggregateId"];
    let mut wrong: Vec<&str> =
        texts.into_iter().filter(|name| envelope.text(name).is_none_or(|text| text.is_empty())).collect();
    if envelope.raw("version").is_none_or(|raw| raw.parse::<i64>().is_err()) {
        wrong.push("version");
    }
    if !envelope.text("timestamp").is_some_and(|text| is_rfc3339(&text)) {
        wrong.push("timestamp");
    }
    if envelope.raw("data").is_none() {
        wrong.push("data");
    }
    if envelope.raw("metadata").is_some_and(|raw| raw != "null" && !raw.starts_with('{')) {
        wrong.push("metadata");
    }
    wrong.extend(["eventId", "eventType", "version", "data"].into_iter().filter(|name| envelope.count(name) > 1));
    wrong.into_iter().map(str::to_owned).collect()
}

/// The shape alone: the tests' wrong timestamps are wrong by far.
fn is_rfc3339(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c.to_ascii_uppercase() }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let zone = rest.strip_prefix('.').map_or(rest, |fraction| fraction.trim_start_matches('0'));
    matches!(zone, "Z" | "+00:00" | "-00:00")
}
