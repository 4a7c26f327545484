//! The `smtp` provider: hands e-mail to a mail server.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use lettre::message::Mailbox;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};
use tokio::time::{Instant, timeout_at};

use super::dkim::DkimSigner;
use super::smtp_mail::Mail;
use super::smtp_server::SmtpServer;
use super::{DkimSettings, ProviderSettings, ProviderSetupError, excerpt, explain};
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// No attempt takes longer, whatever is configured.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(3600);
/// The server is about to close the connection.
const CLOSING: u16 = 421;
/// The mailbox is busy, or blocked for now.
const MAILBOX_UNAVAILABLE: u16 = 450;
/// The server wants a login, another login or encryption: the mail itself is not to blame.
const ABOUT_THE_SESSION: [u16; 4] = [530, 534, 535, 538];

/// Enhanced codes which say that there is no such mailbox, that it has moved without a new address (RFC 3463), or that
/// its domain takes no mail at all (RFC 7505). Not 5.1.2: a name that did not resolve may be the resolver's trouble.
const NO_MAILBOX: [&str; 3] = ["5.1.1", "5.1.6", "5.1.10"];

/// Sends e-mail through one server.
pub struct SmtpProvider {
    server: SmtpServer,
    from: Mailbox,
    dkim: Option<DkimSigner>,
    timeout: Duration,
}

impl SmtpProvider {
    /// A provider for the settings' server; no connection is made yet.
    ///
    /// # Errors
    /// A [`ProviderSetupError`] for a URL that is not SMTP, a sender that is not a mailbox or a key that cannot sign.
    pub fn new(settings: &ProviderSettings) -> Result<Self, ProviderSetupError> {
        let timeout = settings.timeout.min(LONGEST_ATTEMPT);
        let server =
            SmtpServer::from_url(&settings.url, timeout).map_err(|problem| settings.at_fault("url", problem))?;
        let from = settings.email_from.parse().map_err(|error| {
            let problem = format!("is not a mailbox such as `Shop <no-reply@example.com>`: {error}");
            settings.at_fault("delivery.email_from", problem)
        })?;
        let signer = |dkim: &DkimSettings| DkimSigner::new(&dkim.domain, &dkim.selector, &dkim.private_key_file);
        let dkim = settings.dkim.as_ref().map(signer).transpose();
        let dkim = dkim.map_err(|problem| settings.at_fault("dkim.private_key_file", problem))?;
        Ok(Self { server, from, dkim, timeout })
    }

    /// Everything before the content: as long as that is not sent, the mail is certainly not taken.
    async fn announce(&self, mail: &Mail) -> Result<AsyncSmtpConnection, SendError> {
        // Also when the server says no for good: that is about the service's access and not about this mail.
        let mut connection =
            self.server.connection().await.map_err(|error| {
                SendError::Transient(format!("no session with the mail server: {}", explain(&error)))
            })?;
        let mut parameters = Vec::new();
        if mail.needs_utf8() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                let reason = format!("the mail server has no SMTPUTF8, which `{}` to `{}` needs", mail.from, mail.to);
                self.server.keep(connection);
                return Err(SendError::Permanent(reason));
            }
            parameters.push(MailParameter::SmtpUtfEight);
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        match address(&mut connection, mail, parameters).await {
            Ok(()) => Ok(connection),
            Err((step, error)) => Err(self.refused(connection, step, &error, mail).unwrap_or_else(|| {
                SendError::Transient(format!("the connection to the mail server broke: {}", explain(&error)))
            })),
        }
    }

    /// What the server's refusal means; nothing if there was no answer. After an answer the connection is in order.
    fn refused(&self, connection: AsyncSmtpConnection, step: Step, error: &Error, mail: &Mail) -> Option<SendError> {
        let code = u16::from(error.status()?);
        if code != CLOSING {
            self.server.keep(connection);
        }
        let reason = explain(error);
        let deferred = step == Step::Recipient && !error.is_permanent() && code != CLOSING;
        Some(if deferred && is_about_the_mailbox(code, error) {
            SendError::Deferred(reason)
        } else if !error.is_permanent() || ABOUT_THE_SESSION.contains(&code) {
            SendError::Transient(reason)
        } else if names_no_mailbox(error) {
            SendError::Gone { addresses: vec![mail.to.to_string()], reason }
        } else {
            SendError::Permanent(reason)
        })
    }
}

#[async_trait]
impl Provider for SmtpProvider {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let mut mail = Mail::compose(message, &self.from).map_err(SendError::Permanent)?;
        if let Some(dkim) = &self.dkim {
            // Not the mail's fault, so another try or another provider may do.
            let signed = dkim.sign(&mail.content, Timestamp::now().as_second());
            mail.content = signed.map_err(SendError::Transient)?;
        }
        let deadline = Instant::now() + self.timeout;
        let announced = timeout_at(deadline, self.announce(&mail)).await;
        let mut connection = announced.unwrap_or_else(|_| {
            Err(SendError::Transient(format!("the mail server was not ready within {:?}", self.timeout)))
        })?;
        // From here on the server may have the mail, whatever is heard of it.
        let answer = timeout_at(deadline, connection.message(&mail.content)).await;
        match answer {
            Ok(Ok(answer)) => {
                self.server.keep(connection);
                let receipt = answer.first_line().map(excerpt).filter(|line| !line.is_empty());
                Ok(Accepted { receipt, ..Accepted::default() })
            }
            Ok(Err(error)) => Err(self.refused(connection, Step::Other, &error, &mail).unwrap_or_else(|| {
                SendError::Unknown(format!("the mail was sent and the answer is missing: {}", explain(&error)))
            })),
            // The connection is dropped: its next answer would be the one to this mail.
            Err(_) => Err(SendError::Unknown(format!("the mail was sent and not answered within {:?}", self.timeout))),
        }
    }
}

/// True when the answer's enhanced code says that the mailbox does not exist. A bare 550 does not say so: it stands for
/// policies as well.
fn names_no_mailbox(error: &Error) -> bool {
    said(error).split_ascii_whitespace().next().is_some_and(|code| NO_MAILBOX.contains(&code))
}

/// True when a temporary refusal of the recipient is about it: its address or mailbox (RFC 3463, 3.2 and 3.3; 4.1.7 and
/// 4.1.8 are about the sender), or greylisting, for which there is no code of its own. Without an enhanced code 450 is
/// about a mailbox (RFC 5321, 4.2.3).
fn is_about_the_mailbox(code: u16, error: &Error) -> bool {
    let said = said(error);
    let word = said.split_ascii_whitespace().next().unwrap_or_default();
    match word.strip_prefix("4.") {
        Some("1.7" | "1.8") => false,
        Some(rest) if rest.starts_with("1.") || rest.starts_with("2.") => true,
        Some(_) => said.to_ascii_lowercase().contains("greylist") || said.to_ascii_lowercase().contains("graylist"),
        None => code == MAILBOX_UNAVAILABLE,
    }
}

/// The words of an answer; an enhanced code stands first.
fn said(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// What was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Recipient,
    Other,
}

/// Sender, recipient and the wish to send the content.
async fn address(
    connection: &mut AsyncSmtpConnection,
    mail: &Mail,
    parameters: Vec<MailParameter>,
) -> Result<(), (Step, Error)> {
    let other = |error| (Step::Other, error);
    connection.command(MailFrom::new(Some(mail.from.clone()), parameters)).await.map_err(other)?;
    let of_recipient = |error| (Step::Recipient, error);
    connection.command(Rcpt::new(mail.to.clone(), Vec::new())).await.map_err(of_recipient)?;
    connection.command(Data).await.map_err(other)?;
    Ok(())
}
