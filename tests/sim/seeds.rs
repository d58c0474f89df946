//! The scenarios with a fixed set of seeds, or with as many as the environment asks for
//! (`TIDEGATE_SEEDS` from `TIDEGATE_FIRST_SEED` on, which `tools/seeds.sh` sets).

use tidegate::sim::check;

use crate::scenarios;

/// The seeds of a scenario; `count` if the environment does not say how many.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name, default| {
        let text = std::env::var(name).unwrap_or_default();
        if text.is_empty() { default } else { text.parse().expect(name) }
    };
    let first = number("TIDEGATE_FIRST_SEED", 0);
    first..first + number("TIDEGATE_SEEDS", count)
}

macro_rules! scenarios {
    ($($(#[$attribute:meta])* $test:ident: $scenario:ident, $count:expr;)*) => {
        $($(#[$attribute])* #[test]
        fn $test() {
            check(seeds($count), scenarios::$scenario::run);
        })*
    };
}

// Together under a minute in a build without optimization: one run of `websockets` takes as long as dozens
// of the others.
scenarios! {
    #[cfg(feature = "backplane")] backplane_survives: backplane, 20;
    batches_survive: batches, 40;
    chat_survives: chat, 40;
    #[cfg(feature = "backplane")] cluster_survives: cluster, 20;
    datagrams_survive: datagrams, 40;
    echo_survives: echo, 40;
    ends_survive: ends, 40;
    feed_survives: feed, 40;
    groups_survive: groups, 40;
    layers_survive: layers, 40;
    listeners_survive: listeners, 40;
    #[cfg(feature = "histograms")]
    observed_survives: observed, 40;
    posts_survive: posts, 40;
    proxy_survives: proxy, 40;
    readers_survive: readers, 40;
    relays_survive: relays, 40;
    #[cfg(feature = "cookies")] sessions_survive: sessions, 40;
    timers_survive: timers, 40;
    udp_survives: udp, 40;
    #[cfg(feature = "websocket")] websockets_survive: websockets, 8;
    work_survives: work, 40;
    workers_survive: workers, 40;
}
