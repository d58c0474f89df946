use super::*;

fn error(built: Result<impl fmt::Debug, TlsConfigError>) -> String {
    built.unwrap_err().to_string()
}

fn server(chain: Pem, key: Pem) -> String {
    error(TlsServerConfig::builder().certificate(chain, key).build())
}

#[test]
fn a_missing_file_is_named() {
    let text = server(Pem::file("/no/such/chain.pem"), Pem::file("/no/such/key.pem"));
    assert!(text.contains("/no/such/chain.pem: cannot be read"), "{text}");
}

#[test]
fn files_are_read_and_may_hold_chain_and_key_together() {
    let world = World::new();
    let path = std::env::temp_dir().join(format!("tidegate-tls-{}.pem", std::process::id()));
    let authority = Authority::new("files");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.signed_by(&key, &authority.0).unwrap();
    std::fs::write(&path, format!("{}\n{}", certificate.pem(), key.serialize_pem())).unwrap();
    let both = Pem::file(&path);
    let built = TlsServerConfig::builder().certificate(both.clone(), both).build();
    std::fs::remove_file(&path).unwrap();
    let client = TlsClientConfig::builder().roots(authority.pem()).build().unwrap();
    Pair::of(&built.unwrap(), &client).ready();
    drop(world);
}

#[test]
fn what_was_found_instead_is_named() {
    let Identity { chain, key, der } = World::new().identity;
    for (chain, key, wanted) in [
        (key.clone(), key.clone(), "expected \"BEGIN CERTIFICATE\", found \"BEGIN PRIVATE KEY\""),
        (chain.clone(), chain.clone(), "expected \"BEGIN PRIVATE KEY\""),
        (Pem::bytes(""), key.clone(), "found nothing: it is empty"),
        (Pem::bytes(der), key.clone(), "looks like DER"),
        (Pem::bytes("hello\nworld"), key.clone(), "no PEM in its 11 bytes"),
        (
            chain.clone(),
            Pem::bytes(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            ),
            "passphrase",
        ),
        (
            chain.clone(),
            // The form before PKCS #8.
            Pem::bytes(
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                 DEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n\
                 -----END RSA PRIVATE KEY-----\n",
            ),
            "passphrase",
        ),
        (Pem::bytes("-----BEGIN CERTIFICATE-----\nAAAA\n"), key.clone(), "damaged"),
        (
            Pem::bytes("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            key.clone(),
            "expected an X.509 v3 certificate first",
        ),
        (
            chain.clone(),
            Pem::bytes("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "expected an RSA",
        ),
        (chain.clone(), World::new().identity.key, "the private key of the first certificate"),
    ] {
        let text = server(chain, key);
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn byte_order_marks_are_passed_over() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let (chain, key) = (format!("\u{feff}{chain}"), format!("\u{feff}{}", key.serialize_pem()));
    let build = |chain: &str, key: &str| {
        TlsServerConfig::builder().certificate(Pem::bytes(chain), Pem::bytes(key)).build()
    };
    build(&chain, &key).unwrap();
    // One file put together from two.
    let both = format!("{chain}{key}");
    build(&both, &both).unwrap();
}

#[test]
fn keys_are_never_shown() {
    let world = World::new();
    let builder = world.server();
    let shown = format!("{builder:?} {:?}", world.identity.key);
    assert!(shown.contains("PEM of") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn a_server_needs_a_certificate_that_holds_for_its_name() {
    let text = error(TlsServerConfig::builder().build());
    assert!(text.contains("expected a certificate for the server"), "{text}");

    let Identity { chain, key, .. } = World::new().identity;
    for (name, wanted) in [
        ("chat.example", "holds for \"chat.example\""),
        ("*.localhost", "holds for \"*.localhost\""),
        ("not a name", "expected a DNS name"),
        ("127.0.0.1", "clients send no SNI for addresses"),
    ] {
        let builder = TlsServerConfig::builder().certificate_for(name, chain.clone(), key.clone());
        let text = error(builder.build());
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn a_client_needs_one_way_to_trust() {
    let text = error(TlsClientConfig::builder().build());
    assert!(text.contains("whom to trust"), "{text}");
    let text = error(World::new().client().pin_certificate([0; 32].into()).build());
    assert!(text.contains("one way to trust"), "{text}");
    let text = error(TlsClientConfig::builder().roots(World::new().identity.key).build());
    assert!(text.contains("BEGIN CERTIFICATE"), "{text}");
}

#[test]
fn names_are_checked() {
    let client = World::new().client().build().unwrap();
    for bad in ["", "a b", "host:443", "http://host"] {
        let text = error(client.layer(bad));
        assert!(text.contains("without a port"), "{text}");
    }
    for bad in ["", &"x".repeat(256)] {
        let text = error(World::new().client().alpn([bad]).build());
        assert!(text.contains("1 to 255 bytes"), "{text}");
    }
}

#[cfg(feature = "tls-webpki-roots")]
#[test]
fn webpki_roots_trust_no_stranger() {
    let world = World::new();
    let client = TlsClientConfig::builder().webpki_roots().build().unwrap();
    let mut pair = Pair::of(&world.server().build().unwrap(), &client);
    pair.run();
    pair.client.refused(LayerErrorKind::Refused, "unknown issuer");
}
