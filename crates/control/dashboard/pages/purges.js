// Purges: what shall be gone, and the proof of each node that it is.

import { ask } from "../api.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { confirm, empty, field, may, needsRole, panel, pending, problem, say, table, tag } from "../parts.js";
import { change, link, redraw } from "../view.js";

const KINDS = {
  urls: ["URLs", "One per line, each with all its variants.", "https://www.shop.example/static/a.css"],
  prefixes: ["Prefixes", "One per line: every URL that begins so.", "https://www.shop.example/media/"],
  tags: ["Surrogate keys", "One per line: every object that carries one.", "shoes"],
  site: ["A site", "Everything of it."],
  everything: ["Everything", "Everything of every site. The origins get all requests until the caches have filled again."],
};

let draft = null;
let refused = null;
let isSending = false;

const fresh = (view) => ({ of: view.url, kind: "urls", text: view.url ?? "", site: "", soft: false, reason: "" });

export const purges = {
  title: "Purges",
  needs: (view) => ({
    purges: { id: "", path: () => "/v1/purges", every: 3000 },
    ...(view.position ? { proof: { id: view.position, path: () => `/v1/purges/${view.position}`, every: 500 } } : {}),
  }),
  draw: ({ view, me, data }) => [
    h("div", { class: "grid-2", key: "top" }, form(view, me, data), receipts(view, data)),
    history(view, data), canary(data)],
};

// --- The form ---

function form(view, me, { sites }) {
  if (!draft || draft.of !== view.url) draft = fresh(view);
  const type = (name, of = (event) => event.target.value) => (event) => { draft = { ...draft, [name]: of(event) }; redraw(); };
  const names = (sites?.value?.sites ?? []).map((site) => site.name);
  const [, help, example] = KINDS[draft.kind];
  const isText = example !== undefined;
  return panel("Purge", { id: "purge" },
    needsRole(me, "purger"),
    h("form", { class: "form", onsubmit: (event) => { event.preventDefault(); submit(); } },
      h("fieldset", { class: "ranges wide" }, h("legend", { class: "sr" }, "What to purge"), Object.entries(KINDS).map(([kind, [name]]) =>
        h("label", { key: kind, class: draft.kind === kind ? "is-chosen" : null }, h("input", { type: "radio", name: "kind", value: kind, checked: draft.kind === kind, onchange: () => { draft = { ...draft, kind }; refused = null; redraw(); } }), name))),
      isText ? field("purge-text", KINDS[draft.kind][0], h("textarea", { id: "purge-text", rows: 4, required: true, spellcheck: "false", placeholder: example, value: draft.text, oninput: type("text") }), help) : h("p", { class: "note" }, help),
      draft.kind === "site" || draft.kind === "tags"
        ? field("purge-site", "Site", h("select", { id: "purge-site", value: draft.site, required: draft.kind === "site", onchange: type("site") }, h("option", { value: "" }, draft.kind === "site" ? "Choose a site" : "All sites"), names.map((name) => h("option", { value: name, key: name }, name))))
        : null,
      field("purge-reason", "Reason", h("input", { id: "purge-reason", maxlength: 500, placeholder: "new prices", value: draft.reason, oninput: type("reason") })),
      h("label", { class: "check" }, h("input", { type: "checkbox", checked: draft.soft, onchange: type("soft", (event) => event.target.checked) }), "Soft: may be served while it is validated, instead of gone"),
      refused ? problem(refused) : null,
      h("div", { class: "row end" }, h("button", { class: draft.kind === "everything" ? "danger" : "primary", type: "submit", disabled: isSending || !may(me, "purger") }, isSending ? "Purging…" : "Purge"))));
}

function wanted() {
  const { kind, text, site, soft, reason } = draft;
  const list = text.split("\n").map((line) => line.trim()).filter(Boolean);
  const what = { urls: { urls: list }, prefixes: { prefixes: list }, tags: { tags: list, ...(site ? { site } : {}) }, site: { site }, everything: { everything: true } }[kind];
  return { ...what, soft, ...(reason.trim() ? { reason: reason.trim() } : {}) };
}

function submit() {
  const body = wanted();
  if (draft.kind === "everything") confirm({ title: "Purge everything of every site?", text: "Each node forgets all that it has stored. The origins get every request until the caches have filled again.", yes: "Purge everything", word: "everything", then: () => send(body) });
  else if (draft.kind === "site") confirm({ title: `Purge everything of ${draft.site}?`, text: "Its origin gets every request until the caches have filled again.", yes: `Purge ${draft.site}`, then: () => send(body) });
  else send(body);
}

