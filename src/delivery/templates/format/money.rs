//! Amounts of money: separators, the currency's sign and its place.

use super::decimal::Decimal;
use super::region::Region;

const NBSP: &str = "\u{a0}";
const NARROW_NBSP: &str = "\u{202f}";

/// How a region writes amounts of money, after the Unicode CLDR.
struct Style {
    group: &'static str,
    decimal: char,
    /// Numbers with fewer digits before the point are not grouped.
    grouped_from: usize,
    sign_first: bool,
    /// Between sign and amount. A code of letters is always set off by a space.
    space: &'static str,
}

/// An amount with its currency. One that is no number, or a currency that is no ISO 4217 code, stands as it is.
pub fn format(region: Region, amount: &str, currency: &str) -> String {
    let is_code = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_alphabetic());
    let (true, Some(number)) = (is_code, Decimal::parse(amount)) else {
        return format!("{amount} {currency}");
    };
    let code = currency.to_ascii_uppercase();
    let number = number.with_minor_digits(minor_digits(&code));
    let style = style(region);
    let minus = if number.negative { "-" } else { "" };
    let digits = digits(&number, &style);
    let sign = sign(region, &code);
    let space = match style.space {
        "" if sign == code => NBSP,
        space => space,
    };
    if style.sign_first { format!("{minus}{sign}{space}{digits}") } else { format!("{minus}{digits}{space}{sign}") }
}

fn digits(number: &Decimal, style: &Style) -> String {
    let mut text = String::with_capacity(number.whole.len() * 2 + number.fraction.len());
    for (index, digit) in number.whole.chars().enumerate() {
        let left = number.whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && number.whole.len() >= style.grouped_from {
            text.push_str(style.group);
        }
        text.push(digit);
    }
    if !number.fraction.is_empty() {
        text.push(style.decimal);
        text.push_str(&number.fraction);
    }
    text
}

fn style(region: Region) -> Style {
    let style =
        |group, decimal, grouped_from, sign_first, space| Style { group, decimal, grouped_from, sign_first, space };
    match region {
        Region::English
        | Region::EnglishCanada
        | Region::EnglishTwelveHours(_)
        | Region::EnglishOther
        | Region::SpanishNorth(_) => style(",", '.', 4, true, ""),
        Region::German | Region::Italian => style(".", ',', 4, false, NBSP),
        Region::GermanSwiss | Region::ItalianSwiss => style("’", '.', 4, true, NBSP),
        Region::French => style(NARROW_NBSP, ',', 4, false, NBSP),
        Region::FrenchCanada => style(NBSP, ',', 4, false, NBSP),
        Region::FrenchSwiss => style(NARROW_NBSP, '.', 4, false, NBSP),
        Region::Spanish => style(".", ',', 5, false, NBSP),
        Region::GermanAustria | Region::SpanishSouth | Region::Dutch | Region::Portuguese => {
            style(".", ',', 4, true, NBSP)
        }
        Region::PortugueseOther | Region::Polish => style(NBSP, ',', 5, false, NBSP),
        Region::Other => style("", '.', usize::MAX, false, " "),
    }
}

/// The sign that readers of the region take for this currency; its code where a sign would be rare or ambiguous.
fn sign(region: Region, code: &str) -> &str {
    match (code, region) {
        (_, Region::Other) => code,
        ("EUR", _) => "€",
        ("GBP", _) => "£",
        ("JPY", _) => "¥",
        ("USD", Region::English | Region::SpanishNorth("USD")) => "$",
        ("USD", Region::German | Region::GermanAustria | Region::GermanSwiss) => "$",
        ("USD", Region::French | Region::FrenchCanada) => "$\u{a0}US",
        ("USD", Region::Italian | Region::ItalianSwiss | Region::Polish | Region::FrenchSwiss) => code,
        ("USD", _) => "US$",
        ("CAD", Region::EnglishCanada | Region::FrenchCanada) => "$",
        ("AUD", Region::EnglishTwelveHours("AUD")) | ("NZD", Region::EnglishTwelveHours("NZD")) => "$",
        ("MXN", Region::SpanishNorth("MXN")) => "$",
        ("BRL", Region::Portuguese | Region::PortugueseOther) => "R$",
        ("PLN", Region::Polish) => "zł",
        _ => code,
    }
}

/// Digits of the minor unit, after ISO 4217.
fn minor_digits(code: &str) -> usize {
    match code {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::locale::Locale;
    use proptest::prelude::*;

    fn money(locale: &str, amount: &str, currency: &str) -> String {
        format(Region::of(&Locale::parse(locale).expect("a locale")), amount, currency)
    }

    #[test]
    fn amounts_are_written_as_their_readers_do() {
        for (locale, amount, currency, expected) in [
            ("en", "1234.5", "USD", "$1,234.50"),
            ("en", "-1234.5", "USD", "-$1,234.50"),
            ("en-GB", "1234.5", "USD", "US$1,234.50"),
            ("en-GB", "999", "gbp", "£999.00"),
            ("en-CA", "5", "CAD", "$5.00"),
            ("en-AU", "5", "AUD", "$5.00"),
            ("en", "5", "CHF", "CHF\u{a0}5.00"),
            ("en", "1000000", "JPY", "¥1,000,000"),
            ("en", "100.00", "JPY", "¥100"),
            ("en", "99.125", "USD", "$99.125"),
            ("en", "1.5", "KWD", "KWD\u{a0}1.500"),
            ("en", "1e3", "EUR", "€1,000.00"),
            ("en", "98765432109876543210.50", "EUR", "€98,765,432,109,876,543,210.50"),
            ("de", "1234.50", "EUR", "1.234,50\u{a0}€"),
            ("de-AT", "1234.50", "EUR", "€\u{a0}1.234,50"),
            ("de-CH", "1234.50", "CHF", "CHF\u{a0}1’234.50"),
            ("fr", "1234.50", "EUR", "1\u{202f}234,50\u{a0}€"),
            ("es", "1234.50", "EUR", "1234,50\u{a0}€"),
            ("es", "12345.50", "EUR", "12.345,50\u{a0}€"),
            ("es-MX", "1234.50", "MXN", "$1,234.50"),
            ("it", "1234.50", "EUR", "1.234,50\u{a0}€"),
            ("nl-BE", "1234.50", "EUR", "€\u{a0}1.234,50"),
            ("pt", "1234.50", "BRL", "R$\u{a0}1.234,50"),
            ("pt-PT", "12345.50", "EUR", "12\u{a0}345,50\u{a0}€"),
            ("pl", "1234.50", "PLN", "1234,50\u{a0}zł"),
            ("sv", "1234.50", "SEK", "1234.50 SEK"),
            ("en", "much", "EUR", "much EUR"),
            ("en", "12", "points", "12 points"),
        ] {
            assert_eq!(money(locale, amount, currency), expected, "{locale} {amount} {currency}");
        }
    }

    proptest! {
        #[test]
        fn no_digit_is_lost_or_invented(amount in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{2}[1-9])?", locale in "en|de|fr|pl|sv") {
            let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
            let padded = if amount.contains('.') { amount.clone() } else { format!("{amount}00") };
            prop_assert_eq!(digits(&money(&locale, &amount, "EUR")), digits(&padded));
        }
    }
}
