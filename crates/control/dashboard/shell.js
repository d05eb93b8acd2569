// What stands around every page: navigation, the choice of time, site and PoP, sharing, the theme; and the way in.

import { download, now } from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { audit } from "./pages/audit.js";
import { configuration } from "./pages/configuration.js";
import { explain } from "./pages/explain.js";
import { nodes } from "./pages/nodes.js";
import { overview } from "./pages/overview.js";
import { places } from "./pages/places.js";
import { purges } from "./pages/purges.js";
import { rollouts } from "./pages/rollouts.js";
import { speed } from "./pages/speed.js";
import { why } from "./pages/why.js";
import { button, code, dialog, empty, field, health, problem, say, toast, worst } from "./parts.js";
import { RANGE, RANGES, change, frozen, link, period, redraw } from "./view.js";

// By their place in the address. `isOver`: what it shows is over a time, and of sites and PoPs; `exports`: the path of its numbers as CSV.
export const PAGES = { overview, places, speed, why, explain, purges, rollouts, configuration, nodes, audit };

const GROUPS = [
  ["See", ["overview", "places", "speed", "why", "explain"]],
  ["Change", ["purges", "rollouts", "configuration"]],
  ["Keep", ["nodes", "audit"]],
];

// What every page needs.
export const always = () => ({
  nodes: { id: "", path: () => "/v1/nodes", every: 500 },
  sites: { id: "", path: () => "/v1/sites", every: 15_000 },
  status: { id: "", path: () => "/v1/status", every: 5000 },
});

let isMenuOpen = false;

export function shell({ view, me, data, leave }) {
  const page = PAGES[view.page];
  return [
    h("a", { class: "skip", href: "#main", key: "skip", onclick: (event) => { event.preventDefault(); document.getElementById("main").focus(); } }, "Skip to the page"),
    side(view, me, data, leave),
    h("main", { id: "main", key: "main", tabindex: -1 },
      h("header", { class: "top" },
        h("div", { class: "top-title" }, h("h1", { tabindex: -1 }, page?.title ?? "Not found"), page?.about ? h("p", { class: "note" }, page.about) : null),
        page ? tools(view, page, data) : null),
      lost(data),
      page ? h("div", { class: "page", key: view.page }, page.draw({ view, me, data })) : empty("There is no such page", h("a", { href: link("overview") }, "Go to the overview"))),
    toast(),
    dialog(),
  ];
}

function side(view, me, data, leave) {
  const states = (data.nodes?.value?.nodes ?? []).map((node) => health(node, data.nodes.value.at_ms).state);
  const wrong = states.filter((state) => state !== "good").length;
  const badge = { nodes: wrong > 0 ? h("span", { class: `badge ${worst(states)}` }, wrong, h("span", { class: "sr" }, " not well")) : null };
  return h("div", { class: `side no-print${isMenuOpen ? " is-open" : ""}`, key: "side" },
    h("div", { class: "brand" },
      h("a", { href: link("overview"), class: "brand-name" }, mark(), "Perigee"),
      h("button", { class: "menu quiet", type: "button", "aria-expanded": String(isMenuOpen), "aria-controls": "nav", onclick: () => { isMenuOpen = !isMenuOpen; redraw(); } }, isMenuOpen ? "Close" : "Menu")),
    h("nav", { id: "nav", "aria-label": "Pages" }, GROUPS.map(([name, pages]) => [
      h("p", { class: "nav-group", id: `nav-${name}` }, name),
      h("ul", { "aria-labelledby": `nav-${name}` }, pages.map((place) =>
        h("li", { key: place }, h("a", { href: link(place), "aria-current": place === view.page ? "page" : null, onclick: () => { isMenuOpen = false; } }, PAGES[place].title, badge[place])))),
    ])),
    h("div", { class: "side-foot" },
      h("div", { class: "field" }, h("label", { for: "theme" }, "Theme"),
        h("select", { id: "theme", value: theme(), onchange: (event) => setTheme(event.target.value) },
          [["auto", "As the system"], ["light", "Light"], ["dark", "Dark"]].map(([value, text]) => h("option", { value }, text)))),
      h("p", { class: "note" }, h("strong", {}, me.name), `, ${me.role}${me.sites ? ` of ${me.sites.join(", ")}` : ""}`),
      data.status?.value ? h("p", { class: "note" }, `${data.status.value.control}, ${data.status.value.version}`) : null,
      button("Sign out", leave, { kind: "quiet small" })));
}

const mark = () =>
  h("svg", { class: "mark", viewBox: "0 0 32 32", width: 22, height: 22, "aria-hidden": "true" },
    h("ellipse", { cx: 16, cy: 16, rx: 13, ry: 8, transform: "rotate(-28 16 16)" }), h("circle", { cx: 13, cy: 17.5, r: 4.4 }), h("circle", { cx: 5.2, cy: 22.6, r: 2.4 }));

