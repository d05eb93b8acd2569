// The configuration's editor: checked while one types, compared with what is stable, rolled out in stages.

import { ask, Problem } from "../api.js";
import { difference } from "../diff.js";
import { h } from "../dom.js";
import { button, confirm, field, may, needsRole, panel, problem, say, tag } from "../parts.js";
import { change, go, link, redraw } from "../view.js";

// After the last key.
const CHECK_AFTER_MS = 350;
const STAGES = [["edge", "One node, then its PoP, then everywhere"], ["pop", "One PoP, then everywhere"], ["all", "Everywhere at once"]];
const EXAMPLE = `[[site]]
name = "shop"
domains = ["www.shop.example"]
origin = "https://origin.shop.example"
`;

// What is written: the version it began as, its text then and now, and what `check` says of it.
let draft = null;
let found = { text: null, findings: [], problem: null, isGood: false };
let timer = 0;
let apply = { stage: "edge", reason: "" };
let refused = null;
let isSending = false;
let isCompared = false;
// The proposal that the draft has taken.
let taken = null;

export const configuration = {
  title: "Configuration",
  needs: (view) => ({
    versions: { id: "", path: () => "/v1/configurations", every: 5000 },
    ...(view.version ? { version: { id: view.version, path: () => `/v1/configurations/${view.version}`, every: null } } : {}),
    ...(view.advice ? { advice: { id: "", path: () => "/v1/advice", every: null } } : {}),
  }),
  draw: ({ view, me, data }) => {
    if (!view.version && data.versions?.value) {
      const newest = data.versions.value.stable ?? data.versions.value.versions[0]?.number;
      if (newest) queueMicrotask(() => change({ version: newest }));
      else if (!draft) begin(me, null, EXAMPLE);
    }
    const loaded = data.version?.value;
    if (loaded && !data.version.isOld && draft?.base !== loaded.number && (!draft || draft.text === draft.before)) begin(me, loaded.number, loaded.text, Number(view.line));
    if (data.version?.problem) return problem(data.version.problem);
    if (view.advice && loaded && !data.version.isOld) take(me, view, data.advice?.value, loaded);
    if (!draft) return h("p", { class: "loading", role: "status" }, "Loading…");
    return [chooser(data), h("div", { class: "editor-page", key: "editor" }, editor(me), side(me, data))];
  },
};

addEventListener("beforeunload", (event) => {
  if (draft && draft.text !== draft.before) event.preventDefault();
});

function begin(me, base, text, line = 0) {
  draft = { base, before: text, text, line };
  found = { text: null, findings: [], problem: null, isGood: false };
  refused = null;
  check(me);
}

// Puts the lines of a proposal into the text that they are for, once.
function take(me, view, advice, loaded) {
  const proposal = advice?.proposals.find(({ number }) => String(number) === view.advice);
  const mark = `${advice?.at_ms} ${view.advice}`;
  if (!proposal?.edit || taken === mark || advice.configuration !== loaded.number || draft?.text !== loaded.text) return;
  taken = mark;
  const { line, remove, insert } = proposal.edit;
  const lines = loaded.text.split("\n");
  if (remove.some((text, index) => lines[line - 1 + index] !== text)) return;
  lines.splice(line - 1, remove.length, ...insert);
  begin(me, loaded.number, loaded.text, line);
  draft.text = lines.join("\n");
  apply = { ...apply, reason: `advice: ${proposal.faults.join(" and ")}, ${proposal.site}` };
  isCompared = true;
  check(me);
}

// --- Checking ---

function edit(me, text) {
  draft.text = text;
  clearTimeout(timer);
  timer = setTimeout(() => check(me), CHECK_AFTER_MS);
  redraw();
}

async function check(me) {
  if (!may(me, "editor")) return;
  const { text } = draft;
  let answer;
  try {
    const { diagnostics } = await ask("/v1/configurations", { body: { text, dry_run: true, source: "configuration" } });
    answer = { findings: diagnostics, problem: null, isGood: true };
  } catch (error) {
    answer = error instanceof Problem && error.diagnostics ? { findings: error.diagnostics, problem: null, isGood: false } : { findings: [], problem: error, isGood: false };
  }
  if (draft.text === text) found = { text, ...answer };
  redraw();
}

