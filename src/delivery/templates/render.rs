//! From a template and a notification's data to its words.

use std::collections::BTreeMap;

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};
use serde_json::value::RawValue;

use super::Templates;
use super::error::RenderError;
use super::format::{self, Conventions};
use super::plan::{Plan, Template, Text, Words};
use super::text_of_html::text_of_html;
use super::values::variables;
use crate::domain::channel::Channel;
use crate::domain::locale::Locale;

/// A rendered message that is larger than this is refused.
const MAX_RENDERED_BYTES: usize = 512 * 1024;

/// What is to be rendered, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct RenderRequest<'a> {
    /// The template's name.
    pub template: &'a str,
    /// Decides which parts are used.
    pub channel: Channel,
    /// The recipient's BCP 47 tag. The default locale stands in for one that is missing or wrong.
    pub locale: Option<&'a str>,
    /// The recipient's IANA time zone. Without it, times are in UTC.
    pub time_zone: Option<&'a str>,
    /// The template's variables: a JSON object.
    pub data: &'a RawValue,
    /// The variable `unsubscribeUrl`, which takes the place of one in the data.
    pub unsubscribe_url: Option<&'a str>,
}

/// The words of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line, for channels that have one.
    pub subject: Option<String>,
    /// The text.
    pub text: String,
    /// E-mail only.
    pub html: Option<String>,
    /// The BCP 47 tag of the locale that the words are in.
    pub locale: String,
    /// Twelve hexadecimal digits that change exactly when the sources of the template in this locale change.
    pub version: String,
}

impl Templates {
    /// Renders a notification.
    ///
    /// # Errors
    /// A permanent [`RenderError`] that names what is missing.
    pub fn render(&self, request: &RenderRequest<'_>) -> Result<Rendered, RenderError> {
        let template = self.template(request.template)?;
        self.with_values(template, request, variables(request.data)?)
    }

    /// Renders several notifications as one. The variables are those of the newest, which is the request's data, and
    /// besides `items`, a list with the variables of each, and `count`, its length.
    ///
    /// # Errors
    /// As [`Templates::render`].
    pub fn render_digest(&self, request: &RenderRequest<'_>, items: &[Box<RawValue>]) -> Result<Rendered, RenderError> {
        let template = self.template(request.template)?;
        let mut values = variables(request.data)?;
        let items = items.iter().map(|item| Ok(Value::from(variables(item)?))).collect::<Result<Vec<_>, _>>()?;
        values.insert("count".into(), Value::from(items.len()));
        values.insert("items".into(), Value::from(items));
        self.with_values(template, request, values)
    }

    fn template(&self, name: &str) -> Result<&Template, RenderError> {
        self.templates
            .get(name)
            .ok_or_else(|| RenderError { code: "unknown_template", reason: format!("there is no template `{name}`") })
    }

    fn with_values(
        &self,
        template: &Template,
        request: &RenderRequest<'_>,
        mut values: BTreeMap<String, Value>,
    ) -> Result<Rendered, RenderError> {
        if let Some(url) = request.unsubscribe_url {
            values.insert("unsubscribeUrl".into(), Value::from(url));
        }
        let reader = request.locale.and_then(Locale::parse);
        let words = template.words_for(reader.as_ref());
        let conventions =
            Conventions::new(self.spelling(words, reader.as_ref()), request.time_zone, words.locale.clone());
        let (plan, values) = (words.plan(request.channel), Value::from(values));
        let (subject, text, html) = format::following(conventions, || self.parts(plan, &values))?;
        let size = text.len() + [&subject, &html].into_iter().flatten().map(String::len).sum::<usize>();
        check_size(request.template, size)?;
        Ok(Rendered {
            subject: subject.map(|subject| one_line(&subject)),
            text: if request.channel == Channel::Sms { one_line(&text) } else { text },
            html,
            locale: words.locale.as_str().to_owned(),
            version: words.version.clone(),
        })
    }

    /// The locale for numbers and times: the reader's, or the default one, where its language is that of the words.
    fn spelling<'a>(&'a self, words: &'a Words, reader: Option<&'a Locale>) -> &'a Locale {
        let wanted = reader.into_iter().chain([&self.default_locale]);
        wanted.into_iter().find(|locale| locale.language() == words.locale.language()).unwrap_or(&words.locale)
    }

    fn parts(&self, plan: &Plan, values: &Value) -> Result<(Option<String>, String, Option<String>), RenderError> {
        let html = plan.html.as_deref().map(|name| self.part(name, values)).transpose()?;
        let text = match (&plan.text, &html) {
            (Text::Of(name), _) => self.part(name, values)?,
            (Text::OfHtml(name), Some(html)) => text_of(name, html)?,
            (Text::OfHtml(name), None) => text_of(name, &self.part(name, values)?)?,
        };
        let subject = plan.subject.as_deref().map(|name| self.part(name, values)).transpose()?;
        Ok((subject, text, html))
    }

    fn part(&self, name: &str, values: &Value) -> Result<String, RenderError> {
        let render = || self.environment.get_template(name)?.render(values);
        let text = render().map_err(|error| self.failure(name, &error, values))?;
        // Before anything is made of it.
        check_size(name, text.len())?;
        Ok(text)
    }

    /// Names the file and line at fault, which may be those of a layout, and the variable.
    fn failure(&self, part: &str, error: &Error, values: &Value) -> RenderError {
        let is_missing = error.kind() == ErrorKind::UndefinedError;
        let (name, line) = (error.name().unwrap_or(part), error.line().unwrap_or_default());
        let template = self.environment.get_template(name).ok();
        let text = template.as_ref().and_then(|t| t.source().lines().nth(line.checked_sub(1)?)).unwrap_or_default();
        let what = match error.detail() {
            Some(detail) => detail.to_owned(),
            // In the body of a call block minijinja forgets which variable it was.
            None if is_missing => template.as_ref().map_or_else(String::new, |t| missing_in(t, text, values)),
            None => error.kind().to_string(),
        };
        let code = if is_missing { "missing_variable" } else { "template_failed" };
        RenderError { code, reason: format!("template {name}, line {line} (`{}`): {what}", shortened(text.trim())) }
    }
}

/// The variables in a line of a template that have no value.
fn missing_in(template: &minijinja::Template<'_, '_>, line: &str, values: &Value) -> String {
    let is_missing = |name: &String| {
        let is_unset = values.get_attr(name).is_ok_and(|value| value.is_undefined());
        is_unset && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
    };
    let mut names: Vec<String> = template.undeclared_variables(false).into_iter().filter(is_missing).collect();
    names.sort();
    format!("undefined value: `{}`", names.join("` or `"))
}

/// Enough of a line to find it again.
fn shortened(line: &str) -> String {
    const ENOUGH: usize = 200;
    let mut text: String = line.chars().take(ENOUGH).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    text
}

fn check_size(template: &str, bytes: usize) -> Result<(), RenderError> {
    if bytes > MAX_RENDERED_BYTES {
        let reason = format!("template `{template}` renders to more than {MAX_RENDERED_BYTES} bytes");
        return Err(RenderError { code: "rendered_too_large", reason });
    }
    Ok(())
}

fn text_of(name: &str, html: &str) -> Result<String, RenderError> {
    text_of_html(html).map_err(|e| RenderError {
        code: "template_failed",
        reason: format!("template {name}: no text can be made of it: {e}"),
    })
}

/// Header injection ends here: no line breaks, no control characters.
fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}
