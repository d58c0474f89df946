//! A server that speaks first: its bytes may overtake the answer to the client's connect.

use std::time::Duration;

use tidegate::sim::{Link, check};
use tidegate::{
    Connect, Context, Handler, HandlerResult, Input, Listen, SocketOptions, StreamOptions,
};

const BANNER: &[u8] = &[b'x'; 100];

struct Greets;

impl Handler for Greets {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.send(BANNER);
        cx.close();
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
}

struct Listens;

impl Handler<Vec<u8>> for Listens {
    fn on_data(&mut self, cx: &mut Context<'_, Vec<u8>>, input: &mut Input<'_>) -> HandlerResult {
        cx.state.extend(input.take_all());
        Ok(())
    }
}

#[test]
fn bytes_that_overtake_the_answer_to_a_connect_are_acknowledged() {
    check(0..50, |sim| {
        let ms = Duration::from_millis;
        sim.default_link(Link::new().latency(ms(1)..ms(100)))?;
        sim.host("server", |net| {
            // All of the first write fits into this, so that only an acknowledgement makes room.
            let options = SocketOptions::new().send_buffer(10);
            let listen =
                Listen::tcp("0.0.0.0:25").options(StreamOptions::new().socket_options(options));
            net.listen(listen, |_| Greets).map(drop)
        })?;
        let client = sim.host("client", |net| {
            net.connect(Connect::tcp("server:25"), Listens)?;
            Ok(Vec::new())
        })?;
        sim.settle(ms(60_000))?;
        assert_eq!(sim.state(client), BANNER);
        Ok(())
    });
}
