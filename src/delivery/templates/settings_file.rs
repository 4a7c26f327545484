//! `template.toml`: what a template says about its notifications.

use toml::de::Error;

use super::error::TemplateMistake;
use crate::delivery::template_settings::TemplateSettings;
use crate::domain::preferences::{ANY, MAX_CATEGORY_BYTES, is_name};

/// The longest time that a key may give: 30 days in milliseconds, as in the configuration.
const MAX_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Reads the content of a `template.toml`; every mistake names its line.
pub fn parse(path: &str, text: &str, mistakes: &mut Vec<TemplateMistake>) -> TemplateSettings {
    let settings: TemplateSettings = match toml::from_str(text) {
        Ok(settings) => settings,
        Err(error) => {
            mistakes.push(TemplateMistake::new(path, Some(line_of_error(text, &error)), error.message()));
            return TemplateSettings::default();
        }
    };
    if let Some(problem) = settings.category.as_deref().and_then(flaw) {
        mistakes.push(TemplateMistake::new(path, line_of(text, "category"), format!("category: {problem}")));
    }
    let times = [("digest_window_ms", settings.digest_window_ms), ("expires_after_ms", settings.expires_after_ms)];
    for (key, value) in times {
        if let Some(value) = value.filter(|value| !(1..=MAX_MS).contains(value)) {
            let problem = format!("{key}: must be between 1 and {MAX_MS}, not {value}");
            mistakes.push(TemplateMistake::new(path, line_of(text, key), problem));
        }
    }
    settings
}

fn flaw(category: &str) -> Option<String> {
    (!is_name(category) || category == ANY).then(|| format!("must be a name of 1 to {MAX_CATEGORY_BYTES} bytes"))
}

/// The line that sets a key.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    text.lines().position(|line| line.trim_start().starts_with(key)).map(|index| index + 1)
}

fn line_of_error(text: &str, error: &Error) -> usize {
    let start = error.span().map_or(0, |span| span.start);
    text.get(..start).unwrap_or(text).matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        let mut mistakes = Vec::new();
        let text = "category = \"news\"\ncritical = true\nsupersedes = [\"a\"]\ndigest_window_ms = 60000\n";
        let settings = parse("t/template.toml", text, &mut mistakes);
        assert_eq!(settings.category.as_deref(), Some("news"));
        assert!(settings.critical && settings.supersedes == ["a"] && mistakes.is_empty());
        assert_eq!((settings.digest_window_ms, settings.expires_after_ms), (Some(60_000), None));
        assert_eq!(parse("t/template.toml", "", &mut mistakes), TemplateSettings::default());
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, words) in [
            ("critical = true\nexpire_after_ms = 5\n", 2, "expire_after_ms"),
            ("\ncritical = \"yes\"\n", 2, "boolean"),
            ("critical = true\n\n  digest_window_ms = 0\n", 3, "digest_window_ms"),
            ("expires_after_ms = 99999999999\n", 1, "expires_after_ms"),
            ("critical = true\ncategory = \"\"\n", 2, "category"),
            ("category = \"*\"\n", 1, "category"),
            ("a\n", 1, ""),
        ] {
            let mut mistakes = Vec::new();
            parse("t/template.toml", text, &mut mistakes);
            assert_eq!((mistakes.len(), mistakes[0].line), (1, Some(line)), "{text}: {mistakes:?}");
            assert!(mistakes[0].problem.contains(words), "{text}: {mistakes:?}");
        }
    }
}
