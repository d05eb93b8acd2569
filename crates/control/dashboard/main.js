// Begins: whose token, which page; asks the API for what the page needs, again and again, and has it drawn.

import { Problem, ask, now, token } from "./api.js";
import { show } from "./dom.js";
import { PAGES, always, shell, signIn } from "./shell.js";
import { onChange, read } from "./view.js";

// What has been asked for, by name: { id, value, problem, at, isOld }.
const data = {};
const followed = new Map();
let me = null;
let refused = null;
let isDue = false;

// --- What pages need ---

// Follows what is wanted and nothing else. `wanted`: by name { id, path(), every }; another id is another question.
function follow(wanted) {
  for (const [name, one] of followed) {
    if (wanted[name]?.id === one.id) continue;
    clearTimeout(one.timer);
    one.stop.abort();
    followed.delete(name);
    if (!(name in wanted)) delete data[name];
    // What was shown stays until the answer is there.
    else if (data[name]) data[name].isOld = true;
  }
  for (const [name, { id, path, every }] of Object.entries(wanted)) {
    if (followed.has(name)) continue;
    const one = { id, path, every, stop: new AbortController(), timer: 0 };
    followed.set(name, one);
    fetchOne(name, one);
  }
}

async function fetchOne(name, one) {
  clearTimeout(one.timer);
  if (one.isAsking) return;
  one.isAsking = true;
  let found;
  try {
    found = { value: await ask(one.path(), { signal: one.stop.signal }) };
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error instanceof Problem && error.status === 401) return leave(error);
    // What was known stays, and that it is old is said.
    found = { value: data[name]?.id === one.id ? data[name].value : undefined, problem: error };
    if (!(error instanceof Problem)) throw error;
  } finally {
    one.isAsking = false;
  }
  if (followed.get(name) !== one) return;
  data[name] = { ...found, id: one.id, at: now(), isOld: false };
  redraw();
  if (one.every && !document.hidden) one.timer = setTimeout(() => fetchOne(name, one), one.every);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const [name, one] of followed) if (one.every) fetchOne(name, one);
});

// Asks at once: something has been changed.
addEventListener("perigee-changed", () => {
  for (const [name, one] of followed) fetchOne(name, one);
});

// --- Who looks ---

function leave(problem = null) {
  me = null;
  refused = problem;
  token.forget();
  follow({});
  redraw();
}

async function enter(secret) {
  try {
    me = await ask("/v1/whoami", { as: secret });
    token.set(secret);
    refused = null;
  } catch (error) {
    me = null;
    refused = error;
    if (error.status === 401) token.forget();
  }
  turn({ isOther: false });
}

// A link may bring a token: behind the #, which browsers send to nobody.
function tokenOfLink() {
  const found = location.hash.match(/^#token=(.+)$/);
  if (found) history.replaceState(null, "", location.pathname + location.search);
  return found ? decodeURIComponent(found[1]) : null;
}

// --- Drawing ---

function turn({ isOther }) {
  const view = read();
  const page = PAGES[view.page];
  if (me) follow({ ...always(), ...page?.needs?.(view, me) });
  document.title = `${page?.title ?? "Not found"} · Perigee`;
  draw();
  if (isOther) {
    scrollTo(0, 0);
    document.querySelector("h1")?.focus();
  }
}

function draw() {
  isDue = false;
  const app = document.getElementById("app");
  show(app, me ? shell({ view: read(), me, data, leave: () => leave() }) : signIn({ refused, enter, isTried: token.get() !== null && refused === null }));
}

function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(draw);
}

addEventListener("perigee-redraw", redraw);
onChange(turn);
// A drawing says "4 s ago" of things that do not change.
setInterval(() => { if (me && !document.hidden) redraw(); }, 1000);

// A link to the page that is shown already loads nothing.
addEventListener("hashchange", () => {
  const given = tokenOfLink();
  if (given) enter(given);
});

const given = tokenOfLink() ?? token.get();
if (given) enter(given);
turn({ isOther: false });
