//! The protocol of the actors.
//!
//! | message | to | answer |
//! |---|---|---|
//! | [`Park`] | DeadLetterActor | when every letter is durable |
//! | [`Drain`] | ConsumerGroupActor, DispatchActor, OutboxActor | when everything in hand is finished |
//! | [`GroupStatus`] | ConsumerGroupActor | where its source stands |
//! | [`Rebuild`] | ConsumerGroupActor | none: it ends, and the supervisor builds it anew |
//! | [`ChildEnded`] | ServiceSupervisor | none |
//! | [`Supervise`] | ServiceSupervisor | whether the child started |
//! | [`StopSupervising`] | ServiceSupervisor | none |

use std::time::Duration;

use actix::Message;

use super::supervisor::Factory;
use crate::domain::dead_letter::DeadLetter;
use crate::ports::dead_letters::DeadLetterError;
use crate::ports::source::SourceStatus;

/// Make these dead letters durable.
#[derive(Message)]
#[rtype(result = "Result<(), DeadLetterError>")]
pub struct Park(pub Vec<DeadLetter>);

/// Stop taking, finish what is in hand within the deadline, close.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct Drain(pub Duration);

/// Where does your source stand?
#[derive(Message)]
#[rtype(result = "Option<SourceStatus>")]
pub struct GroupStatus;

/// End, for this reason; the supervisor builds a new one in your place.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Rebuild(pub String);

/// A supervised actor is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ChildEnded {
    /// Its name.
    pub name: String,
    /// Which incarnation it was.
    pub generation: u64,
    /// Why, in words.
    pub why: String,
}

/// Build an actor from this factory, now and whenever it ends.
#[derive(Message)]
#[rtype(result = "Result<(), String>")]
pub struct Supervise {
    /// Its name, for logs and metrics.
    pub name: String,
    /// Builds it.
    pub factory: Factory,
}

/// The service drains: what ends now ends on purpose.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopSupervising;
