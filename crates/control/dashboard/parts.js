// What the pages are put together from.

import { h } from "./dom.js";
import * as format from "./format.js";
import { bar, sparkline } from "./charts.js";
import { redraw } from "./view.js";

// A node says each second how it is: one that has left two out is late.
export const LATE_MS = 2_200;

export const panel = (title, { note, tools, id, key } = {}, ...children) =>
  h("section", { class: "panel", id, key: key ?? id ?? title, "aria-label": title },
    h("header", { class: "panel-head" }, h("h2", {}, title), tools ? h("div", { class: "panel-tools" }, tools) : null),
    note ? h("p", { class: "note" }, note) : null,
    children);

// A word with a state: "good", "warn", "bad" or "quiet". The word says it; the colour only helps.
export const tag = (state, text) => h("span", { class: `tag ${state}` }, h("span", { class: "dot", "aria-hidden": "true" }), text);

export const empty = (title, ...next) => h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), next.length > 0 ? h("p", {}, next) : null);

export const code = (text) => h("code", {}, text);

// A number with its name. `value` is the number itself, for programs and tests.
export const tile = ({ id, name, value, text, note, change, better, values, tone }) =>
  h("div", { class: "tile", key: id },
    h("p", { class: "tile-name" }, name),
    h("p", { class: "tile-value" }, h("data", { id, value: value ?? "" }, text)),
    h("div", { class: "tile-foot" }, change ? delta(change, better) : null, note ? h("span", { class: "note" }, note) : null),
    values && values.length > 1 ? sparkline(values, { tone }) : null);

// What it was in the time before; `better` says which way is good: 1 up, -1 down, 0 neither.
function delta({ from, to, isShare }, better) {
  if (from === null || from === undefined || to === null || to === undefined || (!isShare && from === 0)) return null;
  const by = isShare ? to - from : to / from - 1;
  const text = isShare ? `${by >= 0 ? "+" : "−"}${format.percent(Math.abs(by)).replace(" %", "")} pp` : `${by >= 0 ? "+" : "−"}${format.percent(Math.abs(by))}`;
  const isSame = Math.abs(by) < (isShare ? 0.0005 : 0.005);
  const state = isSame || !better ? "same" : by > 0 === better > 0 ? "good" : "bad";
  return h("span", { class: `delta ${state}`, title: "against the same length of time before" }, isSame ? "as before" : text);
}

// A table. `columns`: [{ name, cell(row), number, bar(row), wide }]; rows keep their identity by `key`.
export function table({ label, columns, rows, key, none, onRow }) {
  if (rows.length === 0) return none ?? empty("Nothing yet");
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h("table", {},
      h("thead", {}, h("tr", {}, columns.map(({ name, number, wide }) => h("th", { scope: "col", class: [number && "number", wide && "grow"].filter(Boolean).join(" ") || null }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", { key: key(row), class: onRow?.(row) ?? null }, columns.map(({ cell, number, bar: part, wide }) =>
        h("td", { class: [number && "number", wide && "grow"].filter(Boolean).join(" ") || null }, part && part(row) !== null ? bar(part(row)) : null, cell(row))))))));
}

export const problem = (found) =>
  h("div", { class: "problem", role: "alert" },
    h("p", { class: "problem-title" }, found.message),
    found.found ? h("p", {}, "found: ", code(found.found)) : null,
    found.wanted ? h("p", {}, "wanted: ", found.wanted) : null,
    found.next ? h("p", {}, found.next) : null);

// What a resource has to say while it cannot be shown; null when it can.
export function pending(resource) {
  if (resource?.value !== undefined) return null;
  if (!resource?.problem) return h("p", { class: "loading", role: "status" }, "Loading…");
  return problem(resource.problem);
}

export const button = (text, onclick, { kind = "", disabled, label, type = "button" } = {}) =>
  h("button", { class: kind, type, disabled, onclick, "aria-label": label }, text);

export const field = (id, label, control, help) =>
  h("div", { class: "field", key: id }, h("label", { for: id }, label), control, help ? h("p", { class: "note", id: `${id}-help` }, help) : null);

// --- Questions before what cannot be undone ---

let question = null;

// Asks; `then` is done when the answer is yes. `word`, where given, has to be typed.
export function confirm({ title, text, yes, word, then }) {
  question = { title, text, yes, word, then, typed: "", from: document.activeElement };
  redraw();
}

export function dialog() {
  if (!question) return null;
  const close = () => {
    const { from } = question;
    question = null;
    redraw();
    from?.focus?.();
  };
  const { title, text, yes, word, typed, then } = question;
  const isReady = !word || typed === word;
  return h("dialog", { key: title, class: "dialog", "aria-labelledby": "dialog-title", ref: (node) => node.showModal(), oncancel: (event) => { event.preventDefault(); close(); } },
    h("form", { onsubmit: (event) => { event.preventDefault(); if (isReady) { close(); then(); } } },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, text),
      word ? field("dialog-word", `Type “${word}” to confirm`, h("input", { id: "dialog-word", autocomplete: "off", value: typed, oninput: (event) => { question.typed = event.target.value; redraw(); } })) : null,
      h("div", { class: "row end" }, button("Cancel", close), h("button", { class: "danger", type: "submit", disabled: !isReady }, yes))));
}

// --- What has just happened ---

let said = null;

// Says something for a few seconds, to screen readers as well.
export function say(text, state = "good") {
  said = { text, state };
  redraw();
  const mine = said;
  setTimeout(() => { if (said === mine) { said = null; redraw(); } }, 6000);
}

export const toast = () => h("div", { class: "toast", role: "status", "aria-live": "polite" }, said ? h("p", { class: said.state }, said.text) : null);

// --- Nodes ---

// How a node is: state for colours, word for people.
export function health(node, at) {
  const away = node.heard_ms === null ? Infinity : at - node.heard_ms;
  if (node.heard_ms === null) return { state: "bad", text: "not heard of yet" };
  if (!node.in_service) return { state: "bad", text: `out of contact for ${format.span(away)}` };
  if (away > LATE_MS) return { state: "warn", text: `late by ${format.span(away)}` };
  if (node.refused) return { state: "bad", text: `refused configuration ${node.refused.version}` };
  if (node.unwell) return { state: "bad", text: `does not answer itself: ${node.unwell}` };
  if (node.wanted !== null && node.running !== node.wanted) return { state: "warn", text: `runs ${node.running ?? "none"}, is to run ${node.wanted}` };
  if (node.behind > 0) return { state: "warn", text: `${format.whole(node.behind)} behind` };
  return { state: "good", text: "well" };
}

export const worst = (states) => (states.includes("bad") ? "bad" : states.includes("warn") ? "warn" : "good");

// Whether a role has what another has.
const ROLES = ["viewer", "purger", "editor", "admin"];
export const may = (me, role) => ROLES.indexOf(me.role) >= ROLES.indexOf(role);
export const needsRole = (me, role) =>
  may(me, role) ? null : h("p", { class: "note hint" }, `Your token “${me.name}” is a ${me.role}'s. This needs a token with the role ${role}: `, code(`perigee token add NAME --role ${role}`));
