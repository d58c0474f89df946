//! Who waits for a history in a process of several workers, and is gone when it comes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tidegate::backplane::{Backplane, BackplaneHandle};
use tidegate::sim::check;
use tidegate::{Context, Error, Handler, HandlerResult, Input, Listen, Net, Relayed};

use crate::engine::{Store, engine};

const NAME: &str = "{kept}/a";

struct Worker {
    backplane: Option<BackplaneHandle>,
    heard: Vec<u8>,
}

/// A member of the name; where the backplane is, with a history, for which it does not wait.
struct Near;

impl Handler<Worker> for Near {
    fn on_open(&mut self, cx: &mut Context<'_, Worker>) -> HandlerResult {
        if let Some(backplane) = cx.state.backplane.clone() {
            backplane.join_with_history(cx.net, NAME, cx.token, 10);
            cx.abort();
        } else {
            let group = cx.net.group(NAME);
            cx.join(group);
        }
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Worker>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
}

struct Far;

impl Handler<Worker> for Far {
    fn on_data(&mut self, cx: &mut Context<'_, Worker>, input: &mut Input<'_>) -> HandlerResult {
        cx.state.heard.extend(input.take_all());
        Ok(())
    }
}

fn backplane(url: &str, net: &mut Net<Worker>) -> Result<BackplaneHandle, Error> {
    Ok(Backplane::redis(url)?.keep("{kept}", 100).start(net)?)
}

#[test]
fn a_newcomer_who_is_gone_does_not_end_a_kept_name_of_other_workers() {
    check(0..20, |sim| {
        let ms = Duration::from_millis;
        let _engine = engine(sim, "engine", &Rc::new(RefCell::new(Store::default())))?;
        let url = format!("redis://{}", sim.ip("engine")?);
        let of_workers = url.clone();
        let workers = sim.workers("many", 2, move |worker, net| {
            let is_first = worker.index() == 0;
            let backplane = if is_first { Some(backplane(&of_workers, net)?) } else { None };
            net.listen(Listen::tcp(("127.0.0.1", 1 + worker.index() as u16)), |_| Near)?;
            Ok(Worker { backplane, heard: Vec::new() })
        })?;
        let one = sim.host("one", move |net: &mut Net<Worker>| {
            let backplane = Some(backplane(&url, net)?);
            Ok(Worker { backplane, heard: Vec::new() })
        })?;
        sim.run_for(ms(500))?;
        sim.with(workers[1], |_, net| net.connect("127.0.0.1:2", Far).map(drop))?;
        sim.run_for(ms(500))?;
        sim.with(workers[0], |_, net| net.connect("127.0.0.1:1", Relayed).map(drop))?;
        sim.run_for(ms(500))?;
        sim.with(one, |_, net| net.publish_named(NAME, "hello"));
        sim.run_for(ms(500))?;
        assert_eq!(sim.state(workers[1]).heard, b"hello");
        Ok(())
    });
}

/// A name was left and asked for again while the reader's first question was under way, and this process had
/// said something in between: the seed of that (docs/reliability.md).
#[test]
fn a_newcomer_hears_what_was_said_here_before_they_came() {
    check(4182..4183, crate::scenarios::backplane::run);
}