// --- The editor ---

function chooser({ versions }) {
  const list = versions?.value?.versions ?? [];
  if (list.length === 0) return null;
  const { stable, candidate } = versions.value;
  const word = (number) => (number === stable ? ", stable" : number === candidate ? ", candidate" : "");
  const load = (number) => {
    const then = () => { draft = null; change({ version: number, line: null }); };
    if (draft && draft.text !== draft.before) confirm({ title: "Throw your changes away?", text: `You have changed configuration ${draft.base ?? "(new)"} and not applied it.`, yes: "Throw away", then });
    else then();
  };
  return h("div", { class: "row", key: "chooser" }, field("config-version", "Begin with", h("select", { id: "config-version", value: String(draft?.base ?? ""), onchange: (event) => load(event.target.value) },
    draft?.base === null ? h("option", { value: "" }, "a new one") : null,
    list.slice(0, 100).map((version) => h("option", { value: String(version.number), key: version.number }, `${version.number}${word(version.number)}: ${version.reason} (${version.author})`)))));
}

function editor(me) {
  const lines = draft.text.split("\n");
  const isNow = found.text === draft.text;
  const findings = found.findings;
  const worst = new Map();
  for (const { line, severity } of findings) if (worst.get(line) !== "error") worst.set(line, severity);
  return h("div", { class: "editor" },
    h("div", { class: "editor-box" },
      h("pre", { class: "gutter", "aria-hidden": "true" }, lines.map((_, index) => h("span", { class: worst.get(index + 1) ?? null }, index + 1, "\n"))),
      h("div", { class: "editor-text" },
        h("div", { class: `marks${isNow ? "" : " is-old"}`, "aria-hidden": "true" }, findings.map((finding, index) => mark(finding, lines[finding.line - 1] ?? "", index))),
        h("textarea", {
          id: "config-text", "aria-label": "Configuration, TOML", "aria-describedby": "config-state", spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off",
          readonly: !may(me, "editor"), value: draft.text,
          oninput: (event) => edit(me, event.target.value),
          onscroll: (event) => scrolled(event.target),
          onkeydown: (event) => indent(event, me),
          ref: (node) => requestAnimationFrame(() => { if (draft.line > 0) reveal(draft.line, 1, node); }),
        }))),
    h("p", { class: "verdict", id: "config-state", role: "status", "data-good": String(isNow && found.isGood) }, state(me, isNow)),
    findings.length === 0 ? null : h("ol", { class: "findings" }, findings.map((finding, index) => h("li", { key: index, class: finding.severity },
      button(`${finding.line}:${finding.column}`, () => reveal(finding.line, finding.column), { kind: "quiet small", label: `${finding.line}:${finding.column}, go there` }),
      h("span", {}, h("strong", {}, finding.severity), " ", finding.message, finding.help ? h("span", { class: "note" }, ` ${finding.help}`) : null)))));
}

const mark = (finding, line, index) => [
  h("span", { key: `at${index}`, class: `flaw ${finding.severity}`, style: { top: `calc(${finding.line - 1} * var(--row))`, left: `${finding.column - 1}ch`, width: `${Math.max(1, Math.min(finding.found.split("\n")[0].length, line.length - finding.column + 1))}ch` } }),
  h("span", { key: `text${index}`, class: `flaw-text ${finding.severity}`, style: { top: `calc(${finding.line - 1} * var(--row))`, left: `${line.length + 3}ch` } }, finding.message),
];

function state(me, isNow) {
  if (!may(me, "editor")) return [tag("quiet", "To read"), "Checked and changed by editors only."];
  if (found.problem) return [tag("bad", "Not checked"), found.problem.message];
  if (!isNow) return [tag("quiet", "Checking…")];
  const count = (severity) => found.findings.filter((finding) => finding.severity === severity).length;
  const [errors, warnings] = [count("error"), count("warning")];
  const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  if (!found.isGood) return [tag("bad", plural(errors, "error")), warnings > 0 ? plural(warnings, "warning") : "", " It cannot be used as it is."];
  return [tag(warnings > 0 ? "warn" : "good", warnings > 0 ? plural(warnings, "warning") : "Good"), "Its tests hold. "];
}

