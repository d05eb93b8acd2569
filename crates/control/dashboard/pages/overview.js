// How the cluster is, at a glance: what needs somebody, what visitors get, what the origins are spared.

import { chart } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { map } from "../map.js";
import { empty, health, panel, pending, table, tag, tile, worst } from "../parts.js";
import { before, coarse, fine, follow, markers, meaning, minus, offload, perSecond, ratio, shape, share, values } from "../stats.js";
import { change, link, redraw } from "../view.js";

const PRICE = "perigee-price";
const LISTED = 8;
const MONTH_SECONDS = 30 * 86_400;

export const overview = {
  title: "Overview",
  isOver: true,
  exports: (view) => follow(view, "/v1/stats/export").path(),
  needs: (view) => ({
    stats: follow(view, "/v1/stats", { step: fine(view) }),
    before: before(view),
    countries: follow(view, "/v1/stats", { by: "country", step: coarse(view) }, { slower: 3 }),
    urls: follow(view, "/v1/stats/top", { of: "urls", by: view.top ?? "requests", limit: LISTED }, { slower: 2 }),
    misses: follow(view, "/v1/stats/top", { of: "misses", by: view.top ?? "requests", limit: LISTED }, { slower: 2 }),
    markers: follow(view, "/v1/markers", { site: null, pop: null }, { slower: 2 }),
    pops: { id: "", path: () => "/v1/pops", every: 2000 },
    rollout: { id: "", path: () => "/v1/rollouts/current", every: 3000 },
  }),
  draw: ({ view, data }) => {
    const shown = data.stats?.value ? charts(data) : null;
    return [attention(data), figures(data), shown?.first, world(data), shown?.others, tops(view, data), changes(data)];
  },
};

// --- What needs somebody ---

function attention({ nodes, rollout, status }) {
  if (!nodes?.value) return pending(nodes);
  const lines = [];
  const all = nodes.value.nodes;
  for (const node of all) {
    const { state, text } = health(node, nodes.value.at_ms);
    if (state !== "good") lines.push([state, h("a", { href: link("nodes") }, node.name), ` is ${text}.`]);
  }
  const now = rollout?.value;
  if (now?.state === "running" || now?.state === "paused") lines.push(["warn", h("a", { href: link("rollouts") }, `Configuration ${now.version}`), ` is ${now.state === "paused" ? "paused" : "being rolled out"}, stage ${now.stage}.`, now.waiting_for ? ` Waits for ${now.waiting_for}.` : ""]);
  if (now?.state === "undone" && now.harm) lines.push(["bad", h("a", { href: link("rollouts") }, `Configuration ${now.version}`), ` was undone: ${now.harm.told} on ${now.harm.node}.`]);
  if (status?.value?.canary?.alarm) lines.push(["bad", h("a", { href: link("purges") }, "Purges"), " are late: the last canary purge was not proven in time."]);
  if (status?.value?.journal_error) lines.push(["bad", "The journal cannot be read: ", status.value.journal_error]);
  const state = worst(lines.map(([state]) => state));
  if (all.length === 0) return h("div", { class: "attention quiet", key: "attention" }, empty("No node yet", "Let one join: ", h("code", {}, "perigee enroll --role edge --pop fra > join-token"), ", then ", h("code", {}, "perigee edge --config node.toml --token join-token"), "."));
  return h("div", { class: `attention ${state}`, key: "attention", role: "status" },
    lines.length === 0
      ? h("p", {}, tag("good", "All is well"), h("span", { class: "note" }, `${all.length} node${all.length === 1 ? "" : "s"} in service${now?.state === "promoted" ? `, configuration ${now.version} is stable` : ""}.`))
      : h("ul", {}, lines.slice(0, 6).map(([state, ...text]) => h("li", {}, tag(state, state === "bad" ? "Act" : "Look"), h("span", {}, text))), lines.length > 6 ? h("li", { class: "note" }, `and ${lines.length - 6} more`) : null));
}

