//! Pure handlers: an event in, the notifications it asks for out. No I/O, no clock, no async.

mod declarative;
mod orders;
mod payload;
mod products;
mod registry;
mod users;

pub use declarative::{DeclarativeRoute, InvalidPointer, Pointer};
pub use registry::{Handler, HandlerError, Output, Registry};
pub use users::directory_entry;
