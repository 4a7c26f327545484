//! Dates and times in the reader's zone and language, after the Unicode CLDR's long dates and short times.

use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::Conventions;
use super::region::Region;
use crate::domain::time::parse_rfc3339;

const ENGLISH: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const GERMAN: [&str; 12] = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];
const FRENCH: [&str; 12] = [
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
];
const SPANISH: [&str; 12] = [
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
];
const ITALIAN: [&str; 12] = [
    "gennaio",
    "febbraio",
    "marzo",
    "aprile",
    "maggio",
    "giugno",
    "luglio",
    "agosto",
    "settembre",
    "ottobre",
    "novembre",
    "dicembre",
];
const DUTCH: [&str; 12] = [
    "januari",
    "februari",
    "maart",
    "april",
    "mei",
    "juni",
    "juli",
    "augustus",
    "september",
    "oktober",
    "november",
    "december",
];
const PORTUGUESE: [&str; 12] = [
    "janeiro",
    "fevereiro",
    "março",
    "abril",
    "maio",
    "junho",
    "julho",
    "agosto",
    "setembro",
    "outubro",
    "novembro",
    "dezembro",
];
/// In the genitive, as a date needs them.
const POLISH: [&str; 12] = [
    "stycznia",
    "lutego",
    "marca",
    "kwietnia",
    "maja",
    "czerwca",
    "lipca",
    "sierpnia",
    "września",
    "października",
    "listopada",
    "grudnia",
];

/// A date, or a point in time that has one in the reader's zone.
enum Moment {
    /// A day, which is the same in every zone.
    Day(Date),
    At(Zoned),
}

impl Moment {
    fn parse(to: &Conventions, text: &str) -> Option<Self> {
        if let Some(at) = parse_rfc3339(text) {
            return Some(Self::At(at.to_zoned(to.zone().cloned().unwrap_or(TimeZone::UTC))));
        }
        let digits =
            text.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
        (text.len() == 10 && digits).then(|| text.parse().ok().map(Self::Day))?
    }

    fn date(&self) -> Date {
        match self {
            Self::Day(date) => *date,
            Self::At(at) => at.date(),
        }
    }
}

/// The date; `None` when the text is neither an RFC 3339 time nor a date.
pub fn date(to: &Conventions, text: &str) -> Option<String> {
    Some(write_date(to.region, Moment::parse(to, text)?.date()))
}

/// The time of the day; `None` when the text has none.
pub fn time(to: &Conventions, text: &str) -> Option<String> {
    match Moment::parse(to, text)? {
        Moment::Day(_) => None,
        Moment::At(at) => Some(write_time(to, &at)),
    }
}

/// Both; the date alone when the text has no time.
pub fn datetime(to: &Conventions, text: &str) -> Option<String> {
    let moment = Moment::parse(to, text)?;
    let date = write_date(to.region, moment.date());
    Some(match moment {
        Moment::Day(_) => date,
        Moment::At(at) => format!("{date}{}{}", joint(to.region), write_time(to, &at)),
    })
}

fn write_date(region: Region, date: Date) -> String {
    let (day, year, month) = (date.day(), date.year(), usize::from(date.month().unsigned_abs()) - 1);
    match region {
        Region::English | Region::EnglishCanada => format!("{} {day}, {year}", ENGLISH[month]),
        Region::EnglishTwelveHours(_) | Region::EnglishOther => format!("{day} {} {year}", ENGLISH[month]),
        // What Austrians call the first month.
        Region::GermanAustria if month == 0 => format!("{day}. Jänner {year}"),
        Region::German | Region::GermanAustria | Region::GermanSwiss => format!("{day}. {} {year}", GERMAN[month]),
        Region::French | Region::FrenchCanada | Region::FrenchSwiss => {
            format!("{day}{} {} {year}", if day == 1 { "er" } else { "" }, FRENCH[month])
        }
        Region::Spanish | Region::SpanishNorth(_) | Region::SpanishSouth => {
            format!("{day} de {} de {year}", SPANISH[month])
        }
        Region::Italian | Region::ItalianSwiss => format!("{day} {} {year}", ITALIAN[month]),
        Region::Dutch => format!("{day} {} {year}", DUTCH[month]),
        Region::Portuguese | Region::PortugueseOther => format!("{day} de {} de {year}", PORTUGUESE[month]),
        Region::Polish => format!("{day} {} {year}", POLISH[month]),
        Region::Other => date.to_string(),
    }
}

fn write_time(to: &Conventions, at: &Zoned) -> String {
    let (hour, minute) = (at.hour(), at.minute());
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let mut text = match to.region {
        Region::English => format!("{twelve}:{minute:02} {}", if hour < 12 { "AM" } else { "PM" }),
        Region::EnglishCanada => format!("{twelve}:{minute:02} {}", if hour < 12 { "a.m." } else { "p.m." }),
        Region::EnglishTwelveHours(_) => format!("{twelve}:{minute:02} {}", if hour < 12 { "am" } else { "pm" }),
        _ => format!("{hour:02}:{minute:02}"),
    };
    // Readers take a time for their own unless it says otherwise.
    if to.zone().is_none() {
        text.push_str(" UTC");
    }
    text
}

