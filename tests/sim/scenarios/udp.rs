//! Questions and answers over UDP: a question without an answer is asked again.

use std::time::Duration;

use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{Context, Datagram, DatagramError, DatagramHandler, HandlerResult, Timer, Udp};

use super::{LIMIT, hostile, ms, pattern};

/// Answers a question of number and length by so many bytes.
struct Answers;

impl DatagramHandler for Answers {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        let number = u32::from_be_bytes(datagram.bytes.try_into()?);
        let mut answer = number.to_be_bytes().to_vec();
        answer.extend(pattern(number.into(), 0, (number % 50) as usize));
        cx.send_to(datagram.from, answer);
        Ok(())
    }
}

const QUESTIONS: u32 = 120;

/// How many are asked at once.
const WINDOW: usize = 8;

#[derive(Default)]
struct Asked {
    next: u32,
    open: Vec<u32>,
    answered: u32,
    retries: u32,
}

struct Asks;

impl Asks {
    fn ask(&self, cx: &mut Context<'_, Asked>) {
        while cx.state.open.len() < WINDOW && cx.state.next < QUESTIONS {
            let number = cx.state.next;
            cx.state.next += 1;
            cx.state.open.push(number);
            cx.send(number.to_be_bytes());
        }
    }
}

impl DatagramHandler<Asked> for Asks {
    fn on_open(&mut self, cx: &mut Context<'_, Asked>) -> HandlerResult {
        self.ask(cx);
        cx.set_timer(ms(300), 0);
        Ok(())
    }

    fn on_datagram(
        &mut self,
        cx: &mut Context<'_, Asked>,
        datagram: Datagram<'_>,
    ) -> HandlerResult {
        let (number, answer) = datagram.bytes.split_at(4);
        let number = u32::from_be_bytes(number.try_into()?);
        assert_eq!(answer, pattern(number.into(), 0, (number % 50) as usize));
        // A second answer to a question that was asked twice, or a duplicate.
        if let Some(place) = cx.state.open.iter().position(|&open| open == number) {
            cx.state.open.swap_remove(place);
            cx.state.answered += 1;
        }
        self.ask(cx);
        Ok(())
    }

    fn on_error(&mut self, _: &mut Context<'_, Asked>, _: DatagramError) -> HandlerResult {
        Ok(()) // the timer asks again
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Asked>, _: Timer) -> HandlerResult {
        if cx.state.answered == QUESTIONS {
            cx.close();
            return Ok(());
        }
        for number in cx.state.open.clone() {
            cx.state.retries += 1;
            cx.send(number.to_be_bytes());
        }
        cx.set_timer(ms(300), 0);
        Ok(())
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    hostile(sim)?;
    sim.host("server", |net| net.bind_udp("0.0.0.0:53", Answers).map(drop))?;
    let mut clients = Vec::new();
    for name in ["ada", "bob"] {
        clients.push(sim.host(name, |net| {
            net.bind_udp(Udp::bind("0.0.0.0:0").connect("server:53"), Asks)?;
            Ok(Asked::default())
        })?);
    }
    sim.run_until(LIMIT, |sim| {
        clients
            .iter()
            .all(|&client| sim.is_running(client) && sim.state(client).answered == QUESTIONS)
    })?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
