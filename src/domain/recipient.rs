//! Who can be reached where: addresses, and the check that a text is one.

use serde::{Deserialize, Serialize};

use super::channel::Channel;

/// An entry of the recipients directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipient {
    /// The user's or customer's id.
    pub id: String,
    /// Address for the e-mail channel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub email: Option<String>,
    /// E.164 number for the SMS channel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phone: Option<String>,
    /// BCP 47 language tag.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locale: Option<String>,
    /// IANA time zone name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time_zone: Option<String>,
    /// Where push notifications go.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub devices: Vec<Device>,
}

/// A device that takes push notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The push service's name for it.
    pub token: String,
    /// What it runs.
    pub platform: Platform,
}

/// What a device runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Platform {
    Android,
    Ios,
    Web,
}

/// True for what can be the address of a mailbox: one `@` outside quotes, a non-empty local part, a domain, dots only
/// between others, no white space or control characters. The mail server has the last word.
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    !local.is_empty()
        && local.len() <= 64
        && text.len() <= 254
        && !domain.is_empty()
        && !domain.starts_with(['.', '-'])
        && !domain.ends_with(['.', '-'])
        && !domain.contains("..")
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && !local.contains(['@', '<', '>', ',', ';', ':', '"', '(', ')', '\\'])
        && domain.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-'))
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// True for an international number in E.164 form: `+`, then 7 to 15 digits that do not begin with 0.
pub fn is_phone(text: &str) -> bool {
    let Some(digits) = text.strip_prefix('+') else { return false };
    (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0')
}

/// The E.164 form of an international number as people write it: with spaces, hyphens, dots, slashes or brackets between
/// the digits. None for what is no international number, and for one that names a prefix of its country, as in `+49 (0)30`:
/// which digits are dialled from abroad cannot be told.
pub fn phone_as_written(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '\u{a0}' | '-' | '.' | '/' | '(' | ')')).collect();
    (is_phone(&plain) && !text.contains("(0")).then_some(plain)
}

/// True for an absolute `http` or `https` URL with a host.
pub fn is_web_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|r| !r.is_empty() && !r.starts_with('/'))
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// True for what is meant as an address for this channel, and is none.
pub fn is_failed_address(channel: Channel, text: &str) -> bool {
    let meant = match channel {
        Channel::Email => text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty()),
        Channel::Sms => text.starts_with('+'),
        _ => false,
    };
    meant && !is_address_for(channel, text)
}

/// An address as it is compared: mail programs keep the letters' case, and mailboxes ignore it. Mail servers are told an
/// international domain in its ASCII form, and the directory has it as people write it.
pub fn comparable(channel: Channel, address: &str) -> String {
    match channel {
        Channel::Email => {
            let lower = address.to_lowercase();
            with_ascii_domain(&lower).unwrap_or(lower)
        }
        _ => address.to_owned(),
    }
}

fn with_ascii_domain(email: &str) -> Option<String> {
    let (local, domain) = email.rsplit_once('@')?;
    Some(format!("{local}@{}", idna::domain_to_ascii(domain).ok()?))
}

/// An address as it is shown to those who need not know it.
pub fn masked(address: &str) -> String {
    let shown = |text: &str| text.chars().next().map_or_else(String::new, |first| format!("{first}***"));
    match address.rsplit_once('@') {
        Some((local, domain)) if is_email(address) => format!("{}@{domain}", shown(local)),
        _ if is_phone(address) => format!("+***{}", &address[address.len() - 2..]),
        _ => masked_url(address).unwrap_or_else(|| shown(address)),
    }
}

/// Scheme and host of a web address: whoever knows the rest may use it.
fn masked_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    Some(format!("{scheme}://{host}/***"))
}

