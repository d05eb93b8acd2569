//! `[edge]` → [`EdgeSettings`], but for its `store`, which has a table of its own.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::check::{Findings, Section, Span};
use super::check_name;
use super::choices::build_rate;
use crate::rate::Rate;
use crate::settings::{
    AccessLog, AccessLogFormat, CertificateFiles, EdgeSettings, HANDSHAKES_BURST_SECS, Limits, Network, Ocsp,
    SyslogBy, TRACED_ONE_IN, TierFiles, TlsSettings, TlsVersion, TraceSettings,
};

/// Settings from the section; defaults where it says nothing.
pub(super) fn build(findings: &mut Findings<'_>, section: Option<&Section>) -> EdgeSettings {
    let mut settings = EdgeSettings::default();
    let Some(section) = section else { return settings };
    let listen = addresses(findings, section, "listen");
    settings.listen_tls = addresses(findings, section, "listen_tls");
    settings.listen_tier = addresses(findings, section, "listen_tier");
    settings.tier = section.table("tier").and_then(build_tier);
    if section.has("listen") && section.item("listen").is_some_and(|item| item.list().is_empty()) {
        let span = section.item("listen").map_or(0..0, |item| item.span.clone());
        findings.error(
            &span,
            "listen is an empty list; a node needs an address",
            "write e.g. listen = [\"0.0.0.0:8080\"]",
        );
    }
    if !listen.is_empty() {
        settings.listen = listen;
    }
    if let Some((text, span)) = section.text("admin") {
        settings.admin = if text == "off" { None } else { address(findings, "admin", text, span) };
        if settings.admin.is_some_and(|address| !address.ip().is_loopback()) {
            findings.warn(
                span,
                format!("the admin API would listen on {text}, beyond this machine"),
                "the token is then all that protects it; 127.0.0.1 is the safe choice",
            );
        }
    }
    settings.workers = section.number("workers");
    if let Some((name, span)) = section.text("node") {
        check_name(findings, "the node name", name, span);
        settings.node = name.to_owned();
    }
    settings.access_log = match section.text("access_log") {
        None | Some(("off", _)) => AccessLog::Off,
        Some(("stdout" | "-", _)) => AccessLog::Stdout,
        Some(("", span)) => {
            findings.error(span, "access_log is empty", "write a file, \"stdout\" or \"off\"");
            AccessLog::Off
        }
        Some((place, span)) => access_log(findings, place, span),
    };
    settings.access_log_format = match section.text("access_log_format").map(|(word, _)| word) {
        Some("combined") => AccessLogFormat::Combined,
        Some("cloudfront") => AccessLogFormat::Cloudfront,
        Some("logpush") => AccessLogFormat::Logpush,
        _ => AccessLogFormat::Json,
    };
    settings.traces = section.table("traces").and_then(|traces| build_traces(findings, traces));
    settings.location = section.text("location").map(|(path, _)| path.into());
    settings.statistics = section.bool("statistics").unwrap_or(true);
    settings.server_timing = section.bool("server_timing").unwrap_or(false);
    settings.proxy_protocol = section.bool("proxy_protocol").unwrap_or(false);
    settings.http3 = section.bool("http3").unwrap_or(true);
    settings.origin_source = origin_source(findings, section);
    for (text, span) in section.list("trusted_proxies").iter().filter_map(|item| item.text()) {
        match Network::parse(text) {
            Ok(network) => settings.trusted_proxies.push(network),
            Err(reason) => findings.error(span, format!("trusted_proxies: {text:?} {reason}"), ""),
        }
    }
    if settings.proxy_protocol && settings.trusted_proxies.is_empty() {
        let span = section.item("proxy_protocol").map_or(0..0, |item| item.span.clone());
        findings.error(
            &span,
            "proxy_protocol = true without trusted_proxies: every visitor could claim any address",
            "add trusted_proxies = [\"203.0.113.0/24\"] with your load balancer's addresses",
        );
    }
    if let Some(limits) = section.table("limits") {
        settings.limits = build_limits(limits);
    }
    section.finish();
    settings
}

/// A file, unless it is said by which protocol it goes elsewhere.
fn access_log(findings: &mut Findings<'_>, place: &str, span: &Span) -> AccessLog {
    let Some((scheme, rest)) = place.split_once("://") else { return AccessLog::File(place.into()) };
    let has_port =
        rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match scheme {
        "syslog+udp" | "syslog" if has_port => AccessLog::Syslog(SyslogBy::Udp, rest.to_owned()),
        "syslog+tcp" if has_port => AccessLog::Syslog(SyslogBy::Tcp, rest.to_owned()),
        "syslog+unix" if rest.starts_with('/') => AccessLog::Syslog(SyslogBy::Unix, rest.to_owned()),
        "http" | "https" if !rest.is_empty() => AccessLog::Http(place.to_owned()),
        _ => {
            findings.error(
                span,
                format!("access_log: {place:?} is no place for a log"),
                "write a file, \"stdout\", \"off\", \"syslog+udp://host:514\", \"syslog+tcp://host:601\", \"syslog+unix:///dev/log\" or a URL that takes POST",
            );
            AccessLog::Off
        }
    }
}

