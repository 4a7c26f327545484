//! Signs e-mails by DKIM (RFC 6376, and RFC 8463 for Ed25519), with relaxed canonicalization of headers and body.
//!
//! OpenSSL does the cryptography, as everywhere else in the service: the mail library would bring an RSA of its own
//! that is known to leak its key through timing (RUSTSEC-2023-0071) and reads keys in one of the usual formats only.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::Signer;
use sha2::{Digest, Sha256};

/// What is signed, if it is there: all that the service itself writes. RFC 8058 demands the last two.
const SIGNED: [&str; 12] = [
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "auto-submitted",
    "reply-to",
    "list-unsubscribe",
    "list-unsubscribe-post",
];
/// Verifiers refuse shorter ones (RFC 8301).
const SHORTEST_RSA_BITS: u32 = 1024;
/// A private key is some kilobytes.
const FILE_BYTES: u64 = 64 * 1024;
/// Of base64 in a line of the header.
const LINE_CHARS: usize = 70;

/// Signs for one domain. It has no `Debug`, so that the key cannot reach a log.
pub struct DkimSigner {
    key: PKey<Private>,
    algorithm: &'static str,
    domain: String,
    selector: String,
}

impl DkimSigner {
    /// Reads the key.
    ///
    /// # Errors
    /// What is wrong with the file; never repeats its content.
    pub fn new(domain: &str, selector: &str, key_file: &Path) -> Result<Self, String> {
        let file = key_file.display();
        let unreadable = |error: std::io::Error| format!("names `{file}`, which cannot be read: {error}");
        if std::fs::metadata(key_file).map_err(unreadable)?.len() > FILE_BYTES {
            return Err(format!("names `{file}`, which is too large for a key"));
        }
        let pem = std::fs::read(key_file).map_err(unreadable)?;
        Self::from_pem(domain, selector, &pem).map_err(|problem| format!("names `{file}`, which {problem}"))
    }

    fn from_pem(domain: &str, selector: &str, pem: &[u8]) -> Result<Self, &'static str> {
        // Asked for a passphrase, OpenSSL would wait at the terminal: none is given.
        let key =
            PKey::private_key_from_pem_callback(pem, |_| Ok(0)).map_err(|_| "has no unencrypted private key in PEM")?;
        let algorithm = match key.id() {
            Id::RSA if key.bits() >= SHORTEST_RSA_BITS => "rsa-sha256",
            Id::RSA => return Err("has an RSA key of less than 1024 bits, which receivers refuse"),
            Id::ED25519 => "ed25519-sha256",
            _ => return Err("has a key that is neither RSA nor Ed25519"),
        };
        Ok(Self { key, algorithm, domain: domain.to_owned(), selector: selector.to_owned() })
    }

    /// The mail with its signature in front.
    ///
    /// # Errors
    /// When OpenSSL cannot sign.
    pub fn sign(&self, mail: &[u8], unix_seconds: i64) -> Result<Vec<u8>, String> {
        let (head, body) = split(mail);
        let fields = fields(head);
        let present = SIGNED.iter().filter(|name| fields.iter().any(|field| field.name() == **name));
        // `From` once more than it is there, so that nobody can add a second one that programs show instead.
        let names: Vec<&str> = present.copied().chain(["from"]).collect();
        let body_hash = STANDARD.encode(Sha256::digest(relaxed_body(body)));
        let unsigned = format!(
            "DKIM-Signature: v=1; a={}; c=relaxed/relaxed; d={};\r\n s={}; t={unix_seconds};\r\n h={};\r\n bh={body_hash};\r\n b=",
            self.algorithm,
            self.domain,
            self.selector,
            names.join(":\r\n  "),
        );
        let signature = self.signature(&signed_data(&fields, &names, &unsigned))?;
        let mut signed = unsigned.into_bytes();
        for line in STANDARD.encode(signature).as_bytes().chunks(LINE_CHARS) {
            signed.extend_from_slice(b"\r\n  ");
            signed.extend_from_slice(line);
        }
        signed.extend_from_slice(b"\r\n");
        signed.extend_from_slice(mail);
        Ok(signed)
    }

    fn signature(&self, data: &[u8]) -> Result<Vec<u8>, String> {
        let signature = if self.key.id() == Id::ED25519 {
            // Ed25519 signs the hash here, and hashes it once more by itself.
            Signer::new_without_digest(&self.key).and_then(|mut s| s.sign_oneshot_to_vec(&Sha256::digest(data)))
        } else {
            Signer::new(MessageDigest::sha256(), &self.key).and_then(|mut s| s.sign_oneshot_to_vec(data))
        };
        signature.map_err(|error| format!("the e-mail cannot be signed: {error}"))
    }
}

/// A header field with its folded lines, without the last line end.
struct Field<'a>(&'a [u8]);

impl Field<'_> {
    fn name(&self) -> String {
        let end = self.0.iter().position(|byte| *byte == b':').unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).trim().to_ascii_lowercase()
    }

    /// RFC 6376, 3.4.2.
    fn relaxed(&self) -> Vec<u8> {
        let start = self.0.iter().position(|byte| *byte == b':').map_or(self.0.len(), |colon| colon + 1);
        let unfolded: Vec<u8> = self.0[start..].iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        let mut line = self.name().into_bytes();
        line.push(b':');
        line.extend(squeezed(unfolded.trim_ascii()));
        line
    }
}

/// Head and body, without the empty line between them.
fn split(mail: &[u8]) -> (&[u8], &[u8]) {
    match mail.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(end) => (&mail[..end], &mail[end + 4..]),
        None => (mail, b""),
    }
}

