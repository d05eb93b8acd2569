// Why what was not answered from the cache was not: every request has one cause, with what it costs and what to do next.

import { bar } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { empty, panel, pending, table } from "../parts.js";
import { follow, ratio } from "../stats.js";
import { link } from "../view.js";

export const why = {
  title: "Why it missed",
  about: "Every request has exactly one cause; here they are by what they cost, with what to do next.",
  isOver: true,
  exports: (view) => follow(view, "/v1/stats/export", { by: "why" }).path(),
  needs: (view) => ({
    why: follow(view, "/v1/stats/why"),
    misses: follow(view, "/v1/stats/top", { of: "misses", by: "bytes", limit: 20 }, { slower: 2 }),
  }),
  draw: ({ data }) => [causes(data), misses(data)],
};

function causes({ why: found }) {
  if (!found?.value) return pending(found, "There are no statistics");
  const { items } = found.value;
  const all = items.reduce((sum, item) => sum + item.requests, 0);
  if (all === 0) return panel("Causes", { id: "causes" }, empty("No requests in this time", "Choose a longer one, or another site."));
  const of = (isHit) => items.filter((item) => item.is_hit === isHit && item.requests > 0).sort((a, b) => b.requests - a.requests);
  const [hits, others] = [of(true), of(false)];
  const requests = (list) => list.reduce((sum, item) => sum + item.requests, 0);
  const lost = others.reduce((sum, item) => sum + item.bytes, 0);
  return [
    h("div", { class: "tiles", key: "tiles" },
      ...[
        ["why-all", "Requests", all, format.count(all), "each with one cause"],
        ["why-hits", "From the cache", requests(hits), format.percent(ratio(requests(hits), all)), `${format.count(requests(hits))} requests`],
        ["why-others", "Not from the cache", requests(others), format.percent(ratio(requests(others), all)), `${format.count(requests(others))} requests`],
        ["why-lost", "Bytes lost", lost, format.bytes(lost), "sent without the cache's help"],
      ].map(([id, name, value, text, note]) => h("div", { class: "tile", key: id }, h("p", { class: "tile-name" }, name), h("p", { class: "tile-value" }, h("data", { id, value }, text)), h("div", { class: "tile-foot" }, h("span", { class: "note" }, note))))),
    panel("Not from the cache", { id: "causes" }, others.length === 0 ? empty("Everything was answered from the cache") : h("ol", { class: "causes" }, others.map((item) => cause(item, all, lost)))),
    panel("From the cache", { id: "hits" }, hits.length === 0 ? empty("Nothing was answered from the cache") : table({
      label: "From the cache", rows: hits, key: (row) => row.why,
      columns: [
        { name: "Cause", cell: (row) => h("strong", {}, row.why) },
        { name: "What it means", wide: true, cell: (row) => row.about },
        { name: "Requests", number: true, cell: (row) => h("data", { value: row.requests }, format.count(row.requests)) },
        { name: "Share", number: true, cell: (row) => format.percent(ratio(row.requests, all)) },
        { name: "Bytes", number: true, cell: (row) => format.bytes(row.bytes) },
      ],
    })),
  ];
}

const cause = (item, all, lost) =>
  h("li", { class: "cause", key: item.why },
    h("div", { class: "cause-head" },
      h("h3", {}, item.why),
      h("dl", { class: "facts" },
        h("div", {}, h("dt", {}, "requests"), h("dd", {}, h("data", { class: "why-requests", "data-why": item.why, value: item.requests }, format.count(item.requests)))),
        h("div", {}, h("dt", {}, "of all"), h("dd", {}, format.percent(ratio(item.requests, all)))),
        h("div", {}, h("dt", {}, "bytes"), h("dd", {}, format.bytes(item.bytes))),
        h("div", {}, h("dt", {}, "of those lost"), h("dd", {}, format.percent(ratio(item.bytes, lost)))))),
    bar(ratio(item.requests, all), "tone-3"),
    h("p", {}, item.about),
    item.next ? h("p", { class: "next" }, h("span", { class: "next-word" }, "Next"), item.next) : h("p", { class: "next is-none" }, h("span", { class: "next-word" }, "Next"), "Nothing to do: it has to be so."),
    item.example
      ? h("div", { class: "example" },
          h("p", {}, "For example ", h("a", { class: "url", href: link("explain", { url: item.example.url }), title: "Explain this request" }, item.example.url), h("span", { class: "note" }, ` ${format.moment(item.example.at)}${item.example.pop ? `, ${item.example.pop}` : ""}`)),
          item.example.cache_status ? h("pre", { tabindex: 0, "aria-label": "Cache-Status" }, `Cache-Status: ${item.example.cache_status}`) : null)
      : null);

function misses({ misses: found }) {
  if (!found?.value) return null;
  return panel("URLs that miss most, by bytes", { id: "misses" }, table({
    label: "URLs that miss most", rows: found.value.items, key: (row) => `${row.url} ${row.why}`, none: empty("No misses in this time"),
    columns: [
      { name: "URL", wide: true, cell: (row) => h("a", { class: "url", href: link("explain", { url: row.url }), title: row.url }, row.url) },
      { name: "Site", cell: (row) => row.site },
      { name: "Cause", cell: (row) => row.why },
      { name: "Requests", number: true, cell: (row) => format.count(row.requests) },
      { name: "Bytes", number: true, cell: (row) => format.bytes(row.bytes) },
    ],
  }));
}
