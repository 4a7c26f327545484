//! Templates: from a notification's data to its words.
//!
//! A template is a folder of small files, one for each part of a message (`subject.txt`, `body.html` …), with variants
//! for locales (`body.de.html`). The built-in ones are compiled in; an operator's folder lies over them. Everything that
//! can be decided without data is decided at start: files are parsed and checked, and for every template, locale and
//! channel it is settled which files make the message and which version that is. A rendering only looks up.
//!
//! | file | does |
//! |---|---|
//! | `files` | what files are called |
//! | `sources` | the built-in files, and a folder over them |
//! | `inspect` | what a file refers to |
//! | `plan` | which files make a message, in which language |
//! | `load` | all of these, and every mistake found on the way |
//! | `render` | a message |
//! | `values` | data as variables |
//! | `format` | money and dates as the reader writes them |
//! | `text_of_html` | the text of a mail that has only HTML |

mod built_in;
mod error;
mod files;
mod format;
mod inspect;
mod load;
mod plan;
mod render;
mod settings_file;
mod sources;
#[cfg(test)]
mod tests;
mod text_of_html;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use minijinja::Environment;

use super::template_settings::TemplateSettings;
use crate::domain::channel::Channel;
use crate::domain::locale::Locale;
use crate::ports::ledger::Superseder;
pub use error::{RenderError, TemplateErrors, TemplateMistake};
pub use render::{RenderRequest, Rendered};

/// All templates, checked and ready.
pub struct Templates {
    environment: Environment<'static>,
    templates: BTreeMap<String, plan::Template>,
    /// By the template that they replace.
    superseders: HashMap<String, Vec<Superseder>>,
    default_locale: Locale,
}

/// A template in one locale, for people who look at what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The template's name.
    pub template: &'a str,
    /// The BCP 47 tag.
    pub locale: &'a str,
    /// True for the words of readers whose language the template does not have.
    pub is_fallback: bool,
    /// See [`Rendered::version`].
    pub version: &'a str,
    /// The channels with a part of their own; another part stands in for the others.
    pub channels: Vec<Channel>,
}

impl Templates {
    /// The built-in templates, with English as the default.
    ///
    /// # Errors
    /// When one is broken, which a test rules out.
    pub fn built_in() -> Result<Self, TemplateErrors> {
        Self::load(None, "en")
    }

    /// The built-in templates, with the files of a folder over them. `default_locale` is a BCP 47 tag: the language of
    /// the folder's files without a locale, and of recipients without one.
    ///
    /// # Errors
    /// All mistakes at once, each with its file and, where it has one, its line.
    pub fn load(folder: Option<&Path>, default_locale: &str) -> Result<Self, TemplateErrors> {
        let problem = || TemplateMistake::new(default_locale, None, "the default locale is no BCP 47 tag");
        let locale = Locale::parse(default_locale).ok_or_else(|| TemplateErrors { mistakes: vec![problem()] })?;
        load::load(folder, locale)
    }

    /// True when there is a template of this name. It has words for every channel then.
    pub fn has(&self, template: &str) -> bool {
        self.templates.contains_key(template)
    }

    /// What a template says about its notifications; the defaults for one that says nothing or does not exist.
    pub fn settings(&self, template: &str) -> &TemplateSettings {
        static DEFAULTS: TemplateSettings = TemplateSettings {
            category: None,
            critical: false,
            supersedes: Vec::new(),
            digest_window_ms: None,
            expires_after_ms: None,
        };
        self.templates.get(template).map_or(&DEFAULTS, |template| &template.settings)
    }

    /// The templates whose notifications replace this one's.
    pub fn superseders(&self, template: &str) -> &[Superseder] {
        self.superseders.get(template).map(Vec::as_slice).unwrap_or_default()
    }

    /// True when notifications of this template are collected into digests.
    pub fn collects(&self, template: &str) -> bool {
        self.settings(template).digest_window_ms.is_some()
    }

    /// Every template in each of its locales, in the order of their names.
    pub fn list(&self) -> impl Iterator<Item = Listed<'_>> {
        self.templates.iter().flat_map(|(name, template)| {
            template.words.iter().enumerate().map(|(index, words)| Listed {
                template: name,
                locale: words.locale.as_str(),
                is_fallback: index == template.fallback,
                version: &words.version,
                channels: words.own_channels().collect(),
            })
        })
    }
}
