//! Points in time: strict RFC 3339 on input, UTC with milliseconds on output.

use jiff::Timestamp;

/// Parses an RFC 3339 date-time.
///
/// jiff alone would also take what RFC 3339 forbids (no seconds, a bracketed zone), so the shape is checked first.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    let digits = |from: usize, to: usize| b.get(from..to).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    let at = |index: usize, allowed: &[u8]| b.get(index).is_some_and(|c| allowed.contains(c));
    let shaped = digits(0, 4)
        && at(4, b"-")
        && digits(5, 7)
        && at(7, b"-")
        && digits(8, 10)
        && at(10, b"Tt ")
        && digits(11, 13)
        && at(13, b":")
        && digits(14, 16)
        && at(16, b":")
        && digits(17, 19);
    if !shaped {
        return None;
    }
    let mut rest = 19;
    if at(rest, b".") {
        let fraction = b[rest + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if fraction == 0 {
            return None;
        }
        rest += 1 + fraction;
    }
    let zoned = match b.get(rest) {
        Some(b'Z' | b'z') => rest + 1 == b.len(),
        Some(b'+' | b'-') => {
            b.len() == rest + 6 && digits(rest + 1, rest + 3) && at(rest + 3, b":") && digits(rest + 4, rest + 6)
        }
        _ => false,
    };
    if !zoned {
        return None;
    }
    // More than nine fractional digits are legal in RFC 3339 and carry nothing that we could keep.
    if rest > 29 {
        return format!("{}{}", &text[..29], &text[rest..]).parse().ok();
    }
    text.parse().ok()
}

/// `2026-01-15T10:30:00.000Z`: what the service writes into envelopes and headers.
pub fn format_utc(at: Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_rfc_3339_allows_and_nothing_else() {
        for good in [
            "2026-01-15T10:30:00Z",
            "2026-01-15t10:30:00z",
            "2026-01-15 10:30:00.123456789+02:00",
            "2026-01-15T10:30:00.1234567890123Z",
            "2016-12-31T23:59:60Z",
        ] {
            assert!(parse_rfc3339(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "2026-01-15",
            "2026-01-15T10:30Z",
            "2026-01-15T10:30:00",
            "2026-01-15T10:30:00+0200",
            "2026-01-15T10:30:00.Z",
            "2026-13-15T10:30:00Z",
            "2026-01-15T10:30:00+02:00[Europe/Paris]",
            "1768473000",
            "2026-01-15T10:30:00Zé",
        ] {
            assert!(parse_rfc3339(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn writes_utc_with_milliseconds() {
        let at = parse_rfc3339("2026-01-15T12:30:00.5+02:00").expect("valid");
        assert_eq!(format_utc(at), "2026-01-15T10:30:00.500Z");
    }
}
