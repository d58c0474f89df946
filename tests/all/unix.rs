//! Unix sockets: the same contract under paths.
#![cfg(unix)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tidegate::{
    Address, Connect, Handler, Listen, Peer, Reactor, SocketOptions, StreamOptions, Token,
};

use crate::support::endpoints::{assert_asleep, assert_falls_asleep};
use crate::support::{Log, PATIENCE, Probe, Told, is_data, settle, until};

// ---- listen, connect ----

// row 18
#[test]
fn a_client_and_a_server_meet_at_a_path() {
    let path = TestPath::new();
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener) = listening(&path, move || Probe::echo(&of_handler));
    assert_eq!(reactor.net().local_addr(listener), Some(Address::Unix(Some(path.0.clone()))));

    let client = Log::new();
    let token = reactor.net().connect(Connect::unix(&path), Probe::new(&client)).unwrap();
    reactor.net().send(token, b"early ");
    assert_eq!(client.told(), [], "not before connect has returned");
    until(&mut reactor, "the opening", |_| client.opens() == 1);
    reactor.net().send(token, vec![b'x'; 300_000]);
    reactor.net().half_close(token);
    until(&mut reactor, "the close", |_| client.closes() == 1);
    assert_eq!(client.data().len(), 300_006);
    assert!(client.data().starts_with(b"early x"));
    assert_eq!(client.reasons(), ["both sides ended"]);
    until(&mut reactor, "the other close", |_| log.closes() == 1);
}

#[test]
fn a_peer_without_a_path_is_unnamed_and_the_filter_sees_it() {
    let path = TestPath::new();
    let mut reactor = Reactor::with_state(Vec::new()).unwrap();
    let listen = Listen::unix(&path).filter(|peer, seen: &mut Vec<String>| {
        seen.push(peer.address().to_string());
        false
    });
    reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap();
    let mut stream = connect(&path);
    until(&mut reactor, "the verdict", |reactor| !reactor.state().is_empty());
    assert_eq!(reactor.state()[..], ["(unnamed Unix socket)"]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "refused");
}

// A read stops at a message that carries a descriptor (unix(7)): such a short one does not mean that
// the system's buffer is empty, and no edge comes for what is behind it.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn what_is_behind_a_message_with_a_descriptor_arrives_as_well() {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;

    let path = TestPath::new();
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _) = listening(&path, move || Probe::new(&of_handler));
    let mut stream = connect(&path);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    stream.write_all(b"before ").unwrap();
    // A header of cmsg(3): its length, SOL_SOCKET, SCM_RIGHTS; then the descriptor, and padding.
    let mut control = 20_u64.to_ne_bytes().to_vec();
    for word in [1, 1, stream.as_raw_fd(), 0] {
        control.extend(word.to_ne_bytes());
    }
    let with = [IoSlice::new(b"with ")];
    let message = socket2::MsgHdr::new().with_buffers(&with).with_control(&control);
    assert_eq!(socket2::SockRef::from(&stream).sendmsg(&message, 0).unwrap(), 5);
    stream.write_all(b"behind").unwrap();
    until(&mut reactor, "all of it", |_| log.data() == b"before with behind");
    assert_falls_asleep(&mut reactor);
}

// rows 15, 17
#[test]
fn a_connect_that_fails_is_told_once_with_the_path() {
    let (missing, stale) = (TestPath::new(), TestPath::new());
    drop(UnixListener::bind(&stale).unwrap()); // the path stays, and nobody listens
    for (path, kind) in [(&missing, "No such file"), (&stale, "Connection refused")] {
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let token = reactor.net().connect(Connect::unix(path), Probe::new(&log)).unwrap();
        reactor.net().send(token, b"unheard");
        assert_eq!(log.told(), [], "it failed at once, and is told later all the same");
        until(&mut reactor, "the result", |_| log.closes() == 1);
        assert_falls_asleep(&mut reactor);
        let told = log.told();
        let [Told::Close(reason, _)] = &told[..] else { panic!("{told:?}") };
        assert!(reason.contains(path.0.to_str().unwrap()) && reason.contains(kind), "{reason}");
    }
}

