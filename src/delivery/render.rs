//! Templates: from a notification's data to its words.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::value::RawValue;

use super::built_in_templates::FILES;
use crate::domain::channel::Channel;

/// A rendered message that is larger than this is refused.
const MAX_RENDERED_BYTES: usize = 512 * 1024;
/// JSON nested deeper is refused.
const MAX_DEPTH: usize = 64;

/// The words of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line, for channels that have one.
    pub subject: Option<String>,
    /// The text.
    pub text: String,
    /// E-mail only.
    pub html: Option<String>,
}

/// Why there are no words. Always permanent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RenderError {
    /// Stable, snake_case.
    pub code: &'static str,
    /// Names the template and the variable.
    pub reason: String,
}

/// A template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It cannot be read.
    #[error("template {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// It cannot be parsed.
    #[error("template {path}, line {line}: {reason}")]
    Broken {
        /// The file.
        path: String,
        /// Where in it.
        line: usize,
        /// Why.
        reason: String,
    },
}

/// All templates.
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// The built-in templates.
    ///
    /// # Errors
    /// When one is broken, which a test rules out.
    pub fn built_in() -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(
            |name| {
                if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
            },
        );
        let mut templates = Self { environment };
        for (path, text) in FILES {
            templates.add(path, (*text).to_owned())?;
        }
        Ok(templates)
    }

    /// Lays the files of a folder over the built-in ones: `<template>/{subject.txt,body.txt,body.html,sms.txt}`.
    ///
    /// # Errors
    /// A [`TemplateError`] that names file and line.
    pub fn overlay(&mut self, folder: &Path) -> Result<(), TemplateError> {
        let unreadable = |path: &Path, e: std::io::Error| TemplateError::Unreadable {
            path: path.display().to_string(),
            reason: e.to_string(),
        };
        for group in std::fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
            let group = group.map_err(|e| unreadable(folder, e))?.path();
            if !group.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&group).map_err(|e| unreadable(&group, e))? {
                let file = file.map_err(|e| unreadable(&group, e))?.path();
                let is_template = file.extension().is_some_and(|e| e == "txt" || e == "html");
                if !is_template {
                    continue;
                }
                let name = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&file).map_err(|e| unreadable(&file, e))?;
                self.add(&name, text)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, text: String) -> Result<(), TemplateError> {
        self.environment.add_template_owned(name.to_owned(), text).map_err(|error| TemplateError::Broken {
            path: name.to_owned(),
            line: error.line().unwrap_or(0),
            reason: error.to_string(),
        })
    }

    /// True when there is a template of this name for the channel.
    pub fn has(&self, template: &str, channel: Channel) -> bool {
        self.text_part(template, channel).is_some()
    }

    /// Renders a notification.
    ///
    /// # Errors
    /// A permanent [`RenderError`] that names what is missing.
    pub fn render(&self, template: &str, channel: Channel, data: &RawValue) -> Result<Rendered, RenderError> {
        let Some(text_part) = self.text_part(template, channel) else {
            return Err(RenderError {
                code: "unknown_template",
                reason: format!("there is no template `{template}` for {channel}"),
            });
        };
        let values = value_of(data, 0)?;
        let text = self.part(&text_part, &values)?;
        let subject_part = format!("{template}/subject.txt");
        let has_subject = channel != Channel::Sms && self.environment.get_template(&subject_part).is_ok();
        let subject = if has_subject { Some(one_line(&self.part(&subject_part, &values)?)) } else { None };
        let html_part = format!("{template}/body.html");
        let html = if channel == Channel::Email && self.environment.get_template(&html_part).is_ok() {
            Some(self.part(&html_part, &values)?)
        } else {
            None
        };
        let text = if channel == Channel::Sms { one_line(&text) } else { text };
        if text.len() + html.as_ref().map_or(0, String::len) > MAX_RENDERED_BYTES {
            let reason = format!("template `{template}` renders to more than {MAX_RENDERED_BYTES} bytes");
            return Err(RenderError { code: "rendered_too_large", reason });
        }
        Ok(Rendered { subject, text, html })
    }

    /// Short words for SMS, long ones elsewhere; either stands in for the other.
    fn text_part(&self, template: &str, channel: Channel) -> Option<String> {
        let order = if channel == Channel::Sms { ["sms.txt", "body.txt"] } else { ["body.txt", "sms.txt"] };
        order.iter().map(|part| format!("{template}/{part}")).find(|name| self.environment.get_template(name).is_ok())
    }

    fn part(&self, name: &str, values: &Value) -> Result<String, RenderError> {
        let render = || self.environment.get_template(name)?.render(values);
        render().map_err(|error: minijinja::Error| {
            let code = if error.kind() == ErrorKind::UndefinedError { "missing_variable" } else { "template_failed" };
            let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            let at = error.line().map_or_else(String::new, |line| {
                format!(", line {line}{}", self.source_line(name, line).unwrap_or_default())
            });
            RenderError { code, reason: format!("template {name}{at}: {what}") }
        })
    }

    /// The line of the template at fault: it names the variable.
    fn source_line(&self, name: &str, line: usize) -> Option<String> {
        let template = self.environment.get_template(name).ok()?;
        template.source().lines().nth(line.checked_sub(1)?).map(|text| format!(" (`{}`)", text.trim()))
    }
}

