//! The look-up of a token, among so many.

use crate::Silent;
use divan::Bencher;
use divan::counter::ItemsCount;
use tidegate::Reactor;

#[divan::bench(args = [1_000, 10_000], sample_count = 50)]
fn look_up(bencher: Bencher<'_, '_>, sockets: usize) {
    let mut reactor = Reactor::new().expect("a poll can be made");
    let net = reactor.net();
    let bind = |_| net.bind_udp("127.0.0.1:0", Silent).expect("UDP can be bound");
    let tokens: Vec<_> = (0..sockets).map(bind).collect();
    bencher.counter(ItemsCount::new(sockets)).bench_local(|| {
        let net = reactor.net();
        tokens.iter().filter(|&&token| net.is_open(token)).count()
    });
}
