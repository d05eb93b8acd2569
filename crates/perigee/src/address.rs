//! Addresses on the command line and in files of routers, relays and controls, refused in the words in which the configuration
//! refuses them.

use std::fmt;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::de::{self, DeserializeOwned, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Where `--admin` of `serve` puts the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminAt {
    /// Nowhere: `off`, as in the configuration.
    Off,
    /// There.
    Address(SocketAddr),
}

/// Where a file has something listen: `address:port`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ListenAt(pub(crate) SocketAddr);

impl TryFrom<String> for ListenAt {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_address(&text).map(ListenAt).map_err(|error| format!("{text:?} is {error}"))
    }
}

/// Reads one, or a list of them: whoever copies a line from an edge's file need not know where a list is wanted.
pub(crate) fn one_or_many<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    struct Either<T>(PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for Either<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text, or a list of texts")
        }

        fn visit_str<E: de::Error>(self, one: &str) -> Result<Vec<T>, E> {
            Ok(vec![T::deserialize(one.into_deserializer())?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut many: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while let Some(one) = many.next_element()? {
                read.push(one);
            }
            Ok(read)
        }
    }

    from.deserialize_any(Either(PhantomData))
}

/// Reads `address:port`. The error says what to write instead.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    let (host, last) = text.rsplit_once(':').unwrap_or_default();
    let is_bare = host.parse::<Ipv6Addr>().is_ok() && last.parse::<u16>().is_ok();
    let help = if port.parse::<u16>().is_ok() {
        format!("write 0.0.0.0:{port} for every interface or 127.0.0.1:{port} for this machine")
    } else if text.parse::<Ipv4Addr>().is_ok() {
        format!("add a port: {text}:8080")
    } else if is_bare {
        let or = if text.parse::<Ipv6Addr>().is_ok() { format!(" or [{text}]:8080") } else { String::new() };
        format!("an IPv6 address stands in brackets: [{host}]:{last}{or}")
    } else if text.parse::<Ipv6Addr>().is_ok() {
        format!("add a port: [{text}]:8080")
    } else if !last.is_empty()
        && last.bytes().all(|byte| byte.is_ascii_digit())
        && last.parse::<u16>().is_err()
    {
        "a port is a number from 0 to 65535".to_owned()
    } else {
        "write e.g. 0.0.0.0:8080 or [::]:8080; names are not resolved here".to_owned()
    };
    Err(format!("not an address with port; {help}"))
}

/// The step to take when an address cannot be listened on. `key`: what says another.
pub(crate) fn listen_elsewhere(error: &io::Error, key: &str) -> String {
    let elsewhere = format!("choose another address with {key}");
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("ports below 1024 are for root and for CAP_NET_BIND_SERVICE; {elsewhere}")
        }
        ErrorKind::AddrNotAvailable => format!("this machine has no such address; {elsewhere}"),
        ErrorKind::AddrInUse => {
            format!("another program listens there (ss -ltunp names it): stop it, or {elsewhere}")
        }
        _ => elsewhere,
    }
}

/// Reads `off` or `address:port`.
pub(crate) fn parse_admin(text: &str) -> Result<AdminAt, String> {
    match text {
        "off" => Ok(AdminAt::Off),
        _ => parse_address(text).map(AdminAt::Address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_address_says_what_to_write() {
        for (text, wanted) in [
            ("8080", "write 0.0.0.0:8080"),
            (":8080", "127.0.0.1:8080"),
            ("192.0.2.1", "add a port: 192.0.2.1:8080"),
            ("::1", "add a port: [::1]:8080"),
            ("::1:80", "stands in brackets: [::1]:80 or [::1:80]:8080"),
            ("2001:db8:1:2:3:4:5:6:80", "stands in brackets: [2001:db8:1:2:3:4:5:6]:80"),
            ("192.0.2.1:70000", "a port is a number from 0 to 65535"),
            ("[::1]:70000", "a port is a number from 0 to 65535"),
            ("localhost:80", "names are not resolved"),
            ("", "write e.g."),
        ] {
            let refused = parse_address(text).unwrap_err();
            assert!(refused.contains(wanted), "{text}: {refused}");
        }
        assert_eq!(parse_admin("off"), Ok(AdminAt::Off));
        assert!(parse_admin("[::1]:1").is_ok() && parse_admin("on").is_err());
    }

    #[test]
    fn a_file_names_one_address_or_a_list_of_them() {
        #[derive(Debug, Deserialize)]
        struct File {
            #[serde(deserialize_with = "one_or_many")]
            listen: Vec<ListenAt>,
        }
        let read = |text: &str| toml::from_str::<File>(text).map(|file| file.listen.len());
        assert_eq!(read("listen = \"127.0.0.1:53\""), Ok(1));
        assert_eq!(read("listen = [\"127.0.0.1:53\", \"[::1]:53\"]"), Ok(2));
        for (wrong, wanted) in [
            (
                "listen = \"::1:53\"",
                "\"::1:53\" is not an address with port; an IPv6 address stands in brackets",
            ),
            ("listen = [\"127.0.0.1:53\", \"x\"]", "\"x\" is not an address with port; write e.g."),
            ("listen = 53", "expected a text, or a list of texts"),
        ] {
            let refused = read(wrong).unwrap_err().to_string();
            assert!(refused.contains(wanted), "{refused}");
        }
    }
}
