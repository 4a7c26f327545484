//! Access tokens of a Google service account: a signed assertion (RFC 7523) exchanged for a bearer token, which is kept
//! until shortly before its end.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::Signer;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded::Serializer;

use super::excerpt;
use super::exchange::{Exchange, web_url};
use crate::ports::provider::SendError;

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Google takes assertions of an hour at most.
const ASSERTION_SECONDS: i64 = 3600;
/// A token is renewed this long before its end, or in the last quarter of a short life.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// Those that waited for a renewal that failed do not each try again.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);
/// A service account's file is a few kilobytes.
const FILE_BYTES: u64 = 64 * 1024;

/// The file that Google's console exports, as far as it matters.
#[derive(Deserialize)]
struct AccountFile {
    project_id: String,
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: Option<String>,
    #[serde(default = "default_token_uri")]
    token_uri: String,
}

fn default_token_uri() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

/// A service account. It has no `Debug`, so that its key cannot reach a log.
pub struct ServiceAccount {
    /// The project to which it belongs.
    pub project: String,
    client_email: String,
    key: PKey<Private>,
    key_id: Option<String>,
    token_uri: Url,
}

impl ServiceAccount {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it; never repeats its content.
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = path.display();
        let size = std::fs::metadata(path).map_err(|error| format!("names `{file}`, which cannot be read: {error}"))?;
        if size.len() > FILE_BYTES {
            return Err(format!("names `{file}`, which is too large for a service account"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| format!("names `{file}`, which cannot be read: {e}"))?;
        // serde's message could repeat a part of the key.
        let account: AccountFile = serde_json::from_str(&text).map_err(|error| {
            let fields = "project_id, client_email and private_key";
            format!("names `{file}`, which is no service account with {fields} (line {})", error.line())
        })?;
        let key = PKey::private_key_from_pem(account.private_key.as_bytes())
            .ok()
            .filter(|key| key.id() == Id::RSA)
            .ok_or_else(|| format!("names `{file}`, whose private_key is no RSA key in PEM"))?;
        let token_uri =
            web_url(&account.token_uri).map_err(|problem| format!("names `{file}`, whose token_uri {problem}"))?;
        let AccountFile { project_id: project, client_email, private_key_id: key_id, .. } = account;
        Ok(Self { project, client_email, key, key_id, token_uri })
    }

    /// A JWT, signed by RS256, that asks for the right to send messages.
    fn assertion(&self, now: Timestamp) -> Result<String, String> {
        let issued = now.as_second();
        let header = match &self.key_id {
            Some(id) => json!({"alg": "RS256", "typ": "JWT", "kid": id}),
            None => json!({"alg": "RS256", "typ": "JWT"}),
        };
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri.as_str(),
            "iat": issued,
            "exp": issued + ASSERTION_SECONDS,
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = Signer::new(MessageDigest::sha256(), &self.key)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(signed.as_bytes()))
            .map_err(|error| format!("the service account's key cannot sign: {error}"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The tokens of one account.
pub struct Tokens {
    account: ServiceAccount,
    exchange: Exchange,
    /// Held during a renewal: there is one at a time, and the others wait for its token.
    state: Mutex<State>,
}

#[derive(Clone)]
enum State {
    None,
    Token { value: String, renew_at: Instant },
    Failed { reason: String, until: Instant },
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

impl Tokens {
    /// No token yet.
    pub fn new(account: ServiceAccount, exchange: Exchange) -> Self {
        Self { account, exchange, state: Mutex::new(State::None) }
    }

    /// A token that is good for some minutes more.
    ///
    /// # Errors
    /// `Transient`: without a token nothing was sent, and no notification is to blame.
    pub async fn token(&self) -> Result<String, SendError> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        match &*state {
            State::Token { value, renew_at } if now < *renew_at => return Ok(value.clone()),
            State::Failed { reason, until } if now < *until => return Err(SendError::Transient(reason.clone())),
            _ => {}
        }
        match self.renew().await {
            Ok(granted) => {
                let life = Duration::from_secs(granted.expires_in.min(24 * 3600));
                let renew_at = now + life.saturating_sub(RENEW_BEFORE.min(life / 4));
                *state = State::Token { value: granted.access_token.clone(), renew_at };
                Ok(granted.access_token)
            }
            Err(why) => {
                let reason = format!("no access token for the service account: {why}");
                *state = State::Failed { reason: reason.clone(), until: Instant::now() + FAILURE_HOLDS };
                Err(SendError::Transient(reason))
            }
        }
    }

    /// Forgets a token that was refused, unless another one has taken its place or is just being had.
    pub fn refused(&self, token: &str) {
        let Ok(mut state) = self.state.try_lock() else { return };
        if matches!(&*state, State::Token { value, .. } if value == token) {
            *state = State::None;
        }
    }

    async fn renew(&self) -> Result<Granted, String> {
        let assertion = self.account.assertion(Timestamp::now())?;
        let form = Serializer::new(String::new())
            .append_pair("grant_type", GRANT)
            .append_pair("assertion", &assertion)
            .finish();
        let request = self
            .exchange
            .post(self.account.token_uri.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(form);
        let answer = self.exchange.send(request).await.map_err(|error| error.to_string())?;
        if !answer.status.is_success() {
            return Err(answer.reason());
        }
        // The body is not repeated: it may hold a token.
        let granted: Granted = answer.json().ok_or("an answer without access_token and expires_in")?;
        if granted.access_token.is_empty() || !granted.access_token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("an access token that is none: {} bytes", excerpt(&granted.access_token).len()));
        }
        Ok(granted)
    }
}
