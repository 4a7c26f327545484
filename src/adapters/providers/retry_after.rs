//! Reads the `Retry-After` header (RFC 9110, 10.2.3): how long a provider asks to be left alone.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

/// For a 429 that does not say how long.
pub const UNSAID: Duration = Duration::from_secs(30);
/// The longest wait that a provider can impose: a slip of its clock must not stop a channel for days.
const LONGEST: Duration = Duration::from_secs(3600);
/// The two obsolete forms of HTTP dates, which recipients still have to understand.
const OBSOLETE_FORMS: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// The wait that the header's value asks for: seconds or a date, in bounds whatever it says; `unsaid` when it says
/// nothing of use.
pub fn retry_after_or(unsaid: Duration, value: Option<&str>, now: Timestamp) -> Duration {
    let Some(value) = value.map(str::trim).filter(|v| !v.is_empty()) else { return unsaid };
    if value.bytes().all(|b| b.is_ascii_digit()) {
        // Digits that do not fit a u64 are a long time too.
        return value.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST);
    }
    let Some(at) = http_date(value) else { return unsaid };
    let seconds = at.as_second().saturating_sub(now.as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST)
}

fn http_date(value: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(value).ok().or_else(|| {
        OBSOLETE_FORMS.iter().find_map(|form| {
            let time = strtime::parse(form, value).ok()?.to_datetime().ok()?;
            Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: &str) -> u64 {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().expect("timestamp");
        retry_after_or(UNSAID, Some(value), now).as_secs()
    }

    #[test]
    fn reads_seconds() {
        assert_eq!(seconds("0"), 0);
        assert_eq!(seconds(" 120 "), 120);
        assert_eq!(seconds("86400"), 3600);
        assert_eq!(seconds("99999999999999999999999"), 3600);
    }

    #[test]
    fn reads_every_form_of_a_date() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), 37);
        assert_eq!(seconds("Sunday, 06-Nov-94 08:49:37 GMT"), 37);
        assert_eq!(seconds("Sun Nov  6 08:49:37 1994"), 37);
        assert_eq!(seconds("Sun, 06 Nov 1994 08:48:37 GMT"), 0);
        assert_eq!(seconds("Mon, 07 Nov 1994 08:49:37 GMT"), 3600);
    }

    #[test]
    fn waits_half_a_minute_when_it_says_nothing_of_use() {
        for unreadable in ["", "soon", "-5", "1.5", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(seconds(unreadable), 30, "{unreadable}");
        }
        let minute = Duration::from_secs(60);
        assert_eq!(retry_after_or(minute, None, Timestamp::UNIX_EPOCH), minute);
    }
}
