//! How late a reactor's waits are: `tools/realtime.sh` runs it beside a bare ppoll(2).
//!
//!     waits [--lock] [--spin MICROSECONDS] until|turn|fine|timer MICROSECONDS COUNT
//!
//! `until` and `turn` wait by `Reactor::turn_until` and `turn(timeout)`, `fine` and `timer` for a timer of a
//! handler, with `set_fine_timer` and `set_timer`. Each wait begins when the last one has ended. `--lock` locks
//! all memory first (mlockall). Prints `waits 500 late_us p50 53.1 p99 80.0 max 120.4`.

use std::error::Error;
use std::time::{Duration, Instant};
use tidegate::{Config, Context, Datagram, DatagramHandler, HandlerResult, Reactor, Timer};

/// Sets its timer anew each time it fires.
struct Metronome {
    fine: bool,
    period: Duration,
    due: Instant,
}

/// How late each wait has ended.
struct Lateness {
    late: Vec<Duration>,
    count: usize,
}

impl Metronome {
    fn set(&mut self, cx: &mut Context<'_, Lateness>) {
        self.due = Instant::now() + self.period;
        if self.fine {
            cx.set_fine_timer(self.period, 0);
        } else {
            cx.set_timer(self.period, 0);
        }
    }
}

impl DatagramHandler<Lateness> for Metronome {
    fn on_open(&mut self, cx: &mut Context<'_, Lateness>) -> HandlerResult {
        self.set(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Lateness>, _: Timer) -> HandlerResult {
        cx.state.late.push(self.due.elapsed());
        if cx.state.late.len() < cx.state.count {
            self.set(cx);
        } else {
            cx.net.stop();
        }
        Ok(())
    }

    fn on_datagram(&mut self, _: &mut Context<'_, Lateness>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut config = Config::new();
    while let Some(option) = words.first().filter(|word| word.starts_with("--")).cloned() {
        words.remove(0);
        match &*option {
            "--lock" => {
                use nix::sys::mman::{MlockAllFlags, mlockall};
                mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)?;
            }
            "--spin" if !words.is_empty() => {
                let time = Duration::from_micros(words.remove(0).parse()?);
                config = config.spin_before_deadline(time);
            }
            other => return Err(format!("did not expect {other}").into()),
        }
    }
    let [how, period, count] = &words[..] else {
        return Err(
            "usage: waits [--lock] [--spin MICROSECONDS] until|turn|fine|timer MICROSECONDS COUNT"
                .into(),
        );
    };
    let (period, count) = (Duration::from_micros(period.parse()?), count.parse()?);
    let late = Lateness { late: Vec::with_capacity(count), count };
    let mut reactor = Reactor::build(config, |_| Ok(late))?;
    match &**how {
        "until" | "turn" => {
            for _ in 0..count {
                let due = Instant::now() + period;
                loop {
                    let left = due.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    let _ = match &**how {
                        "until" => reactor.turn_until(due)?,
                        _ => reactor.turn(Some(left))?,
                    };
                }
                reactor.state_mut().late.push(due.elapsed());
            }
        }
        "fine" | "timer" => {
            let metronome = Metronome { fine: how == "fine", period, due: Instant::now() };
            reactor.net().bind_udp("127.0.0.1:0", metronome)?;
            reactor.run()?;
        }
        other => return Err(format!("expected until, turn, fine or timer, not {other}").into()),
    }
    let late = &mut reactor.state_mut().late;
    late.sort();
    let at = |part: usize| late[(late.len() - 1) * part / 100].as_secs_f64() * 1e6;
    println!("waits {} late_us p50 {:.1} p99 {:.1} max {:.1}", late.len(), at(50), at(99), at(100));
    Ok(())
}
