//! Which files make a message: decided once at start, for every template, locale and channel.
//!
//! The language comes first. A template has words in a locale when it has a body in that locale, or one without a
//! locale whose place gives it that locale. All parts of a message come from there: from the locale itself or from what
//! it falls back to (`de-AT`, then `de`), never from another language. A channel whose own part is missing takes
//! another part in the same language rather than its own in another one. The subject alone, without which a mail is
//! hardly read, is taken from the part without a locale when there is none.

use std::collections::BTreeSet;

use super::error::TemplateMistake;
use super::files::{Kind, Part};
use super::sources::{Source, Sources};
use crate::delivery::template_settings::TemplateSettings;
use crate::domain::channel::Channel;
use crate::domain::locale::Locale;

/// A template as it is used.
#[derive(Debug)]
pub struct Template {
    pub settings: TemplateSettings,
    /// In the order of their tags.
    pub words: Vec<Words>,
    /// The words for readers of other languages: a place in `words`.
    pub fallback: usize,
}

/// A template in one locale.
#[derive(Debug)]
pub struct Words {
    /// The locale of the words.
    pub locale: Locale,
    /// Changes exactly when a source changes that the template can use in this locale.
    pub version: String,
    /// In the order of [`Channel::ALL`].
    channels: [Plan; Channel::ALL.len()],
}

/// The files of a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub subject: Option<String>,
    pub text: Text,
    pub html: Option<String>,
}

/// Where the text comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Text {
    /// A file.
    Of(String),
    /// The words of a file of HTML.
    OfHtml(String),
}

impl Plan {
    fn files(&self) -> impl Iterator<Item = &str> {
        let (Text::Of(text) | Text::OfHtml(text)) = &self.text;
        [Some(text), self.subject.as_ref(), self.html.as_ref()].into_iter().flatten().map(String::as_str)
    }
}

impl Template {
    /// The words for a reader's locale.
    pub fn words_for(&self, locale: Option<&Locale>) -> &Words {
        let found = locale.and_then(|locale| locale.fallbacks().find_map(|tag| self.index_of(tag)));
        &self.words[found.unwrap_or(self.fallback)]
    }

    fn index_of(&self, tag: &str) -> Option<usize> {
        self.words.binary_search_by(|words| words.locale.as_str().cmp(tag)).ok()
    }
}

impl Words {
    /// The files for a channel.
    pub fn plan(&self, channel: Channel) -> &Plan {
        &self.channels[channel as usize]
    }

    /// The channels for which the template has a part of their own, rather than another that stands in.
    pub fn own_channels(&self) -> impl Iterator<Item = Channel> {
        Channel::ALL.into_iter().filter(|channel| {
            let (Text::Of(name) | Text::OfHtml(name)) = &self.plan(*channel).text;
            let own = match channel {
                Channel::Sms => [Part::Sms, Part::Sms],
                Channel::Push => [Part::Push, Part::Push],
                _ => [Part::Text, Part::Html],
            };
            matches!(Kind::parse(name), Ok(Kind::Part { part, .. }) if own.contains(&part))
        })
    }

    /// Every file that one of the channels uses.
    pub fn files(&self) -> BTreeSet<&str> {
        self.channels.iter().flat_map(Plan::files).collect()
    }
}

/// The parts that can be a channel's text, the best first.
fn order(channel: Channel) -> [Part; 4] {
    match channel {
        Channel::Email | Channel::Webhook | Channel::InApp | Channel::AdminAlert => {
            [Part::Text, Part::Html, Part::Sms, Part::Push]
        }
        Channel::Sms => [Part::Sms, Part::Push, Part::Text, Part::Html],
        Channel::Push => [Part::Push, Part::Sms, Part::Text, Part::Html],
    }
}

/// The files of one template.
pub struct Parts<'a> {
    pub template: &'a str,
    pub sources: &'a Sources,
}

impl<'a> Parts<'a> {
    /// Plans every locale that the template has words in. Versions are still empty.
    pub fn plan(&self, default: &Locale) -> Result<(Vec<Words>, usize), TemplateMistake> {
        let locales = self.locales();
        if locales.is_empty() {
            let problem = "has no body: add body.txt, body.html, sms.txt or push.txt";
            return Err(TemplateMistake::new(self.template, None, problem));
        }
        let Some(fallback) = self.fallback(default, &locales) else {
            let known: Vec<&str> = locales.iter().map(Locale::as_str).collect();
            let problem = format!(
                "has words in {} only: add a body without a locale, or one in the default locale `{default}`",
                known.join(", ")
            );
            return Err(TemplateMistake::new(self.template, None, problem));
        };
        let fallback = locales.iter().position(|locale| *locale == fallback).unwrap_or_default();
        Ok((locales.into_iter().filter_map(|locale| self.words(locale)).collect(), fallback))
    }

    fn words(&self, locale: Locale) -> Option<Words> {
        let [a, b, c, d, e, f] = Channel::ALL.map(|channel| self.channel(channel, &locale));
        Some(Words { channels: [a?, b?, c?, d?, e?, f?], locale, version: String::new() })
    }

    fn channel(&self, channel: Channel, locale: &Locale) -> Option<Plan> {
        let name = |source: &Source| source.name.clone();
        let (part, text) = order(channel).into_iter().find_map(|part| Some((part, self.find(part, locale)?)))?;
        let text = if part == Part::Html { Text::OfHtml(name(text)) } else { Text::Of(name(text)) };
        let html = (channel == Channel::Email).then(|| self.find(Part::Html, locale)).flatten().map(name);
        let has_subject = channel != Channel::Sms;
        let subject = || self.find(Part::Subject, locale).or_else(|| self.exact(Part::Subject, None));
        Some(Plan { subject: has_subject.then(subject).flatten().map(name), text, html })
    }

    /// A part in a locale or in what the locale falls back to.
    fn find(&self, part: Part, locale: &Locale) -> Option<&'a Source> {
        let everybody = self.exact(part, None);
        locale
            .fallbacks()
            .find_map(|tag| self.exact(part, Some(tag)).or(everybody.filter(|source| source.language.as_str() == tag)))
    }

    fn exact(&self, part: Part, tag: Option<&str>) -> Option<&'a Source> {
        let kind = Kind::Part { template: self.template.to_owned(), part, locale: None };
        self.sources.get(&kind.in_locale(tag))
    }

    /// The locales of the bodies, in the order of their tags.
    fn locales(&self) -> BTreeSet<Locale> {
        let is_body = |kind: &Kind| match kind {
            Kind::Part { template, part, .. } => template == self.template && part.is_body(),
            _ => false,
        };
        self.sources.iter().filter(|(kind, _)| is_body(kind)).map(|(_, source)| source.language.clone()).collect()
    }

    /// The locale for readers whose language the template does not have: the default one, else that of the bodies
    /// without a locale.
    fn fallback(&self, default: &Locale, locales: &BTreeSet<Locale>) -> Option<Locale> {
        let chosen = default.fallbacks().find_map(|tag| locales.iter().find(|locale| locale.as_str() == tag));
        let bodies = || Part::ALL.into_iter().filter(|part| part.is_body());
        chosen.cloned().or_else(|| bodies().find_map(|part| Some(self.exact(part, None)?.language.clone())))
    }
}
