//! TLS for tests: certificates that are made once for a run, and both sides' layers.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tidegate::layer::tls::rustls::RootCertStore;
use tidegate::layer::tls::{Pem, Tls, TlsClientConfig, TlsServerConfig};

struct World {
    /// An authority and, signed by it, a server called `localhost`.
    authority: String,
    authority_der: Vec<u8>,
    server: TlsServerConfig,
    demanding: TlsServerConfig,
    client: TlsClientConfig,
    certified: TlsClientConfig,
    stranger: TlsClientConfig,
}

/// The server `localhost`.
pub fn server() -> Tls {
    world().server.layer()
}

/// The same one, which wants a certificate of its clients and speaks `chat/1`.
pub fn demanding_server() -> Tls {
    world().demanding.layer()
}

/// A client that trusts it.
pub fn client() -> Tls {
    world().client.layer("localhost").unwrap()
}

/// One that has a certificate of its own, `alice`, and offers `chat/2` and `chat/1`.
pub fn certified_client() -> Tls {
    world().certified.layer("localhost").unwrap()
}

/// One that trusts somebody else.
pub fn stranger() -> Tls {
    world().stranger.layer("localhost").unwrap()
}

/// Whom clients of another making have to trust.
pub fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(world().authority_der.clone().into()).unwrap();
    roots
}

/// The same as PEM.
pub fn authority() -> &'static str {
    &world().authority
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let authority = new_authority("tests");
        let (chain, key) = issue(&authority, "localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let (alice, alices) = issue(&authority, "alice", ExtendedKeyUsagePurpose::ClientAuth);
        let trusted = Pem::bytes(authority.pem());
        let elsewhere = Pem::bytes(new_authority("elsewhere").pem());
        let server = || TlsServerConfig::builder().certificate(chain.clone(), key.clone());
        let client = |roots: &Pem| TlsClientConfig::builder().roots(roots.clone());
        World {
            server: server().build().unwrap(),
            demanding: server()
                .require_client_certificate(trusted.clone())
                .alpn(["chat/1"])
                .build()
                .unwrap(),
            client: client(&trusted).build().unwrap(),
            certified: client(&trusted)
                .certificate(alice, alices)
                .alpn(["chat/2", "chat/1"])
                .build()
                .unwrap(),
            stranger: client(&elsewhere).build().unwrap(),
            authority: authority.pem(),
            authority_der: authority.der().to_vec(),
        }
    })
}

fn new_authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    purpose: ExtendedKeyUsagePurpose,
) -> (Pem, Pem) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![purpose];
    let certificate = params.signed_by(&key, authority).unwrap();
    (Pem::bytes(certificate.pem()), Pem::bytes(key.serialize_pem()))
}