/// Header injection ends here: no line breaks, no control characters.
fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// JSON as template values: numbers keep their text, null counts as absent.
fn value_of(raw: &RawValue, depth: usize) -> Result<Value, RenderError> {
    let text = raw.get();
    let broken = |e: serde_json::Error| RenderError { code: "invalid_data", reason: format!("data.data: {e}") };
    if depth > MAX_DEPTH {
        return Err(RenderError { code: "invalid_data", reason: format!("data.data: nested deeper than {MAX_DEPTH}") });
    }
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(broken)?;
            let mut values = BTreeMap::new();
            for (name, field) in fields {
                if field.get() != "null" {
                    values.insert(name, value_of(field, depth + 1)?);
                }
            }
            Value::from(values)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(broken)?;
            Value::from(items.into_iter().map(|item| value_of(item, depth + 1)).collect::<Result<Vec<_>, _>>()?)
        }
        Some(b'"') => Value::from(serde_json::from_str::<String>(text).map_err(broken)?),
        Some(b't') => Value::from(true),
        Some(b'f') => Value::from(false),
        Some(b'n') | None => Value::from(()),
        // A whole number that prints as it was written may be counted with; any other keeps its text.
        Some(_) => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Value::from(number),
            _ => Value::from(text),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, channel: Channel, data: &str) -> Result<Rendered, RenderError> {
        let raw = RawValue::from_string(data.to_owned()).expect("json");
        Templates::built_in().expect("built-in templates").render(template, channel, &raw)
    }

    #[test]
    fn all_seven_kinds_render_for_mail_and_sms_with_required_variables_only() {
        for (template, data) in [
            ("order_confirmation", r#"{"orderId":"1","amount":99.10,"orderDate":"2026-01-15T10:30:00Z"}"#),
            ("payment_confirmation", r#"{"orderId":"1","paidAt":"2026-01-15T10:30:00Z"}"#),
            ("order_shipped", r#"{"orderId":"1"}"#),
            ("order_cancelled", r#"{"orderId":"1"}"#),
            ("payment_failed", r#"{"orderId":"1"}"#),
            ("welcome", r#"{"firstName":"Ada","email":"a@b.c","registeredAt":"2026-01-15T10:30:00Z"}"#),
            ("product_out_of_stock", r#"{"productId":"p","productName":"Lamp","outOfStockAt":"2026-01-15T10:30:00Z"}"#),
        ] {
            let mail = render(template, Channel::Email, data).unwrap_or_else(|e| panic!("{template}: {e}"));
            assert!(mail.subject.is_some_and(|s| !s.is_empty() && !s.contains('\n')), "{template}");
            assert!(mail.html.is_some_and(|h| h.contains("<html")), "{template}");
            let sms = render(template, Channel::Sms, data).unwrap_or_else(|e| panic!("{template}: {e}"));
            assert!(!sms.text.contains('\n') && sms.html.is_none() && sms.subject.is_none());
        }
    }

    #[test]
    fn amounts_keep_their_text_and_html_is_escaped() {
        let data =
            r#"{"orderId":"<b>&","amount":98765432109876543210.50,"currency":null,"orderDate":"2026-01-15T10:30:00Z"}"#;
        let mail = render("order_confirmation", Channel::Email, data).expect("renders");
        assert!(mail.text.contains("98765432109876543210.50"), "{}", mail.text);
        let html = mail.html.expect("html");
        assert!(html.contains("&lt;b&gt;&amp;") && !html.contains("<b>&"));
    }

    #[test]
    fn a_subject_has_no_line_breaks_whatever_the_data() {
        let data = r#"{"orderId":"1\r\nBcc: x@y.z","amount":1,"orderDate":"2026-01-15T10:30:00Z"}"#;
        let mail = render("order_confirmation", Channel::Email, data).expect("renders");
        assert!(!mail.subject.expect("subject").contains(['\r', '\n']));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = render("order_confirmation", Channel::Email, r#"{"orderId":"1","orderDate":"2026-01-15"}"#)
            .expect_err("no amount");
        assert_eq!(error.code, "missing_variable");
        assert!(error.reason.contains("order_confirmation") && error.reason.contains("amount"), "{}", error.reason);
        let error = render("no_such", Channel::Email, "{}").expect_err("no template");
        assert_eq!(error.code, "unknown_template");
    }

    #[test]
    fn a_folder_overrides_and_adds_templates_and_a_broken_one_names_file_and_line() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("order_delivered")).expect("folder");
        std::fs::write(folder.path().join("order_delivered/body.txt"), "Order {{ orderId }} is there.\n")
            .expect("write");
        let mut templates = Templates::built_in().expect("built-in");
        templates.overlay(folder.path()).expect("loads");
        assert!(templates.has("order_delivered", Channel::Email) && templates.has("welcome", Channel::Sms));
        std::fs::write(folder.path().join("order_delivered/body.txt"), "ok\n{{ broken").expect("write");
        let error = templates.overlay(folder.path()).expect_err("broken").to_string();
        assert!(error.contains("order_delivered/body.txt, line 2"), "{error}");
    }
}
