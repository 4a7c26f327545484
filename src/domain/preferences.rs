//! What a recipient wants to get, and when.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::channel::Channel;

/// Stands for every channel, or every category.
pub const ANY: &str = "*";
/// More refusals make no sense.
pub const MAX_OPT_OUTS: usize = 200;
/// Categories are names, not texts.
pub const MAX_CATEGORY_BYTES: usize = 128;

/// Whether preferences can name a category so.
pub fn is_name(category: &str) -> bool {
    (1..=MAX_CATEGORY_BYTES).contains(&category.len()) && !category.chars().any(char::is_control)
}

/// What a recipient refuses and when it is left alone. Unknown fields are ignored here, for a newer version may have
/// written them; doors refuse them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preferences {
    /// What is not to be sent.
    #[serde(default)]
    pub opt_out: Vec<OptOut>,
    /// When nothing is to be sent that can wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptOut {
    /// A channel, or `*`.
    #[serde(default = "any")]
    pub channel: String,
    /// A category, or `*`.
    #[serde(default = "any")]
    pub category: String,
}

fn any() -> String {
    ANY.to_owned()
}

/// A time of the day, in the recipient's zone, that may span midnight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietHours {
    /// `HH:MM`: the first minute of quiet.
    pub from: String,
    /// `HH:MM`: the first minute after it.
    pub to: String,
}

impl Preferences {
    /// What is wrong with them: the field, and the rule.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), (String, String)> {
        if self.opt_out.len() > MAX_OPT_OUTS {
            return Err(("optOut".into(), format!("must not have more than {MAX_OPT_OUTS} entries")));
        }
        for (index, refusal) in self.opt_out.iter().enumerate() {
            if refusal.channel != ANY
                && let Err(error) = refusal.channel.parse::<Channel>()
            {
                return Err((format!("optOut[{index}].channel"), error.to_string()));
            }
            let category = &refusal.category;
            if !is_name(category) {
                let rule = format!("must be a name of 1 to {MAX_CATEGORY_BYTES} bytes, or *");
                return Err((format!("optOut[{index}].category"), rule));
            }
        }
        if let Some(hours) = &self.quiet_hours {
            for (field, text) in [("quietHours.from", &hours.from), ("quietHours.to", &hours.to)] {
                if clock_time(text).is_none() {
                    return Err((field.into(), "must be a time of the day such as 22:00".into()));
                }
            }
            if hours.from == hours.to {
                return Err(("quietHours.to".into(), "must differ from quietHours.from".into()));
            }
        }
        Ok(())
    }

    /// True when the recipient refuses notifications of this category over this channel. A refusal of everything does
    /// not reach the categories that are exempt; one that names such a category does.
    pub fn refuses(&self, channel: Channel, category: &str, exempt: &[String]) -> bool {
        self.opt_out.iter().any(|refusal| {
            let channel_fits = refusal.channel == ANY || refusal.channel == channel.as_str();
            let named = refusal.category == category;
            let covered = refusal.category == ANY && !exempt.iter().any(|e| e == category);
            channel_fits && (named || covered)
        })
    }

    /// The end of the quiet hours that `now` lies in; `None` when it lies in none.
    pub fn quiet_until(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let hours = self.quiet_hours.as_ref()?;
        let (from, to) = (clock_time(&hours.from)?, clock_time(&hours.to)?);
        let local = now.to_zoned(zone.clone());
        let time = local.time();
        let quiet = if from < to { from <= time && time < to } else { from <= time || time < to };
        if !quiet {
            return None;
        }
        let today = local.date();
        let end = if time < to { today } else { today.tomorrow().ok()? };
        // A time that a change of the clocks skips or repeats: the later reading, so that it is quiet long enough.
        let end = zone.to_ambiguous_zoned(end.to_datetime(to)).later().ok()?.timestamp();
        // The change itself may move the end before now; then quiet is over.
        (end > now).then_some(end)
    }
}

