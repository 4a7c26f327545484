//! Locales: BCP 47 tags, and the ones that stand in for them.

use std::borrow::Cow;
use std::fmt;

/// A BCP 47 tag of language, script, region and variants, in its canonical spelling (`de-AT`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locale(String);

impl Locale {
    /// Reads a tag in any case, with `-` or `_` between its parts. Extensions are dropped. `None` for what is no tag,
    /// and for the tag `und`, which names no language.
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text.contains('_') { Cow::Owned(text.replace('_', "-")) } else { Cow::Borrowed(text) };
        let id = icu_locale_core::Locale::try_from_str(&text).ok()?.id;
        (!id.language.is_unknown()).then(|| Self(id.to_string()))
    }

    /// The canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag itself, then what is left without its last part: `zh-Hant-TW`, `zh-Hant`, `zh`.
    pub fn fallbacks(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |tag| tag.rsplit_once('-').map(|(shorter, _)| shorter))
    }

    /// The language alone.
    pub fn language(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }

    /// The region, such as `AT`.
    pub fn region(&self) -> Option<&str> {
        let is_region = |part: &&str| {
            part.len() == 2 && part.bytes().all(|b| b.is_ascii_uppercase())
                || part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit())
        };
        self.0.split('-').skip(1).find(is_region)
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_canonical_and_fall_back_by_their_parts() {
        for (text, canonical, region) in [
            ("de", "de", None),
            ("DE-at", "de-AT", Some("AT")),
            ("pt_br", "pt-BR", Some("BR")),
            ("zh-hant-tw", "zh-Hant-TW", Some("TW")),
            ("es-419", "es-419", Some("419")),
            ("de-DE-u-co-phonebk", "de-DE", Some("DE")),
        ] {
            let locale = Locale::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((locale.as_str(), locale.region()), (canonical, region), "{text}");
        }
        let locale = Locale::parse("zh-Hant-TW").expect("a tag");
        assert_eq!(locale.fallbacks().collect::<Vec<_>>(), ["zh-Hant-TW", "zh-Hant", "zh"]);
        assert_eq!(locale.language(), "zh");
        for bad in ["", "und", "d", "german language", "de-", "v2", "de.UTF-8", "\u{202e}de"] {
            assert_eq!(Locale::parse(bad), None, "{bad}");
        }
    }
}
