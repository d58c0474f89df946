//! The first program: what is sent comes back.

use std::io::Write;
use std::net::Shutdown;

use crate::support::{Log, Probe, Told, client, listening, read_all, until, with_client};

#[test]
fn a_blocking_client_gets_its_words_back() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || Probe::echo(&of_handler));
    let answer = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"Hello, world!").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&mut stream)
    });
    assert_eq!(answer, b"Hello, world!");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(
        log.told(),
        [
            Told::Open,
            Told::Data(b"Hello, world!".to_vec()),
            Told::Eof,
            Told::Close("both sides ended".to_owned(), 0),
        ]
    );
}