fn build_limits(section: &Section) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        header_bytes_max: section.size("header_bytes_max").unwrap_or(default.header_bytes_max),
        header_count_max: section.number("header_count_max").unwrap_or(default.header_count_max),
        request_line_max: section.size("request_line_max").unwrap_or(default.request_line_max),
        body_bytes_max: section.size("body_bytes_max").unwrap_or(default.body_bytes_max),
        header_timeout: section.time("header_timeout").unwrap_or(default.header_timeout),
        handshake_timeout: section.time("handshake_timeout").unwrap_or(default.handshake_timeout),
        streams_max: section.number("streams_max").unwrap_or(default.streams_max),
        idle_timeout: section.time("idle_timeout").unwrap_or(default.idle_timeout),
        body_stall_timeout: section.time("body_stall_timeout").unwrap_or(default.body_stall_timeout),
        write_stall_timeout: section.time("write_stall_timeout").unwrap_or(default.write_stall_timeout),
        connections_max: section.number("connections_max").unwrap_or(default.connections_max),
        connections_per_client_max: match section.number("connections_per_client_max") {
            Some(most) => NonZeroU32::new(most),
            None => default.connections_per_client_max,
        },
        requests_per_client: section.table("requests_per_client").map(build_rate),
        handshakes_max: section.number("handshakes_max").unwrap_or(default.handshakes_max),
        handshakes_per_client: section.number("handshakes_per_client").filter(|count| *count > 0).map(
            |count| Rate::new(count, Duration::from_secs(1), count.saturating_mul(HANDSHAKES_BURST_SECS)),
        ),
        requests_per_connection_max: section
            .number("requests_per_connection_max")
            .unwrap_or(default.requests_per_connection_max),
        drain_timeout: section.time("drain_timeout").unwrap_or(default.drain_timeout),
        upgrade_timeout: section.time("upgrade_timeout").unwrap_or(default.upgrade_timeout),
        upgrade_drain_timeout: section.time("upgrade_drain_timeout").unwrap_or(default.upgrade_drain_timeout),
    };
    section.finish();
    limits
}

fn addresses(findings: &mut Findings<'_>, section: &Section, key: &'static str) -> Vec<SocketAddr> {
    let texts = section.list(key).iter().filter_map(|item| item.text());
    texts.filter_map(|(text, span)| address(findings, key, text, span)).collect()
}

/// At most one address of each family: of two, nobody could say which one is taken.
fn origin_source(findings: &mut Findings<'_>, section: &Section) -> Vec<IpAddr> {
    let mut sources: Vec<IpAddr> = Vec::new();
    for (text, span) in section.list("origin_source").iter().filter_map(|item| item.text()) {
        match text.parse::<IpAddr>() {
            Ok(address) if sources.iter().any(|source| source.is_ipv4() == address.is_ipv4()) => {
                findings.error(
                    span,
                    format!("origin_source: {text} is a second address of its family"),
                    "write one IPv4 and one IPv6 address at most",
                );
            }
            Ok(address) => sources.push(address),
            Err(_) => findings.error(
                span,
                format!("origin_source: {text:?} is not an address"),
                "write an address of this machine, without a port, e.g. \"203.0.113.10\"",
            ),
        }
    }
    sources
}

fn build_traces(findings: &mut Findings<'_>, section: &Section) -> Option<TraceSettings> {
    let to = section.text("to");
    if let Some((url, span)) = to
        && url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"))
            .is_none_or(|rest| rest.is_empty())
    {
        let message = format!("traces.to: {url:?} is no URL");
        findings.error(span, message, "write e.g. to = \"http://127.0.0.1:4318/v1/traces\"");
    }
    let settings = TraceSettings {
        to: to?.0.to_owned(),
        authorization_file: section.text("authorization_file").map(|(path, _)| path.into()),
        one_in: section.number("one_in").unwrap_or(TRACED_ONE_IN.default),
        believe_visitors: section.bool("believe_visitors").unwrap_or(false),
    };
    section.finish();
    Some(settings)
}

fn build_tier(section: &Section) -> Option<TierFiles> {
    let file = |key| section.text(key).map(|(path, _)| path.into());
    let (certificate, key, authority) = (file("certificate"), file("key"), file("authority"));
    section.finish();
    Some(TierFiles { certificate: certificate?, key: key?, authority: authority? })
}

/// TLS with visitors; defaults where the section says nothing.
pub(super) fn build_tls(section: Option<&Section>) -> TlsSettings {
    let mut settings = TlsSettings::default();
    let Some(section) = section else { return settings };
    if section.text("min_version").map(|(version, _)| version) == Some("1.3") {
        settings.min_version = TlsVersion::Tls13;
    }
    settings.ticket_secret_file = section.text("ticket_secret_file").map(|(path, _)| path.into());
    settings.early_data = section.bool("early_data").unwrap_or_default();
    section.finish();
    settings
}

/// The certificates of the file.
pub(super) fn build_certificates(root: &Section) -> Vec<CertificateFiles> {
    let sections = root.list("certificate").iter().filter_map(|item| item.table());
    let built = sections.filter_map(|section| {
        let file = |key| section.text(key).map(|(path, _)| path.into());
        let ocsp = section.text("ocsp").map(|(text, _)| match text {
            "fetch" => Ocsp::Fetch,
            path => Ocsp::File(path.into()),
        });
        let files = Some(CertificateFiles { chain: file("chain")?, key: file("key")?, ocsp });
        section.finish();
        files
    });
    built.collect()
}

fn address(findings: &mut Findings<'_>, key: &str, text: &str, span: &Span) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let help = if text.parse::<u16>().is_ok()
        || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    {
        let port = text.trim_start_matches(':');
        format!("write \"0.0.0.0:{port}\" for every interface or \"127.0.0.1:{port}\" for this machine")
    } else if text.parse::<std::net::Ipv4Addr>().is_ok() {
        format!("add a port: \"{text}:8080\"")
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("add a port: \"[{text}]:8080\"")
    } else {
        "write e.g. \"0.0.0.0:8080\" or \"[::]:8080\"; names are not resolved here".to_owned()
    };
    findings.error(span, format!("{key}: {text:?} is not an address with port"), help);
    None
}
