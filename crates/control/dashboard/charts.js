// Charts over time: lines, stacked areas, sparklines. Drawn as SVG from arrays; each says in words and as a table what it shows, can be
// read point by point with the keyboard, and shares its cursor with the others on the page.

import { h } from "./dom.js";
import * as format from "./format.js";
import { save } from "./picture.js";
import { redraw } from "./view.js";

const HEIGHT = 208;
const MARGIN = { top: 16, right: 10, bottom: 24, left: 56 };
const WIDTH_FIRST = 560;
const TABLE_ROWS_MAX = 500;
// A marker is meant when the cursor is this near, in pixels.
const MARKER_REACH = 7;

// The moment under the cursor, in ms; the same in all charts. `chart` has it shown with its values.
const cursor = { at: null, chart: null };
const widths = new Map();
const tables = new Set();

// --- Scales ---

const nice = (value) => {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
};

// The end of an axis that begins at 0, and where its lines are.
function axis(highest, count = 4) {
  if (!(highest > 0)) return { end: 1, ticks: [0] };
  const step = nice(highest / count);
  const end = step * Math.ceil((highest * 1.02) / step);
  return { end, ticks: Array.from({ length: Math.round(end / step) + 1 }, (_, index) => index * step) };
}

const STEPS = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000].map((seconds) => seconds * 1000);

// Moments for the axis of time: round ones, by the clock on the wall.
function moments(from, to, count) {
  const step = STEPS.find((step) => (to - from) / step <= count) ?? STEPS.at(-1);
  const zone = new Date(from).getTimezoneOffset() * 60_000;
  const first = Math.ceil((from - zone) / step) * step + zone;
  const found = [];
  for (let at = first; at <= to; at += step) found.push(at);
  return found;
}

// The index whose moment is nearest.
function nearest(at, moment) {
  if (at.length === 0) return -1;
  let [low, high] = [0, at.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (at[middle] <= moment) low = middle;
    else high = middle;
  }
  return moment - at[low] <= at[high] - moment ? low : high;
}

// --- Shapes ---

const round = (value) => Math.round(value * 10) / 10;

// A path through all points that have a value; gaps where they have none.
function line(points) {
  let path = "";
  let isOpen = false;
  for (const point of points) {
    if (!point) {
      isOpen = false;
      continue;
    }
    path += `${isOpen ? "L" : "M"}${round(point[0])} ${round(point[1])}`;
    // A point between gaps is a dot: round ends make it one.
    if (!isOpen) path += "h.1";
    isOpen = true;
  }
  return path;
}

function area(upper, lower) {
  if (upper.length === 0) return "";
  return `${line(upper).replaceAll("h.1", "")}${lower.toReversed().map(([x, y]) => `L${round(x)} ${round(y)}`).join("")}Z`;
}

// --- Charts ---

// A chart. `series`: [{ name, values, tone }], values by index of `at`, null where there is none. `kind`: "lines" or "stack".
// `format` writes a value; `most` is the end of the axis where it is known. `markers`: [{ at, text, kind }].
export function chart({ id, title, note, at, from, to, series, format: write, kind = "lines", most, markers = [], isOld }) {
  const isTable = tables.has(id);
  const width = widths.get(id) ?? WIDTH_FIRST;
  const isEmpty = at.length === 0 || series.every(({ values }) => values.every((value) => value === null || value === undefined));
  const plot = { id, title, at, from, to, series, write, kind, most, markers, width, isEmpty };
  return h("figure", { class: `chart${isOld ? " is-old" : ""}`, id, key: id },
    h("figcaption", {},
      h("div", { class: "chart-head" },
        h("h3", {}, title),
        h("div", { class: "chart-tools no-print" },
          h("button", { class: "quiet small", type: "button", "aria-label": `${isTable ? "Chart" : "Table"}: ${title}`, onclick: () => toggleTable(id) }, isTable ? "Chart" : "Table"),
          h("button", { class: "quiet small", type: "button", "aria-label": `PNG: ${title}`, disabled: isTable, onclick: () => save(document.getElementById(id).querySelector("svg"), title) }, "PNG"))),
      note ? h("p", { class: "note" }, note) : null,
      series.length > 1 || kind === "stack" ? legend(series, write) : null),
    isTable ? table(plot) : h("div", { class: "plot", ref: (node) => watch(node, id) }, drawing(plot), isEmpty ? h("p", { class: "plot-empty" }, "Nothing in this time") : reader(plot), tip(plot)));
}

