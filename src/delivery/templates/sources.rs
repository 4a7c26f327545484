//! The files that templates are made of: those compiled in, and an operator's folder over them.

use std::collections::BTreeMap;
use std::path::Path;

use super::built_in::FILES;
use super::error::TemplateMistake;
use super::files::Kind;
use crate::domain::locale::Locale;

/// A file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path from the folder of templates, as it is spelt there.
    pub name: String,
    /// Its content.
    pub text: String,
    /// The locale of its words: the one in its name, else the default of the place that it comes from.
    pub language: Locale,
}

/// All files, by what they are.
pub type Sources = BTreeMap<Kind, Source>;

/// The files that are compiled in. Those without a locale are in English.
pub fn built_in(mistakes: &mut Vec<TemplateMistake>) -> Sources {
    let mut sources = Sources::new();
    if let Some(english) = Locale::parse("en") {
        for (name, text) in FILES {
            add(&mut sources, name, (*text).to_owned(), &english, mistakes);
        }
    }
    sources
}

/// Lays a folder's files over the others. Those without a locale are in the default one.
///
/// A file replaces the one of its kind and locale. One without a locale is meant for every reader, so the built-in
/// variants beside it go: else some readers would get the operator's words and others not.
pub fn overlay(sources: &mut Sources, folder: &Path, default: &Locale, mistakes: &mut Vec<TemplateMistake>) {
    let mut above = Sources::new();
    for group in entries(folder, "", mistakes).into_iter().filter(|group| folder.join(group).is_dir()) {
        let files = entries(&folder.join(&group), &group, mistakes);
        if files.is_empty() {
            mistakes.push(TemplateMistake::new(&group, None, "the folder has no file of a template"));
        }
        for file in files {
            let name = format!("{group}/{file}");
            match std::fs::read_to_string(folder.join(&name)) {
                Ok(text) => add(&mut above, &name, text, default, mistakes),
                Err(error) => mistakes.push(TemplateMistake::new(name, None, format!("cannot be read: {error}"))),
            }
        }
    }
    sources.retain(|below, _| below.locale().is_none() || !above.keys().any(|kind| kind.is_for_everybody_of(below)));
    sources.extend(above);
}

fn add(sources: &mut Sources, name: &str, text: String, default: &Locale, mistakes: &mut Vec<TemplateMistake>) {
    match Kind::parse(name) {
        Ok(kind) => {
            let language = kind.locale().unwrap_or(default).clone();
            let source = Source { name: name.to_owned(), text, language };
            if let Some(other) = sources.insert(kind, source) {
                let problem = format!("is the same part in the same locale as {}", other.name);
                mistakes.push(TemplateMistake::new(name, None, problem));
            }
        }
        Err(problem) => mistakes.push(TemplateMistake::new(name, None, problem)),
    }
}

/// The names in a folder, in order. Hidden ones belong to editors and to the volumes of containers.
fn entries(folder: &Path, shown: &str, mistakes: &mut Vec<TemplateMistake>) -> Vec<String> {
    let read = || -> std::io::Result<Vec<String>> {
        let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    match read() {
        Ok(mut names) => {
            names.retain(|name| !name.starts_with('.'));
            names.sort();
            names
        }
        Err(error) => {
            let shown = if shown.is_empty() { folder.display().to_string() } else { shown.to_owned() };
            mistakes.push(TemplateMistake::new(shown, None, format!("cannot be read: {error}")));
            Vec::new()
        }
    }
}
