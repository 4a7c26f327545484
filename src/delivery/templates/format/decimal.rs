//! Exact decimal numbers, read from the text of a JSON number. No float comes near an amount.

/// Amounts with more digits stay as they were written.
const MAX_DIGITS: usize = 60;

/// A decimal number without an exponent.
#[derive(Debug, PartialEq, Eq)]
pub struct Decimal {
    pub negative: bool,
    /// At least one digit; no zeros in front.
    pub whole: String,
    pub fraction: String,
}

impl Decimal {
    /// Reads `-12.50` or `1.25e3`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || exponent.unsigned_abs() as usize > MAX_DIGITS {
            return None;
        }
        let fraction = if mantissa.contains('.') { fraction } else { "" };
        let (whole, fraction) = shift(whole, fraction, exponent);
        let significant = whole.trim_start_matches('0');
        let whole = if significant.is_empty() { "0".to_owned() } else { significant.to_owned() };
        (whole.len() + fraction.len() <= MAX_DIGITS).then_some(Self { negative, whole, fraction })
    }

    /// Gives the fraction at least so many digits. More of them stay unless they are zeros.
    pub fn with_minor_digits(mut self, digits: usize) -> Self {
        while self.fraction.len() > digits && self.fraction.ends_with('0') {
            self.fraction.pop();
        }
        while self.fraction.len() < digits {
            self.fraction.push('0');
        }
        self
    }
}

/// Moves the point by so many places.
fn shift(whole: &str, fraction: &str, exponent: i32) -> (String, String) {
    let places = exponent.unsigned_abs() as usize;
    if exponent >= 0 {
        let padded = format!("{fraction:0<places$}");
        let (moved, rest) = padded.split_at(places);
        (format!("{whole}{moved}"), rest.to_owned())
    } else {
        let padded = format!("{whole:0>width$}", width = places + 1);
        let (rest, moved) = padded.split_at(padded.len() - places);
        (rest.to_owned(), format!("{moved}{fraction}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_numbers_are_read_exactly() {
        for (text, negative, whole, fraction) in [
            ("0", false, "0", ""),
            ("99.10", false, "99", "10"),
            ("-0.5", true, "0", "5"),
            ("1e3", false, "1000", ""),
            ("1.25E+1", false, "12", "5"),
            ("125e-2", false, "1", "25"),
            ("5e-3", false, "0", "005"),
            ("98765432109876543210.50", false, "98765432109876543210", "50"),
            ("007", false, "7", ""),
        ] {
            let expected = Decimal { negative, whole: whole.into(), fraction: fraction.into() };
            assert_eq!(Decimal::parse(text), Some(expected), "{text}");
        }
        for bad in ["", "-", ".5", "5.", "1,5", "1e", "1e99", "1e-99", "NaN", "12 €", "١٢", "--1", "1.2.3", "+5"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }
}
