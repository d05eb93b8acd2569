// What the configuration decides about one request: which rule, which key, how long.

import { path } from "../api.js";
import { h } from "../dom.js";
import { code, empty, field, panel, problem } from "../parts.js";
import { change, link, redraw } from "../view.js";

const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];
const COURSES = { cache: ["good", "Cache"], pass: ["warn", "Pass"], redirect: ["quiet", "Redirect"], preflight: ["quiet", "Preflight"] };

// What is typed and not asked yet; null as long as it is what the address says.
let draft = null;

export const explain = {
  title: "Explain",
  about: "What the stable configuration decides about a request, in the order in which an edge decides it.",
  needs: (view) => (view.url ? {
    explained: {
      id: JSON.stringify([view.url, view.method, view.headers]), every: null,
      path: () => path("/v1/explain", { url: view.url, method: view.method ?? "GET", header: lines(view.headers) }),
    },
  } : {}),
  draw: ({ view, data }) => [form(view), answer(view, data)],
};

const lines = (text) => (text ?? "").split("\n").map((line) => line.trim()).filter(Boolean);

function form(view) {
  const now = draft?.of === view.url ? draft : { of: view.url, url: view.url ?? "", method: view.method ?? "GET", headers: view.headers ?? "" };
  const type = (name) => (event) => { draft = { ...now, [name]: event.target.value }; redraw(); };
  const submit = (event) => {
    event.preventDefault();
    draft = null;
    change({ url: now.url.trim(), method: now.method === "GET" ? null : now.method, headers: now.headers.trim() || null });
  };
  return h("form", { class: "panel form", key: "form", onsubmit: submit },
    h("div", { class: "row stretch" },
      field("explain-method", "Method", h("select", { id: "explain-method", value: now.method, onchange: type("method") }, METHODS.map((name) => h("option", { value: name }, name)))),
      h("div", { class: "grow" }, field("explain-url", "URL", h("input", { id: "explain-url", type: "url", required: true, placeholder: "https://www.shop.example/static/a.css?v=2", value: now.url, oninput: type("url") }))),
      h("button", { class: "primary", type: "submit" }, "Explain")),
    h("details", { open: now.headers !== "" || null }, h("summary", {}, "Request headers"),
      field("explain-headers", "Headers", h("textarea", { id: "explain-headers", rows: 3, spellcheck: "false", placeholder: "Accept-Encoding: br\nCookie: session=1", value: now.headers, oninput: type("headers") }), "One line each, as Name: value.")));
}

function answer(view, { explained }) {
  if (!view.url) return empty("Paste a URL", "What you get: its site, the rule that decides with its line in the configuration, the key it is stored under, how long it is kept, and what only an edge knows.");
  if (explained?.problem) return problem(explained.problem);
  if (!explained?.value) return h("p", { class: "loading", role: "status" }, "Loading…");
  const found = explained.value;
  const [state, word] = COURSES[found.course];
  const at = (place) => [h("strong", {}, place.name), place.line > 0 ? h("a", { class: "note", href: link("configuration", { version: found.configuration, line: place.line }) }, ` line ${place.line}`) : null];
  return panel("Answer", { id: "explained" },
    h("p", { class: "verdict" }, h("span", { class: `tag ${state}` }, h("span", { class: "dot", "aria-hidden": "true" }), word), found.sentence),
    h("ol", { class: "steps" },
      step("Request", code(`${found.method} ${found.url}`)),
      step("Configuration", h("a", { href: link("configuration", { version: found.configuration }) }, `${found.configuration}, in force`)),
      step("Site", at(found.site)),
      step("Rule", at(found.rule), h("span", { class: "note" }, found.rule_number === 0 ? ` none of its ${found.rules} rules matches: the site's own keys decide` : ` rule ${found.rule_number} of ${found.rules}, the first that matches`)),
      found.redirect ? step("Redirect", `${found.redirect.status} to `, code(found.redirect.location)) : null,
      found.key ? step("Key", h("pre", { class: "key", tabindex: 0, "aria-label": "Key text" }, found.key.join("\n"))) : null,
      found.lifetime ? step("Lifetime", lifetime(found.lifetime)) : null,
      found.surrogate_keys.length > 0 ? step("Surrogate keys", found.surrogate_keys.map((key) => [code(key), " "])) : null,
      ["redirect", "preflight"].includes(found.course) ? null : step("Origin", found.origins.map((origin, index) => [index > 0 ? ", then " : "", code(origin)])),
      found.pops.length > 0 ? step("Served from", found.pops.join(", ")) : null),
    found.not_known.length > 0 ? h("div", { class: "unknown" }, h("h3", {}, "Not known here"), h("ul", {}, found.not_known.map((line) => h("li", {}, line)))) : null,
    h("p", { class: "note" }, "An edge says the rest: ", code(`perigee explain '${found.url}' --admin ADDRESS`)),
    h("div", { class: "row no-print" }, h("a", { class: "button", href: link("purges", { url: found.url }) }, "Purge this URL…")));
}

const step = (name, ...content) => h("li", { key: name }, h("span", { class: "step-name" }, name), h("div", {}, content));

function lifetime(found) {
  const origin = "what the origin's headers say";
  return h("dl", { class: "facts" },
    h("div", {}, h("dt", {}, "fresh for"), h("dd", {}, found.ttl ?? origin)),
    found.ttl_by_status.map((line) => h("div", {}, h("dt", {}, `status ${line.split(": ")[0]}`), h("dd", {}, line.split(": ")[1]))),
    h("div", {}, h("dt", {}, "browsers keep it"), h("dd", {}, found.browser_ttl ?? origin)),
    h("div", {}, h("dt", {}, "stale while revalidated"), h("dd", {}, found.stale_while_revalidate ?? origin)),
    h("div", {}, h("dt", {}, "stale if the origin fails"), h("dd", {}, found.stale_if_error ?? origin)));
}
