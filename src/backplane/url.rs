//! `redis://[user:password@]host[:port][/db]`.

use super::BackplaneError;

const DEFAULT_PORT: u16 = 6379;

/// Where a Redis is, and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// User and password. Redis calls the user without a name `default`.
    pub(super) login: Option<(String, String)>,
    pub(super) database: u32,
}

impl Url {
    pub(super) fn parse(url: &str) -> Result<Url, BackplaneError> {
        // A password is not repeated in an error. It stands where the port or the database is if the host
        // was forgotten: neither are they.
        let expected = |what: &str| {
            BackplaneError::new(format!(
                "expected redis://[user:password@]host[:port][/db] as the URL: {what}"
            ))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| expected("it has no ://"))?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            other => return Err(expected(&format!("{other}:// came, not redis:// or rediss://"))),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        if rest.contains(['?', '#']) {
            return Err(expected("it takes no query and no fragment"));
        }
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            digits => digits.parse().map_err(|_| expected("the database is a number"))?,
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, port) =
                    rest.split_once(']').ok_or_else(|| expected("a ] is missing"))?;
                let port = match port.strip_prefix(':') {
                    None if !port.is_empty() => return Err(expected("a : is missing behind ]")),
                    port => port,
                };
                (host, port)
            }
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        if host.is_empty() {
            return Err(expected("the host is missing"));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|&port| port > 0)
                .ok_or_else(|| expected("the port is a number up to 65535"))?,
        };
        let login = match login {
            None => None,
            Some(login) => {
                let (user, password) = login
                    .split_once(':')
                    .ok_or_else(|| expected("a login is user:password, or :password"))?;
                let wrong =
                    || expected("in a login %, @, : and / are written as %25, %40, %3A, %2F");
                let user = decoded(user).ok_or_else(wrong)?;
                let password = decoded(password).ok_or_else(wrong)?;
                Some((if user.is_empty() { "default".into() } else { user }, password))
            }
        };
        Ok(Url { tls, host: host.to_owned(), port, login, database })
    }
}

/// Without its percent signs (RFC 3986 section 2.1).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        (rest, _) = match first {
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                let byte = u8::from_str_radix(digits, 16).ok()?;
                (&after[2..], bytes.push(byte))
            }
            byte => (after, bytes.push(*byte)),
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_who() {
        let url = |text| Url::parse(text).unwrap();
        let plain = url("redis://127.0.0.1");
        assert_eq!((plain.tls, &*plain.host, plain.port), (false, "127.0.0.1", 6379));
        assert_eq!((plain.login, plain.database), (None, 0));
        let full = url("rediss://anna:p%40ss%3a@[::1]:7000/3");
        assert_eq!((full.tls, &*full.host, full.port, full.database), (true, "::1", 7000, 3));
        assert_eq!(full.login, Some(("anna".into(), "p@ss:".into())));
        assert_eq!(
            url("redis://:secret@db.example/").login,
            Some(("default".into(), "secret".into()))
        );
    }

    // row 249
    #[test]
    fn a_wrong_url_is_one_clear_line_without_its_password() {
        for (text, said) in [
            ("127.0.0.1:6379", "it has no ://"),
            ("http://127.0.0.1", "http:// came"),
            ("redis://", "the host is missing"),
            ("redis://:geheim@", "the host is missing"),
            ("redis://geheim@host", "a login is user:password"),
            ("redis://a:geheim%4@host", "%40"),
            ("redis://host:0", "the port is a number"),
            ("redis://host:port", "the port is a number up to 65535"),
            ("redis://default:geheim", "the port is a number up to 65535"),
            ("redis://default/geheim", "the database is a number"),
            ("redis://[::1", "a ] is missing"),
            ("redis://[::1]7", "a : is missing"),
            ("redis://host/zero", "the database is a number"),
            ("redis://host?db=1", "no query"),
        ] {
            let error = Url::parse(text).err().expect(text).to_string();
            assert!(error.contains(said) && !error.contains('\n'), "{text}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