fn joint(region: Region) -> &'static str {
    match region {
        Region::English | Region::EnglishCanada | Region::EnglishTwelveHours(_) | Region::EnglishOther => " at ",
        Region::German | Region::GermanAustria | Region::GermanSwiss => " um ",
        Region::French | Region::FrenchCanada | Region::FrenchSwiss => " à ",
        Region::Spanish | Region::SpanishNorth(_) | Region::SpanishSouth => ", ",
        Region::Italian | Region::ItalianSwiss => " alle ore ",
        Region::Dutch => " om ",
        Region::Portuguese | Region::PortugueseOther => " às ",
        Region::Polish | Region::Other => " ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::locale::Locale;
    use proptest::prelude::*;

    fn to(locale: &str, zone: Option<&str>) -> Conventions {
        let locale = Locale::parse(locale).expect("a locale");
        Conventions::new(&locale, zone, locale.clone())
    }

    #[test]
    fn times_are_in_the_reader_s_language() {
        let at = "2026-01-01T22:05:00Z";
        for (locale, date, time, both) in [
            ("en", "January 1, 2026", "11:05 PM", "January 1, 2026 at 11:05 PM"),
            ("en-GB", "1 January 2026", "23:05", "1 January 2026 at 23:05"),
            ("en-AU", "1 January 2026", "11:05 pm", "1 January 2026 at 11:05 pm"),
            ("de", "1. Januar 2026", "23:05", "1. Januar 2026 um 23:05"),
            ("de-AT", "1. Jänner 2026", "23:05", "1. Jänner 2026 um 23:05"),
            ("fr", "1er janvier 2026", "23:05", "1er janvier 2026 à 23:05"),
            ("es", "1 de enero de 2026", "23:05", "1 de enero de 2026, 23:05"),
            ("it", "1 gennaio 2026", "23:05", "1 gennaio 2026 alle ore 23:05"),
            ("nl", "1 januari 2026", "23:05", "1 januari 2026 om 23:05"),
            ("pt-BR", "1 de janeiro de 2026", "23:05", "1 de janeiro de 2026 às 23:05"),
            ("pl", "1 stycznia 2026", "23:05", "1 stycznia 2026 23:05"),
            ("ja", "2026-01-01", "23:05", "2026-01-01 23:05"),
        ] {
            let to = to(locale, Some("Europe/Berlin"));
            let found = [super::date(&to, at), super::time(&to, at), datetime(&to, at)];
            assert_eq!(found.map(Option::unwrap_or_default), [date, time, both], "{locale}");
        }
    }

    #[test]
    fn times_are_in_the_reader_s_zone_with_its_daylight_saving() {
        for (zone, at, expected) in [
            (Some("Europe/Berlin"), "2026-03-29T00:59:59Z", "29 March 2026 at 01:59"),
            (Some("Europe/Berlin"), "2026-03-29T01:00:00Z", "29 March 2026 at 03:00"),
            (Some("Europe/Berlin"), "2026-10-25T00:30:00Z", "25 October 2026 at 02:30"),
            (Some("Europe/Berlin"), "2026-10-25T01:30:00Z", "25 October 2026 at 02:30"),
            (Some("America/New_York"), "2026-01-01T03:00:00Z", "31 December 2025 at 22:00"),
            (Some("Asia/Kolkata"), "2026-06-30T18:30:00Z", "1 July 2026 at 00:00"),
            (Some("Pacific/Apia"), "2026-01-01T12:00:00+02:00", "1 January 2026 at 23:00"),
            (None, "2026-01-15T10:30:00+02:00", "15 January 2026 at 08:30 UTC"),
            (Some("Mars/Olympus"), "2026-01-15T10:30:00Z", "15 January 2026 at 10:30 UTC"),
            (Some("Asia/Tokyo"), "2026-01-15", "15 January 2026"),
        ] {
            assert_eq!(datetime(&to("en-GB", zone), at).as_deref(), Some(expected), "{zone:?} {at}");
        }
    }

    #[test]
    fn what_is_no_time_is_left_alone() {
        let to = to("de", None);
        for text in
            ["", "tomorrow", "2026-13-01", "2026-1-1", "20260101", "2026-01-15T10:30", "15.01.2026", "2026-01-1é"]
        {
            assert_eq!(super::date(&to, text), None, "{text}");
        }
        assert_eq!(super::time(&to, "2026-01-15"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_filter_panic(text in "\\PC{0,30}|-?[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?") {
            let to = to("en", Some("Europe/Berlin"));
            let _ = (super::date(&to, &text), super::time(&to, &text), datetime(&to, &text));
        }
    }
}
