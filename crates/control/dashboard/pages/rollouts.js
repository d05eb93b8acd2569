// Roll-outs: how far a configuration has come, what it is judged by, and the configurations there are.

import { ask, path } from "../api.js";
import { difference } from "../diff.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { button, confirm, empty, may, needsRole, panel, pending, problem, say, table, tag } from "../parts.js";
import { ratio } from "../stats.js";
import { change, link, redraw } from "../view.js";

const STAGES = [["measure", "Measure", "how nodes are without it"], ["edge", "One node", ""], ["pop", "Its PoP", ""], ["all", "Everywhere", ""], ["promoted", "Stable", "what nodes fall back to"]];
const STATES = { none: ["quiet", "Nothing has been rolled out yet"], running: ["warn", "Running"], paused: ["warn", "Paused"], promoted: ["good", "Stable"], undone: ["bad", "Undone"] };

let refused = null;
let isBusy = false;

export const rollouts = {
  title: "Roll-outs",
  needs: (view) => ({
    rollout: { id: "", path: () => "/v1/rollouts/current", every: 1000 },
    versions: { id: "", path: () => "/v1/configurations", every: 3000 },
    ...(view.to ? {
      diff: { id: `${view.base} ${view.to}`, path: () => path("/v1/diff", { from: view.base, to: view.to }), every: null },
      newer: { id: view.to, path: () => `/v1/configurations/${view.to}`, every: null },
      ...(view.base ? { older: { id: view.base, path: () => `/v1/configurations/${view.base}`, every: null } } : {}),
    } : {}),
  }),
  draw: ({ view, me, data }) => [current(me, data), versions(view, me, data), compared(view, data)],
};

// --- The one under way, or the last one ---

async function act(done, path, body = {}) {
  isBusy = true;
  refused = null;
  redraw();
  try {
    await ask(path, { body });
    say(done);
    dispatchEvent(new Event("perigee-changed"));
  } catch (error) {
    refused = error;
  } finally {
    isBusy = false;
    redraw();
  }
}

function current(me, { rollout }) {
  const found = rollout?.value;
  if (!found) return pending(rollout);
  const [state, word] = STATES[found.state];
  if (found.state === "none") return panel("Roll-out", { id: "rollout" }, empty(word, "Write a configuration and apply it, ", h("a", { href: link("configuration") }, "here"), " or by ", h("code", {}, "perigee apply sites.toml"), "."));
  const isOver = found.state === "promoted" || found.state === "undone";
  const can = may(me, "editor") && !isBusy;
  return panel(`Configuration ${found.version}`, { id: "rollout", key: "rollout" },
    h("p", { class: "verdict", id: "rollout-state", "data-state": found.state }, tag(state, word), found.reason ? `“${found.reason}”` : "", h("span", { class: "note" }, ` by ${found.by}`)),
    stages(found),
    found.harm ? h("div", { class: "problem" }, h("p", { class: "problem-title" }, `Undone by itself: ${found.harm.measure} on ${found.harm.node}`), h("p", {}, found.harm.told)) : null,
    found.state === "undone" && !found.harm ? h("p", { class: "note" }, "Somebody took it back.") : null,
    found.judged_on_few ? h("p", { class: "note" }, "A stage went by with too few requests to judge.") : null,
    isOver ? null : h("p", {}, h("strong", {}, `${found.running} of ${found.nodes}`), " nodes run it. ", found.waiting_for ? ["Waits for ", found.waiting_for, "."] : null),
    refused ? problem(refused) : null,
    needsRole(me, "editor"),
    h("div", { class: "row no-print" },
      isOver ? null : found.state === "paused" ? button("Resume", () => act("It goes on.", "/v1/rollouts/current/resume"), { kind: "primary", disabled: !can }) : button("Pause", () => act("It goes no further until it is resumed.", "/v1/rollouts/current/pause"), { disabled: !can }),
      isOver ? null : button("Go on with few requests", () => act("Stages take their least time from now on.", "/v1/rollouts/current/resume", { without_traffic: true }), { disabled: !can }),
      isOver ? null : button("Take back…", () => confirm({ title: `Take configuration ${found.version} back?`, text: found.stable === null ? "There is none to go back to: nodes keep what they run." : `All nodes go back to ${found.stable}.`, yes: "Take it back", then: () => act("It is being taken back.", "/v1/rollouts/current/undo") }), { kind: "danger", disabled: !can }),
      isOver ? button("Roll back…", () => confirm({ title: "Roll back to what was stable before?", text: "It comes into force at all edges at once, and then at nameservers, one at a time.", yes: "Roll back", then: () => act("It is being rolled back.", "/v1/rollback") }), { disabled: !can }) : null),
    gates(found));
}

