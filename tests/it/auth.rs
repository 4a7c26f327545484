//! Who may ask what of the API, and what each role sees. Needs no server.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::command::Invocation;
use crate::support::http_client::Answer;
use crate::support::service::Service;
use crate::support::wait::{self, secs};

const SECRET: &str = "a secret of more than thirty-two bytes";
const FINE: i32 = 0;
const USAGE: i32 = 2;

struct Test {
    folder: TempDir,
    service: Option<Service>,
}

impl Test {
    fn start() -> Self {
        let mut test = Self { folder: tempfile::tempdir().expect("a folder"), service: None };
        let mut service = Service::spawn(test.command(&["serve"]));
        service.wait_until_ready();
        test.service = Some(service);
        test
    }

    fn command(&self, args: &[&str]) -> Invocation {
        let command = Invocation::new(self.folder.path(), args).env("JWT_SECRET", SECRET);
        command.env("DATABASE_URL", "sqlite://notifications.db").env("KAFKA_BROKERS", "embedded")
    }

    #[track_caller]
    fn token(&self, role: &str) -> String {
        let made = self.command(&["token", "create", "--role", role]).run(secs(20)).expect_code(FINE);
        made.stdout.trim().to_owned()
    }

    #[track_caller]
    fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        let authorization = format!("Bearer {token}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.service.as_ref().expect("it runs").send(method, path, &[("Authorization", &authorization)], &body)
    }

