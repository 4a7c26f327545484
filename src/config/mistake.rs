//! What is wrong with a configuration: one mistake for each key, all of them reported together.

use std::fmt;
use std::ops::RangeInclusive;

use url::Url;

use super::secret::SecretUrl;

/// The longest time that a key may give: 30 days in milliseconds. Larger numbers are slips of the unit.
pub(super) const MAX_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// A key and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key's path, such as `delivery.providers[0].url`, or the file when it cannot be read.
    pub key: String,
    /// For people; never repeats a secret.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

/// Every mistake of a configuration; its text has one a line.
#[derive(Debug)]
pub struct ConfigError {
    /// At least one, in the order of the keys.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A step on the way to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The way to a key as people write it; a key with a dot in it is quoted, as in TOML.
pub(super) fn key_of(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
                text.push_str(&if bare { key.clone() } else { format!("{key:?}") });
            }
        }
    }
    text
}

/// True when the key has a mistake already. Its value is a stand-in then, which no other key shall be compared with.
pub(super) fn is_faulty(mistakes: &[Mistake], key: &str) -> bool {
    mistakes.iter().any(|mistake| mistake.key == key)
}

/// Notes a broken rule, unless the key has a mistake already.
pub(super) fn rule(mistakes: &mut Vec<Mistake>, holds: bool, key: &str, problem: impl Into<String>) {
    if !holds && !is_faulty(mistakes, key) {
        mistakes.push(Mistake { key: key.to_owned(), problem: problem.into() });
    }
}

/// Notes a number that is out of its range.
pub(super) fn within(mistakes: &mut Vec<Mistake>, key: &str, value: u64, range: RangeInclusive<u64>) {
    let problem = format!("must be between {} and {}, not {value}", range.start(), range.end());
    rule(mistakes, range.contains(&value), key, problem);
}

/// Notes a number below its minimum.
pub(super) fn at_least(mistakes: &mut Vec<Mistake>, key: &str, value: i64, minimum: i64) {
    rule(mistakes, value >= minimum, key, format!("must be at least {minimum}, not {value}"));
}

/// Notes a URL that does not parse or begins with none of the schemes; hands a good one on.
pub(super) fn check_url(mistakes: &mut Vec<Mistake>, key: &str, url: &SecretUrl, schemes: &[&str]) -> Option<Url> {
    let text = url.expose();
    let known = schemes.iter().any(|scheme| text.starts_with(scheme));
    rule(mistakes, known, key, format!("must begin with {}", schemes.join(" or ")));
    match Url::parse(text) {
        Ok(url) if known => Some(url),
        Ok(_) => None,
        Err(error) => {
            rule(mistakes, false, key, format!("is no valid URL: {error}"));
            None
        }
    }
}

/// Notes a URL that is wrong or names no host.
pub(super) fn check_url_with_host(mistakes: &mut Vec<Mistake>, key: &str, url: &SecretUrl, schemes: &[&str]) {
    if let Some(url) = check_url(mistakes, key, url, schemes) {
        rule(mistakes, url.host_str().is_some_and(|host| !host.is_empty()), key, "names no host");
    }
}
