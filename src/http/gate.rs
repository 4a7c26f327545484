//! What every request passes: a bound on its body and, for the API, who calls, how often, and what the caller may do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse, web};

use super::limits::{Client, Limits};
use super::problem::problem;
use crate::domain::role::Role;
use crate::ports::authority::{Authority, Identity, TokenError};

/// See the module.
pub struct Gate {
    /// How much a client may ask.
    pub limits: Limits,
    /// Tells callers apart. Without it the API answers clients on this machine, who may do everything.
    pub authority: Option<Arc<dyn Authority>>,
}

/// What the caller of an API request may do, among its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller(pub Role);

/// Why a request goes no further.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// Its body has more bytes than this.
    TooLong(u64),
    /// Its client may ask again after this time.
    TooMany(Duration),
    /// Nobody knows who calls. With how to do better (RFC 6750, 3).
    Unknown(&'static str, String),
    /// The caller may not do this.
    Forbidden(String),
}

/// Lets a request pass, or answers it.
pub async fn enforce(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(gate) = request.app_data::<web::Data<Gate>>().cloned() else {
        return Ok(request.into_response(problem(StatusCode::INTERNAL_SERVER_ERROR, "the gate is missing")));
    };
    match gate.check(request.request()) {
        Ok(()) => {
            let answered = next.call(request).await?;
            // One whose length was not announced is found too long by whoever reads it.
            let too_long = answered.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let refused = || Refused::TooLong(gate.limits.max_body_bytes).answer();
            Ok(if too_long { answered.into_response(refused()) } else { answered })
        }
        Err(refused) => Ok(request.into_response(refused.answer())),
    }
}

impl Gate {
    fn check(&self, request: &HttpRequest) -> Result<(), Refused> {
        let length = header(request, CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.limits.max_body_bytes) {
            return Err(Refused::TooLong(self.limits.max_body_bytes));
        }
        if !is_api(request.match_info().as_str()) {
            return Ok(());
        }
        let caller = self.caller(request);
        // Whoever is refused is counted by address: guesses are limited as well.
        let known = caller.as_ref().ok().and_then(Option::as_ref).map(|identity| identity.subject.as_str());
        let client = match known.filter(|subject| !subject.is_empty()) {
            Some(subject) => Some(Client::Subject(subject.to_owned())),
            None => request.peer_addr().map(|peer| Client::at(peer.ip())),
        };
        if let Some(wait) = client.and_then(|client| self.limits.wait(client)) {
            return Err(Refused::TooMany(wait));
        }
        let role = caller?.map_or(Role::Admin, |identity| identity.role);
        // By the method, so that what is added later needs no rule of its own.
        if !is_reading(request.method()) && role < Role::Operator {
            return Err(Refused::Forbidden("the role viewer only reads".to_owned()));
        }
        request.extensions_mut().insert(Caller(role));
        Ok(())
    }

    /// Who calls; nobody in particular where nobody is asked.
    fn caller(&self, request: &HttpRequest) -> Result<Option<Identity>, Refused> {
        let Some(authority) = &self.authority else {
            refuse_strangers(request)?;
            return Ok(None);
        };
        let token = header(request, AUTHORIZATION).and_then(bearer);
        let token = token.ok_or_else(|| Refused::Unknown("Bearer", "a bearer token is needed".to_owned()))?;
        authority.identify(token).map(Some).map_err(|error| match error {
            TokenError::Invalid(_) => Refused::Unknown("Bearer error=\"invalid_token\"", error.to_string()),
            TokenError::NoRole(_) => Refused::Forbidden(error.to_string()),
        })
    }
}

