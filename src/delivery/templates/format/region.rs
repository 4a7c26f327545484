//! The languages and regions whose ways of writing are known.

use crate::domain::locale::Locale;

/// A language, with the region where it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Region {
    /// American, which is also English without a region.
    English,
    /// Month before day as in America, and clocks of twelve hours.
    EnglishCanada,
    /// Day before month, and clocks of twelve hours; with the currency whose sign is a plain `$` there.
    EnglishTwelveHours(&'static str),
    /// Britain and everywhere else.
    EnglishOther,
    German,
    GermanAustria,
    /// Switzerland and Liechtenstein.
    GermanSwiss,
    French,
    FrenchCanada,
    FrenchSwiss,
    Spanish,
    /// Decimal points, as in Mexico and the Spanish of the United States; with the currency of the plain `$`.
    SpanishNorth(&'static str),
    /// Decimal commas, as in Argentina.
    SpanishSouth,
    Italian,
    ItalianSwiss,
    Dutch,
    /// Brazil, which is also Portuguese without a region.
    Portuguese,
    PortugueseOther,
    Polish,
    /// Written as in ISO 8601, with ISO codes.
    Other,
}

impl Region {
    /// The region of a locale.
    pub fn of(locale: &Locale) -> Self {
        match (locale.language(), locale.region()) {
            ("en", None | Some("US" | "PH")) => Self::English,
            ("en", Some("CA")) => Self::EnglishCanada,
            ("en", Some("AU")) => Self::EnglishTwelveHours("AUD"),
            ("en", Some("NZ")) => Self::EnglishTwelveHours("NZD"),
            ("en", _) => Self::EnglishOther,
            ("de", Some("AT")) => Self::GermanAustria,
            ("de", Some("CH" | "LI")) => Self::GermanSwiss,
            ("de", _) => Self::German,
            ("fr", Some("CA")) => Self::FrenchCanada,
            ("fr", Some("CH")) => Self::FrenchSwiss,
            ("fr", _) => Self::French,
            ("es", Some("MX")) => Self::SpanishNorth("MXN"),
            ("es", Some("US" | "PR")) => Self::SpanishNorth("USD"),
            ("es", None | Some("ES")) => Self::Spanish,
            ("es", _) => Self::SpanishSouth,
            ("it", Some("CH")) => Self::ItalianSwiss,
            ("it", _) => Self::Italian,
            ("nl", _) => Self::Dutch,
            ("pt", None | Some("BR")) => Self::Portuguese,
            ("pt", _) => Self::PortugueseOther,
            ("pl", _) => Self::Polish,
            _ => Self::Other,
        }
    }
}