function toggleTable(id) {
  if (!tables.delete(id)) tables.add(id);
  redraw();
}

const watcher = new ResizeObserver((entries) => {
  let isOther = false;
  for (const { target, contentRect } of entries) {
    const id = target.dataset.chart;
    const width = Math.max(240, Math.round(contentRect.width));
    if (widths.get(id) !== width) {
      widths.set(id, width);
      isOther = true;
    }
  }
  if (isOther) redraw();
});

function watch(node, id) {
  node.dataset.chart = id;
  watcher.observe(node);
}

const legend = (series) =>
  h("ul", { class: "legend" }, series.map(({ name, tone }) => h("li", { class: tone }, h("span", { class: "swatch" }), name)));

// From values to pixels.
function scale({ at, from, to, series, kind, most, width }) {
  const stacked = [];
  let highest = 0;
  series.forEach(({ values }, number) => {
    stacked.push(at.map((_, index) => {
      const value = values[index];
      if (kind !== "stack") return value ?? null;
      return (value ?? 0) + (number > 0 ? stacked[number - 1][index] : 0);
    }));
    for (const value of stacked[number]) if (value > highest) highest = value;
  });
  const { end, ticks } = most ? { end: most, ticks: [0, 0.25, 0.5, 0.75, 1].map((part) => part * most) } : axis(highest);
  const x = (moment) => MARGIN.left + ((moment - from) / (to - from)) * (width - MARGIN.left - MARGIN.right);
  const y = (value) => HEIGHT - MARGIN.bottom - (value / end) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  return { x, y, ticks, stacked };
}

