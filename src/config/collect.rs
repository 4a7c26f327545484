//! Turns the merged table into a [`Config`] and collects every mistake of spelling and type on the way.
//!
//! serde stops at the first error. So what it stumbles over is noted and replaced by a stand-in that is fine, and it
//! tries again, until it comes through. A configuration with a mistake is never used; the stand-ins only let the
//! remaining mistakes be found.

use serde_path_to_error::{Path, Segment};
use toml::{Table, Value};

use super::Config;
use super::load::merge;
use super::mistake::{Mistake, Step, key_of};
use super::secret::is_secret_name;

/// Nobody reads more than that; it also bounds the work on a file that is no configuration at all.
const MOST_MISTAKES: usize = 100;

/// A route and a source that are fine; the defaults have none to take stand-ins from.
const SPECIMENS: &str = r#"
[[routing.routes]]
topic = "order-events"
event_type = "OrderDelivered"
channel = "admin_alert"
template = "order_delivered"
[[routing.sources]]
kind = "redis_stream"
stream = "shop"
"#;

/// The configuration, which is fit for use only if no mistake was noted.
pub(super) fn config(merged: Table, defaults: &Table, mistakes: &mut Vec<Mistake>) -> Option<Config> {
    let mut specimens = defaults.clone();
    if let Ok(more) = toml::from_str::<Table>(SPECIMENS) {
        merge(&mut specimens, more);
    }
    let specimens = Value::Table(specimens);
    let mut value = Value::Table(merged);
    for _ in 0..MOST_MISTAKES {
        let parsed: Result<Config, serde_path_to_error::Error<toml::de::Error>> =
            serde_path_to_error::deserialize(value.clone());
        let error = match parsed {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let finding = Finding::of(steps(error.path()), error.inner().message(), &specimens);
        mistakes.push(Mistake { key: key_of(&finding.path), problem: finding.problem });
        if !replace(&mut value, &finding.path, finding.stand_in) {
            return None;
        }
    }
    None
}

/// What serde stumbled over.
struct Finding {
    path: Vec<Step>,
    problem: String,
    /// `None` removes the key.
    stand_in: Option<Value>,
}

impl Finding {
    fn of(mut path: Vec<Step>, message: &str, specimens: &Value) -> Self {
        if message.starts_with("unknown field `") {
            let name = match path.last() {
                Some(Step::Key(name)) => name.as_str(),
                _ => "",
            };
            return Self { problem: unknown_key(name, message), path, stand_in: None };
        }
        if let Some(rest) = message.strip_prefix("missing field `") {
            path.push(Step::Key(rest.trim_end_matches('`').to_owned()));
            let stand_in = specimen(specimens, &path);
            return Self { path, problem: "is missing".to_owned(), stand_in };
        }
        let secret = matches!(path.last(), Some(Step::Key(name)) if is_secret_name(name));
        // serde repeats the value that it does not like.
        let problem = if secret { "must be a string".to_owned() } else { phrase(message) };
        let stand_in = specimen(specimens, &path);
        Self { path, problem, stand_in }
    }
}

fn steps(path: &Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// A value that is fine at this place; every element of a list is like the first one.
fn specimen(specimens: &Value, path: &[Step]) -> Option<Value> {
    let found = path.iter().try_fold(specimens, |here, step| match step {
        Step::Key(key) => here.get(key.as_str()),
        Step::Index(_) => here.get(0),
    });
    found.cloned()
}

/// False when there is no such place.
fn replace(value: &mut Value, path: &[Step], stand_in: Option<Value>) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let parent = parents.iter().try_fold(value, |here, step| match step {
        Step::Key(key) => here.get_mut(key.as_str()),
        Step::Index(index) => here.get_mut(*index),
    });
    match (parent, last, stand_in) {
        (Some(Value::Table(table)), Step::Key(key), Some(value)) => {
            table.insert(key.clone(), value);
            true
        }
        (Some(Value::Table(table)), Step::Key(key), None) => table.remove(key).is_some(),
        (Some(Value::Array(items)), Step::Index(index), Some(value)) if *index < items.len() => {
            items[*index] = value;
            true
        }
        _ => false,
    }
}

/// serde's message lists the keys that there are, between backticks.
fn unknown_key(name: &str, message: &str) -> String {
    let known = names(message);
    match nearest(name, &known) {
        Some(nearest) => format!("unknown key, did you mean `{nearest}`?"),
        None => format!("unknown key, expected one of {}", known.join(", ")),
    }
}

fn names(message: &str) -> Vec<&str> {
    let listed = message.rsplit_once("`, expected ").map_or("", |(_, listed)| listed);
    listed.split('`').skip(1).step_by(2).collect()
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate));
    let (score, candidate) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score >= 0.8).then_some(candidate)
}

/// serde's message in the words of the manual.
fn phrase(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown variant `")
        && let Some((given, _)) = rest.rsplit_once("`, expected ")
    {
        let known = names(message);
        let hint = nearest(given, &known).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
        return format!("`{given}` is none of {}{hint}", known.join(", "));
    }
    if message.contains("invalid socket address") {
        return "must be an IP address and a port, such as 127.0.0.1:8088".to_owned();
    }
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, wanted)) => format!("must be {}{}", wanted_in_words(wanted), found_in_words(found)),
        None => message.to_owned(),
    }
}

fn wanted_in_words(wanted: &str) -> &str {
    match wanted {
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i32" => "a whole number up to 2147483647",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        "socket address" | "string only" | "path string" => "a string",
        other => other,
    }
}

fn found_in_words(found: &str) -> String {
    match found {
        "unit variant" => String::new(),
        "sequence" => ", not a list".to_owned(),
        "map" => ", not a table".to_owned(),
        other => format!(", not {other}"),
    }
}
