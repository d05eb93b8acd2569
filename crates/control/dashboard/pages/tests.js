// Page tests that are made again and again: how fast a page was by each way when, with what was changed meanwhile.

import { now, path } from "../api.js";
import { chart } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { code, empty, panel, pending, table, tag } from "../parts.js";
import { follow, markers } from "../stats.js";
import { change, link, period } from "../view.js";

const COMMAND = "perigee measure URL --via EDGE --every 1h --keep NAME";
const FIRST = "first view";
const TONES = ["tone-4", "tone-1", "tone-2", "tone-5", "tone-6", "tone-3"];
const EVERY = 30_000;

const micros = (ms) => format.micros(ms === null || ms === undefined ? null : ms * 1000);

// What the page follows besides: the tests, and the results of the one that is looked at.
export const needs = (view) => ({
  tests: { id: "", path: () => "/v1/page-tests", every: EVERY },
  ...(view.test ? { results: results(view), markers: follow(view, "/v1/markers", { site: null, pop: null }, { slower: 2 }) } : {}),
});

const results = (view) => ({
  id: JSON.stringify([view.test, view.range, view.from, view.to]),
  every: period(view, now()).isLive ? EVERY : null,
  path: () => {
    const { from, to } = period(view, now());
    return path(`/v1/page-tests/${encodeURIComponent(view.test)}`, { from: Math.floor(from), to: Math.floor(to) });
  },
});

export function tests(view, data) {
  const { tests: found } = data;
  if (!found?.value) return panel("Page tests", { id: "tests" }, pending(found));
  if (found.value.items.length === 0) {
    return panel("Page tests", { id: "tests" }, empty("Nobody tests a page yet", "Where there is a Chromium: ", code(COMMAND), ". It visits the page from its origin and through the edge, and keeps here how fast it was."));
  }
  return [
    panel("Page tests", { id: "tests", note: "Made by perigee measure in a browser of its own, unlike the above, which visitors tell." }, table({
      label: "Page tests", rows: found.value.items, key: (row) => row.name,
      columns: [
        { name: "Test", wide: true, cell: (row) => [h("a", { class: "test-name", href: link("speed", { test: row.name }), "aria-current": row.name === view.test ? "true" : null }, row.name), h("p", { class: "note" }, row.url)] },
        { name: "Last measured", cell: (row) => format.moment(row.at_ms) },
        { name: "Budget", cell: (row) => (row.over_budget.length === 0 ? tag("good", "kept") : [tag("bad", "over"), h("ul", {}, row.over_budget.map((line) => h("li", { key: line }, line)))]) },
      ],
    })),
    view.test ? history(view, data) : null,
  ];
}

function history(view, { results: found, markers: changes }) {
  if (!found?.value) return panel(view.test, { id: "test" }, pending(found));
  const { items, from, to } = found.value;
  const all = items.flatMap(({ series }) => series.filter(({ view }) => view === FIRST));
  if (all.length === 0) return panel(view.test, { id: "test" }, empty("Not measured in this time", "Choose a longer one above."));
  const places = [...new Set(all.map(({ place }) => place))];
  const place = places.includes(view.place) ? view.place : places[0];
  const ways = [...new Set(all.filter((one) => one.place === place).map(({ way }) => way))];
  const means = all.findLast((one) => one.place === place).emulated_by;
  const value = (result, way, metric) => result.series.find((one) => one.view === FIRST && one.place === place && one.way === way)?.medians[metric] ?? null;
  const plot = (metric, title) => chart({
    id: `chart-test-${metric}`, title: `${title}: ${view.test}`, at: items.map(({ at_ms }) => at_ms), from, to, isOld: found.isOld,
    format: format.micros, markers: markers(changes),
    series: ways.map((way, number) => ({
      name: way, tone: TONES[number % TONES.length],
      values: items.map((result) => value(result, way, metric)).map((ms) => (ms === null ? null : ms * 1000)),
    })),
  });
  const newest = items.at(-1);
  const number = (metric, name) => ({ name, number: true, cell: (way) => h("data", { class: `test-${metric}`, value: value(newest, way, metric) ?? "" }, micros(value(newest, way, metric))) });
  return [
    h("div", { class: "row", key: "test-place" },
      h("label", { for: "test-place" }, "From"),
      h("select", { id: "test-place", onchange: (event) => change({ place: event.target.value }) }, places.map((one) => h("option", { value: one, selected: one === place }, one))),
      h("p", { class: "filter-note" }, means === "packets" ? "Emulated at packet level." : means === "relay" ? "Emulated by a relay that delays TCP." : "Nothing is emulated.")),
    h("div", { class: "grid-2", key: "test-charts" }, plot("lcp", "Largest paint"), plot("ttfb", "First byte")),
    panel(`${view.test}, ${format.moment(newest.at_ms)}`, { id: "test", note: `Medians of first views, ${newest.browser}, told by ${newest.by}. perigee measure compare ${view.test} says which differences are more than chance.` }, table({
      label: `The newest result of ${view.test}`, rows: ways, key: (way) => way,
      columns: [{ name: "By way of", wide: true, cell: (way) => way }, number("ttfb", "First byte"), number("fcp", "First paint"), number("lcp", "Largest paint"), number("load", "Loaded")],
    })),
  ];
}
