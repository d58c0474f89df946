//! The scenarios with a fixed set of seeds, or with as many as the environment asks for
//! (`TIDEGATE_SEEDS`, which `tools/seeds.sh` sets).

use tidegate::sim::check;

use crate::scenarios::{chat, echo, proxy, udp};

fn seeds() -> std::ops::Range<u64> {
    let number = |name, default| {
        let text = std::env::var(name).unwrap_or_default();
        if text.is_empty() { default } else { text.parse().expect(name) }
    };
    let first = number("TIDEGATE_FIRST_SEED", 0);
    first..first + number("TIDEGATE_SEEDS", 200)
}

#[test]
fn echo_survives() {
    check(seeds(), echo::run);
}

#[test]
fn chat_survives() {
    check(seeds(), chat::run);
}

#[test]
fn proxy_survives() {
    check(seeds(), proxy::run);
}

#[test]
fn udp_survives() {
    check(seeds(), udp::run);
}
