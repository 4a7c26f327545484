use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use serde_json::json;

use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn authority(expected: &Expected) -> JwtAuthority {
    JwtAuthority::new(&TokenKey::Secret(SECRET), expected).expect("a secret is a key")
}

fn token(claims: &Value) -> String {
    openssl_crypto::install();
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("is signed")
}

fn invalid(authority: &JwtAuthority, token: &str) -> String {
    match authority.identify(token) {
        Err(TokenError::Invalid(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn in_an_hour() -> i64 {
    Timestamp::now().as_second() + 3600
}

#[test]
fn what_is_issued_is_accepted_until_it_ends() {
    let authority = authority(&Expected::default());
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let token = issue(SECRET, "ada", role, Duration::from_secs(60), &Expected::default()).expect("is signed");
        assert_eq!(authority.identify(&token), Ok(Identity { subject: "ada".into(), role }));
    }
    let past = token(&json!({"sub": "ada", "role": "admin", "exp": Timestamp::now().as_second() - 10}));
    assert_eq!(invalid(&authority, &past), "it has expired");
}

#[test]
fn a_token_proves_what_it_says_and_must_end() {
    let authority = authority(&Expected::default());
    let good = token(&json!({"sub": "ada", "role": "viewer", "exp": in_an_hour()}));
    let claims = issue(SECRET, "ada", Role::Admin, Duration::from_secs(60), &Expected::default()).expect("is signed");
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (good_parts, other) = (parts(&good), parts(&claims));
    let mixed = format!("{}.{}.{}", good_parts[0], other[1], good_parts[2]);
    assert_eq!(invalid(&authority, &mixed), "its signature is wrong");
    let strange = issue("another secret", "ada", Role::Admin, Duration::from_secs(60), &Expected::default());
    assert_eq!(invalid(&authority, &strange.expect("is signed")), "its signature is wrong");
    for short in ["", "a", "a.b.c", &format!("{}.{}.", good_parts[0], good_parts[1])] {
        assert!(!invalid(&authority, short).is_empty(), "{short}");
    }
    let forever = token(&json!({"sub": "ada", "role": "admin"}));
    assert_eq!(invalid(&authority, &forever), "it lacks the claim `exp`");
    let later = token(&json!({"role": "admin", "exp": in_an_hour(), "nbf": in_an_hour() - 60}));
    assert_eq!(invalid(&authority, &later), "it is not valid yet");
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let authority = authority(&Expected::default());
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims = json!({"sub": "eve", "role": "admin", "exp": in_an_hour()}).to_string();
    for algorithm in ["none", "None", "RS256"] {
        let head = json!({"alg": algorithm, "typ": "JWT"}).to_string();
        let token = format!("{}.{}.", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(&claims));
        assert!(!invalid(&authority, &token).is_empty(), "{algorithm}");
    }
}

#[test]
fn what_the_header_asks_for_is_not_done() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let authority = authority(&Expected::default());
    let claims = json!({"sub": "eve", "role": "admin", "exp": in_an_hour()}).to_string();
    let signed = |head: Value, digest: MessageDigest| {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(&claims));
        let key = PKey::hmac(SECRET.as_bytes()).expect("a key");
        let mut signer = Signer::new(digest, &key).expect("OpenSSL knows it");
        let code = signer.sign_oneshot_to_vec(message.as_bytes()).expect("signs");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(code))
    };
    assert!(authority.identify(&signed(json!({"alg": "HS256"}), MessageDigest::sha256())).is_ok());
    let other = signed(json!({"alg": "HS384"}), MessageDigest::sha384());
    assert_eq!(invalid(&authority, &other), "its algorithm is another one");
    let critical = signed(json!({"alg": "HS256", "crit": ["b64"], "b64": false}), MessageDigest::sha256());
    assert_eq!(invalid(&authority, &critical), "it has critical extensions");
}

#[test]
fn a_genuine_token_needs_a_role() {
    let authority = authority(&Expected::default());
    for role in [json!(null), json!("root"), json!(["admin"])] {
        let token = token(&json!({"sub": "ada", "role": role, "exp": in_an_hour()}));
        assert!(matches!(authority.identify(&token), Err(TokenError::NoRole(_))), "{role}");
    }
}

#[test]
fn issuer_and_audience_are_checked_where_expected() {
    let expected = Expected { issuer: Some("login".into()), audience: Some("notifications".into()) };
    let strict = authority(&expected);
    let claims = |iss: &str, aud: Value| token(&json!({"role": "viewer", "exp": in_an_hour(), "iss": iss, "aud": aud}));
    let many = claims("login", json!(["other", "notifications"]));
    assert!(strict.identify(&many).is_ok());
    assert!(authority(&Expected::default()).identify(&many).is_ok(), "not expected, not checked");
    assert!(invalid(&strict, &claims("evil", json!("notifications"))).contains("`iss`"));
    assert!(invalid(&strict, &claims("login", json!("other"))).contains("`aud`"));
    let plain = token(&json!({"role": "viewer", "exp": in_an_hour()}));
    assert!(invalid(&strict, &plain).contains("lacks the claim"));
    let own = issue(SECRET, "ada", Role::Viewer, Duration::from_secs(60), &expected).expect("is signed");
    assert!(strict.identify(&own).is_ok());
}

/// A token that the private key signed, as an identity provider would.
fn signed_with(key: &Rsa<Private>) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let head = json!({"alg": "RS256", "typ": "JWT", "kid": "1"}).to_string();
    let claims = json!({"sub": "ada", "role": "operator", "exp": in_an_hour()}).to_string();
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let key = PKey::from_rsa(key.clone()).expect("is a key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("OpenSSL knows SHA-256");
    let signature = signer.sign_oneshot_to_vec(message.as_bytes()).expect("signs");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_public_key_proves_tokens_of_its_private_key_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key.pem");
    let key = Rsa::generate(2048).expect("a key");
    let other = Rsa::generate(2048).expect("another key");
    for pem in [key.public_key_to_pem(), key.public_key_to_pem_pkcs1()] {
        let pem = pem.expect("PEM");
        std::fs::write(&file, &pem).expect("writes");
        let authority = JwtAuthority::new(&TokenKey::PublicKeyFile(&file), &Expected::default()).expect("a key");
        let expected = Identity { subject: "ada".into(), role: Role::Operator };
        assert_eq!(authority.identify(&signed_with(&key)), Ok(expected));
        assert_eq!(invalid(&authority, &signed_with(&other)), "its signature is wrong");
        // What is public must not do as a secret.
        let forged =
            issue(&String::from_utf8_lossy(&pem), "eve", Role::Admin, Duration::from_secs(60), &Expected::default());
        assert_eq!(invalid(&authority, &forged.expect("is signed")), "its algorithm is another one");
    }
}

#[test]
fn a_key_that_is_none_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key.pem");
    let problem = || match JwtAuthority::new(&TokenKey::PublicKeyFile(&file), &Expected::default()) {
        Err(problem) => problem,
        Ok(_) => panic!("is a key"),
    };
    assert!(problem().contains("cannot be read"));
    std::fs::write(&file, "no key").expect("writes");
    assert!(problem().contains("holds no RSA public key"));
    std::fs::write(&file, Rsa::generate(1024).expect("a key").public_key_to_pem().expect("PEM")).expect("writes");
    assert!(problem().contains("fewer than 2048 bits"));
}
