//! A server's certificate: from files, or made for this run.

use std::error::Error;

use tidegate::layer::tls::{Fingerprint, Pem, TlsServerBuilder, TlsServerConfig};

use super::{Arguments, Usage};

/// What the options `--cert` and `--key` say; without them, a self-signed certificate.
pub(crate) fn from_arguments(
    arguments: &mut Arguments,
) -> Result<TlsServerBuilder, Box<dyn Error>> {
    let builder = TlsServerConfig::builder();
    match (arguments.option::<String>("--cert")?, arguments.option::<String>("--key")?) {
        (Some(chain), Some(key)) => Ok(builder.certificate(Pem::file(chain), Pem::file(key))),
        (None, None) => self_signed(builder),
        _ => Err(Usage("expected --cert and --key, or neither".into()).into()),
    }
}

/// A certificate for this machine under its own names, gone when the program ends. Nobody has
/// signed it: a client that is to trust it compares the fingerprint that is printed here.
fn self_signed(builder: TlsServerBuilder) -> Result<TlsServerBuilder, Box<dyn Error>> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    super::say(format!("a self-signed certificate, SHA-256 {}", Fingerprint::of(made.cert.der())))?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    Ok(builder.certificate(Pem::bytes(chain), Pem::bytes(key)))
}
