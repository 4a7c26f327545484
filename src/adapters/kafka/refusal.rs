//! Tells a broker that refuses this client from one that is away. Trying again helps only against the latter.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// TLS alerts (RFC 8446 § 6.2) by which a broker refuses a client's certificate, or its lack of one: bad, unsupported,
/// revoked, expired and unknown certificate, unknown CA, access denied, certificate required.
const CERTIFICATE_ALERTS: [u8; 8] = [42, 43, 44, 45, 46, 48, 49, 116];
/// No common ground: handshake failure, protocol version.
const HANDSHAKE_ALERTS: [u8; 2] = [40, 70];

/// What was refused, and the setting to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    what: &'static str,
    settings: &'static str,
    reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, settings, reason } = self;
        write!(f, "{what}; look at {settings} ({reason})")
    }
}

impl Refusal {
    /// Reads librdkafka's error. `None` for all that may pass, such as a connection that ends in the middle of a
    /// handshake: a broker that restarts does that.
    pub fn of(error: &KafkaError, reason: &str) -> Option<Self> {
        let is_authentication = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication);
        let (what, settings) =
            if is_authentication { of_sasl(reason) } else { of_trust(reason).or_else(|| of_alert(reason))? };
        Some(Self { what, settings, reason: without_repetitions(reason).to_owned() })
    }
}

type Told = (&'static str, &'static str);

fn of_sasl(reason: &str) -> Told {
    if reason.contains("not valid in current SASL state") {
        return ("the broker asks for no SASL login on this port", "kafka.properties.\"security.protocol\"");
    }
    if reason.contains("handshake failed") {
        return ("the SASL mechanism is refused", "kafka.properties.\"sasl.mechanisms\"");
    }
    let settings = "kafka.properties.\"sasl.username\", kafka.properties.\"sasl.password\"";
    ("the user or the password is refused", settings)
}

fn of_trust(reason: &str) -> Option<Told> {
    let settings = "kafka.properties.\"ssl.ca.location\", and whether the certificate is for the host in KAFKA_BROKERS";
    reason.contains("certificate verify failed").then_some(("the broker's certificate is not trusted", settings))
}

fn of_alert(reason: &str) -> Option<Told> {
    let (_, number) = reason.split_once("SSL alert number ")?;
    let number = number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    if CERTIFICATE_ALERTS.contains(&number) {
        let settings = "kafka.properties.\"ssl.certificate.location\", kafka.properties.\"ssl.key.location\"";
        return Some(("the client's certificate is refused, or missing", settings));
    }
    let settings = "kafka.properties whose names begin with \"ssl.\"";
    HANDSHAKE_ALERTS.contains(&number).then_some(("the TLS handshake is refused", settings))
}

/// librdkafka ends its words with how often it said them: `(after 3ms in state AUTH_REQ, 1 identical error(s) …)`.
fn without_repetitions(reason: &str) -> &str {
    reason.rsplit_once(" (after ").map_or(reason, |(words, _)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: RDKafkaErrorCode, reason: &str) -> Option<String> {
        Refusal::of(&KafkaError::Global(code), reason).map(|refusal| refusal.to_string())
    }

    #[track_caller]
    fn names(code: RDKafkaErrorCode, reason: &str, words: &[&str]) {
        let told = refusal(code, reason).unwrap_or_else(|| panic!("no refusal: {reason}"));
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
        assert!(!told.contains('\n') && !told.contains("identical error"), "{told}");
    }

    #[test]
    fn refusals_name_the_setting() {
        use RDKafkaErrorCode::{Authentication, BrokerTransportFailure, SSL};
        let password = "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed: Invalid username or \
                        password (after 286ms in state AUTH_REQ, 1 identical error(s) suppressed)";
        names(Authentication, password, &["\"sasl.password\"", "Invalid username or password"]);
        let mechanism = "sasl_ssl://b:1/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL \
                         mechanism: broker's supported mechanisms: SCRAM-SHA-512 (after 23ms in state AUTH_HANDSHAKE)";
        names(Authentication, mechanism, &["\"sasl.mechanisms\"", "SCRAM-SHA-512"]);
        let no_sasl = "sasl_plaintext://b:1/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Request not valid \
                       in current SASL state: broker's supported mechanisms:  (after 23ms in state AUTH_HANDSHAKE)";
        names(Authentication, no_sasl, &["\"security.protocol\""]);
        let ca = "ssl://b:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: \
                  broker certificate could not be verified (after 4ms in state SSL_HANDSHAKE)";
        names(SSL, ca, &["\"ssl.ca.location\"", "KAFKA_BROKERS"]);
        let early =
            "ssl://b:1/bootstrap: error:0A000086:SSL routines::certificate verify failed (after 3ms in state X)";
        names(BrokerTransportFailure, early, &["\"ssl.ca.location\""]);
        let alert = "ssl://b:1/bootstrap: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: \
                     SSL alert number 42 (after 0ms in state APIVERSION_QUERY)";
        names(BrokerTransportFailure, alert, &["\"ssl.certificate.location\"", "\"ssl.key.location\""]);
        names(SSL, "ssl://b:1: handshake failure: SSL alert number 40 (after 1ms in state X)", &["\"ssl.\""]);
    }

    #[test]
    fn what_may_pass_is_no_refusal() {
        use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, SSL};
        let passing = [
            (AllBrokersDown, "1/1 brokers are down"),
            (BrokerTransportFailure, "b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused"),
            (SSL, "ssl://b:1/bootstrap: SSL handshake failed: error:00000000:lib(0)::reason(0)"),
            (
                SSL,
                "ssl://b:1/bootstrap: SSL transport error: Connection reset by peer (after 1ms in state SSL_HANDSHAKE)",
            ),
            (BrokerTransportFailure, "ssl://b:1/1: Receive failed: ssl/tls alert internal error: SSL alert number 80"),
            (
                BrokerTransportFailure,
                "ssl://b:1/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to \
                 a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
            ),
        ];
        for (code, reason) in passing {
            assert_eq!(refusal(code, reason), None, "{reason}");
        }
    }
}
