// The nodes: whether each lives, what it runs, how far it is, its disks and its certificates.

import { ask } from "../api.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { button, confirm, empty, health, may, panel, pending, problem, say, table, tag } from "../parts.js";
import { ratio } from "../stats.js";
import { change, link, redraw } from "../view.js";

const DAY = 86_400_000;

let refused = null;

export const nodes = {
  title: "Nodes",
  needs: () => ({}),
  draw: ({ view, me, data }) => {
    if (!data.nodes?.value) return pending(data.nodes);
    const { nodes: list, at_ms: at } = data.nodes.value;
    if (list.length === 0) return empty("No node has joined yet", "Make a token and give it to the node: ", h("code", {}, "perigee enroll --role edge --pop fra > join-token"), ".");
    return [refused ? problem(refused) : null, summary(list, at, data), all(list, at, view), one(list.find((node) => node.name === view.node), at, me)];
  },
};

function summary(list, at, { status }) {
  const states = list.map((node) => health(node, at).state);
  const edges = list.filter((node) => node.role === "edge");
  const sum = (name) => edges.reduce((sum, node) => sum + (node[name] ?? 0), 0);
  const slowest = Math.max(0, ...list.map((node) => node.behind ?? 0));
  const tiles = [
    ["nodes-well", "Well", states.filter((state) => state === "good").length, `${states.filter((state) => state === "good").length} of ${list.length}`, "nodes"],
    ["nodes-requests", "Requests", sum("requests"), format.count(sum("requests")), "since the programs started"],
    ["nodes-behind", "Behind at most", slowest, format.whole(slowest), `of position ${format.whole(status?.value?.head)}`],
    ["nodes-memory", "Memory", sum("memory_bytes"), format.bytes(sum("memory_bytes")), "resident, all edges"],
  ];
  return h("div", { class: "tiles", key: "tiles" }, tiles.map(([id, name, value, text, note]) => h("div", { class: "tile", key: id }, h("p", { class: "tile-name" }, name), h("p", { class: "tile-value" }, h("data", { id, value }, text)), h("div", { class: "tile-foot" }, h("span", { class: "note" }, note)))));
}

const used = (node) => (node.disks ?? []).reduce(([used, size], disk) => [used + disk.bytes, size + disk.bytes_max], [0, 0]);

function all(list, at, view) {
  const rows = [...list].sort((a, b) => a.pop.localeCompare(b.pop) || a.name.localeCompare(b.name));
  return panel("All nodes", { id: "all-nodes" }, table({
    label: "All nodes", rows, key: (node) => node.name, onRow: (node) => (node.name === view.node ? "is-chosen" : null),
    columns: [
      { name: "Node", cell: (node) => h("a", { href: link("nodes", { node: node.name }) }, node.name) },
      { name: "State", wide: true, cell: (node) => { const { state, text } = health(node, at); return h("span", { class: "node-state", "data-node": node.name, "data-state": state }, tag(state, text)); } },
      { name: "PoP", cell: (node) => node.pop || format.none },
      { name: "Role", cell: (node) => node.role },
      { name: "Heard", number: true, cell: (node) => (node.heard_ms === null ? "never" : `${format.span(Math.max(0, at - node.heard_ms))} ago`) },
      { name: "Runs", number: true, cell: (node) => node.running ?? format.none },
      { name: "Position", number: true, cell: (node) => format.whole(node.position) },
      { name: "Requests", number: true, cell: (node) => h("data", { value: node.requests ?? "", class: "node-requests", "data-node": node.name }, format.count(node.requests)) },
      { name: "Hits", number: true, cell: (node) => format.percent(ratio(node.hits, node.requests)) },
      { name: "Errors", number: true, cell: (node) => format.percent(ratio(node.errors, node.requests)) },
      { name: "Memory", number: true, cell: (node) => format.bytes(node.memory_bytes) },
      { name: "Disks", number: true, bar: (node) => ratio(...used(node)), cell: (node) => (used(node)[1] > 0 ? format.percent(ratio(...used(node))) : format.none) },
      { name: "Certificate", number: true, cell: (node) => until(node.certificate_until_ms, at) },
      { name: "Software", cell: (node) => node.software ?? format.none },
    ],
  }));
}

