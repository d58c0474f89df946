#![no_main]
//! Options: server or client, limits on bytes, elements and depth.

use libfuzzer_sys::fuzz_target;
use tidegate::layer::resp::{Command, Resp, Value, Version};
use tidegate_fuzz::{Options, check_sent_on};

fuzz_target!(|input: &[u8]| {
    let mut options = Options::new(input);
    let server = options.flag();
    let resp = if server { Resp::server() } else { Resp::client() };
    let (bytes, elements) = (options.byte(), options.byte());
    let depth = options.byte();
    let make = || {
        resp.clone()
            .message_limit(bytes.into())
            .element_limit(elements.into())
            .depth_limit(depth.into())
    };
    let outcome = options.transcript().check(make);
    assert!(outcome.error_kind().is_some() || outcome.units.len() <= input.len());
    for unit in &outcome.units {
        if server {
            // An inline command may be longer in the form of an array.
            let words: Vec<_> = Command::new(&unit.bytes, &unit.fields).words().collect();
            assert!(!words.is_empty() && words.len() <= elements.into());
            assert!(Command::encode(&words).len() <= unit.bytes.len());
        } else {
            assert!(unit.bytes.len() <= bytes.into());
        }
        // What the codec takes, it takes again as it was written.
        if let Ok(value) = Value::parse(&unit.bytes) {
            for version in [Version::Resp2, Version::Resp3] {
                let wire = value.encode(version);
                let again = Value::parse(&wire).expect("what was written is read");
                assert_eq!(again.encode(version).len(), wire.len());
            }
        }
    }
    let unlimited = || resp.clone().message_limit(1 << 20).element_limit(1 << 20).depth_limit(255);
    assert_eq!(check_sent_on(unlimited, &outcome.messages()), 0);
});
