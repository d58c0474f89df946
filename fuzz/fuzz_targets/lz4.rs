//! Decodes whatever comes; see `check_codec`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::layer::Lz4;
use tidegate_fuzz::codec::{CAP, check_codec};

fuzz_target!(|data: &[u8]| check_codec(|| Lz4::new().message_limit(CAP), data));
