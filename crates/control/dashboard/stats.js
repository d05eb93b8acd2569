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

// The step for sums only, of few buckets: by country there are many series.
export const coarse = (view) => {
  const { from, to } = period(view, now());
  return to - from <= 6 * 3_600_000 ? "1m" : "1h";
};

const EMPTY = Object.fromEntries(FIELDS.map((name) => [name, 0]));

// Of an answer: time, series without the buckets that still grow, and sums.
export function shape(stats) {
  const end = stats.at.findIndex((at) => at + stats.step > stats.complete_to);
  const count = end < 0 ? stats.at.length : end;
  const at = stats.at.slice(0, count);
  const cut = (series) => ({
    key: series.key,
    ...Object.fromEntries(FIELDS.map((name) => [name, series[name].slice(0, count)])),
    ttfb: Object.fromEntries(["p50", "p95", "p99"].map((name) => [name, series.ttfb_us[name].slice(0, count)])),
  });
  return {
    at,
    from: stats.from,
    to: stats.to,
    seconds: stats.step / 1000,
    series: stats.series.map(cut),
    // The sums of all; with `by`, there is one for each key.
    total: stats.totals[0] ?? { ...EMPTY, ttfb_us: { p50: null, p95: null, p99: null } },
    totals: stats.totals,
  };
}

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
