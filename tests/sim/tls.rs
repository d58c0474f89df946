//! TLS in a simulation. rustls draws random numbers of its own, so that two runs of a seed differ in
//! their bytes.

use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::layer::tls::{Fingerprint, Pem, TlsClientConfig, TlsServerConfig};
use tidegate::sim::{Faults, try_check};
use tidegate::{Connect, Context, Handler, HandlerResult, Input, Layer, Listen};

struct Shouts;

impl Handler for Shouts {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all().to_ascii_uppercase());
        Ok(())
    }
}

struct Asks;

impl Handler<String> for Asks {
    fn on_open(&mut self, cx: &mut Context<'_, String>) -> HandlerResult {
        cx.send("over tls");
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, String>, input: &mut Input<'_>) -> HandlerResult {
        *cx.state = String::from_utf8(input.take_all().to_vec())?;
        cx.close();
        Ok(())
    }
}

#[test]
fn runs_with_tls_are_not_compared_and_all_else_is_checked() {
    let made = rcgen::generate_simple_self_signed(["server".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let builder = TlsServerConfig::builder();
    let server = builder.certificate(Pem::bytes(chain), Pem::bytes(key)).build().unwrap();
    let fingerprint = Fingerprint::of(made.cert.der());
    let client = TlsClientConfig::builder().pin_certificate(fingerprint).build().unwrap();
    let checked = try_check(0..20, |sim| {
        sim.faults(Faults::swarm().without(tidegate::sim::Fault::Crashes));
        let (server, client) = (server.clone(), client.clone());
        sim.host("server", move |net| {
            let server = server.clone();
            let listen = Listen::tcp("[::]:443").layer(move |_| server.layer().then(Lines::new()));
            net.listen(listen, |_| Shouts).map(drop)
        })?;
        let client = sim.host("client", move |net| {
            let tls = client.layer("server").expect("a name");
            let connect = Connect::tcp("server:443").layer(tls.then(Lines::new()));
            net.connect(connect, Asks)?;
            Ok(String::new())
        })?;
        sim.run_for(Duration::from_secs(60))?;
        let heard = sim.state(client);
        assert!(heard.is_empty() || heard == "OVER TLS", "{heard:?}");
        Ok(())
    });
    let checked = checked.unwrap();
    assert_eq!((checked.seeds, checked.compared), (20, 0));
}
