//! A mail server: what its URL says, how a connection to it is opened, and the connections kept for the next mail.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Tls, TlsParameters};
use lettre::transport::smtp::commands::Rset;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT};
use tokio::time::{Instant, timeout};
use url::{Host, Url};

use super::exchange::decoded;

/// Servers close idle connections after minutes; a connection this old is not worth a try.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// How long an idle connection may take to prove itself.
const LONGEST_PROBE: Duration = Duration::from_secs(1);

/// A mail server and the idle connections to it.
///
/// The mail library's own pool is not used: it has no time-out for answers, and it keeps a connection whose mail was
/// given up on, so that the next mail would read the answers to the last.
pub struct SmtpServer {
    host: String,
    port: u16,
    tls: Tls,
    hello: ClientId,
    credentials: Option<Credentials>,
    timeout: Duration,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl SmtpServer {
    /// Reads `smtp[s]://[user:password@]host[:port][/ehlo-name][?tls=required|opportunistic]`.
    ///
    /// # Errors
    /// What is wrong with the URL, without the URL.
    pub fn from_url(url: &str, timeout: Duration) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("is not a URL: {error}"))?;
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            _ => return Err("must have a host, such as `smtp://mail.example.com:587?tls=required`".into()),
        };
        let mode = url.query_pairs().find(|(key, _)| key == "tls").map(|(_, value)| value.into_owned());
        let parameters = || {
            TlsParameters::new(host.clone()).map_err(|error| format!("cannot be used, TLS is not available: {error}"))
        };
        let (tls, port) = match (url.scheme(), mode.as_deref()) {
            ("smtp", None) => (Tls::None, SMTP_PORT),
            ("smtp", Some("required")) => (Tls::Required(parameters()?), SUBMISSION_PORT),
            ("smtp", Some("opportunistic")) => (Tls::Opportunistic(parameters()?), SUBMISSION_PORT),
            ("smtps", _) => (Tls::Wrapper(parameters()?), SUBMISSIONS_PORT),
            ("smtp", Some(_)) => return Err("has an unknown `tls`, expected `required` or `opportunistic`".into()),
            _ => return Err("must begin with `smtp://` or `smtps://`".into()),
        };
        let hello = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        let credentials = (!url.username().is_empty())
            .then(|| Credentials::new(decoded(url.username()), decoded(url.password().unwrap_or_default())));
        let port = url.port().unwrap_or(port);
        Ok(Self { host, port, tls, hello, credentials, timeout, idle: Mutex::default() })
    }

    /// An idle connection that still works, or a new one: greeted, encrypted and logged in.
    ///
    /// # Errors
    /// Whatever the server or the network has against it.
    pub async fn connection(&self) -> Result<AsyncSmtpConnection, Error> {
        if let Some(mut connection) = self.take_idle() {
            // RSET also clears what a refused mail has left behind.
            let probe = timeout(LONGEST_PROBE.min(self.timeout / 4), connection.command(Rset)).await;
            if matches!(probe, Ok(Ok(_))) {
                return Ok(connection);
            }
            // What ended this one, such as a restart of the server, has likely ended the others.
            self.idle_connections(Vec::clear);
        }
        self.open().await
    }

    /// Keeps a connection for the next mail. The server must have answered everything that was said over it.
    pub fn keep(&self, connection: AsyncSmtpConnection) {
        // Never more than were in use at once: a new one is only made while none is idle.
        self.idle_connections(|idle| idle.push((connection, Instant::now())));
    }

    async fn open(&self) -> Result<AsyncSmtpConnection, Error> {
        let wrapper = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let address = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &self.hello, wrapper, None).await?;
        match &self.tls {
            Tls::Required(parameters) => connection.starttls(parameters.clone(), &self.hello).await?,
            Tls::Opportunistic(parameters) if connection.can_starttls() => {
                connection.starttls(parameters.clone(), &self.hello).await?;
            }
            _ => {}
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        self.idle_connections(|idle| {
            idle.retain(|(_, since)| since.elapsed() < LONGEST_IDLE);
            idle.pop().map(|(connection, _)| connection)
        })
    }

    fn idle_connections<T>(&self, act: impl FnOnce(&mut Vec<(AsyncSmtpConnection, Instant)>) -> T) -> T {
        // A panic cannot leave the list half changed.
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use lettre::address::Envelope;
    use lettre::transport::smtp::client::Certificate;
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::{PKey, Private};
    use openssl::ssl::{SslAcceptor, SslMethod};
    use openssl::x509::extension::SubjectAlternativeName;
    use openssl::x509::{X509, X509Name};

    use super::*;

    fn server(url: &str) -> SmtpServer {
        SmtpServer::from_url(url, Duration::from_secs(1)).unwrap_or_else(|problem| panic!("{url}: {problem}"))
    }

    #[test]
    fn reads_the_port_and_the_encryption() {
        for (url, host, port) in [
            ("smtp://localhost", "localhost", 25),
            ("smtp://localhost:1025", "localhost", 1025),
            ("smtp://[::1]:1025", "::1", 1025),
            ("smtp://mail.example?tls=required", "mail.example", 587),
            ("smtps://127.0.0.1", "127.0.0.1", 465),
        ] {
            let server = server(url);
            assert_eq!((server.host.as_str(), server.port), (host, port), "{url}");
        }
        assert!(matches!(server("smtp://h").tls, Tls::None));
        assert!(matches!(server("smtp://h?tls=opportunistic").tls, Tls::Opportunistic(_)));
        assert!(matches!(server("smtps://h").tls, Tls::Wrapper(_)));
        assert_eq!(server("smtp://h/shop.example").hello, ClientId::Domain("shop.example".into()));
    }

    #[test]
    fn decodes_credentials() {
        let given = |user: &str, password: &str| Some(Credentials::new(user.to_owned(), password.to_owned()));
        assert_eq!(server("smtp://h").credentials, None);
        assert_eq!(server("smtp://a%40b.example:p%3Aw+&%25@h").credentials, given("a@b.example", "p:w+&%"));
        assert_eq!(server("smtp://user@h").credentials, given("user", ""));
    }

    /// A mail server with a certificate of its own making; it does TLS after STARTTLS, or at once for `smtps`. What it was
    /// told is given back when the connection is over.
    fn encrypting(at_once: bool) -> (u16, X509, JoinHandle<Vec<String>>) {
        let key = super::super::test_support::rsa_key();
        let certificate = certificate(&key);
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("an acceptor");
        acceptor.set_private_key(&key).expect("a key");
        acceptor.set_certificate(&certificate).expect("a certificate");
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut told = Vec::new();
            if !at_once {
                stream.write_all(b"220 sink\r\n").expect("greeted");
                converse(&mut stream, "250-sink\r\n250 STARTTLS\r\n", &mut told);
            }
            if let Ok(mut stream) = acceptor.accept(stream) {
                told.push("TLS".to_owned());
                if at_once {
                    stream.write_all(b"220 sink\r\n").expect("greeted");
                }
                converse(&mut stream, "250-sink\r\n250 AUTH PLAIN\r\n", &mut told);
            }
            told
        });
        (port, certificate, served)
    }

    fn certificate(key: &PKey<Private>) -> X509 {
        let mut name = X509Name::builder().expect("a name");
        name.append_entry_by_text("CN", "localhost").expect("a name");
        let name = name.build();
        let mut builder = X509::builder().expect("a builder");
        builder.set_version(2).expect("version 3");
        builder.set_subject_name(&name).expect("a subject");
        builder.set_issuer_name(&name).expect("an issuer");
        builder.set_not_before(&Asn1Time::days_from_now(0).expect("now")).expect("a begin");
        builder.set_not_after(&Asn1Time::days_from_now(1).expect("a day")).expect("an end");
        builder.set_pubkey(key).expect("a key");
        let localhost = SubjectAlternativeName::new().dns("localhost").build(&builder.x509v3_context(None, None));
        builder.append_extension(localhost.expect("an extension")).expect("an extension");
        builder.sign(key, MessageDigest::sha256()).expect("signed");
        builder.build()
    }

    /// Until the client wants TLS, quits or ends.
    fn converse(stream: &mut (impl Read + Write), hello: &str, told: &mut Vec<String>) {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) {
            bytes.push(byte[0]);
            let Some(line) = bytes.strip_suffix(b"\r\n") else { continue };
            let line = String::from_utf8_lossy(line).into_owned();
            bytes.clear();
            let (verb, ends) = (line.split(' ').next().unwrap_or_default().to_owned(), line == "STARTTLS");
            told.push(line);
            let answer = match verb.as_str() {
                "EHLO" => hello,
                "STARTTLS" => "220 go on\r\n",
                "AUTH" => "235 2.7.0 fine\r\n",
                "DATA" => "354 go on\r\n",
                "MAIL" | "RCPT" | "RSET" | "." => "250 2.0.0 fine\r\n",
                // A line of the content.
                _ => continue,
            };
            if stream.write_all(answer.as_bytes()).is_err() || ends {
                return;
            }
        }
    }

    fn trusting(url: &str, certificate: &X509) -> SmtpServer {
        let root = Certificate::from_pem(&certificate.to_pem().expect("pem")).expect("a certificate");
        let parameters = TlsParameters::builder("localhost".to_owned()).add_root_certificate(root);
        let parameters = parameters.build().expect("parameters");
        let mut server =
            SmtpServer::from_url(url, Duration::from_secs(5)).unwrap_or_else(|problem| panic!("{problem}"));
        server.tls = match server.tls {
            Tls::Wrapper(_) => Tls::Wrapper(parameters),
            Tls::Required(_) => Tls::Required(parameters),
            _ => Tls::Opportunistic(parameters),
        };
        server
    }

    #[tokio::test]
    async fn login_and_mails_go_through_tls_alone() {
        for (scheme, query) in [("smtps", ""), ("smtp", "?tls=required"), ("smtp", "?tls=opportunistic")] {
            let (port, certificate, served) = encrypting(scheme == "smtps");
            let url = format!("{scheme}://ann:p%40ss@localhost:{port}/shop.example{query}");
            let server = trusting(&url, &certificate);
            let to = |name: &str| format!("{name}@example.com").parse().expect("an address");
            let envelope = Envelope::new(Some(to("shop")), vec![to("ann")]).expect("an envelope");
            for content in ["first", "second"] {
                let mut connection = server.connection().await.unwrap_or_else(|error| panic!("{url}: {error}"));
                let sent = connection.send(&envelope, content.as_bytes()).await;
                assert!(sent.expect("sent").is_positive());
                server.keep(connection);
            }
            drop(server);
            let told = served.join().expect("served");
            let begun = told.iter().position(|line| line == "TLS").expect("TLS");
            let in_the_clear = |line: &String| line.starts_with("EHLO ") || line == "STARTTLS";
            assert!(told[..begun].iter().all(in_the_clear), "{url}: {told:?}");
            // base64 of \0ann\0p@ss
            let login = ["TLS", "EHLO shop.example", "AUTH PLAIN AGFubgBwQHNz"];
            assert_eq!(told[begun..begun + 3], login, "{url}");
            let mail = |content| {
                ["MAIL FROM:<shop@example.com>", "RCPT TO:<ann@example.com>", "DATA", content, "."].map(str::to_owned)
            };
            assert_eq!(
                told[begun + 3..],
                [&mail("first")[..], &["RSET".to_owned()], &mail("second")].concat(),
                "{url}"
            );
        }
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_gets_no_login() {
        for (scheme, query) in [("smtps", ""), ("smtp", "?tls=required"), ("smtp", "?tls=opportunistic")] {
            let (port, _, served) = encrypting(scheme == "smtps");
            let url = format!("{scheme}://ann:p%40ss@localhost:{port}{query}");
            assert!(server(&url).connection().await.is_err(), "{url}");
            let told = served.join().expect("served");
            assert!(!told.iter().any(|line| line.starts_with("AUTH")), "{told:?}");
        }
    }
}
