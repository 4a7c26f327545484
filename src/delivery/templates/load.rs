//! From files to templates that are ready to use, with every mistake found on the way.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use sha2::{Digest as _, Sha256};

use super::error::{TemplateErrors, TemplateMistake};
use super::files::Kind;
use super::format::{self, current_words};
use super::inspect::{Findings, Reference, inspect};
use super::plan::{Parts, Template};
use super::sources::{Source, Sources, built_in, overlay};
use super::{Templates, settings_file};
use crate::domain::locale::Locale;
use crate::ports::ledger::Superseder;

/// Hexadecimal digits of a version.
const VERSION_DIGITS: usize = 12;

/// For each locale of words, for each file: the names of other files in it, and which file each means.
type Links = BTreeMap<Locale, BTreeMap<String, BTreeMap<String, String>>>;

/// Loads the built-in templates with a folder over them.
pub fn load(folder: Option<&Path>, default: Locale) -> Result<Templates, TemplateErrors> {
    let mut mistakes = Vec::new();
    let mut sources = built_in(&mut mistakes);
    if let Some(folder) = folder {
        overlay(&mut sources, folder, &default, &mut mistakes);
    }
    let mut templates = plan(&sources, &default, &mut mistakes);
    let (mut environment, references) = compile(&sources, &mut mistakes);
    let links = link(&sources, &references, &templates);
    set_versions(&mut templates, &sources, &links);
    environment.set_path_join_callback(move |name, parent| {
        let meant = current_words(|locale| links.get(locale)?.get(parent)?.get(name).cloned());
        meant.map_or(Cow::Borrowed(name), Cow::Owned)
    });
    check_supersedes(&templates, &sources, &mut mistakes);
    if mistakes.is_empty() {
        let superseders = superseders(&templates);
        return Ok(Templates { environment, templates, superseders, default_locale: default });
    }
    mistakes.sort();
    mistakes.dedup();
    Err(TemplateErrors { mistakes })
}

fn superseders(templates: &BTreeMap<String, Template>) -> HashMap<String, Vec<Superseder>> {
    let supersedes = |name: &str| templates.get(name).map_or(&[][..], |template| &template.settings.supersedes);
    let mut by_replaced: HashMap<String, Vec<Superseder>> = HashMap::new();
    for name in templates.keys() {
        for replaced in supersedes(name) {
            let superseder = Superseder { template: name.clone(), mutual: supersedes(replaced).contains(name) };
            by_replaced.entry(replaced.clone()).or_default().push(superseder);
        }
    }
    by_replaced
}

/// The names of other files in each file.
type References<'a> = Vec<(&'a Source, Vec<String>)>;

fn compile<'a>(sources: &'a Sources, mistakes: &mut Vec<TemplateMistake>) -> (Environment<'static>, References<'a>) {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // With it, an error knows the place of the variable at fault.
    environment.set_debug(true);
    environment.set_auto_escape_callback(
        |name| {
            if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
        },
    );
    format::add_filters(&mut environment);
    let mut references = References::new();
    for source in words(sources) {
        if let Err(error) = environment.add_template_owned(source.name.clone(), source.text.clone()) {
            mistakes.push(TemplateMistake::new(&source.name, error.line(), describe(&error)));
            continue;
        }
        let findings = inspect(&source.text, &source.name);
        check_names(&environment, source, &findings, mistakes);
        references.push((source, check_references(sources, source, findings.references, mistakes)));
    }
    (environment, references)
}

/// All files but those of settings.
fn words(sources: &Sources) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|(kind, _)| !matches!(kind, Kind::Settings { .. })).map(|(_, source)| source)
}

/// The error without its place.
fn describe(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}

/// Notes filters and tests that do not exist.
fn check_names(
    environment: &Environment<'_>,
    source: &Source,
    findings: &Findings,
    mistakes: &mut Vec<TemplateMistake>,
) {
    let mut note = |what: &str, name: &str, line: usize| {
        mistakes.push(TemplateMistake::new(&source.name, Some(line), format!("there is no {what} `{name}`")));
    };
    // Called without a value each fails, and says whether for want of the value or of the filter.
    for (name, line) in &findings.filters {
        let tried = environment.empty_state().apply_filter(name, &[]);
        if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
            note("filter", name, *line);
        }
    }
    for (name, line) in &findings.tests {
        let tried = environment.empty_state().perform_test(name, &[]);
        if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownTest) {
            note("test", name, *line);
        }
    }
}

