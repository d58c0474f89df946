//! The answer to Prometheus: one page over HTTP/1.0, from a listener of the reactor that it is about.

use std::time::Duration;

use tidegate::stats::Exposition;
use tidegate::{Context, Handler, HandlerResult, Input, Listen, Net, StreamOptions, Token};

/// The longest head of a request, in bytes; Prometheus sends less than 500.
const HEAD: usize = 4096;

/// Listens at `address`; `page` writes what `GET /metrics` gets.
pub(crate) fn listen<S: 'static>(
    net: &mut Net<S>,
    address: &str,
    page: fn(&mut S, &mut Net<S>) -> Exposition,
) -> Result<Token, tidegate::Error> {
    // Who sends its request byte by byte, or takes no answer, does not stay.
    let short = Duration::from_secs(10);
    let options = StreamOptions::new().idle_timeout(short).message_timeout(short);
    let listen = Listen::tcp(address).options(options).connection_limit(32);
    net.listen(listen, move |_peer| Scraped { page })
}

struct Scraped<S: 'static> {
    page: fn(&mut S, &mut Net<S>) -> Exposition,
}

impl<S> Handler<S> for Scraped<S> {
    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        let ends = input.windows(4).position(|four| four == b"\r\n\r\n");
        let answer = match ends {
            None if input.len() < HEAD => return Ok(()), // kept until more has come
            Some(end) if end < HEAD => self.answer(cx, &input[..end]),
            _ => refuse("400 Bad Request", ""),
        };
        input.take_all();
        cx.send(answer);
        cx.close(); // one request for each connection, as in HTTP/1.0
        Ok(())
    }
}

impl<S> Scraped<S> {
    fn answer(&self, cx: &mut Context<'_, S>, head: &[u8]) -> String {
        // The request line (RFC 9112, section 3); none of the fields behind it matters here.
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let [method, target, version] = words[..] else { return refuse("400 Bad Request", "") };
        if method.is_empty() || !version.starts_with(b"HTTP/1.") {
            return refuse("400 Bad Request", "");
        }
        if target != b"/metrics" && !target.starts_with(b"/metrics?") {
            return refuse("404 Not Found", "");
        }
        if method != b"GET" {
            return refuse("405 Method Not Allowed", "Allow: GET\r\n");
        }
        let page = (self.page)(cx.state, cx.net).into_string();
        let kind = Exposition::CONTENT_TYPE;
        let length = page.len();
        format!(
            "HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{page}"
        )
    }
}

fn refuse(status: &str, field: &str) -> String {
    format!("HTTP/1.0 {status}\r\n{field}Content-Length: 0\r\nConnection: close\r\n\r\n")
}
