//! What the files of a template are called: `TEMPLATE/PART[.LOCALE].EXTENSION`.

use crate::domain::locale::Locale;

/// The folder of what templates share: layouts to extend, macros to import.
pub const LAYOUTS: &str = "layouts";

/// What a file of a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `subject.txt`: one line; an e-mail's subject, a push notification's title.
    Subject,
    /// `body.txt`: the whole text.
    Text,
    /// `body.html`: the whole text as HTML.
    Html,
    /// `sms.txt`: the text in short.
    Sms,
    /// `push.txt`: the text of a push notification.
    Push,
}

impl Part {
    pub const ALL: [Self; 5] = [Self::Subject, Self::Text, Self::Html, Self::Sms, Self::Push];

    /// Stem and extension.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Subject => ("subject", "txt"),
            Self::Text => ("body", "txt"),
            Self::Html => ("body", "html"),
            Self::Sms => ("sms", "txt"),
            Self::Push => ("push", "txt"),
        }
    }

    /// True for a part that alone can be a message.
    pub fn is_body(self) -> bool {
        self != Self::Subject
    }
}

/// What a file is, by its path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A part of a template.
    Part { template: String, part: Part, locale: Option<Locale> },
    /// `TEMPLATE/template.toml`.
    Settings { template: String },
    /// A file of `layouts/`; `base` is its path without the locale.
    Layout { base: String, locale: Option<Locale> },
}

impl Kind {
    /// Reads a path of two steps, such as `welcome/body.de.html`.
    ///
    /// # Errors
    /// What is wrong with the name, and which names there are.
    pub fn parse(path: &str) -> Result<Self, String> {
        let (folder, file) = path.split_once('/').unwrap_or((path, ""));
        if folder == LAYOUTS {
            return parse_layout(file);
        }
        if !folder.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            return Err("a template's name has only letters, digits, `_` and `-`".into());
        }
        let template = folder.to_owned();
        if file == "template.toml" {
            return Ok(Self::Settings { template });
        }
        let steps: Vec<&str> = file.split('.').collect();
        let (stem, tag, extension) = match steps[..] {
            [stem, extension] => (stem, None, extension),
            [stem, tag, extension] => (stem, Some(tag), extension),
            _ => return Err(unexpected()),
        };
        let part = Part::ALL.into_iter().find(|part| part.names() == (stem, extension)).ok_or_else(unexpected)?;
        Ok(Self::Part { template, part, locale: tag.map(parse_tag).transpose()? })
    }

    /// The template, for a file of one.
    pub fn template(&self) -> Option<&str> {
        match self {
            Self::Part { template, .. } | Self::Settings { template } => Some(template),
            Self::Layout { .. } => None,
        }
    }

    /// True for a file without a locale whose words are meant to be used instead of the other's.
    pub fn is_for_everybody_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Part { template, locale: None, .. }, Self::Part { template: other, .. }) => template == other,
            (Self::Layout { base, locale: None }, Self::Layout { base: other, .. }) => base == other,
            _ => false,
        }
    }

    /// The same file for another locale.
    pub fn in_locale(&self, tag: Option<&str>) -> Self {
        let mut kind = self.clone();
        match &mut kind {
            Self::Part { locale, .. } | Self::Layout { locale, .. } => *locale = tag.and_then(Locale::parse),
            Self::Settings { .. } => {}
        }
        kind
    }

    /// The locale in the name.
    pub fn locale(&self) -> Option<&Locale> {
        match self {
            Self::Part { locale, .. } | Self::Layout { locale, .. } => locale.as_ref(),
            Self::Settings { .. } => None,
        }
    }
}

fn parse_layout(file: &str) -> Result<Kind, String> {
    let expected = || "expected NAME.html, NAME.txt, or with a locale, such as NAME.de.html".to_owned();
    let steps: Vec<&str> = file.split('.').collect();
    let (stem, tag, extension) = match steps[..] {
        [stem, extension] => (stem, None, extension),
        [stem, tag, extension] => (stem, Some(tag), extension),
        _ => return Err(expected()),
    };
    if stem.is_empty() || !matches!(extension, "html" | "txt") {
        return Err(expected());
    }
    Ok(Kind::Layout { base: format!("{LAYOUTS}/{stem}.{extension}"), locale: tag.map(parse_tag).transpose()? })
}

fn parse_tag(tag: &str) -> Result<Locale, String> {
    Locale::parse(tag).ok_or_else(|| format!("`{tag}` is no BCP 47 tag, such as `de` or `de-AT`"))
}

fn unexpected() -> String {
    let names: Vec<String> = Part::ALL.map(|part| format!("{}.{}", part.names().0, part.names().1)).into();
    format!(
        "a template has no file of this name; expected {} or template.toml, with a locale in the middle where needed, \
         such as body.de.html",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_part_and_locale() {
        let tag = |text: &str| Locale::parse(text);
        for (path, part, locale) in [
            ("a/subject.txt", Part::Subject, None),
            ("a/body.html", Part::Html, None),
            ("a/body.de.txt", Part::Text, tag("de")),
            ("a/push.pt-br.txt", Part::Push, tag("pt-BR")),
        ] {
            assert_eq!(Kind::parse(path), Ok(Kind::Part { template: "a".into(), part, locale }), "{path}");
        }
        assert_eq!(Kind::parse("a/template.toml"), Ok(Kind::Settings { template: "a".into() }));
        let base = "layouts/base.html".to_owned();
        assert_eq!(Kind::parse("layouts/base.de.html"), Ok(Kind::Layout { base, locale: tag("de") }));
    }

    #[test]
    fn other_names_are_refused_with_the_expected_ones() {
        for path in ["a/bdoy.txt", "a/body.md", "a/subject.html", "a/body", "a/body.de.at.txt", "a/README.md"] {
            let problem = Kind::parse(path).expect_err(path);
            assert!(problem.contains("body.txt") && problem.contains("subject.txt"), "{path}: {problem}");
        }
        assert!(Kind::parse("a/body.v2.txt").expect_err("no tag").contains("`v2` is no BCP 47 tag"));
        assert!(Kind::parse("a b/body.txt").is_err() && Kind::parse("layouts/base.css").is_err());
    }
}
