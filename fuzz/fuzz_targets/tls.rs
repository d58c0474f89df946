//! Arbitrary bytes, in arbitrary splits, to a TLS layer that accepts.
//!
//! Each input is a list of pieces: one byte for the length, then so many bytes (0 means 4096).
//! It must not panic, must not read on past the handshake limit, must not get ready, and must end.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate::layer::testkit::Environment;
use tidegate::layer::tls::{Pem, RECORD_MAX, TlsServerConfig};
use tidegate::layer::{Item, Layer, LayerEnd};

const LIMIT: usize = 8 * 1024;

static CONFIG: LazyLock<TlsServerConfig> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    TlsServerConfig::builder()
        .certificate(Pem::bytes(made.cert.pem()), Pem::bytes(made.signing_key.serialize_pem()))
        .alpn(["chat"])
        .build()
        .expect("a configuration")
});

fuzz_target!(|input: &[u8]| {
    let mut tls = CONFIG.layer().handshake_limit(LIMIT);
    let mut environment = Environment::new();
    let (mut wire, mut unit, mut reply) = (Vec::new(), Vec::new(), Vec::new());
    tls.start(&mut environment.cx(), &mut reply).expect("a server starts");
    assert!(reply.is_empty(), "a server waits for the client");

    let mut rest = input;
    let mut consumed = 0;
    while let Some((&length, behind)) = rest.split_first() {
        let length = if length == 0 { 4096 } else { usize::from(length) };
        let (piece, behind) = behind.split_at(length.min(behind.len()));
        rest = behind;
        wire.extend_from_slice(piece);
        loop {
            let before = wire.len();
            match tls.decode(&mut environment.cx(), &mut wire, &mut unit, &mut reply) {
                Ok(step) => {
                    consumed += step.consumed;
                    wire.drain(..step.consumed);
                    match step.item {
                        Item::Nothing => {
                            assert_eq!(step.consumed, 0);
                            break;
                        }
                        Item::Progress => assert!(wire.len() < before, "progress without bytes"),
                        item => panic!("{item:?} without a handshake"),
                    }
                }
                Err(_) => {
                    // One alert at most, and nothing behind it.
                    let said = reply.len();
                    tls.end(&mut environment.cx(), &LayerEnd::Closed, &mut reply);
                    assert_eq!(reply.len(), said);
                    return;
                }
            }
            assert!(consumed <= LIMIT, "read {consumed} bytes of a handshake");
        }
        assert!(wire.len() < RECORD_MAX, "a whole record was not taken");
        assert!(unit.is_empty() && !tls.is_ready(), "no fuzzer has the keys");
    }
    assert!(tls.wire_ended(&mut environment.cx(), wire.len()).is_err(), "an end without a handshake is a truncation");
});
