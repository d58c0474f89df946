use super::*;
use LayerErrorKind::{Refused, RefusedByPeer};

#[test]
fn the_certificate_is_chosen_by_the_name_asked_for() {
    let world = World::new();
    let chat = world.authority.server(&["chat.example"]);
    let wild = world.authority.server(&["*.wild.example"]);
    let server = world
        .server()
        .certificate_for("Chat.example", chat.chain.clone(), chat.key.clone())
        .certificate_for("*.wild.example", wild.chain.clone(), wild.key.clone())
        .build()
        .unwrap();
    let client = world.client().build().unwrap();
    for (name, identity) in
        [("chat.example", &chat), ("CHAT.example", &chat), ("a.wild.example", &wild)]
    {
        let pair = Pair::named(&server, &client, name).ready();
        assert_eq!(pair.client.info().peer_certificate(), Some(&identity.der[..]), "{name}");
        assert_eq!(pair.server.info().server_name(), Some(&*name.to_ascii_lowercase()));
    }
    // The default is shown to others, and holds for itself only.
    Pair::named(&server, &client, "localhost").ready();
    for name in ["other.example", "a.b.wild.example", "127.0.0.1"] {
        let mut pair = Pair::named(&server, &client, name);
        pair.run();
        pair.client.refused(Refused, "for the name asked for");
        pair.server.refused(RefusedByPeer, "does not trust our certificate");
    }
}

#[test]
fn without_a_default_certificate_an_unknown_name_is_refused() {
    let world = World::new();
    let chat = world.authority.server(&["chat.example"]);
    let server = TlsServerConfig::builder()
        .certificate_for("chat.example", chat.chain, chat.key)
        .build()
        .unwrap();
    let client = world.client().build().unwrap();
    Pair::named(&server, &client, "chat.example").ready();
    for name in ["other.example", "127.0.0.1"] {
        let mut pair = Pair::named(&server, &client, name);
        pair.run();
        pair.server.refused(Refused, "a name that this server has a certificate for");
        pair.client.refused(RefusedByPeer, "does not know the name");
    }
}

#[test]
fn a_server_is_also_known_by_its_address() {
    let world = World::new();
    let identity = world.authority.server(&["192.0.2.1", "2001:db8::1"]);
    let server =
        TlsServerConfig::builder().certificate(identity.chain, identity.key).build().unwrap();
    let client = world.client().build().unwrap();
    for name in ["192.0.2.1", "2001:db8::1"] {
        let pair = Pair::named(&server, &client, name).ready();
        assert_eq!(pair.server.info().server_name(), None);
        assert_eq!(pair.client.info().server_name(), Some(name));
    }
}

#[test]
fn expired_and_untrusted_servers_are_refused_and_told_so() {
    let world = World::new();
    let client = world.client().build().unwrap();

    let old = world.authority.expired(&["localhost"]);
    let server = TlsServerConfig::builder().certificate(old.chain, old.key).build().unwrap();
    let mut pair = Pair::of(&server, &client);
    pair.run();
    pair.client.refused(Refused, "has expired");
    pair.server.refused(RefusedByPeer, "expired");

    let stranger = Authority::new("stranger").server(&["localhost"]);
    let server =
        TlsServerConfig::builder().certificate(stranger.chain, stranger.key).build().unwrap();
    let mut pair = Pair::of(&server, &client);
    pair.run();
    pair.client.refused(Refused, "unknown issuer");
    pair.server.refused(RefusedByPeer, "UnknownCA");
}

#[test]
fn a_client_certificate_is_demanded_shown_and_known() {
    let world = World::new();
    let person = world.authority.client("ann");
    let server = world.server().require_client_certificate(world.authority.pem());
    let server = server.build().unwrap();

    let with = world.client().certificate(person.chain, person.key).build().unwrap();
    let pair = Pair::of(&server, &with).ready();
    assert_eq!(pair.server.info().peer_certificate(), Some(&person.der[..]));

    let mut pair = Pair::of(&server, &world.client().build().unwrap());
    pair.run();
    pair.server.refused(Refused, "expected a certificate of the client, got none");
    pair.client.refused(RefusedByPeer, "demands a client certificate");

    for wrong in [
        Authority::new("stranger").client("ann"),
        world.authority.server(&["ann"]), // a certificate for servers
        world.authority.expired(&["ann"]),
    ] {
        let client = world.client().certificate(wrong.chain, wrong.key).build().unwrap();
        let mut pair = Pair::of(&server, &client);
        pair.run();
        pair.server.refused(Refused, "of the client");
        pair.client.refused(RefusedByPeer, "alert");
        assert!(!pair.server.tls.is_ready());
    }
}

