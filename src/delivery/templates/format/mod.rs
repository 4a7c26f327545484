//! Money and dates as the reader writes them: the filters `money`, `date`, `time` and `datetime`.
//!
//! The tables here know English, German, French, Spanish, Italian, Dutch, Portuguese and Polish. Any other language
//! gets amounts with the ISO code and dates as in ISO 8601, which everybody can read. What a filter cannot make sense
//! of, it leaves as it is: words that are a little raw are better than none.

mod calendar;
mod decimal;
mod money;
mod region;

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use jiff::tz::TimeZone;
use minijinja::Environment;

use crate::domain::locale::Locale;
pub use region::Region;

/// How one message writes numbers and times, and in which locale its words are.
pub struct Conventions {
    region: Region,
    words: Locale,
    time_zone: Option<String>,
    zone: OnceCell<Option<TimeZone>>,
}

impl Conventions {
    /// The conventions of a locale and of an IANA time zone, for words in a locale. Without a zone, and with one that
    /// nobody knows, times are in UTC and say so.
    pub fn new(locale: &Locale, time_zone: Option<&str>, words: Locale) -> Self {
        Self { region: Region::of(locale), words, time_zone: time_zone.map(str::to_owned), zone: OnceCell::new() }
    }

    /// Looked up when a date asks for it: most messages have none or one.
    fn zone(&self) -> Option<&TimeZone> {
        self.zone.get_or_init(|| TimeZone::get(self.time_zone.as_deref()?).ok()).as_ref()
    }
}

thread_local! {
    // A macro sees nothing of the message that it is called for, and minijinja's callbacks see no variables: they could
    // not be asked for the reader.
    static CURRENT: RefCell<Option<Rc<Conventions>>> = const { RefCell::new(None) };
}

/// Runs something in which the filters follow these conventions, on this thread.
pub fn following<R>(conventions: Conventions, render: impl FnOnce() -> R) -> R {
    struct Restore(Option<Rc<Conventions>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(Rc::new(conventions))));
    render()
}

/// The locale of the words of the message that is rendered now on this thread.
pub fn current_words<R>(look: impl FnOnce(&Locale) -> Option<R>) -> Option<R> {
    CURRENT.with_borrow(|current| look(&current.as_ref()?.words))
}

fn with_current(text: Cow<'_, str>, format: impl FnOnce(&Conventions, &str) -> Option<String>) -> String {
    let current = CURRENT.with_borrow(Clone::clone);
    current.and_then(|conventions| format(&conventions, &text)).unwrap_or_else(|| text.into_owned())
}

/// Makes the filters known to templates.
pub fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter("money", |amount: Cow<'_, str>, currency: Option<Cow<'_, str>>| {
        with_current(amount, |to, amount| currency.map(|currency| money::format(to.region, amount, &currency)))
    });
    environment.add_filter("date", |at: Cow<'_, str>| with_current(at, calendar::date));
    environment.add_filter("time", |at: Cow<'_, str>| with_current(at, calendar::time));
    environment.add_filter("datetime", |at: Cow<'_, str>| with_current(at, calendar::datetime));
}
