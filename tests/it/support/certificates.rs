//! Certificates for a broker and its clients, made by openssl, with an authority that the broker trusts and a stranger.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each name is that of a certificate (`NAME.pem`) and its key (`NAME.key`).
pub struct Certificates(PathBuf);

impl Certificates {
    /// `ca` has signed `broker` and `client`, `stranger-ca` has signed `stranger`.
    #[track_caller]
    pub fn make(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let certificates = Self(folder.to_owned());
        for authority in ["ca", "stranger-ca"] {
            certificates.openssl(authority, &[]);
        }
        for (name, authority) in [("broker", "ca"), ("client", "ca"), ("stranger", "stranger-ca")] {
            let (ca, key) = (certificates.pem(authority), certificates.key(authority));
            let signed = ["-CA", &ca, "-CAkey", &key, "-addext", "subjectAltName=IP:127.0.0.1"];
            certificates.openssl(name, &[&signed[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat());
        }
        certificates
    }

    pub fn pem(&self, name: &str) -> String {
        self.path(name, "pem")
    }

    pub fn key(&self, name: &str) -> String {
        self.path(name, "key")
    }

    /// Key and certificate in one file, as Kafka wants its key store.
    #[track_caller]
    pub fn store(&self, name: &str) -> String {
        let read = |path: String| fs::read_to_string(path).expect("it was made");
        let path = self.path(name, "store");
        fs::write(&path, read(self.key(name)) + &read(self.pem(name))).expect("written");
        path
    }

    fn path(&self, name: &str, kind: &str) -> String {
        self.0.join(format!("{name}.{kind}")).to_str().expect("UTF-8").to_owned()
    }

    #[track_caller]
    fn openssl(&self, name: &str, more: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        command.args(["-subj", &format!("/CN={name}"), "-keyout", &self.key(name), "-out", &self.pem(name)]);
        let output = command.args(more).output().unwrap_or_else(|e| panic!("openssl: {e}"));
        assert!(output.status.success(), "openssl, for {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
