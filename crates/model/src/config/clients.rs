//! What only several keys together can get wrong about visitors' certificates: who is to be believed, and how a visitor
//! could show one at all.

use super::check::{Findings, Item, Section, Span};
use crate::settings::EdgeSettings;

/// Checks one site and its rules. `edge`: the node's settings, where they are known.
pub(super) fn check(findings: &mut Findings<'_>, site: &Section, edge: Option<&EdgeSettings>) {
    let rules: Vec<&Section> = site.list("rule").iter().filter_map(Item::table).collect();
    let asking: Vec<(&Section, &str, &Span)> =
        std::iter::once(&site).chain(&rules).filter_map(|section| asks(section)).collect();
    let client_ca = site.item("client_ca").map(|item| &item.span);
    match (client_ca, asking.first()) {
        (Some(span), None) => findings.warn(
            span,
            "client_ca has no effect: no visitor is asked for a certificate",
            "add client_certificate = \"optional\" or \"required\" to the site or to a rule",
        ),
        (None, Some((_, word, span))) => findings.error(
            span,
            format!("client_certificate is {word:?}, and the site does not say whose certificates it takes"),
            "add client_ca = \"….pem\" to the site, with the certificates of those who issue them",
        ),
        _ => {}
    }
    if let Some((_, word, span)) =
        asking.first().filter(|_| edge.is_some_and(|edge| edge.listen_tls.is_empty()))
    {
        findings.error(
            span,
            format!(
                "client_certificate is {word:?}, and this node does not listen with TLS: nobody can show one"
            ),
            "add listen_tls to [edge]; a proxy that speaks TLS before this node cannot show it one",
        );
    }
    let https = |section: &Section| section.text("https").map(|(word, _)| word.to_owned());
    for (section, _, span) in asking.into_iter().filter(|(_, word, _)| *word == "required") {
        let comes_by_tls = https(section).or_else(|| https(site)).is_some_and(|word| word != "optional");
        let is_rule = !std::ptr::eq(section, site);
        let scheme = is_rule.then(|| section.text("scheme").map(|(word, _)| word)).flatten();
        if scheme == Some("http") {
            findings.error(
                span,
                "the rule is for visitors without TLS, who can show no certificate: it would answer nobody",
                "leave scheme = \"http\" out",
            );
        } else if !comes_by_tls && scheme.is_none() && edge.is_none_or(|edge| !edge.listen.is_empty()) {
            findings.warn(
                span,
                "visitors without TLS can show no certificate, and get 403",
                "https = \"redirect\" sends them to where they can",
            );
        }
    }
}

/// What a site or rule says about certificates, and where, if it wants to see them.
fn asks(section: &Section) -> Option<(&Section, &str, &Span)> {
    let (word, span) = section.text("client_certificate")?;
    (word != "off").then_some((section, word, span))
}