async function send(body) {
  isSending = true;
  refused = null;
  redraw();
  try {
    const { position, purges: count } = await ask("/v1/purges", { body });
    draft = fresh({});
    say(`${count} purge${count === 1 ? " is" : "s are"} safe in the journal at position ${position}.`);
    change({ position, url: null });
    dispatchEvent(new Event("perigee-changed"));
  } catch (error) {
    refused = error;
  } finally {
    isSending = false;
    redraw();
  }
}

// --- Proofs ---

function receipts(view, { proof, purges: list }) {
  if (!view.position) return panel("Receipts", { id: "receipts" }, empty("Choose a purge", "Each node signs that it serves nothing of it any more. Purge something, or choose one of the list below."));
  const purge = list?.value?.purges.find((purge) => String(purge.position) === view.position);
  const found = proof?.value;
  const body = !found ? pending(proof) : [
    h("p", { class: "verdict", id: "proof-state", "data-state": found.state }, found.state === "done" ? tag("good", "Proven") : tag("warn", "Waiting"),
      found.state === "done" ? `All ${found.receipts.length} nodes in service have signed.` : found.receipts.length + found.laggards.length === 0 ? "No node is in service, so nobody can sign." : `${found.receipts.length} of ${found.receipts.length + found.laggards.length} nodes have signed.`),
    table({
      label: "Receipts", key: (row) => row.node, none: empty("No node has signed yet"),
      rows: [
        ...found.laggards.map((row) => ({ ...row, kind: "laggard" })),
        ...found.out_of_contact.map((row) => ({ ...row, kind: "out" })),
        ...[...found.receipts].sort((a, b) => b.at_ms - a.at_ms).map((row) => ({ ...row, kind: "receipt" })),
      ],
      columns: [
        { name: "Node", cell: (row) => h("strong", {}, row.node) },
        { name: "PoP", cell: (row) => row.pop },
        { name: "State", wide: true, cell: (row) => ({ receipt: tag("good", "signed"), laggard: tag("warn", `at ${row.position ?? "?"}, not there yet`), out: tag("bad", "out of contact: not waited for") })[row.kind] },
        { name: "At position", number: true, cell: (row) => row.position ?? format.none },
        { name: "Time", number: true, cell: (row) => (row.kind === "receipt" ? format.time(row.at_ms) : `heard ${format.time(row.heard_ms)}`) },
        { name: "Signature", cell: (row) => (row.signature ? h("code", { class: "signature", title: row.signature }, row.signature.slice(0, 12), "…") : null) },
      ],
    }),
    found.out_of_contact.length > 0 ? h("p", { class: "note" }, "What a node out of contact serves, nobody can say. When it is back it is waited for again.") : null,
  ];
  return panel(`Receipts of position ${view.position}`, { id: "receipts", key: "receipts" }, purge ? h("p", {}, purge.matches.join("; "), h("span", { class: "note" }, ` by ${purge.by}, ${format.moment(purge.at_ms)}`)) : null, body);
}

function history(view, { purges: list }) {
  if (!list?.value) return pending(list);
  return panel("Newest purges", { id: "history" }, table({
    label: "Newest purges", rows: list.value.purges.slice(0, 200), key: (row) => row.position, none: empty("Nothing has been purged yet", "What somebody purges, here or by ", h("code", {}, "perigee purge --cluster"), ", stands here with its reason."),
    onRow: (row) => (String(row.position) === view.position ? "is-chosen" : null),
    columns: [
      { name: "Position", number: true, cell: (row) => h("a", { href: link("purges", { position: row.position }) }, row.position) },
      { name: "Time", cell: (row) => format.moment(row.at_ms) },
      { name: "What", wide: true, cell: (row) => [row.matches.slice(0, 3).map((text) => h("div", { class: "url" }, text)), row.purges > 3 ? h("span", { class: "note" }, `and ${row.purges - 3} more`) : null] },
      { name: "By", cell: (row) => row.by },
      { name: "Reason", cell: (row) => row.reason ?? format.none },
    ],
  }));
}

function canary({ status }) {
  const found = status?.value?.canary;
  if (!found) return null;
  return h("p", { class: "note", key: "canary" }, "Each minute control purges a key that nothing has. The last one was proven ", found.took_ms === null || found.took_ms === undefined ? "not yet" : `in ${format.whole(found.took_ms)} ms`, found.alarm ? h("strong", {}, ": too late, somebody has to look.") : ".");
}
