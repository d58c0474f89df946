//! A backplane that serves several workers.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use tidegate::backplane::{Backplane, BackplaneHandle};
use tidegate::{Net, Relayed, Workers, WorkersHandle};

use crate::support::PATIENCE;
use crate::support::redis::{Turns, keeping, new_engine, turned_until as until};

type State = Option<BackplaneHandle>;

/// Runs something on a worker, and waits until it has run.
fn on<T: Send + 'static>(
    workers: &WorkersHandle<State>,
    worker: usize,
    run: impl FnOnce(&mut State, &mut Net<State>) -> T + Send + 'static,
) -> T {
    let (done, is_done) = channel();
    assert!(workers.post(worker, move |state, net| drop(done.send(run(state, net)))));
    is_done.recv_timeout(PATIENCE).unwrap()
}

// row 266
#[test]
fn a_newcomer_who_is_gone_does_not_end_a_kept_name_of_other_workers() {
    let (mut engine, address) = new_engine();
    let mut elsewhere = keeping(address);
    let workers = Workers::new(2).start(|_, _: &mut Net<State>| Ok(None)).unwrap();
    let handle = workers.handle();
    on(&handle, 0, move |state, net| {
        let backplane = Backplane::redis(&format!("redis://{address}")).unwrap().keep("", 1000);
        *state = Some(backplane.start(net).unwrap());
    });
    let (near, mut far) = UnixStream::pair().unwrap();
    far.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    on(&handle, 1, move |_, net| {
        let token = net.adopt(near, Relayed).unwrap();
        let group = net.group("room");
        assert!(net.join(group, token));
    });
    until!(engine, elsewhere; engine.state().blocked.len() == 1 && elsewhere.backplane.is_connected());
    let asked = |commands: &[String]| {
        commands.iter().filter(|command| command.starts_with("CLIENT UNBLOCK")).count()
    };
    let before = asked(&engine.state().commands);
    // Where the backplane is, somebody asks for the history and is gone.
    let (near, _far) = UnixStream::pair().unwrap();
    on(&handle, 0, move |state, net| {
        let token = net.adopt(near, Relayed).unwrap();
        state.as_ref().unwrap().join_with_history(net, "room", token, 10);
        net.abort(token);
    });
    until!(engine, elsewhere; asked(&engine.state().commands) > before);
    until!(engine, elsewhere; engine.state().blocked.len() == 1);
    elsewhere.say("room", "hello");
    let (mut got, mut block) = (Vec::new(), [0; 64]);
    until!(engine, elsewhere; {
        if let Ok(n) = far.read(&mut block) {
            got.extend_from_slice(&block[..n]);
        }
        got == b"hello"
    });
    handle.stop();
    workers.wait().unwrap();
}
