//! User code that may panic: it costs its own connection and nothing else.
//!
//! Where panics abort the process instead of unwinding, none of this can help.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code; a panic comes back as its message.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(panic_text)
}

/// Runs a line of the log that shows an error of the user's, whose `Display` may panic.
pub(crate) fn log_guarded(log: impl FnOnce()) {
    if let Err(text) = guarded(log) {
        log::error!("an error panicked while it was shown: {text}");
    }
}

/// Drops something of the user's, whose drop may panic.
pub(crate) fn drop_guarded<T>(value: T) {
    if let Err(text) = guarded(|| drop(value)) {
        log::error!("a drop panicked: {text}");
    }
}

/// Drops things of the user's, each on its own: two drops of one collection that panic would end
/// the process.
pub(crate) fn drop_each<T>(values: impl IntoIterator<Item = T>) {
    values.into_iter().for_each(drop_guarded);
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(a value that is no text)".to_owned(),
    };
    // A payload's own drop may panic; what that one carries is leaked, there is no end otherwise.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    text
}
