//! What a server answers: its greeting, and errors.

use super::BackplaneError;
use super::plane::Plane;
use super::slots;
use super::url::Url;
use crate::error::{BoxError, HandlerResult};
use crate::layer::resp::{Command, Value};

pub(super) fn failed(what: String) -> BoxError {
    Box::new(BackplaneError::new(what))
}

pub(super) fn hello(url: &Url) -> Vec<u8> {
    match &url.login {
        None => Command::encode(&["HELLO", "3"]),
        Some((user, password)) => Command::encode(&["HELLO", "3", "AUTH", user, password]),
    }
}

/// What an error says.
pub(super) fn refusal(message: &[u8]) -> Option<String> {
    let text = match message {
        [b'-', text @ ..] => text,
        // With its length in front: one that may have line ends.
        [b'!', rest @ ..] => rest.splitn(2, |&byte| byte == b'\n').nth(1)?,
        _ => return None,
    };
    Some(String::from_utf8_lossy(text.trim_ascii_end()).into_owned())
}

/// Whether the answer to HELLO says so.
pub(super) fn is_of_cluster(hello: &Value<'_>) -> bool {
    fact(hello, "mode").is_some_and(|mode| mode.as_bytes() == Some(b"cluster"))
}

/// What the answer to HELLO says about this.
pub(super) fn fact<'a, 'm>(hello: &'a Value<'m>, name: &str) -> Option<&'a Value<'m>> {
    let Value::Map(facts) = hello else { return None };
    let found = facts.iter().find(|(key, _)| key.as_bytes() == Some(name.as_bytes()));
    found.map(|(_, value)| value)
}

/// What a program asks for has to be possible in a cluster.
pub(super) fn fit_for_cluster(plane: &Plane, database: u32, hello: &Value<'_>) -> HandlerResult {
    let version = fact(hello, "version").and_then(Value::as_bytes).unwrap_or_default();
    let version = String::from_utf8_lossy(version);
    let major = version.split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major: u32| major < 7) {
        return Err(failed(format!(
            "the server is too old, expected Redis 7 or newer for a cluster, {version} came"
        )));
    }
    if database != 0 {
        return Err(failed(format!("a cluster has database 0 alone, {database} was asked for")));
    }
    if let Some(beginning) = plane.streams.beginning() {
        let beginning = plane.channel(beginning);
        if !slots::has_tag(&beginning) {
            return Err(failed(format!(
                "in a cluster names that are kept lie on one node: expected a hash tag in their beginning, \
                 such as {{room}}/, {:?} came",
                String::from_utf8_lossy(&beginning)
            )));
        }
    }
    Ok(())
}

pub(super) fn database_refused(database: u32, why: &str) -> BoxError {
    failed(format!("the server refused database {database}: {why}"))
}

/// Of the answer to HELLO. A server may repeat what it was sent: the password is struck out.
pub(super) fn login_refused(url: &Url, why: &str) -> BoxError {
    let why = &*without_password(url, why);
    let code = why.split(' ').next().unwrap_or_default();
    failed(match code {
        "NOPROTO" => format!("the server is too old, expected Redis 6 or newer: {why}"),
        // It goes on with all arguments.
        "ERR" if why.contains("unknown command") => {
            "the server is too old, expected Redis 6 or newer: it does not know HELLO".into()
        }
        "NOAUTH" => "the server wants a login: redis://user:password@host".into(),
        _ => format!("the server refused the login: {why}"),
    })
}

fn without_password(url: &Url, why: &str) -> String {
    match &url.login {
        Some((_, password)) if !password.is_empty() => why.replace(&**password, "***"),
        _ => why.into(),
    }
}

/// Whether an error is of the engine's state and not of the command: sent again later, it may be taken.
pub(super) fn is_for_the_moment(why: &str) -> bool {
    matches!(
        why.split(' ').next().unwrap_or_default(),
        "LOADING"
            | "BUSY"
            | "OOM"
            | "MISCONF"
            | "READONLY"
            | "NOREPLICAS"
            | "MASTERDOWN"
            | "CLUSTERDOWN"
            | "TRYAGAIN"
            | "ASK"
    )
}

/// Whether such an error says that this server is not the one to talk to, or is about to begin anew: the next
/// connection may find another one.
pub(super) fn is_of_the_server(why: &str) -> bool {
    matches!(why.split(' ').next().unwrap_or_default(), "LOADING" | "READONLY" | "MASTERDOWN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_in_both_of_its_forms() {
        assert_eq!(refusal(b"-ERR no\r\n").as_deref(), Some("ERR no"));
        assert_eq!(refusal(b"!10\r\nSYNTAX no\n\r\n").as_deref(), Some("SYNTAX no"));
        assert_eq!(refusal(b"$3\r\n-no\r\n"), None);
    }
}