/// Notes names of files that do not exist, or that only data could tell; returns the others.
fn check_references(
    sources: &Sources,
    source: &Source,
    references: Vec<Reference>,
    mistakes: &mut Vec<TemplateMistake>,
) -> Vec<String> {
    let mut names = Vec::new();
    for Reference { name, line, required } in references {
        let mut note = |problem: String| mistakes.push(TemplateMistake::new(&source.name, Some(line), problem));
        match name {
            Some(name) if !required || meant(sources, source, &name, &source.language).is_some() => names.push(name),
            Some(name) => note(format!("there is no file `{name}`")),
            None => note("names another file by an expression; write its name in quotes".into()),
        }
    }
    names
}

/// Settles what every name means, for words in every locale that there are words in.
fn link(sources: &Sources, references: &References<'_>, templates: &BTreeMap<String, Template>) -> Links {
    let locales: BTreeSet<&Locale> = templates.values().flat_map(|t| &t.words).map(|words| &words.locale).collect();
    let of_file = |locale: &Locale, source: &Source, names: &[String]| {
        let meant = |name: &String| Some((name.clone(), meant(sources, source, name, locale)?.name.clone()));
        (source.name.clone(), names.iter().filter_map(meant).collect())
    };
    let of_locale = |locale: &Locale| {
        references.iter().filter(|(_, names)| !names.is_empty()).map(|(s, names)| of_file(locale, s, names)).collect()
    };
    locales.into_iter().map(|locale| (locale.clone(), of_locale(locale))).collect()
}

/// The file of a name, in the variant for the locale of the words, else for that of the file that names it. In a
/// variant, the name of what it is a variant of means the less specific one: it builds on that.
fn meant<'a>(sources: &'a Sources, source: &Source, name: &str, words: &Locale) -> Option<&'a Source> {
    let kind = Kind::parse(name).ok().filter(|kind| !matches!(kind, Kind::Settings { .. }))?;
    if kind.locale().is_some() {
        return sources.get(&kind);
    }
    let tags = words.fallbacks().chain(source.language.fallbacks()).map(Some).chain([None]);
    let variants: Vec<&Source> = tags.filter_map(|tag| sources.get(&kind.in_locale(tag))).collect();
    let own = variants.iter().rposition(|variant| variant.name == source.name);
    variants.get(own.map_or(0, |own| own + 1)).copied()
}

fn plan(sources: &Sources, default: &Locale, mistakes: &mut Vec<TemplateMistake>) -> BTreeMap<String, Template> {
    let mut templates = BTreeMap::new();
    let names: BTreeSet<&str> = sources.keys().filter_map(Kind::template).collect();
    for name in names {
        let settings = Kind::Settings { template: name.to_owned() };
        let settings = sources.get(&settings).map(|source| settings_file::parse(&source.name, &source.text, mistakes));
        match (Parts { template: name, sources }).plan(default) {
            Ok((words, fallback)) => {
                let template = Template { settings: settings.unwrap_or_default(), words, fallback };
                templates.insert(name.to_owned(), template);
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    templates
}

fn set_versions(templates: &mut BTreeMap<String, Template>, sources: &Sources, links: &Links) {
    let texts: BTreeMap<&str, &str> = words(sources).map(|s| (s.name.as_str(), s.text.as_str())).collect();
    let none = BTreeMap::new();
    for words in templates.values_mut().flat_map(|template| &mut template.words) {
        words.version = version(words.files(), links.get(&words.locale).unwrap_or(&none), &texts);
    }
}

/// A hash over the files and all that they build on.
fn version(
    files: BTreeSet<&str>,
    links: &BTreeMap<String, BTreeMap<String, String>>,
    texts: &BTreeMap<&str, &str>,
) -> String {
    let mut used = BTreeSet::new();
    let mut open: Vec<&str> = files.into_iter().collect();
    while let Some(file) = open.pop() {
        if used.insert(file) {
            open.extend(links.get(file).into_iter().flat_map(|links| links.values()).map(String::as_str));
        }
    }
    let mut hash = Sha256::new();
    for file in used {
        let text = texts.get(file).copied().unwrap_or_default();
        hash.update(format!("{file}\0{}\0", text.len()));
        hash.update(text);
    }
    let digest = hash.finalize();
    digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(VERSION_DIGITS).map(hex_digit).collect()
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

fn check_supersedes(templates: &BTreeMap<String, Template>, sources: &Sources, mistakes: &mut Vec<TemplateMistake>) {
    for (name, template) in templates {
        for other in template.settings.supersedes.iter().filter(|other| !templates.contains_key(*other)) {
            let source = sources.get(&Kind::Settings { template: name.clone() });
            let line = source.and_then(|source| settings_file::line_of(&source.text, "supersedes"));
            let path = format!("{name}/template.toml");
            mistakes.push(TemplateMistake::new(path, line, format!("supersedes: there is no template `{other}`")));
        }
    }
}