    #[track_caller]
    fn expect(&self, status: u16, token: &str, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(token, method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }
}

#[test]
fn roles_decide_who_changes_what_and_who_sees_addresses() {
    let test = Test::start();
    let service = test.service.as_ref().expect("it runs");
    for path in ["/api/v1/notifications", "/api/v1/nothing"] {
        assert_eq!(service.get(path).status, 401, "{path}");
    }
    for path in ["/health", "/health/ready", "/metrics"] {
        assert_eq!(service.get(path).status, 200, "{path}");
    }
    let (viewer, operator) = (test.token("viewer"), test.token("operator"));
    test.expect(401, &format!("{operator}x"), "GET", "/api/v1/notifications", &Value::Null);
    let ada = json!({"email": "ada@example.com", "phone": "+15550100123",
                     "devices": [{"token": "token-1", "platform": "ios"}]});
    let path = "/api/v1/recipients/ada";
    test.expect(403, &viewer, "PUT", path, &ada);
    test.expect(403, &viewer, "POST", "/api/v1/nothing", &Value::Null);
    test.expect(404, &viewer, "GET", path, &Value::Null);
    test.expect(403, &viewer, "GET", "/api/v1/dead-letters/1/payload", &Value::Null);
    test.expect(404, &operator, "GET", "/api/v1/dead-letters/1/payload", &Value::Null);
    assert_eq!(service.get("/%61pi/v1/notifications").status, 401, "no spelling of the path evades it");
    test.expect(200, &operator, "PUT", path, &ada);
    let seen = |token: &str| {
        let found = test.expect(200, token, "GET", path, &Value::Null);
        ["/email", "/phone", "/devices/0/token"].map(|at| found.pointer(at).cloned().unwrap_or_default())
    };
    assert_eq!(seen(&operator), [json!("ada@example.com"), json!("+15550100123"), json!("token-1")]);
    assert_eq!(seen(&viewer), [json!("a***@example.com"), json!("+***23"), json!("t***")]);

    let request = json!({"channel": "email", "recipient": "bob@example.com", "template": "order_confirmation",
                         "data": {"orderId": "1", "amount": 5, "orderDate": "2026-01-15T10:30:00Z"}});
    let id = test.expect(202, &operator, "POST", "/api/v1/notifications", &request)["id"].clone();
    let path = format!("/api/v1/notifications/{}", id.as_str().expect("an id"));
    wait::until("it is sent", secs(20), || {
        let found = test.expect(200, &operator, "GET", &path, &Value::Null);
        (found["state"] == "sent").then_some(())
    });
    let recipient = |token: &str| test.expect(200, token, "GET", &path, &Value::Null)["recipient"].clone();
    assert_eq!((recipient(&operator), recipient(&viewer)), (json!("bob@example.com"), json!("b***@example.com")));
    let listed = test.expect(200, &viewer, "GET", "/api/v1/notifications", &Value::Null);
    assert!(!listed.to_string().contains("bob@"), "{listed}");
}

#[test]
fn whoever_does_not_see_addresses_pages_through_them_all_the_same() {
    let test = Test::start();
    let (viewer, operator) = (test.token("viewer"), test.token("admin"));
    let addresses = ["ada@a.example", "bob@b.example", "cyd@c.example"];
    for address in addresses {
        let body = json!({"channel": "email", "address": address, "reason": format!("{address} asked for it")});
        test.expect(201, &operator, "POST", "/api/v1/suppressions", &body);
    }
    let all = |token: &str| {
        let (mut found, mut cursor, mut cursors) = (Vec::new(), String::new(), Vec::new());
        loop {
            let page = test.expect(200, token, "GET", &format!("/api/v1/suppressions?limit=1{cursor}"), &Value::Null);
            found.extend(page["items"].as_array().expect("items").iter().map(|item| item["address"].clone()));
            let Some(next) = page["nextCursor"].as_str() else { return (found, cursors) };
            cursor = format!("&cursor={next}");
            cursors.push(next.to_owned());
            assert!(!page["items"].to_string().contains("ada@a.example") || token != viewer, "{page}");
        }
    };
    assert_eq!(all(&operator).0, addresses.map(Value::from));
    let (found, cursors) = all(&viewer);
    let guess = URL_SAFE_NO_PAD.encode(json!(["email", "ada"]).to_string());
    let path = format!("/api/v1/suppressions?limit=1&cursor={guess}");
    test.expect(400, &viewer, "GET", &path, &Value::Null);
    test.expect(200, &operator, "GET", &path, &Value::Null);
    let far = URL_SAFE_NO_PAD.encode(u64::MAX.to_string());
    test.expect(400, &viewer, "GET", &format!("/api/v1/suppressions?limit=1&cursor={far}"), &Value::Null);
    assert_eq!(found, ["a***@a.example", "b***@b.example", "c***@c.example"].map(Value::from));
    let words = cursors.iter().map(|cursor| URL_SAFE_NO_PAD.decode(cursor).expect("base64"));
    assert_eq!(words.collect::<Vec<_>>(), [b"1", b"2", b"3"], "a cursor holds no address");
}

#[test]
fn a_token_needs_a_secret_and_a_role() {
    let folder = tempfile::tempdir().expect("a folder");
    let create = |args: &[&str]| Invocation::new(folder.path(), &[&["token", "create"], args].concat());
    create(&["--role", "viewer"]).run(secs(20)).expect_code(USAGE).expect_words(&["JWT_SECRET"]);
    let secret = |invocation: Invocation| invocation.env("JWT_SECRET", SECRET).run(secs(20)).expect_code(USAGE);
    secret(create(&["--role", "root"])).expect_words(&["viewer, operator, admin"]);
    secret(create(&[])).expect_words(&["--role"]);
}

#[test]
fn mistakes_of_authentication_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |env: &[(&str, &str)]| {
        let check = Invocation::new(folder.path(), &["config", "check"]);
        env.iter().fold(check, |check, (name, value)| check.env(name, value)).run(secs(20)).expect_code(USAGE)
    };
    let file = ("NOTIFICATION__AUTH__JWT_PUBLIC_KEY_FILE", "/no/such.pem");
    check(&[file]).expect_words(&["auth.jwt_public_key_file", "/no/such.pem"]);
    check(&[file, ("JWT_SECRET", SECRET)]).expect_words(&["auth.jwt_public_key_file", "beside auth.jwt_secret"]);
    check(&[("NOTIFICATION__AUTH__ISSUER", "login")]).expect_words(&["auth.issuer", "has no effect without"]);
}
