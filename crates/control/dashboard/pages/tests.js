// Page tests that are made again and again: how fast a page was by each way when, with what was changed meanwhile.

import { ask, now, path } from "../api.js";
import { chart } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { button, code, confirm, empty, may, panel, pending, problem, say, table, tag } from "../parts.js";
import { follow, markers } from "../stats.js";
import { change, link, period, redraw } from "../view.js";

const COMMAND = "perigee measure URL --via EDGE --every 1h --keep NAME";
const FIRST = "first view";
const TONES = ["tone-4", "tone-1", "tone-2", "tone-5", "tone-6", "tone-3"];
const EVERY = 30_000;

let refused = null;

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

export const tests = (view, data, me) => [refused ? problem(refused) : null, list(view, data, me)];

function list(view, data, me) {
  const { tests: found } = data;
  if (!found?.value) return panel("Page tests", { id: "tests" }, pending(found));
  if (found.value.items.length === 0 && found.value.unread === 0) {
    return panel("Page tests", { id: "tests" }, empty("Nobody tests a page yet", "Where there is a Chromium: ", code(COMMAND), ". It visits the page from its origin and through the edge, and keeps here how fast it was."));
  }
  return [
    panel("Page tests", { id: "tests", note: "Made by perigee measure in a browser of its own, unlike the above, which visitors tell." }, table({
      label: "Page tests", rows: found.value.items, key: (row) => row.name,
      columns: [
        { name: "Test", wide: true, cell: (row) => [h("a", { class: "test-name", href: link("speed", { test: row.name }), "aria-current": row.name === view.test ? "true" : null }, row.name), h("p", { class: "note" }, row.url)] },
        { name: "Last measured", cell: (row) => format.moment(row.at_ms) },
        { name: "Results", number: true, cell: (row) => format.whole(row.results) },
        { name: "Budget", cell: budget },
      ],
    }), unread(found.value)),
    view.test ? history(view, data, me) : null,
  ];
}

// What is kept besides the items of an answer.
const unread = ({ unread: count }) =>
  count === 0 ? null : h("p", { class: "unread" }, tag("warn", "Look"), ` Control keeps ${format.whole(count)} more, which it cannot read: where a newer control has written that, upgrade this one.`);

function budget({ over_budget: lines, over_budget_count: count }) {
  if (count === 0) return tag("good", "kept");
  const more = count - lines.length;
  return [tag("bad", "over"), h("ul", {}, lines.map((line) => h("li", { key: line }, line)), more > 0 ? h("li", { key: "more" }, `and ${more} more`) : null)];
}

function forget(name) {
  refused = null;
  const then = async () => {
    try {
      await ask(`/v1/page-tests/${encodeURIComponent(name)}`, { method: "DELETE" });
      say(`${name} is forgotten.`);
      change({ test: null, place: null });
      dispatchEvent(new Event("perigee-changed"));
    } catch (error) {
      refused = error;
      redraw();
    }
  };
  confirm({ title: `Forget ${name}?`, text: "All that was measured of it is gone for good. Whoever measures it again begins anew.", yes: "Forget", word: name, then });
}

// Measurements are in one line only where they are of the same page, from the same place, over the same line and emulated by the same means.
const alike = (one) => JSON.stringify([one.url, one.place, one.line, one.emulated_by]);
const MEANS = { packets: "at packet level", relay: "by a relay that delays TCP" };

function history(view, { results: found, markers: changes }, me) {
  const tools = may(me, "editor") ? button("Forget…", () => forget(view.test), { kind: "quiet small" }) : null;
  if (!found?.value) return panel(view.test, { id: "test", tools }, pending(found));
  const { items, from, to } = found.value;
  const firsts = items.map(({ url, series }) => series.filter(({ view }) => view === FIRST).map((one) => ({ url, ...one })));
  // Those of the newest measurement first.
  const kinds = [...new Map(firsts.toReversed().flat().map((one) => [alike(one), one]))];
  if (kinds.length === 0) return panel(view.test, { id: "test", tools }, empty("Not measured in this time", "Choose a longer one above."), unread(found.value));
  const [key, kind] = kinds.find(([key]) => key === view.place) ?? kinds[0];
  const rows = firsts.map((series, index) => ({ ...items[index], series: series.filter((one) => alike(one) === key) })).filter(({ series }) => series.length > 0);
  const ways = [...new Set(rows.flatMap(({ series }) => series.map(({ way }) => way)))];
  const value = (result, way, metric) => result.series.find((one) => one.way === way)?.medians[metric] ?? null;
  const plot = (metric, title) => chart({
    id: `chart-test-${metric}`, title: `${title}: ${view.test}`, at: rows.map(({ at_ms }) => at_ms), from, to, isOld: found.isOld,
    format: format.micros, markers: markers(changes),
    series: ways.map((way, number) => ({
      name: way, tone: TONES[number % TONES.length],
      values: rows.map((result) => value(result, way, metric)).map((ms) => (ms === null ? null : ms * 1000)),
    })),
  });
  const newest = rows.at(-1);
  const number = (metric, name) => ({ name, number: true, cell: (way) => h("data", { class: `test-${metric}`, value: value(newest, way, metric) ?? "" }, micros(value(newest, way, metric))) });
  return [
    h("div", { class: "row", key: "test-place" },
      h("label", { for: "test-place" }, "From"),
      h("select", { id: "test-place", onchange: (event) => change({ place: event.target.value }) }, kinds.map(([one, other]) => h("option", { value: one, selected: one === key }, named(other, kinds)))),
      h("p", { class: "filter-note" }, kind.emulated_by ? `Emulated ${MEANS[kind.emulated_by] ?? `by ${kind.emulated_by}`}${kind.line ? `: ${kind.line}` : ""}.` : "Nothing is emulated.")),
    h("div", { class: "grid-2", key: "test-charts" }, plot("lcp", "Largest paint"), plot("ttfb", "First byte")),
    panel(`${view.test}, ${format.moment(newest.at_ms)}`, { id: "test", tools, note: `Medians of first views, ${newest.browser}, told by ${newest.by}. perigee measure compare ${view.test} says which differences are more than chance.` }, table({
      label: `The newest result of ${view.test}`, rows: ways, key: (way) => way,
      columns: [{ name: "By way of", wide: true, cell: (way) => way }, number("ttfb", "First byte"), number("fcp", "First paint"), number("lcp", "Largest paint"), number("load", "Loaded")],
    }), unread(found.value)),
  ];
}

// A place, with what tells it from others of its name.
function named(kind, kinds) {
  const others = kinds.map(([, other]) => other).filter((other) => other !== kind && other.place === kind.place);
  const told = ["emulated_by", "line", "url"].filter((what) => others.some((other) => other[what] !== kind[what])).map((what) => kind[what]);
  return [kind.place, ...told.filter((word) => word !== null)].join(", ");
}
