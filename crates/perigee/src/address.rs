//! Addresses on the command line, refused in the words in which the configuration refuses them. Used by the commands'
//! flags.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where `--admin` of `serve` puts the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminAt {
    /// Nowhere: `off`, as in the configuration.
    Off,
    /// There.
    Address(SocketAddr),
}

/// Reads `address:port`. The error says what to write instead.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    let help = if port.parse::<u16>().is_ok() {
        format!("write 0.0.0.0:{port} for every interface or 127.0.0.1:{port} for this machine")
    } else if text.parse::<Ipv4Addr>().is_ok() {
        format!("add a port: {text}:8080")
    } else if text.parse::<Ipv6Addr>().is_ok() {
        format!("add a port: [{text}]:8080")
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
            ("localhost:80", "names are not resolved"),
            ("", "write e.g."),
        ] {
            let refused = parse_address(text).unwrap_err();
            assert!(refused.contains(wanted), "{text}: {refused}");
        }
        assert_eq!(parse_admin("off"), Ok(AdminAt::Off));
        assert!(parse_admin("[::1]:1").is_ok() && parse_admin("on").is_err());
    }
}