function tools(view, page, data) {
  return h("div", { class: "tools" },
    page.isOver ? [filters(view, data), h("p", { class: "print-only" }, onPaper(view))] : null,
    h("div", { class: "row no-print" },
      page.exports ? button("CSV", () => exported(page.exports(view)), { kind: "quiet", label: "CSV of what is shown" }) : null,
      button("Copy link", () => share(), { kind: "quiet", label: "Copy link to what is shown" }),
      button("Print", () => print(), { kind: "quiet", label: "Print, or save as PDF" })));
}

function onPaper(view) {
  const { from, to } = period(view, now());
  return [`${format.moment(from)} to ${format.moment(to)}`, view.site, view.pop].filter(Boolean).join(", ");
}

async function exported(path) {
  try {
    await download(path, "perigee.csv");
  } catch (error) {
    say(error.message, "bad");
  }
}

async function share() {
  const address = frozen(now());
  try {
    await navigator.clipboard.writeText(address);
    say("The link is copied. It shows this time to whoever has a token; yours is not in it.");
  } catch {
    say(address);
  }
}

function filters(view, data) {
  const { from, to, isLive } = period(view, now());
  const sites = (data.sites?.value?.sites ?? []).map((site) => site.name);
  const pops = [...new Set((data.nodes?.value?.nodes ?? []).filter((node) => node.role === "edge" && node.pop).map((node) => node.pop))].sort();
  const choice = (id, label, value, options, set) =>
    h("div", { class: "pick" }, h("label", { for: id, class: "sr" }, label), h("select", { id, value, onchange: (event) => set(event.target.value) }, options.map(([value, text]) => h("option", { value, key: value }, text))));
  const all = (names, value) => (value && !names.includes(value) ? [...names, value] : names);
  return h("div", { class: "row filters" },
    h("div", { class: "ranges", role: "group", "aria-label": "Time" }, Object.keys(RANGES).map((range) =>
      h("button", { type: "button", key: range, "aria-pressed": String(isLive && (view.range ?? RANGE) === range), onclick: () => change({ range: range === RANGE ? null : range, from: null, to: null }) }, range))),
    isLive
      ? h("span", { class: "live", title: "Goes on by itself" }, tag(data), button("Hold", () => change({ range: null, from: Math.round(from), to: Math.round(to) }), { kind: "quiet small", label: "Hold this time" }))
      : h("span", { class: "live" }, h("span", { class: "note" }, `${format.moment(from)} to ${format.moment(to)}`), button("Live", () => change({ from: null, to: null }), { kind: "quiet small" })),
    sites.length > 0 ? choice("pick-site", "Site", view.site ?? "", [["", "All sites"], ...all(sites, view.site).map((name) => [name, name])], (site) => change({ site: site || null })) : null,
    pops.length > 0 ? choice("pick-pop", "PoP", view.pop ?? "", [["", "All PoPs"], ...all(pops, view.pop).map((name) => [name, name])], (pop) => change({ pop: pop || null })) : null);
}

const tag = (data) => h("span", { class: `tag ${data.nodes?.problem ? "bad" : "good"}` }, h("span", { class: "dot", "aria-hidden": "true" }), data.nodes?.problem ? "Not connected" : "Live");

// Control is gone: visitors notice nothing, and what is shown is old.
function lost(data) {
  const found = data.nodes?.problem;
  return found ? h("div", { class: "lost", role: "alert", key: "lost" }, h("strong", {}, `${found.message}. `), found.next ?? "", data.nodes.value ? " What is shown is what was known before." : "") : null;
}

// --- Theme ---

const THEME = "perigee-theme";
const theme = () => localStorage.getItem(THEME) ?? "auto";

function setTheme(name) {
  if (name === "auto") localStorage.removeItem(THEME);
  else localStorage.setItem(THEME, name);
  applyTheme();
  redraw();
}

function applyTheme() {
  if (theme() === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = theme();
}

applyTheme();

// --- The way in ---

let typed = "";

export function signIn({ refused, enter, isTried }) {
  if (isTried) return h("p", { class: "loading signing", role: "status", key: "signing" }, "Signing in…");
  return h("main", { class: "sign-in", key: "sign-in" },
    h("form", { class: "panel", onsubmit: (event) => { event.preventDefault(); const secret = typed.trim(); typed = ""; enter(secret); } },
      h("h1", {}, mark(), "Perigee"),
      h("p", {}, "Sign in to this cluster with a token."),
      field("token", "Token", h("input", { id: "token", type: "password", required: true, autocomplete: "current-password", spellcheck: "false", placeholder: "pgt_…", "aria-describedby": "token-help", value: typed, oninput: (event) => { typed = event.target.value; } }),
        ["It stays in this tab and goes to nobody but this control. The first one is in the file ", code("admin-token"), " of control's state directory; others: ", code("perigee token add NAME --role viewer"), "."]),
      // What the API says beside it is for programs.
      refused ? problem({ message: refused.message, next: refused.status === 401 ? null : refused.next }) : null,
      h("button", { class: "primary", type: "submit" }, "Sign in")));
}