// --- Figures and charts ---

function figures(data) {
  if (!data.stats?.value) return pending(data.stats);
  const shaped = shape(data.stats.value, data.nodes);
  const { total, from, to } = shaped;
  const earlier = data.before?.value?.totals?.[0];
  const [requests, hits, errors, bytes, hitBytes, originBytes] = ["requests", "hits", "errors", "bytes", "hit_bytes", "origin_bytes"].map((name) => values(shaped, name));
  const seconds = Math.max(1, (to - from) / 1000);
  const compared = (of, isShare = true) => ({ from: earlier ? of(earlier) : null, to: of(total), isShare });
  const hitRatio = (totals) => ratio(totals.hits, totals.requests);
  const byteRatio = (totals) => ratio(totals.hit_bytes, totals.bytes);
  const errorRatio = (totals) => ratio(totals.errors, totals.requests);
  return h("div", { class: "tiles figures", key: "tiles" },
    tile({ id: "requests", name: "Requests", value: total.requests, text: format.count(total.requests), note: format.rate(total.requests / seconds), change: compared((totals) => totals.requests, false), values: perSecond(shaped, requests) }),
    tile({ id: "hit-ratio", name: "Hit ratio, by requests", value: hitRatio(total), text: format.percent(hitRatio(total)), change: compared(hitRatio), better: 1, values: share(hits, requests) }),
    tile({ id: "byte-hit-ratio", name: "Hit ratio, by bytes", value: byteRatio(total), text: format.percent(byteRatio(total)), change: compared(byteRatio), better: 1, values: share(hitBytes, bytes) }),
    tile({ id: "offload", name: "Origin offload", value: offload(total), text: format.percent(offload(total)), note: `origins sent ${format.bytes(total.origin_bytes)}`, change: compared(offload), better: 1, values: perSecond(shaped, originBytes) }),
    tile({ id: "ttfb-p95", name: "First byte, p95", value: total.ttfb_us.p95, text: format.micros(total.ttfb_us.p95), note: `p50 ${format.micros(total.ttfb_us.p50)}, p99 ${format.micros(total.ttfb_us.p99)}`, change: compared((totals) => totals.ttfb_us.p95, false), better: -1, values: shaped.series[0]?.ttfb.p95 }),
    tile({ id: "errors", name: "Errors (5xx)", value: total.errors, text: format.count(total.errors), note: format.percent(errorRatio(total)), change: compared(errorRatio), better: -1, values: errors, tone: "tone-bad" }),
    saved(total, seconds));
}

// The first two stand above the map, the others below.
function charts(data) {
  const shaped = shape(data.stats.value, data.nodes);
  const [requests, hits, errors, bytes, hitBytes, originBytes] = ["requests", "hits", "errors", "bytes", "hit_bytes", "origin_bytes"].map((name) => values(shaped, name));
  const ttfb = shaped.series[0]?.ttfb ?? { p50: [], p95: [], p99: [] };
  const marked = { at: shaped.at, from: shaped.from, to: shaped.to, markers: markers(data.markers), isOld: data.stats.isOld };
  const bits = (list) => perSecond(shaped, list).map((value) => value * 8);
  return {
    first: h("div", { class: "grid-2", key: "first" },
      chart({ id: "chart-requests", title: "Requests per second", ...marked, kind: "stack", format: format.rate, series: [
        { name: "from the cache", values: perSecond(shaped, hits), tone: "tone-1" },
        { name: "not from the cache", values: perSecond(shaped, minus(requests, hits)), tone: "tone-3" },
      ] }),
      chart({ id: "chart-ratio", title: "Hit ratio", ...marked, format: format.percent, most: 1, series: [
        { name: "by requests", values: share(hits, requests), tone: "tone-1" },
        { name: "by bytes", values: share(hitBytes, bytes), tone: "tone-2" },
      ] })),
    others: h("div", { class: "grid-2", key: "others" },
      chart({ id: "chart-ttfb", title: "Time to first byte", note: meaning(shaped), ...marked, format: format.micros, series: [
        { name: "p50", values: ttfb.p50, tone: "tone-1" },
        { name: "p95", values: ttfb.p95, tone: "tone-2" },
        { name: "p99", values: ttfb.p99, tone: "tone-4" },
      ] }),
      chart({ id: "chart-bandwidth", title: "Bandwidth", ...marked, format: format.bits, series: [
        { name: "to visitors", values: bits(bytes), tone: "tone-1" },
        { name: "from origins", values: bits(originBytes), tone: "tone-4" },
      ] }),
      chart({ id: "chart-errors", title: "Errors (5xx) per second", ...marked, format: format.rate, series: [{ name: "errors", values: perSecond(shaped, errors), tone: "tone-bad" }] }),
      chart({ id: "chart-origin", title: "Requests to origins per second", ...marked, format: format.rate, series: [{ name: "requests to origins", values: perSecond(shaped, values(shaped, "origin_requests")), tone: "tone-4" }] }),
      data.stats.value.lost.reports > 0 ? h("p", { class: "note" }, `${format.whole(data.stats.value.lost.reports)} reports of nodes could not be delivered: the numbers are a little low.`) : null),
  };
}

