// How fast pages were for their visitors, as their browsers have told: Web Vitals by PoP, country and group of pages; and what page tests say.

import { chart } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { code, empty, panel, pending, table, tag, tile } from "../parts.js";
import { follow, ratio } from "../stats.js";
import { change, link } from "../view.js";
import { needs, tests } from "./tests.js";

const ms = (value) => format.micros(value === null || value === undefined ? null : value * 1000);
const shift = (value) => (value === null || value === undefined ? format.none : value.toFixed(3));

// What web.dev calls good, and poor.
const VITALS = [
  { id: "lcp", name: "Largest paint", about: "LCP", good: 2500, poor: 4000, write: ms },
  { id: "inp", name: "Response to input", about: "INP", good: 200, poor: 500, write: ms },
  { id: "cls", name: "Layout shift", about: "CLS", good: 0.1, poor: 0.25, write: shift },
  { id: "fcp", name: "First paint", about: "FCP", good: 1800, poor: 3000, write: ms },
  { id: "ttfb", name: "First byte", about: "TTFB", good: 800, poor: 1800, write: ms },
];
const PARTS = [["redirect", "Redirect"], ["dns", "DNS"], ["connect", "TCP"], ["tls", "TLS"], ["wait", "Wait"]];
const BY = { pop: "PoP", country: "Country", group: "Group of pages", site: "Site" };

const by = (view) => (view.by in BY ? view.by : "pop");
const p75 = (line, id) => line.metrics[id]?.p75 ?? null;
const state = (vital, value) => (value === null ? "quiet" : value <= vital.good ? "good" : value <= vital.poor ? "warn" : "bad");
const word = { good: "good", warn: "needs work", bad: "poor", quiet: "not known" };

export const speed = {
  title: "Page speed",
  about: "What visitors' browsers have told: three of four page views were at least as fast as these numbers. Below, what page tests have measured.",
  isOver: true,
  needs: (view) => ({ speed: follow(view, "/v1/stats/rum", { by: by(view), country: view.country, group: view.group }, { slower: 3 }), ...needs(view) }),
  draw: ({ view, data, me }) => [visitors(view, data.speed), tests(view, data, me)],
};

function visitors(view, found) {
  if (!found?.value) return pending(found);
  const { total } = found.value;
  if (total.views === 0) {
    return panel("Page views", { id: "speed" }, empty("No page views in this time", "A site or rule says ", code("rum = { inject = true }"), ": then the edge puts a small script into its pages, and browsers tell how fast they were. Without cookies, and nothing is kept in the browser."));
  }
  return [filters(view), tiles(total), charts(found), lines(view, found), parts(view, found)];
}

const filters = (view) =>
  h("div", { class: "row", key: "filters" },
    h("label", { for: "speed-by" }, "By"),
    h("select", { id: "speed-by", onchange: (event) => change({ by: event.target.value }) }, Object.entries(BY).map(([value, name]) => h("option", { value, selected: value === by(view) }, name))),
    view.country || view.group ? h("p", { class: "filter-note" }, view.country ? format.country(view.country) : view.group, " only. ", h("a", { href: link("speed", { by: view.by }) }, "Show all")) : null);

const tiles = (total) =>
  h("div", { class: "tiles", key: "tiles" },
    tile({ id: "speed-views", name: "Page views told of", value: total.views, text: format.count(total.views) }),
    VITALS.map((vital) => {
      const metric = total.metrics[vital.id];
      const value = p75(total, vital.id);
      const share = metric ? `${format.percent(ratio(metric.good, metric.views))} good` : "nobody told";
      return tile({ id: `speed-${vital.id}`, name: `${vital.name} (${vital.about})`, value, text: vital.write(value), note: h("span", {}, tag(state(vital, value), word[state(vital, value)]), ` ${share}`) });
    }));

function charts({ value: found, isOld }) {
  const time = { at: found.at, from: found.from, to: found.to, isOld };
  const line = (id, name, tone) => ({ name, values: (found.p75[id] ?? found.at.map(() => null)).map((value) => (value === null ? null : value * 1000)), tone });
  return h("div", { class: "grid-2", key: "charts" },
    chart({ id: "chart-speed", title: "75th percentiles", ...time, format: format.micros, series: [line("lcp", "LCP", "tone-1"), line("fcp", "FCP", "tone-2"), line("ttfb", "TTFB", "tone-3")] }),
    chart({ id: "chart-views", title: "Page views told of", ...time, kind: "stack", format: format.count, series: [{ name: "page views", values: found.views, tone: "tone-1" }] }));
}

const first = (view) => ({
  name: BY[by(view)], wide: true,
  cell: (row) => {
    const kind = by(view);
    const text = kind === "country" ? format.country(row.key) : row.key === format.UNKNOWN ? "(none)" : row.key;
    if (kind === "pop" || kind === "site") return h("a", { href: link("speed", { [kind]: row.key, by: "group" }) }, text);
    return h("a", { href: link("speed", { [kind]: row.key, by: kind === "group" ? "country" : "group" }) }, text);
  },
});
const views = { name: "Views", number: true, cell: (row) => h("data", { value: row.views }, format.count(row.views)) };

const lines = (view, { value: found }) =>
  panel(`By ${BY[by(view)].toLowerCase()}`, { id: "speed-by-key", note: "75th percentiles; the word says how web.dev rates them." }, table({
    label: `Page speed by ${BY[by(view)].toLowerCase()}`, rows: found.items, key: (row) => row.key,
    columns: [first(view), views, ...VITALS.map((vital) => ({
      name: vital.about, number: true,
      cell: (row) => {
        const value = p75(row, vital.id);
        return value === null ? format.none : h("span", {}, h("data", { class: `speed-${vital.id}`, value }, vital.write(value)), " ", tag(state(vital, value), word[state(vital, value)]));
      },
    })), { name: "Load", number: true, cell: (row) => ms(p75(row, "load")) }],
  }));

const parts = (view, { value: found }) =>
  panel("What the first byte waits for", { id: "speed-parts", note: "75th percentiles of each part; they do not add up to that of the whole." }, table({
    label: "Parts of the time to the first byte", rows: found.items, key: (row) => row.key,
    columns: [first(view), { name: "First byte", number: true, cell: (row) => ms(p75(row, "ttfb")) }, ...PARTS.map(([id, name]) => ({ name, number: true, cell: (row) => ms(p75(row, id)) }))],
  }));