function until(end, at) {
  const left = end - at;
  return left <= 0 ? tag("bad", "has run out") : left < DAY ? tag("warn", format.span(left)) : format.span(left);
}

function one(node, at, me) {
  if (!node) return null;
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const retire = async () => {
    try {
      await ask(`/v1/nodes/${encodeURIComponent(node.name)}`, { method: "DELETE" });
      refused = null;
      say(`${node.name} is retired: it is let in nowhere any more.`);
      change({ node: null });
      dispatchEvent(new Event("perigee-changed"));
    } catch (error) {
      refused = error;
      redraw();
    }
  };
  return panel(node.name, { id: "node", key: `node-${node.name}`, tools: button("Close", () => change({ node: null }), { kind: "quiet small" }) },
    h("dl", { class: "facts" },
      fact("enrolled", format.moment(node.enrolled_ms)), fact("heard of", format.moment(node.heard_ms)), fact("software", node.software ?? format.none),
      fact("runs configuration", node.running ?? format.none), fact("is to run", node.wanted ?? format.none), fact("position", format.whole(node.position)), fact("behind", format.whole(node.behind)),
      fact("starts", format.whole(node.starts)), fact("its certificate ends", format.moment(node.certificate_until_ms))),
    node.refused ? h("div", { class: "problem" }, h("p", { class: "problem-title" }, `Would not take configuration ${node.refused.version}`), h("p", {}, node.refused.why)) : null,
    disks(node), certificates(node, at),
    may(me, "admin") ? h("div", { class: "row no-print" }, button("Retire…", () => confirm({ title: `Retire ${node.name}?`, text: "Its certificate is not accepted any more, purges do not wait for it, and its name is free. To come back it has to be enrolled anew.", yes: "Retire", word: node.name, then: retire }), { kind: "danger" })) : null);
}

function disks(node) {
  if (!node.disks) return null;
  return [h("h3", {}, "Disks"), table({
    label: `Disks of ${node.name}`, rows: node.disks, key: (disk) => disk.name, none: empty("No disk", "It keeps what it stores in memory: ", h("code", {}, "[[store.disk]]"), " in its node.toml gives it one."),
    columns: [
      { name: "Volume", wide: true, cell: (disk) => h("code", {}, disk.name) },
      { name: "State", cell: (disk) => tag({ well: "good", full: "warn" }[disk.health] ?? "bad", disk.health) },
      { name: "Used", number: true, bar: (disk) => ratio(disk.bytes, disk.bytes_max), cell: (disk) => format.percent(ratio(disk.bytes, disk.bytes_max)) },
      { name: "Bytes", number: true, cell: (disk) => format.bytes(disk.bytes) },
      { name: "Size", number: true, cell: (disk) => format.bytes(disk.bytes_max) },
      { name: "Objects", number: true, cell: (disk) => format.count(disk.records) },
    ],
  })];
}

function certificates(node, at) {
  if (!node.certificates) return null;
  return [h("h3", {}, "Certificates that visitors see"), table({
    label: `Certificates of ${node.name}`, rows: node.certificates, key: (one) => `${one.name} ${one.until_ms}`, none: empty("None", "It serves without TLS, or its configuration names none."),
    columns: [
      { name: "Names", wide: true, cell: (one) => [one.name, one.names > 1 ? h("span", { class: "note" }, ` and ${one.names - 1} more`) : null] },
      { name: "Issuer", cell: (one) => one.issuer },
      { name: "Ends", number: true, cell: (one) => format.date(one.until_ms) },
      { name: "Left", number: true, cell: (one) => until(one.until_ms, at) },
    ],
  }), node.certificate_count > node.certificates.length ? h("p", { class: "note" }, `The ${node.certificates.length} of ${node.certificate_count} that end first.`) : null];
}
