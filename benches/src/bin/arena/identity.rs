//! The certificate that the TLS servers show, and its key: made once, kept beside the results.

use crate::Result;
use std::path::{Path, PathBuf};

pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Identity {
    /// A self-signed one for `localhost`: ECDSA on P-256, as most of the public web.
    pub fn get() -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/arena-identity");
        let identity = Self { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        if !identity.key.exists() {
            std::fs::create_dir_all(&folder)?;
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
            std::fs::write(&identity.cert, made.cert.pem())?;
            std::fs::write(&identity.key, made.signing_key.serialize_pem())?;
        }
        Ok(identity)
    }
}
