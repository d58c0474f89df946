//! Decodes whatever comes; see `check_codec`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::layer::Deflate;
use tidegate_fuzz::codec::{CAP, check_codec};

fuzz_target!(|data: &[u8]| check_codec(|| Deflate::new().message_limit(CAP), data));