// What the origins' traffic would have cost.
function saved(total, seconds) {
  const price = Number(localStorage.getItem(PRICE) ?? "");
  const spared = Math.max(0, total.bytes - total.origin_bytes);
  const worth = (spared / 1e9) * price;
  return h("div", { class: "tile", key: "saved" },
    h("p", { class: "tile-name" }, price > 0 ? "Money saved" : "Bytes saved"),
    h("p", { class: "tile-value" }, h("data", { id: "saved", value: price > 0 ? worth : spared }, price > 0 ? format.money(worth) : format.bytes(spared))),
    h("div", { class: "tile-foot" }, h("span", { class: "note" }, price > 0 ? `${format.bytes(spared)} not sent by origins; ${format.money((worth / seconds) * MONTH_SECONDS)} in 30 days at this pace` : "that origins did not send")),
    h("div", { class: "price no-print" }, h("label", { for: "price" }, "Your price per GB"), h("input", {
      id: "price", type: "number", min: 0, step: "any", inputmode: "decimal", placeholder: "0.08", value: localStorage.getItem(PRICE) ?? "",
      oninput: (event) => { event.target.value ? localStorage.setItem(PRICE, event.target.value) : localStorage.removeItem(PRICE); redraw(); },
    })));
}

// --- The world ---

export function popMarks(pops, nodes) {
  const at = nodes?.value?.at_ms ?? 0;
  return (pops?.value?.pops ?? []).map((pop) => {
    const states = (nodes?.value?.nodes ?? []).filter((node) => pop.edges.includes(node.name)).map((node) => health(node, at).state);
    return { ...pop, name: pop.name || format.UNKNOWN, state: states.length === 0 ? "bad" : worst(states), text: pop.edges.length === 0 ? "no edge has joined" : `${states.filter((state) => state === "good").length} of ${pop.edges.length} edges well` };
  });
}

