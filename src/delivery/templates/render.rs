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
        values: BTreeMap<String, Value>,
    ) -> Result<Rendered, RenderError> {
        let reader = request.locale.and_then(Locale::parse);
        let words = template.words_for(reader.as_ref());
        let conventions =
            Conventions::new(self.spelling(words, reader.as_ref()), request.time_zone, words.locale.clone());
        let (plan, values) = (words.plan(request.channel), Value::from(values));
        let (subject, text, html) = format::following(conventions, || self.parts(plan, &values))?;
        let size = text.len() + [&subject, &html].into_iter().flatten().map(String::len).sum::<usize>();
        if size > MAX_RENDERED_BYTES {
            let reason = format!("template `{}` renders to more than {MAX_RENDERED_BYTES} bytes", request.template);
            return Err(RenderError { code: "rendered_too_large", reason });
        }
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
        render().map_err(|error| failure(name, &error))
    }
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

/// Names the file and line at fault, which may be those of a layout, and the expression there.
fn failure(part: &str, error: &Error) -> RenderError {
    let code = if error.kind() == ErrorKind::UndefinedError { "missing_variable" } else { "template_failed" };
    let mut reason = format!("template {}", error.name().unwrap_or(part));
    if let Some(line) = error.line() {
        reason.push_str(&format!(", line {line}"));
    }
    let source = error.template_source().zip(error.range());
    if let Some(expression) = source.and_then(|(source, range)| source.get(range)) {
        reason.push_str(&format!(" (`{}`)", one_line(expression)));
    }
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    RenderError { code, reason: format!("{reason}: {what}") }
}
