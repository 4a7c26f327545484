//! Who is written to is nobody's business who reads logs. Needs no server.

use serde_json::json;

use crate::support::alone::Alone;
use crate::support::provider::{Answer, FakeProvider};
use crate::support::wait::{self, secs};

const MAIL: &str = "ada.lovelace@example.com";
const PHONE: &str = "+15550109876";
/// What may stand in no line.
const CLEAR: [&str; 2] = ["ada.lovelace", "15550109876"];
/// What stands there instead.
const MASKED: [&str; 2] = ["a***@example.com", "+***76"];

/// Providers quote addresses in their answers.
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 54\r\nConnection: close\r\n\r\n\
    nothing for <ada.lovelace@example.com> or +15550109876";
const REFUSED: &str = "HTTP/1.1 400 Refused\r\nContent-Length: 54\r\nConnection: close\r\n\r\n\
    nothing for <ada.lovelace@example.com> or +15550109876";

#[test]
fn no_line_of_the_log_has_an_address_in_clear() {
    let provider = FakeProvider::answering(|arrival| {
        let document = arrival.document();
        let data = document.data.get();
        if data.contains("refused") {
            Answer::Broken { bytes: REFUSED, taken: false }
        } else if data.contains("busy") && arrival.nth == 1 {
            Answer::Broken { bytes: BUSY, taken: false }
        } else {
            Answer::Accept
        }
    });
    let settings = format!("[delivery.retry]\nschedule_ms = [300]\n{}", provider.for_all_channels(secs(5)));
    let everything = [("NOTIFICATION__LOGGING__FILTER", "info,notification_service=debug")];
    let alone = Alone::with(&settings, &everything);
    let service = &alone.service;
    let submit = |channel: &str, recipient: &str, order: &str| {
        let data = json!({"orderId": order});
        service.submit(&json!({"channel": channel, "recipient": recipient, "template": "order_shipped", "data": data}))
    };
    for (channel, address) in [("email", MAIL), ("sms", PHONE)] {
        for (order, state) in [("fine", "sent"), ("busy", "sent"), ("refused", "failed")] {
            let id = submit(channel, address, order);
            let shown = service.wait_for_state(&id, state, secs(20));
            assert_eq!(shown["recipient"], address, "who may know it is told: {shown}");
        }
    }
    // No number: it waits for one.
    let waits = submit("sms", MAIL, "waits");
    service.wait_for_state(&waits, "awaiting_contact", secs(20));
    wait::until("both dead letters are told of", secs(20), || {
        (service.log().matches("dead letter written").count() == 2).then_some(())
    });

    let log = service.log();
    for line in [
        "notification accepted",
        "delivery will be retried",
        "notification failed",
        "dead letter written",
        "notification waits for a contact",
    ] {
        assert!(log.contains(line), "no line says `{line}`");
    }
    for masked in MASKED {
        assert!(log.contains(masked), "no line says `{masked}`");
    }
    let leaks: Vec<&str> = log.lines().filter(|line| CLEAR.iter().any(|clear| line.contains(*clear))).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