fn fields(head: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    let mut start = 0;
    for at in 0..head.len() {
        let ends = head[at..].starts_with(b"\r\n") && !matches!(head.get(at + 2), Some(b' ' | b'\t'));
        if ends {
            fields.push(Field(&head[start..at]));
            start = at + 2;
        }
    }
    fields.push(Field(&head[start..]));
    fields
}

/// The canonical header fields in the order of `names`, from the bottom for a name that is there more than once, and
/// the signature's own field without a line end (RFC 6376, 3.7 and 5.4.2).
fn signed_data(fields: &[Field<'_>], names: &[&str], signature_field: &str) -> Vec<u8> {
    let mut data = Vec::new();
    let mut used = vec![false; fields.len()];
    for name in names {
        let Some(at) = (0..fields.len()).rev().find(|at| !used[*at] && fields[*at].name() == *name) else { continue };
        used[at] = true;
        data.extend(fields[at].relaxed());
        data.extend_from_slice(b"\r\n");
    }
    data.extend(Field(signature_field.as_bytes()).relaxed());
    data
}

/// RFC 6376, 3.4.4.
fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let mut canonical = Vec::with_capacity(body.len() + 2);
    let mut empty_lines = 0;
    for line in body.split(|byte| *byte == b'\n') {
        let line = squeezed(line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_end());
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        canonical.extend(b"\r\n".repeat(std::mem::take(&mut empty_lines)));
        canonical.extend(line);
        canonical.extend_from_slice(b"\r\n");
    }
    canonical
}

/// Each run of blanks as one space.
fn squeezed(line: &[u8]) -> Vec<u8> {
    let mut squeezed = Vec::with_capacity(line.len());
    for byte in line {
        let blank = matches!(byte, b' ' | b'\t');
        if !blank {
            squeezed.push(*byte);
        } else if squeezed.last() != Some(&b' ') {
            squeezed.push(b' ');
        }
    }
    squeezed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8463, appendix A.
    const MAIL: &str = "From: Joe SixPack <joe@football.example.com>\r\n\
        To: Suzie Q <suzie@shopping.example.net>\r\n\
        Subject: Is dinner ready?\r\n\
        Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
        Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\
        \r\n\
        Hi.\r\n\
        \r\n\
        We lost the game.  Are you hungry yet?\r\n\
        \r\n\
        Joe.\r\n";
    const NAMES: [&str; 7] = ["from", "to", "subject", "date", "message-id", "from", "subject"];
    const ED25519_FIELD: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
        d=football.example.com; i=@football.example.com;\r\n \
        q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
        subject : date : message-id : from : subject : date;\r\n \
        bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
        b=";

    #[test]
    fn agrees_with_the_example_of_the_specification() {
        let (head, body) = split(MAIL.as_bytes());
        let hash = STANDARD.encode(Sha256::digest(relaxed_body(body)));
        assert_eq!(hash, "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=");

        let seed = STANDARD.decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").expect("the example's key");
        let key = PKey::private_key_from_raw_bytes(&seed, Id::ED25519).expect("a key");
        let pem = key.private_key_to_pem_pkcs8().expect("pem");
        let signer = DkimSigner::from_pem("football.example.com", "brisbane", &pem).unwrap_or_else(|e| panic!("{e}"));
        let names: Vec<&str> = NAMES.into_iter().chain(["date"]).collect();
        let data = signed_data(&fields(head), &names, ED25519_FIELD);
        let signature = STANDARD.encode(signer.signature(&data).expect("signed"));
        let expected = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==";
        assert_eq!(signature, expected);
    }

    #[test]
    fn canonical_forms_are_those_of_the_specification() {
        let head = b"A: X\r\nB : Y\t\r\n\tZ  \r\nsubject: \r\n=?utf-8?b?w6Q=?=";
        let relaxed: Vec<String> = fields(head).iter().map(|f| String::from_utf8(f.relaxed()).expect("text")).collect();
        assert_eq!(relaxed, ["a:X", "b:Y Z", "subject:", "=?utf-8?b?w6q=?=:"]);
        for (body, canonical) in [
            (" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"),
            ("a", "a\r\n"),
            ("", ""),
            ("\r\n\r\n", ""),
            ("\r\na\r\n \r\nb \r\n", "\r\na\r\n\r\nb\r\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&relaxed_body(body.as_bytes())), canonical, "{body:?}");
        }
    }

    #[test]
    fn keys_that_cannot_sign_are_told_from_those_that_can() {
        let problem = |pem: &[u8]| DkimSigner::from_pem("d", "s", pem).err().unwrap_or_default();
        let rsa = |bits| PKey::from_rsa(openssl::rsa::Rsa::generate(bits).expect("a key")).expect("a key");
        assert!(problem(&rsa(512).private_key_to_pem_pkcs8().expect("pem")).contains("1024"));
        let good = super::super::test_support::rsa_key();
        assert_eq!(problem(&good.private_key_to_pem_pkcs8().expect("pem")), "");
        assert_eq!(problem(&good.rsa().expect("rsa").private_key_to_pem().expect("pem")), "", "PKCS #1 too");
        let locked =
            good.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret").expect("pem");
        for bad in [locked.as_slice(), &good.public_key_to_pem().expect("pem"), b"s3cret", b""] {
            assert!(problem(bad).contains("PEM"), "{}", problem(bad));
        }
        let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).expect("a curve");
        let curve = PKey::from_ec_key(openssl::ec::EcKey::generate(&group).expect("a key")).expect("a key");
        assert!(problem(&curve.private_key_to_pem_pkcs8().expect("pem")).contains("neither"));
    }
}