#[test]
fn a_client_certificate_that_is_only_asked_for_may_be_missing_but_not_wrong() {
    let world = World::new();
    let person = world.authority.client("ann");
    let server = world.server().request_client_certificate(world.authority.pem());
    let server = server.build().unwrap();

    let pair = Pair::of(&server, &world.client().build().unwrap()).ready();
    assert_eq!(pair.server.info().peer_certificate(), None);

    let with = world.client().certificate(person.chain, person.key).build().unwrap();
    let pair = Pair::of(&server, &with).ready();
    assert_eq!(pair.server.info().peer_certificate(), Some(&person.der[..]));

    let wrong = Authority::new("stranger").client("ann");
    let with = world.client().certificate(wrong.chain, wrong.key).build().unwrap();
    let mut pair = Pair::of(&server, &with);
    pair.run();
    pair.server.refused(Refused, "unknown issuer");
}

#[test]
fn a_pinned_certificate_is_trusted_and_no_other() {
    let world = World::new();
    let stranger = Authority::new("stranger").expired(&["somewhere"]);
    let server = TlsServerConfig::builder()
        .certificate(stranger.chain.clone(), stranger.key.clone())
        .build()
        .unwrap();
    let pin = Fingerprint::of(&stranger.der);
    let client = TlsClientConfig::builder()
        .pin_certificate([7; 32].into())
        .pin_certificate(pin)
        .build()
        .unwrap();
    Pair::of(&server, &client).ready();

    let mut pair = Pair::of(&world.server().build().unwrap(), &client);
    pair.run();
    pair.client.refused(Refused, &Fingerprint::of(&world.identity.der).to_string());
}

/// Shows the pinned certificate, which is public, with another key.
#[test]
fn a_pinned_certificate_without_its_key_is_refused() {
    let world = World::new();
    let thief = Authority::new("thief").server(&["localhost"]);
    let provider = rustls::crypto::ring::default_provider();
    let stolen = rustls_pki_types::CertificateDer::from(world.identity.der.clone());
    let own = Pem::certified_key(&thief.chain, &thief.key, &provider).unwrap();
    let forged = rustls::sign::CertifiedKey::new(vec![stolen], own.key);
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let server = TlsServerConfig::from_rustls(
            rustls::ServerConfig::builder_with_provider(Arc::new(provider.clone()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(forged.clone()))),
        );
        let pinned =
            TlsClientConfig::builder().pin_certificate(Fingerprint::of(&world.identity.der));
        let anybody = TlsClientConfig::builder().dangerous_accept_any_server_certificate();
        for client in [pinned, anybody] {
            let mut pair = Pair::of(&server, &client.build().unwrap());
            pair.run();
            pair.client.refused(Refused, "that holds");
            assert!(!pair.client.tls.is_ready());
        }
    }
}

#[test]
fn accepting_any_certificate_says_so_and_does() {
    let stranger = Authority::new("stranger").expired(&["somewhere"]);
    let server =
        TlsServerConfig::builder().certificate(stranger.chain, stranger.key).build().unwrap();
    let client =
        TlsClientConfig::builder().dangerous_accept_any_server_certificate().build().unwrap();
    let pair = Pair::of(&server, &client).ready();
    assert_eq!(pair.client.info().peer_certificate(), Some(&stranger.der[..]));
}

#[test]
fn an_authority_that_shows_its_own_certificate_is_told_what_is_wrong_with_it() {
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let chain = Pem::bytes(params.self_signed(&key).unwrap().pem());
    let key = Pem::bytes(key.serialize_pem());
    let server = TlsServerConfig::builder().certificate(chain.clone(), key).build().unwrap();
    let client = TlsClientConfig::builder().roots(chain).build().unwrap();
    let mut pair = Pair::of(&server, &client);
    pair.run();
    pair.client.refused(Refused, "CA:FALSE");
}
