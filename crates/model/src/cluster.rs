//! What a node that is one of many is told: by its own file, about itself and where its cluster is; by the cluster, which
//! sites there are, whom nobody serves, and what is switched off.

use std::str::FromStr;

use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::origin::{BadUrl, Origin};
use crate::rule::Rule;
use crate::settings::{Bound, EdgeSettings, bound};

/// Where control listens when an address says no port.
pub const CONTROL_PORT: u16 = 7700;

/// Addresses of control that a node may name. Three lie in as many places; more is a long list for nobody's good.
pub const CONTROLS_MAX: Bound<usize> = bound(3, 1, 16);

/// What can be switched off everywhere at once, when it does harm: all is on by default. Part of the cluster's
/// configuration, so that a switch goes the same way as every other change: one node first, watched, undone by itself.
/// Each comes into force for the next request. What a site or rule says of the same thing counts for nothing while it is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// HTTP/2 with visitors: connections that begin now speak HTTP/1.1, those that stand end with their next request.
    pub http2: bool,
    /// HTTP/3: visitors are told to forget it (RFC 7838 §3), and new connections of it are refused, so
    /// that they come by TCP; those that stand end with their next request.
    pub http3: bool,
    /// Encoded copies: none is made and none is sent.
    pub compress: bool,
    /// Early Hints (103).
    pub early_hints: bool,
    /// Disks: nothing is read from them or written to them. What memory holds is served, and purges go on.
    pub disk: bool,
    /// WebSocket: requests for it are passed on as if they asked for a page.
    pub websocket: bool,
}

impl Switches {
    /// Switches off in the rules what rules decide about; the rest is the edge's to look at.
    pub(crate) fn overrule<'r>(&self, rules: impl Iterator<Item = &'r mut Rule>) {
        for rule in rules {
            rule.compress = rule.compress.take().filter(|_| self.compress);
            rule.early_hints &= self.early_hints;
            rule.websocket &= self.websocket;
        }
    }
}

impl Default for Switches {
    fn default() -> Self {
        Switches { http2: true, http3: true, compress: true, early_hints: true, disk: true, websocket: true }
    }
}

/// A node's own file: everything that is not the same for the whole cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSettings {
    /// Where it listens, what it may use, its certificates; its name is [`EdgeSettings::node`].
    pub edge: EdgeSettings,
    /// Where its cluster is.
    pub cluster: ClusterSettings,
}

/// Which cluster a node belongs to, and where it stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Where control, or a relay of it, is reached: [`CONTROLS_MAX`] of them.
    pub control: Vec<ControlAddress>,
    /// The place where the node stands: a name, or empty when it is in none.
    pub pop: String,
}

/// Where a control, or a relay of it, listens: `https://host[:port]`, whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ControlAddress {
    /// Name or address: lower-case, an IPv6 address without brackets.
    pub host: String,
    /// [`CONTROL_PORT`] unless the URL says otherwise.
    pub port: u16,
}

impl FromStr for ControlAddress {
    type Err = BadUrl;

    /// As [`Origin::parse`], and refuses what is not https and what has a path.
    fn from_str(url: &str) -> Result<Self, BadUrl> {
        const EXAMPLE: &str = "write e.g. \"https://control-1.example:7700\"";
        let bad = |reason: &str, help: String| BadUrl { reason: reason.to_owned(), help };
        let Some((scheme, authority)) = url.split_once("://") else {
            let spelled = format!("https://{url}");
            let help = match spelled.parse::<ControlAddress>() {
                Ok(_) => format!("write {spelled:?}"),
                Err(_) => EXAMPLE.to_owned(),
            };
            return Err(bad("has no scheme", help));
        };
        if !scheme.eq_ignore_ascii_case("https") {
            let reason = "is not https: nodes and control prove to each other who they are";
            return Err(bad(reason, EXAMPLE.to_owned()));
        }
        // What helps with an origin, which may speak http, does not always help here.
        let origin = Origin::parse(url).map_err(|wrong| match wrong.help.contains("origin") {
            true => bad(&wrong.reason, EXAMPLE.to_owned()),
            false => bad(&wrong.reason, wrong.help.replace("http://", "https://")),
        })?;
        if !origin.path_prefix.is_empty() {
            return Err(bad("has a path", EXAMPLE.to_owned()));
        }
        // What `Origin` takes for the default is 443, which nobody means here. The colons of an IPv6 address end before its bracket.
        let says_port = authority.rfind(':') > authority.rfind(']');
        Ok(ControlAddress {
            host: origin.host.into(),
            port: if says_port { origin.port } else { CONTROL_PORT },
        })
    }
}

impl TryFrom<String> for ControlAddress {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        url.parse().map_err(|bad: BadUrl| format!("{url:?} {bad}"))
    }
}

impl std::fmt::Display for ControlAddress {
    /// As a URL, with its port.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

/// What [`NodeSettings::parse`] found out.
#[derive(Clone, Debug)]
pub struct ParsedNode {
    /// The settings; `None` when a diagnostic is an error.
    pub settings: Option<NodeSettings>,
    /// Everything that is wrong or doubtful, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controls_address_is_read_or_refused() {
        for (url, wanted) in [
            ("https://Control-1.example", Ok(("control-1.example", 7700))),
            ("https://control-1.example:443", Ok(("control-1.example", 443))),
            ("https://192.0.2.7:8443/", Ok(("192.0.2.7", 8443))),
            ("https://[2001:db8::1]:8443", Ok(("2001:db8::1", 8443))),
            ("https://[2001:db8::443]", Ok(("2001:db8::443", 7700))),
            ("http://control-1.example", Err("is not https")),
            ("control-1.example", Err("has no scheme")),
            ("https://", Err("has no host")),
            ("https://a/b", Err("has a path")),
            ("https://u@a", Err("has a user name")),
            ("https://a:x", Err("has a bad port")),
        ] {
            match (url.parse::<ControlAddress>(), wanted) {
                (Ok(read), Ok((host, port))) => assert_eq!((&*read.host, read.port), (host, port), "{url}"),
                (Err(bad), Err(reason)) => assert!(bad.reason.starts_with(reason), "{url}: {bad}"),
                (read, _) => panic!("{url}: {read:?}"),
            }
        }
    }

    #[test]
    fn what_is_advised_for_a_controls_address_is_one() {
        let example = "write e.g. \"https://control-1.example:7700\"";
        for (url, help) in [
            ("control-1.example:7701", "write \"https://control-1.example:7701\""),
            ("control 1", example),
            ("control-1.example/x", example),
            ("http://control-1.example", example),
            ("ftp://control-1.example", example),
            ("https://", example),
            ("https://u@control-1.example", example),
            ("https://control-1.example:x", "a port is a number from 1 to 65535"),
            ("https://control-1.example?x", "leave out what is behind \"?\" or \"#\""),
            ("https://[2001:db8::1", "write e.g. \"https://[2001:db8::1]:8080\""),
        ] {
            assert_eq!(url.parse::<ControlAddress>().unwrap_err().help, help, "{url}");
        }
    }
}
