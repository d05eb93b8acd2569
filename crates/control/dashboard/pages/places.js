// By PoP and by country: who gets what, and how fast.

import { chart } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { empty, panel, pending, table, tag } from "../parts.js";
import { coarse, follow, markers, meaning, offload, perSecond, ratio, shape } from "../stats.js";
import { link } from "../view.js";
import { popMarks } from "./overview.js";

// Lines in one chart that an eye can tell apart.
const LINES = 6;

export const places = {
  title: "PoPs & countries",
  isOver: true,
  exports: (view) => follow(view, "/v1/stats/export", { by: "pop", country: view.country }).path(),
  needs: (view) => ({
    byPop: follow(view, "/v1/stats", { by: "pop", country: view.country, step: coarse(view, true) }, { slower: 4 }),
    byCountry: follow(view, "/v1/stats", { by: "country", step: coarse(view) }, { slower: 3 }),
    markers: follow(view, "/v1/markers", { site: null, pop: null }, { slower: 2 }),
    pops: { id: "", path: () => "/v1/pops", every: 2000 },
  }),
  draw: ({ view, data }) => [
    view.country ? h("p", { class: "filter-note", key: "country" }, "Visitors of ", h("strong", {}, format.country(view.country)), " only. ", h("a", { href: link("places") }, "Show all")) : null,
    charts(data), byPop(data), byCountry(view, data)],
};

function charts({ byPop, nodes, markers: changes }) {
  if (!byPop?.value) return pending(byPop);
  const shaped = shape(byPop.value, nodes);
  const busiest = [...shaped.totals].sort((a, b) => b.requests - a.requests).slice(0, LINES).map((total) => shaped.series.find((series) => series.key === total.key)).filter(Boolean);
  const marked = { at: shaped.at, from: shaped.from, to: shaped.to, markers: markers(changes), isOld: byPop.isOld };
  const note = shaped.series.length > LINES ? `The ${LINES} busiest of ${shaped.series.length} PoPs.` : null;
  const lines = (values) => busiest.map((series, number) => ({ name: popName(series.key), values: values(series), tone: `tone-${number + 1}` }));
  return h("div", { class: "grid-2", key: "charts" },
    chart({ id: "chart-pop-requests", title: "Requests per second by PoP", note, ...marked, kind: "stack", format: format.rate, series: lines((series) => perSecond(shaped, series.requests)) }),
    chart({ id: "chart-pop-ttfb", title: "Time to first byte by PoP, p95", note: [note, meaning(shaped)].filter(Boolean).join(" ") || null, ...marked, format: format.micros, series: lines((series) => series.ttfb.p95) }));
}

const popName = (name) => (name === format.UNKNOWN ? "(no PoP)" : name);

const columns = (first, sum, hasOrigins) => [
  first,
  { name: "Requests", number: true, cell: (row) => h("data", { value: row.requests }, format.count(row.requests)) },
  { name: "Share", number: true, cell: (row) => format.percent(ratio(row.requests, sum)), bar: (row) => ratio(row.requests, sum) },
  { name: "Hit ratio", number: true, cell: (row) => format.percent(ratio(row.hits, row.requests)) },
  { name: "by bytes", number: true, cell: (row) => format.percent(ratio(row.hit_bytes, row.bytes)) },
  // Origins are asked for by a PoP, not by a country.
  ...(hasOrigins ? [{ name: "Offload", number: true, cell: (row) => format.percent(offload(row)) }] : []),
  { name: "p50", number: true, cell: (row) => format.micros(row.ttfb_us.p50) },
  { name: "p95", number: true, cell: (row) => format.micros(row.ttfb_us.p95) },
  { name: "p99", number: true, cell: (row) => format.micros(row.ttfb_us.p99) },
  { name: "Errors", number: true, cell: (row) => format.percent(ratio(row.errors, row.requests)) },
  { name: "Sent", number: true, cell: (row) => format.bytes(row.bytes) },
];

const sorted = (totals) => [...totals].sort((a, b) => b.requests - a.requests);
const sum = (totals) => totals.reduce((sum, total) => sum + total.requests, 0);

function byPop({ byPop, pops, nodes }) {
  if (!byPop?.value) return null;
  const marks = new Map(popMarks(pops, nodes).map((mark) => [mark.name, mark]));
  const rows = sorted(byPop.value.totals);
  for (const name of marks.keys()) if (!rows.some((row) => row.key === name)) rows.push({ key: name, requests: 0, hits: 0, errors: 0, bytes: 0, hit_bytes: 0, origin_bytes: 0, ttfb_us: {} });
  return panel("By PoP", { id: "pops" }, table({
    label: "By PoP", rows, key: (row) => row.key, none: empty("No PoP yet", "A node says in which it stands: ", h("code", {}, "perigee enroll --role edge --pop fra"), "."),
    columns: columns({ name: "PoP", wide: true, cell: (row) => {
      const mark = marks.get(row.key);
      return h("span", { class: "row" }, h("a", { href: link("overview", { pop: row.key }) }, popName(row.key)), mark ? tag(mark.state, mark.text) : null);
    } }, sum(rows), true),
  }));
}

function byCountry(view, { byCountry: found }) {
  if (!found?.value) return pending(found);
  const rows = sorted(found.value.totals);
  return panel("By country", { id: "countries", note: "Where visitors are, as far as location data tells. Time to first byte is measured at the edge: from the request's head to the answer's." }, table({
    label: "By country", rows, key: (row) => row.key, none: empty("No visitors in this time"), onRow: (row) => (row.key === view.country ? "is-chosen" : null),
    columns: columns({ name: "Country", wide: true, cell: (row) => h("a", { href: link("places", { country: row.key }) }, format.country(row.key)) }, sum(rows), false),
  }));
}
