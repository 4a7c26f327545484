//! A day in the shop: events of all types in many spellings, and on request with the accidents that happen.

use super::broken;
use super::events::{Event, Input, email_of, object, order_created, phone_of, quoted, user_registered};
use super::random::Random;

/// Types with their share of a hundred events.
const SHARES: [(&str, usize); 13] = [
    ("OrderCreated", 26),
    ("OrderPaid", 12),
    ("PaymentCompleted", 8),
    ("OrderShipped", 12),
    ("OrderCancelled", 6),
    ("PaymentFailed", 5),
    ("UserRegistered", 4),
    ("UserUpdated", 5),
    ("UserLogin", 7),
    ("ProductOutOfStock", 4),
    ("ProductUpdated", 4),
    ("PriceChanged", 4),
    ("CartAbandoned", 3),
];
const AMOUNTS: [&str; 12] = [
    "99.10",
    "1e3",
    "1E+2",
    "0.10",
    "100",
    "0",
    "-12.50",
    "12345678901234567890",
    "98765432109876543210.50",
    "0.1000000000000000055511151231257827",
    "5e-7",
    "123.4500",
];
const WORDS: [&str; 8] = [
    "Ordered by mistake",
    "Enamel Kettle \"Fjord\", 1.5 l",
    "Müller & Söhne <b>",
    "ليلى",
    "a\\b/c",
    "two\nlines\tand a tab",
    "🚚 on its way",
    "credit_card",
];
/// A trace that the service shall continue, and texts that are none.
const TRACES: [&str; 4] = [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
    "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    "not a trace",
];

/// So many events, of which one in a hundred cannot be understood and one in a hundred is sent twice.
pub fn mixed(seed: u64, count: usize) -> Vec<Input> {
    let mut mix = Mix::new(seed, count);
    let mut inputs = mix.registrations();
    while inputs.len() < count {
        let input = if mix.random.one_in(100) { mix.accident() } else { mix.event().input() };
        if mix.random.one_in(100) && inputs.len() + 1 < count {
            inputs.push(input.clone());
        }
        inputs.push(input);
    }
    inputs
}

/// So many events without accidents.
pub fn clean(seed: u64, count: usize) -> Vec<Input> {
    let mut mix = Mix::new(seed, count);
    let mut inputs = mix.registrations();
    inputs.extend((inputs.len()..count).map(|_| mix.event().input()));
    inputs
}

/// Events without end, each with an id of its own, about so many keys; one in a hundred cannot be understood.
pub fn endless(seed: u64, keys: usize) -> impl Iterator<Item = Input> {
    let mut mix = Mix::new(seed, keys);
    std::iter::repeat_with(move || if mix.random.one_in(100) { mix.accident() } else { mix.event().input() })
}

struct Mix {
    random: Random,
    seed: u64,
    customers: Vec<String>,
    orders: usize,
    events: usize,
}

impl Mix {
    fn new(seed: u64, count: usize) -> Self {
        let customers = (0..(count / 40).max(5)).map(|n| format!("customer-{n}")).collect();
        Self { random: Random::new(seed), seed, customers, orders: count / 3 + 1, events: 0 }
    }

    /// Every customer with e-mail address and telephone.
    fn registrations(&mut self) -> Vec<Input> {
        let customers = self.customers.clone();
        customers.iter().map(|customer| user_registered(&self.next_id(), customer).input()).collect()
    }

    fn event(&mut self) -> Event {
        let mut share = self.random.below(100);
        let chosen = SHARES.iter().find(|(_, of_hundred)| {
            let chosen = share < *of_hundred;
            share = share.saturating_sub(*of_hundred);
            chosen
        });
        let event_type = chosen.map_or("OrderCreated", |(event_type, _)| event_type);
        let id = self.next_id();
        let about = match event_type {
            "UserRegistered" => format!("user-{id}"),
            "UserUpdated" | "UserLogin" | "CartAbandoned" => self.customer(),
            "ProductOutOfStock" | "ProductUpdated" | "PriceChanged" => format!("product-{}", self.random.below(50)),
            _ => format!("order-{}", self.random.below(self.orders)),
        };
        let data = self.data(event_type, &about);
        let mut event = Event::new(event_type, &id, &about, data);
        event.timestamp = quoted(&self.timestamp());
        event.metadata = self.metadata(&id);
        if self.random.one_in(4) {
            let trace = self.random.pick(&TRACES);
            event.headers.push(("traceparent".to_owned(), Some(trace.as_bytes().to_vec())));
        }
        event
    }

