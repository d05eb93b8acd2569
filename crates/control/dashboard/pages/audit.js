// Who did what, when and why.

import { path } from "../api.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { empty, field, may, needsRole, panel, pending, table } from "../parts.js";
import { change } from "../view.js";

const DAYS = [1, 7, 30, 90, 400];

export const audit = {
  title: "Audit log",
  needs: (view, me) => (may(me, "admin") ? {
    audit: { id: JSON.stringify([view.days, view.quiet]), path: () => path("/v1/audit", { days: view.days ?? 7, without_purges: view.quiet ? true : null }), every: 5000 },
  } : {}),
  draw: ({ view, me, data }) => {
    if (!may(me, "admin")) return [needsRole(me, "admin")];
    return [filters(view), list(view, data)];
  },
};

function filters(view) {
  return h("div", { class: "row no-print", key: "filters" },
    field("audit-days", "Days", h("select", { id: "audit-days", value: String(view.days ?? 7), onchange: (event) => change({ days: event.target.value }) }, DAYS.map((days) => h("option", { value: String(days) }, days === 1 ? "today" : `${days} days`)))),
    field("audit-text", "Find", h("input", { id: "audit-text", type: "search", placeholder: "a name, action or reason", value: view.find ?? "", oninput: (event) => change({ find: event.target.value || null }) })),
    h("label", { class: "check" }, h("input", { type: "checkbox", checked: Boolean(view.quiet), onchange: (event) => change({ quiet: event.target.checked ? 1 : null }) }), "Without purges"));
}

function list(view, { audit: found }) {
  if (!found?.value) return pending(found);
  const wanted = (view.find ?? "").toLowerCase();
  const rows = found.value.entries.filter((entry) => [entry.by, entry.action, entry.subject, entry.reason].join(" ").toLowerCase().includes(wanted));
  return panel("Entries", { id: "entries", note: found.value.has_more ? "The newest 1,000; there are more in these days." : null }, table({
    label: "Entries", rows, key: (row) => `${row.at_ms} ${row.action} ${row.subject}`, none: empty("Nothing was done in this time", "Or nothing that this finds."),
    columns: [
      { name: "Time", cell: (row) => format.moment(row.at_ms) },
      { name: "Who", cell: (row) => h("strong", {}, row.by) },
      { name: "Action", cell: (row) => h("code", {}, row.action) },
      { name: "To what", wide: true, cell: (row) => h("span", { class: "url" }, row.subject) },
      { name: "Why", wide: true, cell: (row) => row.reason ?? format.none },
    ],
  }));
}
