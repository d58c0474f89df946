//! What the library writes to the log, on the test's own thread.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local! {
    /// `None` on the threads of tests that do not ask for the log.
    static LINES: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) };
}

struct Collector;

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tidegate") && LINES.with_borrow(Option::is_some)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = (record.level(), record.args().to_string());
            LINES.with_borrow_mut(|lines| lines.as_mut().map(|lines| lines.push(line)));
        }
    }

    fn flush(&self) {}
}

/// What was logged on this thread, at any level, since this was last asked; from the first time on.
pub fn take() -> Vec<(Level, String)> {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Collector).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
    LINES.replace(Some(Vec::new())).unwrap_or_default()
}

/// The same, of this level and graver.
pub fn take_from(level: Level) -> Vec<(Level, String)> {
    let mut lines = take();
    lines.retain(|(of, _)| *of <= level);
    lines
}
