// What tells two texts apart, line by line: the longest common lines (Myers 1986), with a little around each change.

import { h } from "./dom.js";
import { empty } from "./parts.js";

const AROUND = 3;
// Beyond, everything between the first and the last difference is shown as replaced.
const EDITS_MAX = 500;

// [{ kind: "same" | "old" | "new", text, from, to }], line numbers from 1.
export function compare(before, after) {
  const [a, b] = [before.split("\n"), after.split("\n")];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const middle = script(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const kinds = [...Array(head).fill("same"), ...middle, ...Array(tail).fill("same")];
  let [from, to] = [0, 0];
  return kinds.map((kind) => {
    if (kind !== "new") from += 1;
    if (kind !== "old") to += 1;
    return { kind, text: kind === "new" ? b[to - 1] : a[from - 1], from, to };
  });
}

function script(a, b) {
  const most = Math.min(a.length + b.length, EDITS_MAX);
  const reach = new Map([[1, 0]]);
  const trace = [];
  for (let edits = 0; edits <= most; edits += 1) {
    trace.push(new Map(reach));
    for (let k = -edits; k <= edits; k += 2) {
      const isDown = k === -edits || (k !== edits && reach.get(k - 1) < reach.get(k + 1));
      let x = isDown ? reach.get(k + 1) : reach.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      reach.set(k, x);
      if (x >= a.length && x - k >= b.length) return back(trace, a.length, b.length);
    }
  }
  return [...a.map(() => "old"), ...b.map(() => "new")];
}

function back(trace, x, y) {
  const kinds = [];
  for (let edits = trace.length - 1; edits >= 0; edits -= 1) {
    const reach = trace[edits];
    const k = x - y;
    const isDown = k === -edits || (k !== edits && reach.get(k - 1) < reach.get(k + 1));
    const previous = isDown ? k + 1 : k - 1;
    const [fromX, fromY] = [reach.get(previous), reach.get(previous) - previous];
    while (x > fromX && y > fromY && x > 0 && y > 0) {
      kinds.push("same");
      x -= 1;
      y -= 1;
    }
    if (edits > 0) kinds.push(isDown ? "new" : "old");
    [x, y] = [Math.max(fromX, 0), Math.max(fromY, 0)];
  }
  return kinds.reverse();
}

// What was compared last: pages are drawn again each second, and what they compare seldom changes.
let last = { before: null, after: null, lines: [] };

// Shows them, with `label` for screen readers.
export function difference(before, after, label) {
  if (last.before !== before || last.after !== after) last = { before, after, lines: compare(before, after) };
  const { lines } = last;
  const shown = new Set();
  lines.forEach(({ kind }, index) => {
    if (kind !== "same") for (let near = index - AROUND; near <= index + AROUND; near += 1) shown.add(near);
  });
  if (shown.size === 0) return empty("The texts are the same");
  const rows = [];
  lines.forEach((line, index) => {
    if (!shown.has(index)) {
      if (shown.has(index - 1) || index === 0) rows.push(h("tr", { class: "gap" }, h("td", { colspan: 4 }, "⋯")));
      return;
    }
    rows.push(h("tr", { class: line.kind },
      h("td", { class: "line-number" }, line.kind === "new" ? "" : line.from), h("td", { class: "line-number" }, line.kind === "old" ? "" : line.to),
      h("td", { class: "sign" }, line.kind === "old" ? "−" : line.kind === "new" ? "+" : " "), h("td", { class: "text" }, line.text || " ")));
  });
  return h("div", { class: "scroll diff", tabindex: 0, role: "region", "aria-label": label }, h("table", {}, h("tbody", {}, rows)));
}