function drawing(plot) {
  const { id, title, at, from, to, series, write, kind, markers, width, isEmpty } = plot;
  const { x, y, ticks, stacked } = scale(plot);
  const index = cursor.at === null || isEmpty ? -1 : nearest(at, cursor.at);
  const base = at.map((moment) => [x(moment), y(0)]);
  const points = stacked.map((values) => values.map((value, index) => (value === null ? null : [x(at[index]), y(value)])));
  return h("svg", { role: "img", "aria-labelledby": `${id}-title ${id}-text`, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` },
    h("title", { id: `${id}-title` }, title),
    h("desc", { id: `${id}-text` }, isEmpty ? "Nothing in this time." : told(plot)),
    h("g", { class: "grid" }, ticks.map((tick) => h("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: round(y(tick)), y2: round(y(tick)), class: tick === 0 ? "base" : null }))),
    h("g", { class: "ticks" }, isEmpty ? null : ticks.map((tick) => h("text", { x: MARGIN.left - 8, y: round(y(tick)) + 4, "text-anchor": "end" }, write(tick).replace(/\.0+(?=\D|$)/, "")))),
    h("g", { class: "ticks" }, moments(from, to, Math.max(2, Math.floor((width - MARGIN.left) / 92))).map((moment) =>
      x(moment) < MARGIN.left + 18 || x(moment) > width - 22 ? null : h("text", { x: round(x(moment)), y: HEIGHT - 6, "text-anchor": "middle" }, format.tick(moment, to - from)))),
    h("g", { class: "markers" }, markers.filter((marker) => marker.at >= from && marker.at <= to).map((marker) =>
      h("g", { class: `marker ${marker.kind}`, key: `${marker.at}${marker.text}` },
        h("title", {}, `${format.time(marker.at)} ${marker.text}`),
        h("line", { x1: round(x(marker.at)), x2: round(x(marker.at)), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
        h("circle", { cx: round(x(marker.at)), cy: MARGIN.top - 5, r: 3.5 })))),
    kind === "stack"
      ? points.map((upper, number) => h("path", { class: `area ${series[number].tone}`, d: area(upper, number === 0 ? base : points[number - 1]) })).toReversed()
      : null,
    points.map((list, number) => h("path", { class: `line ${series[number].tone}`, d: line(list) })).toReversed(),
    index < 0 ? null : h("g", { class: "cursor" },
      h("line", { x1: round(x(at[index])), x2: round(x(at[index])), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      points.map((list, number) => list[index] && h("circle", { class: series[number].tone, cx: round(list[index][0]), cy: round(list[index][1]), r: 3.5 }))));
}

// What the chart shows, in words.
function told({ at, series, write }) {
  const said = series.map(({ name, values }) => {
    const there = values.filter((value) => value !== null && value !== undefined);
    if (there.length === 0) return `${name}: nothing.`;
    const [low, high] = there.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    return `${name}: between ${write(low)} and ${write(high)}, ${write(there.at(-1))} at the end.`;
  });
  return `From ${format.moment(at[0])} to ${format.moment(at.at(-1))}. ${said.join(" ")}`;
}

// What is under the cursor: by pointer, or point by point with the arrow keys.
function reader(plot) {
  const { id, title, at, from, to, width } = plot;
  // Asked anew at each key: several may be pressed between two drawings.
  const current = () => (cursor.at === null ? at.length - 1 : nearest(at, cursor.at));
  const index = current();
  const move = (moment) => {
    cursor.at = moment;
    cursor.chart = id;
    redraw();
  };
  const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
  return h("div", {
    class: "reader", role: "slider", tabindex: 0, "aria-label": `${title}, point by point`,
    "aria-valuemin": 0, "aria-valuemax": at.length - 1, "aria-valuenow": index, "aria-valuetext": `${format.moment(at[index])}: ${read(plot, index).map(([name, value]) => `${name} ${value}`).join(", ")}`,
    onpointermove: (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      const part = (event.clientX - box.left - MARGIN.left) / (width - MARGIN.left - MARGIN.right);
      move(from + Math.min(1, Math.max(0, part)) * (to - from));
    },
    onpointerleave: leave,
    onblur: leave,
    onfocus: (event) => { if (event.currentTarget.matches(":focus-visible")) move(at[index]); },
    onkeydown: (event) => {
      if (event.key === "Escape") leave();
      if (!(event.key in keys)) return;
      event.preventDefault();
      move(at[Math.min(at.length - 1, Math.max(0, current() + keys[event.key]))]);
    },
  });
}

function leave() {
  cursor.at = null;
  cursor.chart = null;
  redraw();
}

const read = ({ series, write }, index) => series.map(({ name, values, tone }) => [name, write(values[index] ?? null), tone]);

function tip(plot) {
  const { id, at, markers, width, isEmpty } = plot;
  if (cursor.chart !== id || cursor.at === null || isEmpty) return null;
  const { x } = scale(plot);
  const index = nearest(at, cursor.at);
  const left = x(at[index]);
  const near = markers.filter((marker) => Math.abs(x(marker.at) - x(cursor.at)) < MARKER_REACH);
  return h("div", { class: "tip", style: left > width / 2 ? { right: `${width - left + 12}px` } : { left: `${left + 12}px` } },
    h("p", { class: "tip-time" }, format.moment(at[index])),
    h("dl", {}, read(plot, index).map(([name, value, tone]) => [h("dt", { class: tone }, h("span", { class: "swatch" }), name), h("dd", {}, value)])),
    near.map((marker) => h("p", { class: "tip-marker" }, `${format.time(marker.at)} ${marker.text}`)));
}

function table({ title, at, series, write }) {
  const rows = at.map((moment, index) => [moment, index]).toReversed().slice(0, TABLE_ROWS_MAX);
  return h("div", { class: "scroll chart-table", tabindex: 0, role: "region", "aria-label": `${title} as a table` },
    h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"), series.map(({ name }) => h("th", { scope: "col", class: "number" }, name)))),
      h("tbody", {}, rows.map(([moment, index]) => h("tr", { key: moment },
        h("th", { scope: "row" }, format.moment(moment)), series.map(({ values }) => h("td", { class: "number" }, write(values[index] ?? null))))))));
}

// A line without axes, for beside a number. It is ornament: the number says it.
export function sparkline(values, { tone = "tone-1", width = 132, height = 30 } = {}) {
  const highest = values.reduce((most, value) => Math.max(most, value ?? 0), 0) || 1;
  const points = values.map((value, index) =>
    value === null || value === undefined ? null : [(index / Math.max(1, values.length - 1)) * (width - 2) + 1, height - 2 - (value / highest) * (height - 4)]);
  return h("svg", { class: "spark", "aria-hidden": "true", width, height, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" },
    h("path", { class: `line ${tone}`, d: line(points) }));
}

// A bar that is so much of the whole.
export const bar = (part, tone = "tone-1") =>
  h("span", { class: "bar", "aria-hidden": "true" }, h("span", { class: tone, style: { width: `${Math.max(0, Math.min(1, part || 0)) * 100}%` } }));