    fn data(&mut self, event_type: &str, about: &str) -> String {
        let mut fields = match event_type {
            "OrderCreated" => {
                let mut fields = vec![("amount", self.amount())];
                self.maybe("currency", &mut fields);
                fields
            }
            "OrderPaid" | "PaymentCompleted" => {
                let mut fields = vec![("amount", self.amount())];
                self.maybe("paymentMethod", &mut fields);
                fields
            }
            "OrderShipped" => {
                let mut fields = Vec::new();
                for name in ["trackingNumber", "carrier", "estimatedDelivery"] {
                    self.maybe(name, &mut fields);
                }
                fields
            }
            "OrderCancelled" => {
                let refund = if self.random.one_in(3) { "null".to_owned() } else { self.amount() };
                let mut fields = vec![("refundAmount", refund)];
                self.maybe("reason", &mut fields);
                fields
            }
            "PaymentFailed" => {
                let mut fields = Vec::new();
                self.maybe("reason", &mut fields);
                fields
            }
            "UserRegistered" => {
                let (email, phone) = (quoted(&email_of(about)), quoted(&phone_of(about)));
                vec![("firstName", self.text()), ("email", email), ("phone", phone)]
            }
            "UserUpdated" => vec![("locale", quoted("sv-SE"))],
            "ProductOutOfStock" => vec![("productName", self.text())],
            _ => vec![("anything", self.text())],
        };
        match super::events::topic_of(event_type) {
            super::kafka::USERS => fields.push(("userId", quoted(about))),
            super::kafka::PRODUCTS => fields.push(("productId", quoted(about))),
            _ => fields.extend([("orderId", quoted(about)), ("customerId", quoted(&self.customer()))]),
        }
        fields.push(("unknownToTheService", "[{\"unitPrice\":14.60}]".to_owned()));
        object(&fields)
    }

    /// Something on one of the topics that is no event.
    fn accident(&mut self) -> Input {
        let customer = self.customer();
        let order = format!("order-{}", self.random.below(self.orders));
        let id = self.next_id();
        let good = order_created(&id, &order, &customer, "99.10");
        let data = |from: &str, to: &str| {
            let changed = good.data.replacen(from, to, 1);
            Some(Event { data: changed, ..good.clone() }.json().into_bytes())
        };
        let mut spoilt = broken::variants(&good);
        spoilt.extend([
            ("an amount in quotes", data("99.10", "\"99.10\"")),
            ("a null amount", data("99.10", "null")),
            ("no amount", data("\"amount\"", "\"sum\"")),
            ("no customer", data("\"customerId\"", "\"client\"")),
            ("a currency that is a number", data("99.10", "99.10,\"currency\":978")),
        ]);
        let (name, value) = spoilt.swap_remove(self.random.below(spoilt.len()));
        good.input().with_value(value).with_header("accident", Some(name.as_bytes()))
    }

    fn next_id(&mut self) -> String {
        self.events += 1;
        format!("event-{}-{}", self.seed, self.events)
    }

    fn customer(&mut self) -> String {
        self.customers[self.random.below(self.customers.len())].clone()
    }

    fn amount(&mut self) -> String {
        self.random.pick(&AMOUNTS).to_owned()
    }

    /// An optional text: there, null or absent.
    fn maybe(&mut self, name: &'static str, fields: &mut Vec<(&'static str, String)>) {
        match self.random.below(4) {
            0 => {}
            1 => fields.push((name, "null".to_owned())),
            _ => fields.push((name, self.text())),
        }
    }

    /// A JSON string, with its characters as they are or escaped as far as JSON allows.
    fn text(&mut self) -> String {
        let words = self.random.pick(&WORDS);
        if !self.random.one_in(3) {
            return quoted(words);
        }
        let escaped: String = words.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        format!("\"{escaped}\"")
    }

    fn timestamp(&mut self) -> String {
        let (day, minute) = (1 + self.random.below(28), self.random.below(60));
        let zone = self.random.pick(&["Z", "z", "+00:00", "+02:00", "-05:30"]);
        let fraction = self.random.pick(&["", ".5", ".218", ".123456789"]);
        let t = if self.random.one_in(10) { "t" } else { "T" };
        format!("2026-01-{day:02}{t}12:{minute:02}:09{fraction}{zone}")
    }

    fn metadata(&mut self, id: &str) -> Option<String> {
        match self.random.below(5) {
            0 => None,
            1 => Some("null".to_owned()),
            2 => Some(r#"{"source":"the-tests","correlationId":null}"#.to_owned()),
            _ => Some(format!(r#"{{"source":"the-tests","correlationId":"request-of-{id}"}}"#)),
        }
    }
}
