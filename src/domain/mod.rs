//! Pure types of the business: envelopes, typed events, notifications, dead letters. No I/O, no clock, no async.

pub mod bytes;
pub mod catalog;
pub mod channel;
pub mod dead_letter;
pub mod envelope;
pub mod error;
pub mod events;
pub mod fingerprint;
pub mod groups;
pub mod ids;
pub mod locale;
pub mod mentions;
pub mod notification;
pub mod number;
mod object;
pub mod preferences;
pub mod recipient;
pub mod record;
pub mod role;
pub mod stored_letter;
pub mod time;
pub mod trace;