function stages(found) {
  const began = new Map(found.began.map(({ stage, at_ms: at }) => [stage, at]));
  const undone = found.state === "undone";
  return h("ol", { class: "stages" }, STAGES.map(([stage, name, note]) => {
    const at = began.get(stage);
    const isNow = found.stage === stage;
    const who = stage === "edge" && found.audience.nodes.length > 0 ? found.audience.nodes.join(", ") : stage === "pop" && found.audience.pops.length > 0 ? found.audience.pops.join(", ") : stage === "all" && found.waiting.length > 0 ? `nameservers one at a time; still to come: ${found.waiting.join(", ")}` : note;
    const isPassed = at === undefined && STAGES.slice(STAGES.findIndex(([name]) => name === stage) + 1).some(([name]) => began.has(name));
    const state = isNow ? "now" : at !== undefined ? "done" : "ahead";
    return h("li", { key: stage, class: `${state}${undone && state === "ahead" ? " never" : ""}`, "aria-current": isNow ? "step" : null },
      h("span", { class: "stage-name" }, name), h("span", { class: "note" }, at !== undefined ? format.time(at) : isPassed ? "left out" : undone ? "not reached" : "to come"), h("span", { class: "note" }, who));
  }), undone ? h("li", { key: "undone", class: "now undone" }, h("span", { class: "stage-name" }, "Undone"), h("span", { class: "note" }, format.time(began.get("undone")))) : null);
}

// What it is judged by, node by node.
function gates(found) {
  if (found.measures.length === 0) return null;
  const share = (row, name) => format.percent(ratio(row[name], row.requests));
  const rows = [...found.measures].sort((a, b) => Number(b.is_candidate) - Number(a.is_candidate));
  return [
    h("h3", {}, "What it is judged by"),
    table({
      label: "What it is judged by", rows, key: (row) => row.node,
      columns: [
        { name: "Node", cell: (row) => h("strong", {}, row.node) },
        { name: "Runs", wide: true, cell: (row) => (row.is_candidate ? tag("warn", "the new one") : tag("quiet", "the stable one")) },
        { name: "Requests", number: true, cell: (row) => format.count(row.requests) },
        { name: "Errors", number: true, cell: (row) => share(row, "errors") },
        { name: "Misses", number: true, cell: (row) => share(row, "misses") },
        { name: "Starts", number: true, cell: (row) => format.whole(row.starts) },
        { name: "Memory", number: true, cell: (row) => format.bytes(row.memory_bytes) },
      ],
    }),
    found.gates ? h("details", {}, h("summary", {}, "What it may be worse by"), h("dl", { class: "facts" }, Object.entries(found.gates).map(([name, value]) => h("div", { key: name }, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, value))))) : null,
  ];
}

// --- All of them ---

function versions(view, me, { versions: found, rollout }) {
  if (!found?.value) return pending(found);
  const { stable, candidate, versions: list } = found.value;
  const isFree = !["running", "paused"].includes(rollout?.value?.state);
  const can = may(me, "editor") && !isBusy && isFree;
  return panel("Configurations", { id: "versions", tools: h("a", { href: link("configuration") }, "Write one") }, table({
    label: "Configurations", rows: list.slice(0, 200), key: (row) => row.number,
    none: empty("No configuration yet", "Write the first one ", h("a", { href: link("configuration") }, "here"), " or apply a file: ", h("code", {}, "perigee apply sites.toml --stage all --reason \"begin\""), "."),
    onRow: (row) => (String(row.number) === view.to ? "is-chosen" : null),
    columns: [
      { name: "Number", number: true, cell: (row) => h("a", { href: link("configuration", { version: row.number }) }, row.number) },
      { name: "State", cell: (row) => (row.number === stable ? tag("good", "stable") : row.number === candidate ? tag("warn", "candidate") : null) },
      { name: "Reason", wide: true, cell: (row) => row.reason },
      { name: "By", cell: (row) => row.author },
      { name: "Time", cell: (row) => format.moment(row.at_ms) },
      { name: "Size", number: true, cell: (row) => format.bytes(row.bytes) },
      { name: "", cell: (row) => h("div", { class: "row tight no-print" },
        button("Compare", () => change({ to: row.number, base: before(list, row.number, stable) }), { kind: "quiet small", label: `Compare configuration ${row.number}` }),
        row.number === stable ? null : button("Put in force…", () => confirm({ title: `Put configuration ${row.number} in force everywhere?`, text: `“${row.reason}” by ${row.author}. It comes into force on all nodes at once, watched, and is undone by itself when it does harm.`, yes: "Put in force", then: () => act(`Configuration ${row.number} is being rolled out.`, "/v1/rollback", { version: row.number }) }), { kind: "quiet small", disabled: !can, label: `Put in force… configuration ${row.number}` })) },
    ],
  }));
}

// What one compares with: what is stable, or for that one, the one before.
function before(list, number, stable) {
  if (stable !== null && number !== stable) return stable;
  return list.find((version) => version.number < number)?.number ?? null;
}

function compared(view, { diff, older, newer }) {
  if (!view.to) return null;
  const title = view.base ? `From ${view.base} to ${view.to}` : `Configuration ${view.to}`;
  const found = diff?.value;
  return panel(title, { id: "compared", key: "compared", tools: button("Close", () => change({ to: null, base: null }), { kind: "quiet small" }) },
    diff?.problem ? problem(diff.problem) : null,
    found ? [
      found.is_cold ? h("p", { class: "hint" }, "Sites, or parts of them, begin with an empty cache.") : null,
      found.warnings.map((warning) => h("p", { class: "hint" }, warning.site ? `${warning.site}: ` : "", warning.message)),
      found.changes.length === 0 ? (found.from === null ? null : empty("They mean the same")) : h("ul", { class: "plain changes" }, found.changes.map((item) => h("li", {}, h("code", {}, item.line)))),
    ] : null,
    newer?.value && (older?.value || !view.base) ? difference(older?.value.text ?? "", newer.value.text, title) : pending(newer?.problem ? newer : older));
}
