//! The layers: built-in defaults, then the file, then the environment.

use std::path::Path;

use toml::de::DeTable;
use toml::{Table, Value};

use super::mistake::{ConfigError, Mistake};
use super::{Config, collect, env};

/// The defaults, which are the manual at the same time.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// See [`Config::load`].
pub(super) fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let mut mistakes = Vec::new();
    let defaults = parse("config/default.toml", DEFAULTS, &mut mistakes);
    let mut merged = defaults.clone();
    if let Some(path) = file {
        merge(&mut merged, read(path, &mut mistakes));
    }
    let origins = env::apply(&mut merged, env, &mut mistakes);
    let config = collect::config(merged, &defaults, &mut mistakes);
    if let Some(mut config) = config {
        config.delivery.hide_secrets();
        config.validate(&mut mistakes);
        if mistakes.is_empty() {
            return Ok(config);
        }
    }
    for mistake in &mut mistakes {
        if let Some(variable) = origins.get(&mistake.key) {
            mistake.problem.push_str(&format!(" (set by {variable})"));
        }
    }
    mistakes.sort_by(|a, b| a.key.cmp(&b.key));
    Err(ConfigError { mistakes })
}

/// Puts one layer over another: tables are merged, everything else is replaced, lists as a whole.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (Some(below), above) => *below = above,
            (None, above) => {
                base.insert(key, above);
            }
        }
    }
}

fn read(path: &Path, mistakes: &mut Vec<Mistake>) -> Table {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let mut table = parse(&name, &text, mistakes);
            flatten_properties(&mut table);
            table
        }
        Err(error) => {
            mistakes.push(Mistake { key: name, problem: format!("cannot be read: {error}") });
            Table::new()
        }
    }
}

/// The table of a text; an empty one when the text is no TOML, with a mistake for each line that is not.
fn parse(name: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Table {
    let first = match toml::from_str::<Table>(text) {
        Ok(table) => return table,
        Err(error) => error,
    };
    let mut errors = DeTable::parse_recoverable(text).1;
    if errors.is_empty() {
        errors.push(first);
    }
    let mut found: Vec<_> =
        errors.iter().map(|e| (position(text, e.span().map_or(0, |span| span.start)), e.message())).collect();
    found.sort_by_key(|(position, _)| *position);
    // What follows in the same line is mostly a consequence of the first.
    found.dedup_by_key(|((line, _), _)| *line);
    for ((line, column), message) in found {
        let problem = format!("line {line}, column {column}: {message}");
        mistakes.push(Mistake { key: name.to_owned(), problem });
    }
    Table::new()
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Without quotes, `security.protocol = "SSL"` is a table in a table: under `kafka.properties` both ways are the same.
fn flatten_properties(table: &mut Table) {
    if let Some(Value::Table(kafka)) = table.get_mut("kafka")
        && let Some(Value::Table(properties)) = kafka.get_mut("properties")
    {
        let nested = std::mem::take(properties);
        flatten("", nested, properties);
    }
}

fn flatten(prefix: &str, nested: Table, flat: &mut Table) {
    for (key, value) in nested {
        let name = format!("{prefix}{key}");
        match value {
            Value::Table(deeper) => flatten(&format!("{name}."), deeper, flat),
            value => {
                flat.insert(name, value);
            }
        }
    }
}
