//! The answer to Prometheus: one page over HTTP/1.0, from a listener of the reactor that it is about.

use std::time::Duration;

use tidegate::stats::{Exposition, ReactorStats};
use tidegate::{Context, Handler, HandlerResult, Input, Listen, Net, StreamOptions, Token};

/// Writes the page. The last argument is what all workers have counted, together.
pub(crate) type Page<S> = fn(&mut S, &mut Net<S>, &ReactorStats) -> Exposition;

/// The longest head of a request, in bytes; Prometheus sends less than 500.
const HEAD: usize = 4096;

/// Listens at `address`; `page` writes what `GET /metrics` gets.
pub(crate) fn listen<S: 'static>(
    net: &mut Net<S>,
    address: &str,
    page: Page<S>,
) -> Result<Token, tidegate::Error> {
    // Who sends its request byte by byte, or takes no answer, does not stay.
    let short = Duration::from_secs(10);
    let options = StreamOptions::new().idle_timeout(short).message_timeout(short);
    let listen = Listen::tcp(address).options(options).connection_limit(32);
    net.listen(listen, move |_peer| Scraped { page })
}

struct Scraped<S: 'static> {
    page: Page<S>,
}

impl<S: 'static> Handler<S> for Scraped<S> {
    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        let ends = input.windows(4).position(|four| four == b"\r\n\r\n");
        let refusal = match ends {
            None if input.len() < HEAD => return Ok(()), // kept until more has come
            Some(end) if end < HEAD => refusal_of(&input[..end]),
            _ => Some(refuse("400 Bad Request", "")),
        };
        input.take_all();
        match refusal {
            None => {
                // One question for each connection: what else it sends waits.
                cx.pause();
                let (page, token) = (self.page, cx.token);
                let answer = move |state: &mut S, net: &mut Net<S>, all| {
                    answer(page, token, state, net, all);
                };
                cx.net.ask_workers(|_state, net| net.stats(), answer);
            }
            Some(refusal) => {
                cx.send(refusal);
                cx.close(); // one request for each connection, as in HTTP/1.0
            }
        }
        Ok(())
    }
}

/// All workers have said what they have counted.
fn answer<S>(
    page: Page<S>,
    token: Token,
    state: &mut S,
    net: &mut Net<S>,
    answers: Vec<Option<ReactorStats>>,
) {
    let all = answers.into_iter().flatten().fold(ReactorStats::default(), |a, b| a + b);
    let page = page(state, net, &all).into_string();
    let kind = Exposition::CONTENT_TYPE;
    let length = page.len();
    let head = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    net.send(token, head + &page);
    net.close(token);
}

/// The answer to a request that does not get the page.
fn refusal_of(head: &[u8]) -> Option<String> {
    // The request line (RFC 9112, section 3); none of the fields behind it matters here.
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return Some(refuse("400 Bad Request", "")) };
    if method.is_empty() || !version.starts_with(b"HTTP/1.") {
        return Some(refuse("400 Bad Request", ""));
    }
    if target != b"/metrics" && !target.starts_with(b"/metrics?") {
        return Some(refuse("404 Not Found", ""));
    }
    if method != b"GET" {
        return Some(refuse("405 Method Not Allowed", "Allow: GET\r\n"));
    }
    None
}

fn refuse(status: &str, field: &str) -> String {
    format!("HTTP/1.0 {status}\r\n{field}Content-Length: 0\r\nConnection: close\r\n\r\n")
}
