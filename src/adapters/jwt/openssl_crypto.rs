//! HS256 and RS256 by OpenSSL, which the service has for TLS anyway: no second library for secrets.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::memcmp;
use openssl::pkey::{PKey, Private, Public};
use openssl::sign;

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Makes the library use this; again is harmless.
pub fn install() {
    let _ = PROVIDER.install_default();
}

/// A secret that both sides know.
struct Hs256(PKey<Private>);

impl Hs256 {
    fn new(secret: &[u8]) -> Result<Self, Error> {
        PKey::hmac(secret).map(Self).map_err(|_| ErrorKind::InvalidKeyFormat.into())
    }

    fn code(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let code = || {
            let mut signer = sign::Signer::new(MessageDigest::sha256(), &self.0)?;
            signer.sign_oneshot_to_vec(message)
        };
        code().map_err(failed)
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        self.code(message)
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let code = self.code(message)?;
        // The comparison takes as long for a wrong one, but wants equal lengths.
        let same = code.len() == signature.len() && memcmp::eq(&code, signature);
        if same { Ok(()) } else { Err(SignatureError::new()) }
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

/// The public half of an RSA key.
struct Rs256(PKey<Public>);

impl Verifier<Vec<u8>> for Rs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let verify = || {
            let mut verifier = sign::Verifier::new(MessageDigest::sha256(), &self.0)?;
            verifier.verify_oneshot(signature, message)
        };
        if verify().map_err(failed)? { Ok(()) } else { Err(SignatureError::new()) }
    }
}

impl JwtVerifier for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

fn failed(error: ErrorStack) -> SignatureError {
    SignatureError::from_source(error)
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256::new(key.as_bytes())?)),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let bytes = key.try_get_as_bytes()?;
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256::new(bytes)?)),
        (Algorithm::RS256, AlgorithmFamily::Rsa) => {
            let key = PKey::public_key_from_der(bytes).map_err(|_| ErrorKind::InvalidKeyFormat)?;
            Ok(Box::new(Rs256(key)))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}
