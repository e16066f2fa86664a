//! Where a broker is, as users write it: `riverrun://host:port`, `host:port`, or `host`.

use std::{fmt, str::FromStr};

use crate::error::{Error, ErrorCode};

/// The port a broker listens on unless told otherwise.
const PORT_DEFAULT: u16 = 7070;

/// Host and port of a broker. IPv6 hosts are kept in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// `host:port`, as sockets and URIs want it.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let bad = |why: &str| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("address `{text}` {why}; expected `riverrun://host:port` or `host:port`"),
            )
        };
        let rest = match text.split_once("://") {
            Some(("riverrun", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some((scheme, _)) => return Err(bad(&format!("has the unknown scheme `{scheme}`"))),
            None => text,
        };
        let (host, port) = split_port(rest).ok_or_else(|| bad("has no valid port"))?;
        let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b);
        if host.is_empty() || !host.bytes().all(is_host_byte) {
            return Err(bad("has no valid host"));
        }
        Ok(Address { host: host.to_owned(), port })
    }
}

/// Splits the port off; an IPv6 host must stand in brackets to have one.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let end_of_host = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[end_of_host..].rfind(':') {
        None => (text, PORT_DEFAULT),
        Some(colon) => {
            let (host, port) = text.split_at(end_of_host + colon);
            (host, port[1..].parse().ok().filter(|port| *port != 0)?)
        }
    };
    let bare_colon = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    (!bare_colon).then_some((host, port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<Address>().map(|address| address.authority());
        match expected {
            Some(authority) => assert_eq!(parsed.expect(text), authority),
            None => assert_eq!(parsed.expect_err(text).code(), ErrorCode::InvalidArgument),
        }
    }

    #[test]
    fn addresses_people_write() {
        check("riverrun://127.0.0.1:7070", Some("127.0.0.1:7070"));
        check("riverrun://broker.example:9/", Some("broker.example:9"));
        check("localhost", Some("localhost:7070"));
        check("localhost:7171", Some("localhost:7171"));
        check("[::1]:7171", Some("[::1]:7171"));
        check("riverrun://[::1]", Some("[::1]:7070"));
        check("", None);
        check(":7070", None);
        check("host:", None);
        check("host:0", None);
        check("host:70700", None);
        check("::1:7070", None);
        check("http://host:7070", None);
        check("ho st", None);
        check("user@host", None);
    }
}