/// `HH:MM`, nothing else.
fn clock_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |part: &str| {
        (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<i8>().ok()).flatten()
    };
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(from: &str, to: &str) -> Preferences {
        Preferences { quiet_hours: Some(QuietHours { from: from.into(), to: to.into() }), ..Preferences::default() }
    }

    fn until(preferences: &Preferences, now: &str, zone: &str) -> Option<String> {
        let zone = TimeZone::get(zone).expect("zone");
        let now: Timestamp = now.parse().expect("time");
        preferences.quiet_until(now, &zone).map(|t| t.to_string())
    }

    #[test]
    fn quiet_hours_span_midnight_in_the_recipient_s_zone() {
        let night = quiet("22:00", "07:00");
        let zone = "Europe/Berlin";
        assert_eq!(until(&night, "2026-01-15T20:59:59Z", zone), None);
        assert_eq!(until(&night, "2026-01-15T21:00:00Z", zone).as_deref(), Some("2026-01-16T06:00:00Z"));
        assert_eq!(until(&night, "2026-01-16T05:59:59Z", zone).as_deref(), Some("2026-01-16T06:00:00Z"));
        assert_eq!(until(&night, "2026-01-16T06:00:00Z", zone), None);
        assert_eq!(until(&night, "2026-01-15T23:00:00Z", "Asia/Tokyo"), None);
        let noon = quiet("12:00", "13:00");
        assert_eq!(until(&noon, "2026-01-15T12:30:00Z", "UTC").as_deref(), Some("2026-01-15T13:00:00Z"));
        assert_eq!(until(&noon, "2026-01-15T13:00:00Z", "UTC"), None);
    }

    #[test]
    fn quiet_hours_end_on_the_clock_when_it_changes() {
        // Berlin: 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00.
        let night = quiet("22:00", "07:00");
        assert_eq!(until(&night, "2026-03-28T22:00:00Z", "Europe/Berlin").as_deref(), Some("2026-03-29T05:00:00Z"));
        assert_eq!(until(&night, "2026-10-24T21:00:00Z", "Europe/Berlin").as_deref(), Some("2026-10-25T06:00:00Z"));
        // The end lies in the hour that is skipped: the clock jumps over it to 03:30.
        let skipped = quiet("22:00", "02:30");
        assert_eq!(until(&skipped, "2026-03-29T00:30:00Z", "Europe/Berlin").as_deref(), Some("2026-03-29T01:30:00Z"));
        assert_eq!(until(&skipped, "2026-03-29T01:30:00Z", "Europe/Berlin"), None);
        // The end lies in the hour that comes twice: the second one counts.
        assert_eq!(until(&skipped, "2026-10-25T00:00:00Z", "Europe/Berlin").as_deref(), Some("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn a_wildcard_spares_exempt_categories_and_a_name_does_not() {
        let exempt = ["transactional".to_owned()];
        let refuse = |channel: &str, category: &str| Preferences {
            opt_out: vec![OptOut { channel: channel.into(), category: category.into() }],
            ..Preferences::default()
        };
        assert!(refuse("email", "marketing").refuses(Channel::Email, "marketing", &exempt));
        assert!(!refuse("email", "marketing").refuses(Channel::Sms, "marketing", &exempt));
        assert!(refuse("*", "*").refuses(Channel::Sms, "marketing", &exempt));
        assert!(!refuse("*", "*").refuses(Channel::Sms, "transactional", &exempt));
        assert!(refuse("*", "transactional").refuses(Channel::Sms, "transactional", &exempt));
        assert!(refuse("*", "*").refuses(Channel::Sms, "transactional", &[]));
        assert!(!Preferences::default().refuses(Channel::Sms, "marketing", &exempt));
    }

    #[test]
    fn mistakes_name_their_field() {
        let field = |json: &str| {
            serde_json::from_str::<Preferences>(json).expect("parses").check().err().map(|(field, _)| field)
        };
        assert_eq!(field(r#"{"optOut":[{"channel":"*","category":"*"}]}"#), None);
        assert_eq!(field(r#"{"optOut":[{"channel":"email"}],"quietHours":{"from":"22:00","to":"07:00"}}"#), None);
        assert_eq!(field(r#"{"optOut":[{"channel":"pigeon"}]}"#).as_deref(), Some("optOut[0].channel"));
        assert_eq!(field(r#"{"optOut":[{"category":""}]}"#).as_deref(), Some("optOut[0].category"));
        let same = r#"{"quietHours":{"from":"22:00","to":"22:00"}}"#;
        assert_eq!(field(same).as_deref(), Some("quietHours.to"));
        for bad in ["24:00", "7:00", "07:60", "0700", "07:00:00", "-1:00", ""] {
            let json = format!(r#"{{"quietHours":{{"from":"22:00","to":"{bad}"}}}}"#);
            assert_eq!(field(&json).as_deref(), Some("quietHours.to"), "{bad}");
        }
    }
}
