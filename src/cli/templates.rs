//! `templates check|preview`: what people who write templates try their work with.

use std::fmt::Display;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use jiff::tz::TimeZone;
use serde_json::json;
use serde_json::value::RawValue;

use super::{CliError, context};
use crate::app;
use crate::config::RecipientsConfig;
use crate::delivery::templates::{Listed, RenderRequest, Rendered, Templates};
use crate::delivery::unsubscribe::UnsubscribeLinks;
use crate::domain::channel::Channel;
use crate::domain::locale::Locale;
use crate::domain::notification::DEFAULT_CATEGORY;

#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the templates with their locales, versions and channels; name all mistakes with file and line
    Check,
    /// Render a template with data of your own
    Preview(Preview),
}

#[derive(ClapArgs)]
struct Preview {
    /// The template
    name: String,
    /// The template's variables, a JSON object, of a digest also a list of them; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// email, sms, push, webhook, in_app or admin_alert
    #[arg(long, default_value = "email")]
    channel: Channel,
    /// The recipient's BCP 47 tag [default: delivery.default_locale]
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// The recipient's IANA time zone [default: delivery.recipients.default_time_zone]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Print the HTML alone
    #[arg(long, conflicts_with = "json")]
    html: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(file: Option<&Path>, args: &Args) -> Result<(), CliError> {
    // This checks the templates too, and lists every mistake.
    let config = context::load(file)?;
    let templates = app::templates(&config).map_err(|e| CliError::Usage(e.to_string()))?;
    match &args.action {
        Action::Check => check(&templates),
        Action::Preview(preview) => return preview.run(&templates, &config.delivery.recipients),
    }
    Ok(())
}

fn check(templates: &Templates) {
    let listed: Vec<Listed<'_>> = templates.list().collect();
    let width = listed.iter().map(|listed| listed.template.len()).max().unwrap_or_default().max("template".len());
    println!("{:<width$}  {:<10}  {:<12}  channels with a part of their own", "template", "locale", "version");
    for Listed { template, locale, is_fallback, version, channels } in &listed {
        let locale = format!("{locale}{}", if *is_fallback { " *" } else { "" });
        let channels: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
        println!("{template:<width$}  {locale:<10}  {version}  {}", channels.join(", "));
    }
    println!("\n* also for readers of languages that the template does not have\nthe templates are fine");
}

impl Preview {
    fn run(&self, templates: &Templates, recipients: &RecipientsConfig) -> Result<(), CliError> {
        if !templates.has(&self.name) {
            let mut names: Vec<&str> = templates.list().map(|listed| listed.template).collect();
            names.dedup();
            let problem = format!("there is no template `{}`; there are {}", self.name, names.join(", "));
            return Err(CliError::Usage(problem));
        }
        self.check_reader()?;
        let data = self.read()?;
        let link = self.unsubscribe_url(templates, recipients);
        let default_zone = app::default_time_zone(recipients);
        let asked = |data| RenderRequest {
            template: &self.name,
            channel: self.channel,
            locale: self.locale.as_deref(),
            time_zone: self.time_zone.as_deref().or_else(|| default_zone.of_times()),
            data,
            unsubscribe_url: link.as_deref(),
        };
        let rendered = match (&data[..], templates.collects(&self.name)) {
            ([data], false) => templates.render(&asked(data)),
            ([.., newest], true) => templates.render_digest(&asked(newest), &data),
            _ => {
                let problem = format!("--data {}: `{}` collects no digest: one object", self.data.display(), self.name);
                return Err(CliError::Usage(problem));
            }
        };
        self.print(&rendered.map_err(|e| CliError::Failed(e.to_string()))?)
    }

    /// A link like the one that its notifications carry, unless they name another category. It has another key, so that
    /// nobody refuses anything with it.
    fn unsubscribe_url(&self, templates: &Templates, recipients: &RecipientsConfig) -> Option<String> {
        let links = UnsubscribeLinks::new(recipients.unsubscribe_base_url.as_ref()?.expose(), "preview");
        let category = templates.settings(&self.name).category.as_deref().unwrap_or(DEFAULT_CATEGORY);
        links.offered(Some("recipient"), self.channel, category, &recipients.exempt_categories)
    }

    /// A rendering forgives what is wrong here; somebody who types it wants to know.
    fn check_reader(&self) -> Result<(), CliError> {
        if let Some(tag) = self.locale.as_deref().filter(|tag| Locale::parse(tag).is_none()) {
            return Err(CliError::Usage(format!("--locale: `{tag}` is no BCP 47 tag, such as `de` or `de-AT`")));
        }
        if let Some(zone) = self.time_zone.as_deref().filter(|zone| TimeZone::get(zone).is_err()) {
            let problem = format!("--time-zone: `{zone}` is no IANA time zone, such as `Europe/Berlin`");
            return Err(CliError::Usage(problem));
        }
        Ok(())
    }

    /// One notification's variables, or those of each that a digest carries.
    fn read(&self) -> Result<Vec<Box<RawValue>>, CliError> {
        let shown = self.data.display();
        let text = if self.data == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(&self.data)
        };
        let wrong = |problem: &dyn Display| CliError::Usage(format!("--data {shown}: {problem}"));
        let text = text.map_err(|e| wrong(&e))?;
        let data: Box<RawValue> = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
        let items: Vec<Box<RawValue>> = if data.get().starts_with('[') {
            serde_json::from_str(data.get()).map_err(|e| wrong(&e))?
        } else {
            vec![data]
        };
        if items.is_empty() || !items.iter().all(|item| item.get().starts_with('{')) {
            return Err(wrong(&"expected a JSON object, or of a digest a list of them"));
        }
        Ok(items)
    }

    fn print(&self, rendered: &Rendered) -> Result<(), CliError> {
        let Rendered { subject, text, html, locale, version } = rendered;
        if self.json {
            let object = json!({
                "template": self.name, "channel": self.channel, "locale": locale, "version": version,
                "subject": subject, "text": text, "html": html
            });
            println!("{object}");
        } else if self.html {
            let missing = || CliError::Failed(format!("template `{}` has no HTML for {}", self.name, self.channel));
            println!("{}", html.as_ref().ok_or_else(missing)?);
        } else {
            println!("template: {}, {}, {locale}, version {version}", self.name, self.channel);
            if let Some(subject) = subject {
                println!("subject:  {subject}");
            }
            if let Some(html) = html {
                println!("html:     {} bytes (--html shows it)", html.len());
            }
            println!("\n{text}");
        }
        Ok(())
    }
}
