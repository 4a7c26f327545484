//! The environment as the topmost layer.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::load::merge;
use super::mistake::{Mistake, Step, key_of};

/// Variables with names of their own, and their keys.
const NAMED: [(&str, [&str; 2]); 7] = [
    ("KAFKA_BROKERS", ["kafka", "brokers"]),
    ("DATABASE_URL", ["database", "url"]),
    ("REDIS_URL", ["redis", "url"]),
    ("HTTP_ADDRESS", ["http", "address"]),
    ("JWT_SECRET", ["auth", "jwt_secret"]),
    ("LOG_FORMAT", ["logging", "format"]),
    ("RUST_LOG", ["logging", "filter"]),
];

/// Any other key.
const PREFIX: &str = "NOTIFICATION__";

/// Optional keys without a default, whose values are texts.
const TEXTS: [&str; 18] = [
    "url",
    "templates_dir",
    "secret",
    "key",
    "recipient",
    "group",
    "consumer",
    "field",
    "from",
    "status_callback_url",
    "credentials_file",
    "selector",
    "domain",
    "private_key_file",
    "jwt_secret",
    "jwt_public_key_file",
    "issuer",
    "audience",
];

/// A variable that sets a key.
struct Override {
    variable: String,
    path: Vec<String>,
    text: String,
    /// The value is a string, whatever it looks like.
    verbatim: bool,
}

/// Lays the environment over the table. Returns which variable set which key.
pub(super) fn apply(
    root: &mut Table,
    env: impl Iterator<Item = (String, String)>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<String, String> {
    let mut overrides: Vec<Override> = env.filter_map(|(variable, text)| recognise(variable, text)).collect();
    // A key's long name wins over its short one, which images and platforms tend to set; a deeper key over its table.
    overrides.sort_by_key(|o| (o.variable.starts_with(PREFIX), o.path.len(), o.variable.clone()));
    let mut origins = BTreeMap::new();
    let mut value = Value::Table(std::mem::take(root));
    for over in overrides {
        let mut at = Vec::new();
        match set(&mut value, &over.path, &over, &mut at) {
            Ok(()) => {
                origins.insert(key_of(&at), over.variable);
            }
            Err(problem) => mistakes.push(Mistake { key: over.variable, problem }),
        }
    }
    if let Value::Table(table) = value {
        *root = table;
    }
    origins
}

fn recognise(variable: String, text: String) -> Option<Override> {
    if let Some((_, path)) = NAMED.iter().find(|(name, _)| *name == variable) {
        // An empty variable is how shells and compose files say "unset".
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        return (!text.is_empty()).then_some(Override { variable, path, text, verbatim: true });
    }
    let lower = variable.strip_prefix(PREFIX)?.to_ascii_lowercase();
    let mut path: Vec<String> = lower.split("__").map(str::to_owned).collect();
    let property = path.len() > 2 && path[0] == "kafka" && path[1] == "properties";
    if property {
        let name = path.split_off(2).join(".").replace('_', ".");
        path.push(name);
    }
    Some(Override { variable, path, text, verbatim: property })
}

/// Walks down the path and sets what is at its end; `at` collects the keys on the way as they are really spelt.
fn set(here: &mut Value, path: &[String], over: &Override, at: &mut Vec<Step>) -> Result<(), String> {
    let Some((segment, rest)) = path.split_first() else { return Ok(()) };
    if segment.is_empty() {
        return Err("does not name a key, such as NOTIFICATION__KAFKA__CLIENT_ID".to_owned());
    }
    match here {
        Value::Table(table) => {
            let name = table.keys().find(|key| is_same(key, segment)).unwrap_or(segment).clone();
            at.push(Step::Key(name.clone()));
            if rest.is_empty() {
                let value = read(table.get(&name), &name, over);
                let mut layer = Table::new();
                layer.insert(name, value);
                merge(table, layer);
                return Ok(());
            }
            set(table.entry(name).or_insert_with(|| Value::Table(Table::new())), rest, over, at)
        }
        Value::Array(items) => {
            let index = segment.parse::<usize>().map_err(|_| format!("`{}` is a list: name an index", key_of(at)))?;
            let length = items.len();
            let item = items.get_mut(index).ok_or_else(|| format!("`{}` has only {length} elements", key_of(at)))?;
            at.push(Step::Index(index));
            if rest.is_empty() {
                *item = read(Some(&*item), segment, over);
                return Ok(());
            }
            set(item, rest, over, at)
        }
        _ => Err(format!("`{}` has no keys below it", key_of(at))),
    }
}

/// A variable's name cannot contain a hyphen in most shells; topics have them.
fn is_same(key: &str, segment: &str) -> bool {
    key == segment || key.replace('-', "_") == segment
}

/// A string where one is expected, else a TOML literal. What is no literal stays a string, so that the check of types
/// names the key and shows what was given.
fn read(existing: Option<&Value>, name: &str, over: &Override) -> Value {
    let is_text = match existing {
        Some(value) => value.is_str(),
        None => TEXTS.contains(&name),
    };
    let verbatim = || Value::String(over.text.clone());
    if over.verbatim || is_text { verbatim() } else { over.text.trim().parse().unwrap_or_else(|_| verbatim()) }
}
