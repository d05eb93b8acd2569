// Why what was not answered from the cache was not: every request has one cause, with what it costs and what to do next.

import { bar } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { code, empty, panel, pending, table, tag } from "../parts.js";
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
    advice: { id: "", path: () => "/v1/advice", every: 10_000 },
    versions: { id: "", path: () => "/v1/configurations", every: 10_000 },
  }),
  draw: ({ view, data }) => [causes(data), advice(view, data), misses(data)],
};

// --- What to change ---

const COMMAND = "perigee advise --log access.log --report";
const VERIFY = "perigee advise --verify --report --log access.log";
const METRICS = {
  hit_ratio: ["hit ratio there", format.percent], error_ratio: ["errors of the origin there", format.percent], repeat_ratio: ["requests there by visitors who had it", format.percent],
  origin_requests_per_request: ["requests to the origin per request there", (value) => value.toFixed(3)],
  origin_bytes_per_request: ["bytes from the origin per request there", format.bytes], bytes_per_request: ["bytes to visitors per request there", format.bytes],
};
const VERDICTS = { kept: ["good", "as predicted"], partly: ["warn", "better, and less than was predicted"], failed: ["bad", "not better"], unknown: ["quiet", "not seen in the log"] };

function advice(view, { advice: found, versions }) {
  if (found?.value === undefined) return panel("What to change", { id: "advice" }, pending(found));
  if (found?.value === null) return panel("What to change", { id: "advice" }, empty("Nobody has looked yet", "Where an edge's access log is: ", code(COMMAND), ". It replays what was asked for under each change, and shows here what helps."));
  const { configuration, requests, by, at_ms, verdicts, verified_ms } = found.value;
  const proposals = found.value.proposals.filter((proposal) => !view.site || proposal.site === view.site);
  const stable = versions?.value?.stable ?? versions?.value?.candidate ?? null;
  const isCurrent = stable === configuration;
  const note = `From ${format.count(requests)} recorded requests, for configuration ${configuration}; reported by ${by}, ${format.moment(at_ms)}.`;
  const changed = isCurrent || stable === null ? null : h("div", { class: "note hint" },
    h("p", {}, `By now the cluster runs configuration ${stable}. Whether it did what was predicted, a log that begins after the change says: `, code(VERIFY)),
    h("p", {}, "What to change next: ", code(COMMAND), ". What did not help is undone by a roll-back: ", h("a", { href: link("rollouts") }, "roll-outs"), "."));
  return panel("What to change", { id: "advice", note },
    changed,
    verified_ms ? h("p", { class: "note" }, `Looked at again ${format.moment(verified_ms)}.`) : null,
    proposals.length === 0 ? empty("Nothing to propose", "The log shows no fault that is worth a change.") : h("ol", { class: "causes" }, proposals.map((proposal) => proposed(proposal, verdicts.find(({ number }) => number === proposal.number), isCurrent, configuration))));
}

function proposed(proposal, verdict, isCurrent, configuration) {
  const [name, write] = METRICS[proposal.metric] ?? [proposal.metric, String];
  const [state, word] = verdict ? VERDICTS[verdict.verdict] ?? ["quiet", verdict.verdict] : [];
  return h("li", { class: "cause", key: proposal.number },
    h("div", { class: "cause-head" },
      h("h3", {}, proposal.faults.join(" and "), h("span", { class: "note" }, ` ${proposal.site}`)),
      h("dl", { class: "facts" },
        h("div", {}, h("dt", {}, "now"), h("dd", {}, write(proposal.before))),
        h("div", {}, h("dt", {}, proposal.is_estimate ? "expected" : "predicted"), h("dd", {}, h("data", { class: "advice-after", value: proposal.after }, write(proposal.after)))),
        verdict ? h("div", {}, h("dt", {}, "measured"), h("dd", {}, write(verdict.measured))) : null)),
    h("p", {}, `${proposal.evidence}. Measured: ${name}.`),
    verdict ? h("p", {}, tag(state, word)) : null,
    h("pre", { tabindex: 0, "aria-label": "Lines to change" }, proposal.change),
    h("p", { class: "next" }, h("span", { class: "next-word" }, "Apply"), proposal.apply,
      proposal.edit && isCurrent ? [" ", h("a", { class: "advice-open", href: link("configuration", { version: configuration, advice: proposal.number }) }, "Open in the editor")] : null),
    h("p", { class: "next" }, h("span", { class: "next-word" }, "Undo"), proposal.undo));
}

function causes({ why: found }) {
  if (!found?.value) return pending(found);
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
