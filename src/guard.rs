//! Calls of user code that may panic: a panic ends its own connection and nothing else.
//!
//! Where panics abort the process instead of unwinding, these guards have no effect.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code. A panic is returned as its message. What to do with one is out of line: with more in
/// it this function would not be inlined, which costs 40 instructions a callback.
#[inline]
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(caught)
}

#[cold]
fn caught(payload: Box<dyn Any + Send>) -> String {
    let text = panic_text(payload);
    #[cfg(feature = "sim")]
    crate::witness::panicked(&text);
    text
}

/// Runs a log statement that formats a user's error, whose `Display` may panic.
pub(crate) fn log_guarded(log: impl FnOnce()) {
    if let Err(text) = guarded(log) {
        log::error!("an error panicked while it was shown: {text}");
    }
}

/// Drops a user value, whose drop may panic.
pub(crate) fn drop_guarded<T>(value: T) {
    if let Err(text) = guarded(|| drop(value)) {
        log::error!("a drop panicked: {text}");
    }
}

/// Drops user values one by one: two panics in the drop of one collection would abort the process.
pub(crate) fn drop_each<T>(values: impl IntoIterator<Item = T>) {
    values.into_iter().for_each(drop_guarded);
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(a value that is no text)".to_owned(),
    };
    // The payload's own drop may panic. The payload of that second panic is leaked, because
    // dropping it could panic without end.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    text
}
