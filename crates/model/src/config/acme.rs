//! `[acme]` → [`AcmeSettings`].

use super::check::{Findings, Section};
use crate::settings::{ACME_DIRECTORY, AcmeChallenge, AcmeSettings};

/// Settings from the section; `None` without. `sites`: those of the same file, if it is one that has sites.
pub(super) fn build(
    findings: &mut Findings<'_>,
    section: Option<&Section>,
    sites: Option<&[&Section]>,
) -> Option<AcmeSettings> {
    let section = section?;
    if section.bool("accept_terms") == Some(false) {
        let span = section.item("accept_terms").map_or(0..0, |item| item.span.clone());
        findings.error(
            &span,
            "accept_terms = false: an authority certifies nothing then",
            "read the authority's terms of service and write accept_terms = true, or take [acme] out",
        );
    }
    let directory = match section.text("directory") {
        None => ACME_DIRECTORY.to_owned(),
        Some((url, span)) => {
            if !url.starts_with("https://") || url.len() == "https://".len() {
                let message = format!("directory: {url:?} is not an https URL");
                findings.error(span, message, format!("write e.g. {ACME_DIRECTORY:?}"));
            }
            url.to_owned()
        }
    };
    let email = section.text("email").map(|(email, span)| {
        let is_address =
            email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
        if !is_address || email.contains(char::is_whitespace) || email.starts_with("mailto:") {
            let message = format!("email: {email:?} is not an address");
            findings.error(span, message, "write e.g. \"admin@shop.example\"");
        }
        email.to_owned()
    });
    let named = domains(findings, section, sites);
    let domains = section.has("domains").then_some(named);
    let challenges: Vec<AcmeChallenge> = section
        .list("challenges")
        .iter()
        .filter_map(|item| item.text())
        .map(|(word, _)| match word {
            "tls-alpn-01" => AcmeChallenge::TlsAlpn01,
            _ => AcmeChallenge::Http01,
        })
        .collect();
    let challenges = match challenges.is_empty() {
        true => vec![AcmeChallenge::Http01, AcmeChallenge::TlsAlpn01],
        false => challenges,
    };
    let path = |key| section.text(key).map(|(path, _)| path.into());
    let (ca_file, store) = (path("ca_file"), path("store"));
    section.finish();
    Some(AcmeSettings { directory, email, ca_file, store, domains, challenges })
}

/// The domains that are named. Each must be one of a site, where that can be told: what nobody serves needs no certificate,
/// and a typing error would fail for ever.
fn domains(findings: &mut Findings<'_>, section: &Section, sites: Option<&[&Section]>) -> Vec<Box<str>> {
    let served: Vec<String> = sites
        .unwrap_or_default()
        .iter()
        .flat_map(|site| site.list("domains"))
        .filter_map(|item| item.text())
        .map(|(domain, _)| domain.to_ascii_lowercase())
        .collect();
    let is_served = |domain: &str| {
        let mut parents = domain.match_indices('.').map(|(dot, _)| &domain[dot..]);
        sites.is_none()
            || served.iter().any(|one| one == domain || one == "*")
            || parents.any(|parent| served.iter().any(|one| one.strip_prefix('*') == Some(parent)))
    };
    let mut domains = Vec::new();
    for (text, span) in section.list("domains").iter().filter_map(|item| item.text()) {
        let domain = text.to_ascii_lowercase();
        if domain.contains('*') {
            findings.error(
                span,
                format!("domains: {text:?} is a wildcard, which takes DNS-01, and that is not spoken yet"),
                "name the domains one by one, or get the certificate elsewhere and name it in [[certificate]]",
            );
        } else if !is_host_name(&domain) {
            findings.error(
                span,
                format!("domains: {text:?} is not a host name"),
                "write e.g. \"www.shop.example\"",
            );
        } else if !is_served(&domain) {
            let message = format!("domains: no site serves {text:?}");
            findings.error(span, message, "add it to the domains of a site, or leave it out here");
        }
        domains.push(domain.into());
    }
    domains
}

/// Whether `domain` may stand in a certificate, and be a file's name: labels of letters, digits and `-`.
fn is_host_name(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    domain.len() <= 253 && domain.split('.').all(is_label)
}