/// A listener whose backlog is full, by a connection that waits in it.
#[cfg(target_os = "linux")] // elsewhere a full backlog refuses
fn full_backlog(path: &TestPath) -> (UnixListener, UnixStream) {
    let deaf = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    deaf.bind(&socket2::SockAddr::unix(path).unwrap()).unwrap();
    deaf.listen(0).unwrap();
    let waiting = connect(path);
    (deaf.into(), waiting)
}

// D8
#[cfg(target_os = "linux")]
#[test]
fn a_full_backlog_is_tried_again_until_the_connect_timeout() {
    let path = TestPath::new();
    let _full = full_backlog(&path);
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().connect_timeout(Duration::from_millis(60));
    let connect = Connect::unix(&path).options(options);
    reactor.net().connect(connect, Probe::new(&log)).unwrap();
    until(&mut reactor, "the result", |_| log.closes() == 1);
    let text = format!("cannot connect to {}: not established in time", path.0.display());
    assert_eq!(log.reasons(), [text]);
    assert_eq!(reactor.next_deadline(), None);
}

// D8
#[cfg(target_os = "linux")]
#[test]
fn a_backlog_that_is_full_for_a_moment_fails_no_connect() {
    let path = TestPath::new();
    let (listener, _waiting) = full_backlog(&path);
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().connect(Connect::unix(&path), Probe::new(&log)).unwrap();
    reactor.net().send(token, b"kept");
    settle(&mut reactor);
    assert_eq!(log.told(), [], "it waits for a place");
    let _first = listener.accept().unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    let (mut second, _) = listener.accept().unwrap();
    let mut heard = [0; 4];
    second.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"kept");
}

// D4: the system would cut the path at the NUL byte and reach another socket
#[test]
fn a_path_with_a_nul_byte_inside_or_an_empty_one_is_refused() {
    let path = TestPath::new();
    let log = Log::new();
    let (mut reactor, _listener) = listening(&path, || Probe::new(&Log::new()));
    for wrong in [format!("{}\0/../other", path.0.display()), String::new()] {
        let before = log.closes();
        reactor.net().connect(Connect::unix(&wrong), Probe::new(&log)).unwrap();
        until(&mut reactor, "the result", |_| log.closes() == before + 1);
        let error = reactor.net().listen(Listen::unix(&wrong), |_| Probe::new(&Log::new()));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong:?}");
    }
    assert_eq!(log.opens(), 0);
    assert!(log.reasons().iter().all(|r| r.starts_with("cannot connect to ")));
}

// D5, in a process of its own: the working directory is the process's
#[test]
fn a_relative_path_is_removed_though_the_working_directory_has_changed() {
    if !crate::support::child::in_a_process_of_its_own(
        a_relative_path_is_removed_though_the_working_directory_has_changed,
    ) {
        return;
    }
    let path = TestPath::new();
    std::env::set_current_dir(path.0.parent().unwrap()).unwrap();
    let relative = path.0.file_name().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::unix(relative);
    let listener = reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap();
    assert!(path.0.exists());
    std::env::set_current_dir("/").unwrap();
    reactor.net().close(listener);
    settle(&mut reactor);
    assert!(!path.0.exists());
}

// row 7
#[test]
fn a_connect_that_is_closed_at_once_is_cancelled() {
    let path = TestPath::new();
    let _server = UnixListener::bind(&path).unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().connect(Connect::unix(&path), Probe::new(&log)).unwrap();
    reactor.net().close(token);
    until(&mut reactor, "the result", |_| log.closes() == 1);
    settle(&mut reactor);
    let reason = format!("cannot connect to {}: cancelled", path.as_ref().display());
    assert_eq!(log.told(), [Told::Close(reason, 0)]);
}

// ---- the path ----