function world(data) {
  const totals = data.countries?.value?.totals ?? [];
  const visitors = new Map(totals.map((total) => [total.key, total.requests]));
  const sum = totals.reduce((sum, total) => sum + total.requests, 0);
  const rows = [...totals].sort((a, b) => b.requests - a.requests).slice(0, 10);
  const areKnown = totals.length === 0 || totals.some((total) => total.key !== format.UNKNOWN);
  const pops = popMarks(data.pops, data.nodes);
  const lost = pops.filter((pop) => pop.latitude === null);
  return panel("Where visitors come from", { id: "world", tools: h("a", { href: link("places") }, "All PoPs and countries") },
    h("div", { class: "world" },
      h("div", { class: "world-map" },
        map({ id: "map", visitors, pops }),
        h("ul", { class: "legend" }, h("li", {}, h("span", { class: "swatch round good" }), "PoP, well"), h("li", {}, h("span", { class: "swatch round warn" }), "look"), h("li", {}, h("span", { class: "swatch round bad" }), "act"), h("li", {}, h("span", { class: "ramp", "aria-hidden": "true" }), "few to many visitors")),
        lost.length > 0 ? h("p", { class: "note" }, `Not on the map: ${lost.map((pop) => (pop.name === format.UNKNOWN ? "nodes in no PoP" : pop.name)).join(", ")}. `, "Say where they are: ", h("code", {}, `[[pop]] name = "${lost[0].name === format.UNKNOWN ? "fra" : lost[0].name}", location = [50.11, 8.68]`), ".") : null),
      h("div", {}, data.countries?.value ? table({
        label: "Visitors by country", key: (row) => row.key, rows, none: empty("No visitors in this time", "As soon as somebody asks, their countries stand here."),
        columns: [
          { name: "Country", wide: true, cell: (row) => h("a", { href: link("places", { country: row.key }) }, format.country(row.key)) },
          { name: "Requests", number: true, cell: (row) => h("data", { value: row.requests }, format.count(row.requests)) },
          { name: "Share", number: true, cell: (row) => format.percent(ratio(row.requests, sum)) },
          { name: "p95", number: true, cell: (row) => format.micros(row.ttfb_us.p95) },
        ],
      }) : pending(data.countries), areKnown ? null : h("p", { class: "note" }, "Edges tell countries once they know where networks are: ", h("code", {}, "[edge] location"), " names a file that ", h("code", {}, "perigee geo build"), " has made."))));
}

// --- What is asked for most ---

function tops(view, data) {
  const by = view.top ?? "requests";
  const choose = h("div", { class: "ranges", role: "group", "aria-label": "Order" }, ["requests", "bytes"].map((name) =>
    h("button", { type: "button", "aria-pressed": String(by === name), onclick: () => change({ top: name === "requests" ? null : name }) }, `by ${name}`)));
  const list = (label, resource, extra) => resource?.value ? [
    table({
      label, key: (row) => `${row.site} ${row.url} ${row.why ?? ""}`, rows: resource.value.items, none: empty("Nothing in this time"),
      columns: [
        { name: "URL", wide: true, cell: (row) => h("a", { class: "url", href: link("explain", { url: row.url }), title: row.url }, row.url) },
        ...extra,
        { name: "Requests", number: true, cell: (row) => h("data", { value: row.requests }, format.count(row.requests)) },
        { name: "Bytes", number: true, cell: (row) => format.bytes(row.bytes) },
      ],
    }),
    isExact(resource.value) ? null : h("p", { class: "note" }, `Counted in bounded memory: each is true to within ${format.count(Math.max(resource.value.error_at_most, ...resource.value.items.map((item) => item.at_most_too_high)))}.`),
  ] : pending(resource);
  return h("div", { class: "grid-2", key: "tops" },
    panel("Asked for most", { id: "top-urls", tools: choose }, list("Asked for most", data.urls, [])),
    panel("Missed most", { id: "top-misses", tools: h("a", { href: link("why") }, "Why") }, list("Missed most", data.misses, [{ name: "Cause", cell: (row) => row.why }])));
}

const isExact = ({ error_at_most: low, items }) => low === 0 && items.every((item) => item.at_most_too_high === 0);

function changes(data) {
  const items = (data.markers?.value?.items ?? []).slice(0, 12);
  return panel("Changes in this time", { id: "changes", note: "They are marked in every chart." },
    items.length === 0 ? empty("Nothing was changed in this time") : h("ol", { class: "log" }, items.map((item) => h("li", { key: `${item.at}${item.text}` }, h("time", {}, format.moment(item.at)), h("span", { class: `marker-dot ${item.kind}`, "aria-hidden": "true" }), item.text))));
}
