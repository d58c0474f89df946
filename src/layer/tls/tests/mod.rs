//! Client and server layers against each other, in memory. The certificates are made here.

use std::any::TypeId;
use std::mem;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::*;
use crate::layer::testkit::Environment;

mod certificates;
mod config;
mod handshake;
mod hostile;
mod stream;

/// A certificate authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key in PEM.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) chain: Pem,
    pub(super) key: Pem,
    pub(super) der: Vec<u8>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> Pem {
        Pem::bytes(self.0.pem())
    }

    pub(super) fn server(&self, names: &[&str]) -> Identity {
        self.issue(names, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    pub(super) fn client(&self, name: &str) -> Identity {
        self.issue(&[name], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    pub(super) fn expired(&self, names: &[&str]) -> Identity {
        self.issue(names, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names: Vec<String> = names.iter().map(|&n| n.into()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            chain: Pem::bytes(certificate.pem()),
            key: Pem::bytes(key.serialize_pem()),
            der: certificate.der().to_vec(),
        }
    }
}

/// An authority, a server that it has signed for `localhost`, and a client that trusts it.
pub(super) struct World {
    pub(super) authority: Authority,
    pub(super) identity: Identity,
}

impl World {
    pub(super) fn new() -> World {
        let authority = Authority::new("test authority");
        let identity = authority.server(&["localhost"]);
        World { authority, identity }
    }

    pub(super) fn server(&self) -> TlsServerBuilder {
        TlsServerConfig::builder()
            .certificate(self.identity.chain.clone(), self.identity.key.clone())
    }

    pub(super) fn client(&self) -> TlsClientBuilder {
        TlsClientConfig::builder().roots(self.authority.pem())
    }

    pub(super) fn pair(&self) -> Pair {
        Pair::of(&self.server().build().unwrap(), &self.client().build().unwrap())
    }
}

/// One side of a connection, with the driver's part: it keeps what was not consumed.
pub(super) struct Side {
    pub(super) tls: Tls,
    /// Arrived, not consumed.
    pub(super) unread: Vec<u8>,
    /// On its way to the other side.
    pub(super) out: Vec<u8>,
    /// What `decode` yielded.
    pub(super) got: Vec<u8>,
    pub(super) largest_unit: usize,
    pub(super) ended: bool,
    pub(super) error: Option<LayerError>,
    /// Everything that came in while the side was not ready.
    pub(super) handshake_bytes: usize,
}

impl Side {
    pub(super) fn new(mut tls: Tls) -> Side {
        let mut out = Vec::new();
        tls.start(&mut Environment::new().cx(), &mut out).unwrap();
        Side {
            tls,
            unread: Vec::new(),
            out,
            got: Vec::new(),
            largest_unit: 0,
            ended: false,
            error: None,
            handshake_bytes: 0,
        }
    }

    pub(super) fn send(&mut self, message: &[u8]) {
        self.tls
            .encode(&mut Environment::new().cx(), message, MessageKind::Default, &mut self.out)
            .unwrap();
    }

    /// Takes bytes in, and pulls until the layer needs more.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        if self.ended || self.error.is_some() {
            return;
        }
        if !self.tls.is_ready() {
            self.handshake_bytes += bytes.len();
        }
        self.unread.extend_from_slice(bytes);
        for _ in 0..100_000 {
            let was_ready = self.tls.is_ready();
            let mut unit = Vec::new();
            match self.tls.decode(
                &mut Environment::new().cx(),
                &mut self.unread,
                &mut unit,
                &mut self.out,
            ) {
                Ok(step) => {
                    self.unread.drain(..step.consumed);
                    match step.item {
                        Item::Unit => {
                            assert!(was_ready, "a unit before the handshake was done");
                            assert!(!unit.is_empty());
                        }
                        Item::Progress => assert!(step.consumed > 0 && unit.is_empty()),
                        Item::Nothing => return assert!(step.consumed == 0 && unit.is_empty()),
                        Item::End => return self.ended = true,
                        Item::Slice(_) => unreachable!("TLS has to decrypt"),
                    }
                    self.largest_unit = self.largest_unit.max(unit.len());
                    self.got.append(&mut unit);
                }
                Err(error) => return self.error = Some(error),
            }
        }
        panic!("the layer made progress 100 000 times and did not come to an end");
    }

    pub(super) fn info(&self) -> &TlsInfo {
        self.tls.layer_info(TypeId::of::<TlsInfo>()).unwrap().downcast_ref().unwrap()
    }

    pub(super) fn refused(&self, kind: LayerErrorKind, text: &str) {
        let error = self.error.as_ref().expect("an error");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// Two sides and the line between them.
pub(super) struct Pair {
    pub(super) client: Side,
    pub(super) server: Side,
}

impl Pair {
    pub(super) fn of(server: &TlsServerConfig, client: &TlsClientConfig) -> Pair {
        Pair::named(server, client, "localhost")
    }

    pub(super) fn named(server: &TlsServerConfig, client: &TlsClientConfig, name: &str) -> Pair {
        Pair::between(server.layer(), client.layer(name).unwrap())
    }

    pub(super) fn between(server: Tls, client: Tls) -> Pair {
        Pair { client: Side::new(client), server: Side::new(server) }
    }

    /// Carries bytes both ways, in chunks, until the line is quiet.
    pub(super) fn run_in(&mut self, chunk: usize) {
        for _ in 0..100_000 {
            let to_server = mem::take(&mut self.client.out);
            let to_client = mem::take(&mut self.server.out);
            if to_server.is_empty() && to_client.is_empty() {
                return;
            }
            to_server.chunks(chunk).for_each(|bytes| self.server.receive(bytes));
            to_client.chunks(chunk).for_each(|bytes| self.client.receive(bytes));
        }
        panic!("the line did not become quiet");
    }

    pub(super) fn run(&mut self) {
        self.run_in(usize::MAX);
    }

    pub(super) fn ready(mut self) -> Pair {
        self.run();
        assert!(self.client.error.is_none(), "{:?}", self.client.error);
        assert!(self.server.error.is_none(), "{:?}", self.server.error);
        assert!(self.client.tls.is_ready() && self.server.tls.is_ready());
        self
    }
}

/// A thread pool may move connections about.
#[test]
fn layers_and_configurations_are_send() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Tls>();
    is_shared::<TlsServerConfig>();
    is_shared::<TlsClientConfig>();
}

/// What an alert in clear text says.
pub(super) fn plain_alert(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [21, 3, _, 0, 2, 2, description] => Some(*description),
        _ => None,
    }
}

/// Pseudo-random bytes, the same every time.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(len)
    .collect()
}