// rows 19, 22
#[test]
fn a_path_in_use_is_a_clear_error_and_stays_with_its_owner() {
    let path = TestPath::new();
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _) = listening(&path, move || Probe::echo(&of_handler));
    let error = reactor.net().listen(Listen::unix(&path), |_| Probe::new(&Log::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot listen on {}: ", path.0.display())), "{text}");
    settle(&mut reactor);
    let mut stream = connect(&path); // the failed attempt has not removed it
    stream.write_all(b"!").unwrap();
    until(&mut reactor, "service", |_| log.count(is_data) == 1);
}

// There is no program to end, and no other address is wanted.
#[test]
fn a_path_that_a_program_left_behind_is_an_error_that_says_what_to_do() {
    let path = TestPath::new();
    drop(UnixListener::bind(&path).unwrap());
    let mut reactor = Reactor::new().unwrap();
    let mut listen = || reactor.net().listen(Listen::unix(&path), |_| Probe::new(&Log::new()));
    let error = listen().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().ends_with("end the one or remove the other"), "{error}");
    std::fs::remove_file(&path).unwrap();
    listen().unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_neither_used_nor_removed() {
    let path = TestPath::new();
    std::fs::write(&path, "precious").unwrap();
    let mut reactor = Reactor::new().unwrap();
    let error = reactor.net().listen(Listen::unix(&path), |_| Probe::new(&Log::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(reactor);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_path_that_no_socket_can_have_is_an_error() {
    let mut reactor = Reactor::new().unwrap();
    let long = std::env::temp_dir().join("x".repeat(200));
    let error = reactor.net().listen(Listen::unix(&long), |_| Probe::new(&Log::new())).unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on "), "{error}");
    let log = Log::new();
    reactor.net().connect(Connect::unix(&long), Probe::new(&log)).unwrap();
    until(&mut reactor, "the result", |_| log.closes() == 1);
    assert!(log.reasons()[0].starts_with("cannot connect to "), "{:?}", log.reasons());
}

#[test]
fn the_path_is_removed_when_the_listener_closes_and_can_be_used_again() {
    let path = TestPath::new();
    let (mut reactor, first) = listening(&path, || Probe::new(&Log::new()));
    assert!(path.0.exists());
    reactor.net().close(first);
    until(&mut reactor, "the end", |reactor| reactor.net().listener_stats(first).is_none());
    assert!(!path.0.exists());
    reactor.net().listen(Listen::unix(&path), |_| Probe::new(&Log::new())).unwrap();
    assert!(path.0.exists());
    drop(reactor);
    assert!(!path.0.exists(), "with the reactor as well");
}

// a new server takes the path over before the old one is gone
#[test]
fn a_path_that_belongs_to_somebody_else_by_now_is_left_alone() {
    let path = TestPath::new();
    let (mut reactor, old) = listening(&path, || Probe::new(&Log::new()));
    std::fs::remove_file(&path).unwrap();
    let _new = UnixListener::bind(&path).unwrap();
    reactor.net().close(old);
    until(&mut reactor, "the end", |reactor| reactor.net().listener_stats(old).is_none());
    assert!(path.0.exists());
}

// ---- endings ----

// row 8
#[test]
fn close_flushes_and_discards_what_is_unread() {
    let path = TestPath::new();
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _) = listening(&path, move || {
        Probe::new(&of_handler).data(|cx, _unread| {
            cx.send(vec![b'x'; 1 << 20]);
            cx.close();
            Ok(())
        })
    });
    let mut stream = connect(&path);
    let reading = std::thread::spawn(move || {
        stream.write_all(&[b'q'; 100_000]).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.len()
    });
    until(&mut reactor, "the reader", |_| reading.is_finished());
    assert_eq!(reading.join().unwrap(), 1 << 20);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told().last(), Some(&Told::Close("closed".to_owned(), 0)));
}

#[test]
fn abort_ends_at_once_and_reports_what_was_unsent() {
    let path = TestPath::new();
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _) = listening(&path, move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(vec![b'x'; 3 << 20]);
            cx.abort();
            Ok(())
        })
    });
    let mut stream = connect(&path);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let told = log.told();
    let [Told::Open, Told::Close(reason, unsent)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(reason, "aborted");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got.len() + unsent, 3 << 20, "every byte arrived or is reported");
}

