//! Panics on purpose, without their messages in the test's output.

use std::sync::Once;

pub const ON_PURPOSE: &str = "on purpose";

/// Keeps the panic hook silent about [`ON_PURPOSE`] and [`Bomb`]s, and only about them.
pub fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            if payload.downcast_ref::<&str>() != Some(&ON_PURPOSE) && !payload.is::<Bomb>() {
                loud(info);
            }
        }));
    });
}

pub fn panic_on_purpose() -> ! {
    quiet();
    std::panic::panic_any(ON_PURPOSE)
}

/// Panics when it is dropped.
#[derive(Debug)]
pub struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic_on_purpose();
        }
    }
}

/// Panics with a payload whose drop panics again.
pub fn panic_with_a_bomb() -> ! {
    quiet();
    std::panic::panic_any(Bomb)
}