impl Refused {
    fn answer(self) -> HttpResponse {
        match self {
            Self::TooLong(most) => {
                problem(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body must not be longer than {most} bytes"))
            }
            Self::TooMany(wait) => {
                let mut answer = problem(StatusCode::TOO_MANY_REQUESTS, "too many requests from this client");
                let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
                answer.headers_mut().insert(RETRY_AFTER, seconds.into());
                answer
            }
            Self::Unknown(challenge, detail) => {
                let mut answer = problem(StatusCode::UNAUTHORIZED, &detail);
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
                answer
            }
            Self::Forbidden(detail) => problem(StatusCode::FORBIDDEN, &detail),
        }
    }
}

/// By the path as the router matches it: decoded, so that no spelling of it evades the gate.
fn is_api(path: &str) -> bool {
    path.starts_with("/api")
}

fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn header(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// The token in an Authorization header; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Where nobody is asked who they are, only this machine is answered, and no page of another site that is open in a
/// browser on it.
fn refuse_strangers(request: &HttpRequest) -> Result<(), Refused> {
    if !request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        let detail = "authentication is not configured, so the API answers loopback clients only";
        return Err(Refused::Forbidden(detail.to_owned()));
    }
    // A page of another site may have made its own name an address of this machine.
    let host = header(request, HOST).unwrap_or_default();
    if !is_this_machine(host) {
        let detail = "without authentication the API is asked by address or as localhost";
        return Err(Refused::Forbidden(detail.to_owned()));
    }
    let Some(origin) = header(request, ORIGIN).filter(|_| !is_reading(request.method())) else { return Ok(()) };
    let same = origin.split_once("://").is_some_and(|(_, site)| site == host);
    let detail = "requests from pages of other sites are refused";
    if same { Ok(()) } else { Err(Refused::Forbidden(detail.to_owned())) }
}

/// True for a Host header with an IP address or localhost, and for none.
fn is_this_machine(host: &str) -> bool {
    let named = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = named.map_or(host, |(name, _)| name);
    let address = name.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(name);
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    /// Tokens are `SUBJECT:ROLE`.
    struct Words;

    impl Authority for Words {
        fn identify(&self, token: &str) -> Result<Identity, TokenError> {
            let (subject, role) = token.split_once(':').ok_or_else(|| TokenError::Invalid("no".into()))?;
            let role = role.parse().map_err(|_| TokenError::NoRole("none".into()))?;
            Ok(Identity { subject: subject.to_owned(), role })
        }
    }

    fn gate(authority: Option<Arc<dyn Authority>>) -> Gate {
        Gate { limits: Limits::new(100, 1, 3), authority }
    }

    fn asked(method: Method, path: &str, headers: &[(&'static str, &str)], from: &str) -> HttpRequest {
        let address = from.parse().expect("an address");
        let request = TestRequest::default().method(method).uri(path).peer_addr(address);
        headers.iter().fold(request, |request, header| request.insert_header(*header)).to_http_request()
    }

    const HERE: &str = "127.0.0.1:5000";
    const ELSEWHERE: &str = "192.0.2.1:5000";

    #[test]
    fn without_authentication_this_machine_may_do_everything_and_others_nothing() {
        let gate = gate(None);
        let local = asked(Method::DELETE, "/api/v1/x", &[], HERE);
        assert_eq!(gate.check(&local), Ok(()));
        assert_eq!(local.extensions().get(), Some(&Caller(Role::Admin)));
        assert_eq!(gate.check(&asked(Method::GET, "/api/v1/x", &[], "[::ffff:127.0.0.1]:1")), Ok(()));
        let stranger = gate.check(&asked(Method::GET, "/api/v1/x", &[], ELSEWHERE));
        assert!(matches!(stranger, Err(Refused::Forbidden(_))), "{stranger:?}");
        assert_eq!(gate.check(&asked(Method::GET, "/health", &[], ELSEWHERE)), Ok(()));
        let page = [("origin", "https://evil.example"), ("host", "localhost:8088")];
        let change = gate.check(&asked(Method::POST, "/api/v1/x", &page, HERE));
        assert!(matches!(change, Err(Refused::Forbidden(_))), "{change:?}");
        let rebound = gate.check(&asked(Method::GET, "/api/v1/x", &[("host", "evil.example:8088")], HERE));
        assert!(matches!(rebound, Err(Refused::Forbidden(_) | Refused::TooMany(_))), "{rebound:?}");
    }

    #[test]
    fn this_machine_has_no_other_names() {
        for host in ["", "localhost", "LOCALHOST:8088", "127.0.0.1:1", "[::1]:8088", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8088", "localhost.evil.example", "127.0.0.1.evil.example:1"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn with_authentication_the_token_decides_wherever_it_comes_from() {
        let answer = |method, token: Option<&str>| {
            let value = token.map(|token| format!("bearer {token}"));
            let headers: Vec<_> = value.iter().map(|value| ("authorization", value.as_str())).collect();
            let request = asked(method, "/api/v1/x", &headers, ELSEWHERE);
            let checked = gate(Some(Arc::new(Words))).check(&request);
            checked.map(|()| request.extensions().get::<Caller>().copied())
        };
        assert_eq!(answer(Method::GET, Some("ada:viewer")), Ok(Some(Caller(Role::Viewer))));
        assert_eq!(answer(Method::POST, Some("ada:operator")), Ok(Some(Caller(Role::Operator))));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(matches!(answer(method, Some("ada:viewer")), Err(Refused::Forbidden(_))));
        }
        assert!(matches!(answer(Method::GET, Some("ada:root")), Err(Refused::Forbidden(_))));
        for unknown in [None, Some("nonsense"), Some("")] {
            assert!(matches!(answer(Method::GET, unknown), Err(Refused::Unknown(..))), "{unknown:?}");
        }
        let local = gate(Some(Arc::new(Words))).check(&asked(Method::GET, "/api/v1/x", &[], HERE));
        assert!(matches!(local, Err(Refused::Unknown(..))), "this machine is asked as well: {local:?}");
    }

    #[test]
    fn rates_are_kept_by_subject_and_guesses_by_address() {
        let gate = gate(Some(Arc::new(Words)));
        let ask = |token: &str| {
            let value = format!("Bearer {token}");
            gate.check(&asked(Method::GET, "/api/v1/x", &[("authorization", value.as_str())], ELSEWHERE))
        };
        let guesses: Vec<_> = (0..10).map(|_| ask("guess")).collect();
        assert!(matches!(guesses[0], Err(Refused::Unknown(..))) && matches!(guesses[9], Err(Refused::TooMany(_))));
        assert_eq!(ask("ada:viewer"), Ok(()), "who is known is not counted with them");
        let asked: Vec<_> = (0..10).map(|_| ask("ada:viewer")).collect();
        assert!(matches!(asked[9], Err(Refused::TooMany(_))));
        assert_eq!(ask("bob:viewer"), Ok(()));
    }
}