// row 12
#[test]
fn paused_then_ended_by_the_peer_then_resumed_gives_all_data_and_one_end() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let probe = Probe::new(&log).open(|cx| {
        cx.pause();
        Ok(())
    });
    let token = reactor.net().adopt(ours, probe).unwrap();
    theirs.write_all(&[b'x'; 100_000]).unwrap();
    drop(theirs);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    assert_falls_asleep(&mut reactor);
    assert_eq!(log.told(), [Told::Open], "nothing while paused");
    reactor.net().resume(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!((log.data().len(), log.eofs()), (100_000, 1));
}

// ---- adopted ----

// row 24
#[test]
fn a_pair_is_adopted_and_ends_in_order() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().close_timeout(Duration::from_millis(30));
    let adopt = tidegate::Adopt::from(ours).options(options);
    let token = reactor.net().adopt(adopt, Probe::echo(&log)).unwrap();
    theirs.write_all(b"word").unwrap();
    until(&mut reactor, "the word", |_| log.data() == b"word");
    let mut word = [0; 4];
    theirs.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"word");
    reactor.net().close(token);
    until(&mut reactor, "the close", |_| log.closes() == 1); // at its deadline: they never end
    assert_eq!(theirs.read(&mut word).unwrap(), 0);
    assert_eq!(log.reasons(), ["closed"]);
    assert_asleep(&mut reactor);
}

// row 24
#[test]
fn an_adopted_listener_keeps_its_path() {
    let path = TestPath::new();
    let activated = UnixListener::bind(&path).unwrap();
    let mut early = connect(&path);
    early.write_all(b"!").unwrap();
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::adopt(activated);
    reactor.net().listen(listen, move |_| Probe::echo(&of_handler)).unwrap();
    until(&mut reactor, "the early one", |_| log.count(is_data) == 1);
    drop(reactor);
    assert!(path.0.exists(), "whoever made it removes it");
}

// ---- what these tests share ----

/// A path of its own for each test, removed at its end.
struct TestPath(PathBuf);

impl TestPath {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-{}-{n}.sock", std::process::id());
        TestPath(std::env::temp_dir().join(name))
    }
}

impl AsRef<Path> for TestPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

// From a Unix listener the system hands nothing down.
#[test]
fn accepted_connections_have_the_options_of_their_listener() {
    let path = TestPath::new();
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().socket_options(SocketOptions::new().send_buffer(8192));
    let make = move |_: &Peer<'_>| {
        Probe::new(&of_handler).open(|cx| {
            cx.send(vec![1; 1 << 20]);
            Ok(())
        })
    };
    reactor.net().listen(Listen::unix(&path).options(options), make).unwrap();
    let _client = connect(&path);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    settle(&mut reactor);
    let taken = (1 << 20) - reactor.net().queued(log.opened()[0]);
    assert!((1..100_000).contains(&taken), "what the system took: {taken}");
}

impl Drop for TestPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn listening<H: Handler + 'static>(
    path: &TestPath,
    mut make: impl FnMut() -> H + 'static,
) -> (Reactor, Token) {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.net().listen(Listen::unix(path), move |_| make()).unwrap();
    (reactor, listener)
}

fn connect(path: &TestPath) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

// D3
#[test]
fn close_frees_the_path_when_it_returns() {
    let path = TestPath::new();
    let (mut reactor, listener) = listening(&path, || Probe::new(&Log::new()));
    reactor.net().close(listener);
    assert!(!path.0.exists());
    let listen = Listen::unix(&path);
    let again = reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap();
    settle(&mut reactor);
    assert!(path.0.exists() && reactor.net().is_open(again), "the first one's end took it along");
    let _reaches = connect(&path);
}