/// A text with the addresses in it masked: providers quote them in their answers, and logs are read by many.
pub fn mask_addresses(text: &str) -> String {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '@');
    let behind_url = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '(' | ')');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(part) {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let split = |behind: &dyn Fn(char) -> bool| from.split_at(from.find(behind).unwrap_or(from.len()));
        let (url, after) = split(&behind_url);
        if let Some(masked) = masked_url(url) {
            out.push_str(&masked);
            rest = after;
            continue;
        }
        let (word, after) = split(&|c| !part(c));
        let plain = word.trim_end_matches(['.', '-']);
        match plain {
            address if is_email(address) || is_phone(address) => out.extend([&masked(address), &word[plain.len()..]]),
            strange if strange.contains('@') => out.push_str("***"),
            _ => out.push_str(word),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// True when the text is an address of the kind that the channel sends to.
pub fn is_address_for(channel: Channel, text: &str) -> bool {
    match channel {
        Channel::Email => is_email(text),
        Channel::Sms => is_phone(text),
        Channel::Webhook => is_web_url(text),
        // Inboxes are found by the recipient's id; alerts need no address.
        Channel::Push | Channel::InApp | Channel::AdminAlert => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_without_addresses() {
        for (text, shown) in [
            ("550 5.1.1 <ada.l@example.com>: unknown", "550 5.1.1 <a***@example.com>: unknown"),
            ("to +15550100123, and bob@x.example.", "to +***23, and b***@x.example."),
            ("order-4711 at 10:30 is 99.10 EUR", "order-4711 at 10:30 is 99.10 EUR"),
            ("", ""),
            ("ö@bücher.example", "ö***@bücher.example"),
            ("from a@b.example- and a@b@c.example", "from a***@b.example- and ***"),
            ("see (https://u:p@hooks.example/@me/x?y) now", "see (https://hooks.example/***) now"),
            ("mailto:ada@x.example", "mailto:a***@x.example"),
            ("to ..ada@x.example", "to ***"),
        ] {
            assert_eq!(mask_addresses(text), shown);
        }
    }

    #[test]
    fn of_an_address_only_a_little_is_shown() {
        for (address, shown) in [
            ("ada.l@example.com", "a***@example.com"),
            ("+15550100123", "+***23"),
            ("https://hooks.example/@me/secret", "https://hooks.example/***"),
            ("https://hooks.example", "https://hooks.example/***"),
            ("token@with-a-sign", "t***@with-a-sign"),
            ("to:ken@with-a-sign", "t***"),
            ("+15", "+***"),
            ("", ""),
        ] {
            assert_eq!(masked(address), shown);
        }
    }

    #[test]
    fn mailboxes_are_compared_whatever_the_spelling() {
        for (address, compared) in [
            ("Ada@Example.COM", "ada@example.com"),
            ("ada@bücher.example", "ada@xn--bcher-kva.example"),
            ("Ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
            ("ada@XN--Bcher-KVA.example", "ada@xn--bcher-kva.example"),
            // One letter, or u and a mark.
            ("ada@bu\u{308}cher.example", "ada@xn--bcher-kva.example"),
            ("Jörg@bücher.example", "jörg@xn--bcher-kva.example"),
            ("root@LOCALHOST", "root@localhost"),
            // What has no ASCII form.
            ("A@xn--\u{fc}.example", "a@xn--\u{fc}.example"),
            ("Nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(comparable(Channel::Email, address), compared, "{address}");
        }
        assert_eq!(comparable(Channel::Push, "Token@BÜCHER"), "Token@BÜCHER");
    }

    #[test]
    fn addresses_are_told_from_ids() {
        for good in
            ["a@b.example", "o'brien+tag@sub.example.com", "müller@bücher.example", "root@localhost", "a.b.c@d.example"]
        {
            assert!(is_email(good), "{good}");
        }
        for bad in [".a@x.example", "a.@x.example", "a..b@x.example", ".@x.example"] {
            assert!(!is_email(bad), "{bad}");
        }
        for bad in ["customer-789", "@b", "a@", "a b@c.d", "a@b@c", "a@b..c", "x@y\r\nBcc: z@z", "<a@b.c>", "a@-b", ""]
        {
            assert!(!is_email(bad), "{bad}");
        }
        for (channel, text, failed) in [
            (Channel::Email, "a@@b.c", true),
            (Channel::Email, "a@b,c", true),
            (Channel::Email, "a@b.c", false),
            (Channel::Email, "a..b@x.example", true),
            (Channel::Email, "@ada", false),
            (Channel::Email, "customer-1", false),
            (Channel::Sms, "+1 555 0100", true),
            (Channel::Sms, "+15550100123", false),
            (Channel::Sms, "a@@b.c", false),
        ] {
            assert_eq!(is_failed_address(channel, text), failed, "{channel} {text}");
        }
        for written in ["+15550100123", "+1 (555) 010-0123", "+1-555-0100-123", " +1 555.010/0123\u{a0}"] {
            assert_eq!(phone_as_written(written).as_deref(), Some("+15550100123"), "{written}");
        }
        for none in ["0176 1234567", "001 555 0100 123", "+49 (0)30 1234567", "+1 555 CALL NOW", "+", "+1 555\n0100123"]
        {
            assert_eq!(phone_as_written(none), None, "{none}");
        }
        assert!(is_phone("+15550100123"));
        for bad in ["15550100123", "+0123456789", "+1555", "+1555010012x", "+1234567890123456"] {
            assert!(!is_phone(bad), "{bad}");
        }
        assert!(is_web_url("https://hooks.example/x"));
        assert!(!is_web_url("ftp://hooks.example") && !is_web_url("https:///x") && !is_web_url("https://a b"));
    }
}