const scrolled = (area) => {
  const box = area.closest(".editor-box");
  box.querySelector(".gutter").scrollTop = area.scrollTop;
  box.querySelector(".marks").style.transform = `translate(${-area.scrollLeft}px, ${-area.scrollTop}px)`;
};

function reveal(line, column, area = document.getElementById("config-text")) {
  const before = area.value.split("\n").slice(0, line - 1).join("\n");
  const place = before.length + (line > 1 ? 1 : 0) + column - 1;
  area.focus();
  area.setSelectionRange(place, place);
  area.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(area).lineHeight));
}

// Tab leaves the field, as everywhere; Ctrl and a bracket move lines in and out.
function indent(event, me) {
  if (!event.ctrlKey || !["[", "]"].includes(event.key)) return;
  event.preventDefault();
  const area = event.target;
  const begin = area.value.lastIndexOf("\n", area.selectionStart - 1) + 1;
  const block = area.value.slice(begin, area.selectionEnd);
  const moved = event.key === "]" ? block.replaceAll(/^/gm, "  ") : block.replaceAll(/^ {1,2}/gm, "");
  area.setRangeText(moved, begin, area.selectionEnd, "select");
  edit(me, area.value);
}

// --- Applying ---

function side(me, { versions }) {
  const isChanged = draft.text !== draft.before;
  const isGood = found.text === draft.text && found.isGood;
  const isStable = draft.base !== null && draft.base === versions?.value?.stable;
  const can = may(me, "editor") && isGood && !isSending && (isChanged || !isStable);
  return h("div", { class: "editor-side" },
    panel("Apply", { id: "apply" },
      needsRole(me, "editor"),
      h("form", { class: "form", onsubmit: (event) => { event.preventDefault(); if (can) send(); } },
        h("fieldset", { class: "choices" }, h("legend", {}, "Begins at"), STAGES.map(([stage, text]) => h("label", { key: stage, class: "check" },
          h("input", { type: "radio", name: "stage", value: stage, checked: apply.stage === stage, onchange: () => { apply = { ...apply, stage }; redraw(); } }), text))),
        field("config-reason", "Reason", h("input", { id: "config-reason", required: true, maxlength: 500, placeholder: "cache images longer", value: apply.reason, oninput: (event) => { apply = { ...apply, reason: event.target.value }; redraw(); } })),
        h("p", { class: "note" }, "All three are watched, and undone by themselves when they do harm."),
        refused ? problem(refused) : null,
        h("button", { class: "primary", type: "submit", disabled: !can }, isSending ? "Applying…" : "Apply"),
        isStable && !isChanged ? h("p", { class: "note" }, "This one is stable already. Change it first.") : null)),
    panel("Changes", { id: "config-diff", tools: button(isCompared ? "Hide" : "Show", () => { isCompared = !isCompared; redraw(); }, { kind: "quiet small" }) },
      isCompared ? difference(draft.before, draft.text, `Against configuration ${draft.base ?? "(none)"}`) : h("p", { class: "note" }, isChanged ? `Differs from configuration ${draft.base ?? "(none)"}.` : "Nothing is changed."),
      isChanged ? button("Back to what it was", () => confirm({ title: "Throw your changes away?", text: "The text is what it was before.", yes: "Throw away", then: () => begin(me, draft.base, draft.before) }), { kind: "quiet small" }) : null));
}

async function send() {
  isSending = true;
  refused = null;
  redraw();
  try {
    const { version } = await ask("/v1/configurations", { body: { text: draft.text, reason: apply.reason, source: "configuration" } });
    draft = { ...draft, base: version, before: draft.text };
    await ask("/v1/rollouts", { body: { version, stage: apply.stage, reason: apply.reason } });
    apply = { ...apply, reason: "" };
    say(`Configuration ${version} is being rolled out.`);
    go(link("rollouts"));
  } catch (error) {
    refused = error;
  } finally {
    isSending = false;
    redraw();
  }
}
