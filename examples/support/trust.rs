//! Which server to trust over TLS.

use std::error::Error;

use tidegate::layer::tls::{Fingerprint, Pem, TlsClientConfig};

use super::{Arguments, Usage};

/// What the options `--fingerprint` and `--ca` say: `None` if neither was given.
pub(crate) fn from_arguments(
    arguments: &mut Arguments,
) -> Result<Option<TlsClientConfig>, Box<dyn Error>> {
    let builder = TlsClientConfig::builder();
    let fingerprint = arguments.option::<Fingerprint>("--fingerprint")?;
    Ok(match (fingerprint, arguments.option::<String>("--ca")?) {
        (None, None) => None,
        (Some(fingerprint), None) => Some(builder.pin_certificate(fingerprint).build()?),
        (None, Some(ca)) => Some(builder.roots(Pem::file(ca)).build()?),
        (Some(_), Some(_)) => {
            return Err(Usage("expected --fingerprint or --ca, got both".into()).into());
        }
    })
}

/// The host of `HOST:PORT`, which the server's certificate has to be for.
pub(crate) fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}
