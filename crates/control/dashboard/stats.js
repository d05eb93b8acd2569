// Statistics as pages ask for them, and as charts take them.

import { now, path } from "./api.js";
import { period } from "./view.js";

// How often what goes on is asked for anew: as often as it can show, and not more often than anybody looks.
const EVERY = [[900_000, 2000], [3_600_000, 5000], [86_400_000, 30_000], [Infinity, 120_000]];
const FIELDS = ["requests", "hits", "errors", "bytes", "hit_bytes", "origin_requests", "origin_bytes"];

// What a page follows: statistics of the time, site and PoP that are looked at.
export function follow(view, base = "/v1/stats", parameters = {}, { slower = 1 } = {}) {
  const filters = { site: view.site, pop: view.pop, ...parameters };
  const { to, isLive } = period(view, now());
  const length = to - period(view, now()).from;
  const every = EVERY.find(([longest]) => length <= longest)[1] * slower;
  const id = JSON.stringify([base, view.range, view.from, view.to, filters]);
  return {
    id,
    every: isLive ? every : null,
    path: () => {
      const time = period(view, now());
      return path(base, { from: Math.floor(time.from), to: time.isLive ? null : time.to, ...filters });
    },
  };
}

// The same for as long a time before it.
export function before(view) {
  const { isLive } = period(view, now());
  return {
    id: JSON.stringify(["before", view.range, view.from, view.to, view.site, view.pop]),
    every: isLive ? 60_000 : null,
    path: () => {
      const { from, to } = period(view, now());
      return path("/v1/stats", { from: Math.floor(from - (to - from)), to: Math.floor(from), site: view.site, pop: view.pop });
    },
  };
}

// For how long control keeps the finer steps, less what passes until the question is there.
const KEPT = { "1s": 3_300_000, "1m": 6.9 * 86_400_000 };
const HOUR = 3_600_000;

// The step of the one series of a page, where control would choose too coarse a one: a day by minutes.
export const fine = (view) => {
  const { from, to } = period(view, now());
  return to - from > 16 * HOUR && to - from <= 25 * HOUR && from >= now() - KEPT["1m"] ? "1m" : null;
};

// The step of many series: few buckets.
export const coarse = (view, isFew = false) => {
  const { from, to } = period(view, now());
  if (isFew && to - from <= 900_000 && from >= now() - KEPT["1s"]) return "1s";
  return to - from <= 6 * HOUR && from >= now() - KEPT["1m"] ? "1m" : "1h";
};

const EMPTY = Object.fromEntries(FIELDS.map((name) => [name, 0]));
const QUANTILES = ["p50", "p95", "p99"];

// Points of a line that an eye can still tell apart.
const POINTS = 180;
const GROUPS = [1, 2, 5, 10, 15, 20, 30, 60];

// When the first node joined: before, there was nothing to count, and a chart begins there.
const ROOM_MS = 10_000;
const beginning = (nodes) => Math.min(Infinity, ...(nodes?.value?.nodes ?? []).map((node) => node.enrolled_ms)) - ROOM_MS;

// Of an answer: time, series and sums. Buckets that still grow are left out; of many, some are put together, so that each is whole.
export function shape(stats, nodes) {
  const first = beginning(nodes);
  const from = first < stats.to ? Math.max(stats.from, Math.floor(first / stats.step) * stats.step) : stats.from;
  const count = (stats.to - from) / stats.step;
  const size = GROUPS.find((size) => count / size <= POINTS) ?? GROUPS.at(-1);
  const length = stats.step * size;
  const groups = new Map();
  stats.at.forEach((at, index) => {
    const begin = Math.floor(at / length) * length;
    if (begin < from || begin + length > stats.complete_to || begin + length > stats.to) return;
    if (groups.has(begin)) groups.get(begin).push(index);
    else groups.set(begin, [index]);
  });
  const lists = [...groups.values()];
  const together = (series) => ({
    key: series.key,
    ...Object.fromEntries(FIELDS.map((name) => [name, lists.map((list) => list.reduce((sum, index) => sum + series[name][index], 0))])),
    ttfb: Object.fromEntries(QUANTILES.map((name) => [name, lists.map((list) => mean(list, series.ttfb_us[name], series.requests))])),
  });
  return {
    at: [...groups.keys()],
    from,
    to: stats.to,
    seconds: length / 1000,
    // How many buckets of the API are one here.
    size,
    series: stats.series.map(together),
    // The sums of all; with `by`, there is one for each key.
    total: stats.totals[0] ?? { ...EMPTY, ttfb_us: { p50: null, p95: null, p99: null } },
    totals: stats.totals,
  };
}

// By requests; null where there was none.
function mean(list, values, requests) {
  let [sum, weight] = [0, 0];
  for (const index of list) {
    if (values[index] === null) continue;
    sum += values[index] * requests[index];
    weight += requests[index];
  }
  return weight > 0 ? sum / weight : null;
}

// What a chart of percentiles has to say about its points; null when they are the API's own.
export const meaning = (shaped) => (shaped.size > 1 ? `Each point is the mean of the percentiles of ${shaped.size} times ${shaped.seconds / shaped.size} s.` : null);

// Values of one thing over time, where there may be no series at all.
export const values = (shaped, name, number = 0) => shaped.series[number]?.[name] ?? [];
export const perSecond = (shaped, list) => list.map((value) => value / shaped.seconds);
export const share = (parts, wholes) => parts.map((part, index) => (wholes[index] > 0 ? part / wholes[index] : null));
export const minus = (left, right) => left.map((value, index) => Math.max(0, value - right[index]));
export const ratio = (part, whole) => (whole > 0 ? part / whole : null);
// What the origin did not have to do.
export const offload = (totals) => (totals.bytes > 0 ? Math.max(0, 1 - totals.origin_bytes / totals.bytes) : null);

// The changes, as charts mark them.
export const markers = (resource) => (resource?.value?.items ?? []).map(({ at, kind, text }) => ({ at, kind, text }));
