//! Topics: lines of text to all who have joined a name, on this process and on others.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use tidegate::backplane::{Backplane, BackplaneHandle};
use tidegate::layer::Lines;
use tidegate::{Address, Context, Handler, HandlerResult, Input, Listen, Reactor};

const HELP: &str = "topics - lines of text to all who have joined a topic, over several processes

Usage: cargo run --release --example topics -- [ADDRESS] [OPTIONS]    (default 127.0.0.1:8888)

    --backplane URL   redis://[user:password@]host[:port], or rediss:// for TLS: join this process with
                      all that have the same; without it topics are those of this process
    --ca FILE         the authorities that a rediss:// server is verified with, PEM; or
    --fingerprint SHA256   its certificate's fingerprint
    --keep NUMBER     let Redis keep so many lines of each topic: nothing is lost while it is away, and who
                      joins is sent the last ten
    --prefix TEXT     what the names in Redis begin with (topics/). In a cluster what is kept lies on one node:
                      it needs a hash tag there, such as {topics}/
    --silence MS      after so many milliseconds without a word the server is given up (10000)

Try it: redis-server --port 6379 &
        topics 127.0.0.1:8001 --backplane redis://127.0.0.1 &
        topics 127.0.0.1:8002 --backplane redis://127.0.0.1 &
        nc 127.0.0.1 8001  and  nc 127.0.0.1 8002  and in both: join tide, then: say tide hello";

/// The longest name of a topic.
const MAX_NAME: usize = 64;

/// So many lines somebody is sent who joins, where they are kept.
const HISTORY: usize = 10;

struct Person {
    backplane: Option<BackplaneHandle>,
}

impl Handler for Person {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let line = input.take_all();
        let mut words = line.splitn(3, |&byte| byte == b' ');
        match (words.next(), words.next(), words.next()) {
            (Some(b"join"), Some(name), None) if name.len() <= MAX_NAME => {
                cx.send("* joined");
                match &self.backplane {
                    Some(backplane) => {
                        backplane.join_with_history(cx.net, name, cx.token, HISTORY);
                    }
                    None => {
                        let topic = cx.net.group(name);
                        cx.join(topic);
                    }
                }
            }
            (Some(b"leave"), Some(name), None) => {
                if let Some(topic) = cx.net.find_group(name) {
                    cx.leave(topic);
                }
                cx.send("* left");
            }
            // Wherever its members are.
            (Some(b"say"), Some(name), Some(text)) => {
                cx.net.publish_named(name, text);
            }
            _ => {
                cx.send("* expected: join TOPIC, leave TOPIC, or say TOPIC TEXT");
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    support::main_with_options(HELP, |arguments| {
        let url: Option<String> = arguments.option("--backplane")?;
        #[cfg(feature = "tls")]
        let trusted = support::trust::from_arguments(arguments)?;
        let keep: Option<usize> = arguments.option("--keep")?;
        let prefix = arguments.option("--prefix")?.unwrap_or_else(|| String::from("topics/"));
        let silence: u64 = arguments.option("--silence")?.unwrap_or(10_000);
        let [address] = arguments.rest(["127.0.0.1:8888"])?;

        let mut reactor = Reactor::new()?;
        let net = reactor.net();
        let mut started = None;
        if let Some(url) = url {
            #[allow(unused_mut)] // without the feature `tls`
            let mut backplane = Backplane::redis(&url)?
                .prefix(prefix)
                .silence(Duration::from_millis(silence))
                .on_event(|event, _state, _net| {
                    let _ = support::say(format!("topics: {event}"));
                });
            #[cfg(feature = "tls")]
            if let Some(trusted) = trusted {
                backplane = backplane.tls(trusted);
            }
            if let Some(keep) = keep {
                backplane = backplane.keep("", keep);
            }
            started = Some(backplane.start(net)?);
        }
        let listen = Listen::tcp(&*address).layer(|_peer| Lines::new());
        let listener = net.listen(listen, move |_peer| Person { backplane: started.clone() })?;
        for at in net.local_addrs(listener).iter().filter_map(Address::socket_addr) {
            support::say(format!("topics: listening on {at}"))?;
        }
        reactor.run()?;
        Ok(())
    })
}
