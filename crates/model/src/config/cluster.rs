//! `[cluster]`, `[switches]` and `block` → [`ClusterSettings`], [`Switches`] and [`BlockList`].

use super::check::{Findings, Section};
use super::check_name;
use crate::block::{BLOCK_MAX, BlockList};
use crate::cluster::{CONTROLS_MAX, ClusterSettings, ControlAddress, Switches};
use crate::origin::BadUrl;
use crate::settings::Network;

/// Where a node's cluster is; `None` when the file doesn't say, which has been told.
pub(super) fn build(findings: &mut Findings<'_>, section: Option<&Section>) -> Option<ClusterSettings> {
    let section = section?;
    let control = build_controls(findings, section);
    let mut pop = String::new();
    if let Some((name, span)) = section.text("pop") {
        check_name(findings, "the PoP's name", name, span);
        pop = name.to_owned();
    }
    section.finish();
    Some(ClusterSettings { control, pop })
}

fn build_controls(findings: &mut Findings<'_>, section: &Section) -> Vec<ControlAddress> {
    let Some(list) = section.item("control") else { return Vec::new() };
    let mut controls: Vec<ControlAddress> = Vec::new();
    for (url, span) in list.list().iter().filter_map(|item| item.text()) {
        match url.parse() {
            Ok(control) if controls.contains(&control) => {
                findings.warn(span, format!("control: {url:?} stands twice"), "leave one out");
            }
            Ok(control) => controls.push(control),
            Err(BadUrl { reason, help }) => {
                findings.error(span, format!("control: {url:?} {reason}"), help);
            }
        }
    }
    if list.list().is_empty() {
        let help = "write e.g. control = [\"https://control-1.example:7700\"]";
        findings.error(&list.span, "control is an empty list; a node needs somebody to follow", help);
    }
    if controls.len() > CONTROLS_MAX.max {
        let message = format!("control has {} addresses; it may have {}", controls.len(), CONTROLS_MAX.max);
        findings.error(&list.span, message, "name two or three, in different places");
    }
    controls
}

/// All on where the section says nothing.
pub(super) fn build_switches(section: Option<&Section>) -> Switches {
    let on = Switches::default();
    let Some(section) = section else { return on };
    let switches = Switches {
        http2: section.bool("http2").unwrap_or(on.http2),
        http3: section.bool("http3").unwrap_or(on.http3),
        compress: section.bool("compress").unwrap_or(on.compress),
        early_hints: section.bool("early_hints").unwrap_or(on.early_hints),
        disk: section.bool("disk").unwrap_or(on.disk),
        websocket: section.bool("websocket").unwrap_or(on.websocket),
    };
    section.finish();
    switches
}

/// The networks of `block`. A network of all addresses is refused: it would be the end of every site.
pub(super) fn build_block(findings: &mut Findings<'_>, root: &Section) -> BlockList {
    let Some(list) = root.item("block") else { return BlockList::default() };
    if let Some(first_over) = list.list().get(BLOCK_MAX) {
        let message = format!("block has {} entries; it may have {BLOCK_MAX}", list.list().len());
        findings.error(&first_over.span, message, "put neighbours together to shorter prefixes");
    }
    let mut networks = Vec::with_capacity(list.list().len());
    for (text, span) in list.list().iter().filter_map(|item| item.text()) {
        match Network::parse(text) {
            Ok(network) if network.prefix_len() == 0 => {
                let message = format!("block: {text:?} is everybody");
                findings.error(span, message, "to take a site out of service, take its domains out");
            }
            Ok(network) => networks.push(network),
            Err(reason) => findings.error(span, format!("block: {text:?} {reason}"), ""),
        }
    }
    BlockList::of(networks)
}
