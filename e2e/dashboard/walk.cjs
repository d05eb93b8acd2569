// Walks the dashboard of a running cluster in headless Chromium, page by page, while visitors come and an edge dies.
//
// Environment: CONTROL (its URL), TOKEN (of an administrator), EDGES (ports of the edges), EDGE_PIDS (of the same; the last is killed), CHROMIUM
// (its path), PICTURES (folder for what was seen). A page test `products` has been kept. Prints `ok NAME` or `not ok NAME` for each check; exits with 1 when one is not.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");

const { CONTROL, TOKEN, EDGES, EDGE_PIDS, CHROMIUM, PICTURES } = process.env;
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
// Longest wait for anything that must come; the machine may be busy.
const PATIENCE = 30_000;

const PAGES = {
  overview: "#chart-requests .line",
  places: "#pops tbody tr",
  speed: "#chart-test-lcp .line",
  why: ".cause",
  explain: "form",
  purges: "#purge",
  rollouts: "#rollout-state",
  configuration: "#config-state[data-good=true]",
  nodes: ".node-state",
  audit: "#entries tbody tr",
};
const QUERIES = { explain: "?url=https%3A%2F%2Fwww.shop.example%2Fstatic%2Fphoto-1.png%3Fw%3D1", speed: "?test=products" };
const address = (page, query = "") => `${CONTROL}/dashboard/${page === "overview" ? "" : page}${query}`;

let failures = 0;

function check(name, holds, details) {
  if (!holds) failures += 1;
  console.log(`${holds ? "ok" : "not ok"} dashboard: ${name}`);
  if (!holds && details !== undefined) console.log(JSON.stringify(details, null, 1));
}

async function api(where, body) {
  const response = await fetch(CONTROL + where, {
    method: body === undefined ? "GET" : "POST",
    headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return response.json();
}

// Asks until it is so, for 30 s at most; how long it took in ms, or nothing.
async function until(isSo) {
  const begun = Date.now();
  while (Date.now() - begun < PATIENCE) {
    if (await isSo()) return Date.now() - begun;
    await new Promise((done) => setTimeout(done, 100));
  }
  return undefined;
}

// Checks what must come to be so within PATIENCE: a page shows an answer when it has it, not when it was asked for.
async function comes(name, look, isSo) {
  let seen;
  const took = await until(async () => isSo((seen = await look())));
  check(name, took !== undefined, seen);
}

// --- Browsers ---

// A browser that nobody used before. What it complains about is kept.
async function visitor(browser, { scheme = "light", width = 1440, permissions = [] } = {}) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, viewport: { width, height: 900 }, colorScheme: scheme, reducedMotion: "reduce", permissions,
  });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()} ${message.location().url}`);
  });
  page.on("pageerror", (error) => complaints.push(`error: ${error.stack}`));
  return { context, page, complaints };
}

async function enter(page) {
  await page.goto(address("overview", `#token=${TOKEN}`));
  await page.waitForSelector("main h1");
}

const value = async (page, selector) => Number(await page.getAttribute(selector, "value"));

const picture = (page, name) => page.screenshot({ path: path.join(PICTURES, `${name}.png`), fullPage: true, animations: "disabled" });

// --- Who looks ---

async function signsIn(browser) {
  const { context, page } = await visitor(browser);
  await page.goto(address("nodes"));
  await page.fill("#token", "pgt_0000");
  await page.click("button[type=submit]");
  await comes("a wrong token is refused, with the reason", () => page.textContent(".problem"), (said) => said.includes("no token of this cluster has this secret"));
  await picture(page, "sign-in");
  await page.fill("#token", TOKEN);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".node-state");
  await comes("the right one leads to the page that was asked for", () => page.url(), (url) => url === address("nodes"));
  await page.click("text=Sign out");
  await page.waitForSelector("#token");
  await comes("who signs out leaves no token behind", () => page.evaluate(() => JSON.stringify([sessionStorage, localStorage])), (kept) => !kept.includes("pgt_"));
  await page.goto(address("nodes", `#token=${TOKEN}`));
  await page.waitForSelector(".node-state");
  await comes("a link with a token signs in, and the address forgets it", () => page.url(), (url) => !url.includes("token"));
  await context.close();
}

// --- Each page ---

async function everyPage(browser) {
  for (const [scheme, width] of [["light", 1440], ["dark", 1440], ["light", 390]]) {
    const { context, page, complaints } = await visitor(browser, { scheme, width });
    await enter(page);
    for (const [name, sign] of Object.entries(PAGES)) {
      await page.goto(address(name, QUERIES[name]));
      await page.waitForSelector(sign, { state: "attached" });
      await page.waitForFunction(() => !document.querySelector(".loading"));
      const where = `${name}, ${scheme}, ${width} px`;
      const look = async () => ({
        problems: await page.locator(".problem").allTextContents(),
        isWide: await page.evaluate(() => document.documentElement.scrollWidth > innerWidth),
      });
      await comes(`${where}: shows what it is for, and fits`, look, ({ problems, isWide }) => problems.length === 0 && !isWide);
      await comes(`${where}: axe finds nothing serious`, () => violations(page), (found) => found.length === 0);
      await picture(page, `${name}-${scheme}-${width}`);
    }
    check(`${scheme}, ${width} px: nothing on the console`, complaints.length === 0, complaints);
    await context.close();
  }
}

// What axe-core calls serious or worse. It is run beside the page, whose policy lets nobody else's script in.
async function violations(page) {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId: contextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
  await session.send("Runtime.evaluate", { expression: axe, contextId });
  const { result, exceptionDetails } = await session.send("Runtime.evaluate", {
    expression: "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => JSON.stringify(violations))", contextId, awaitPromise: true, returnByValue: true,
  });
  await session.detach();
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return JSON.parse(result.value).filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, help, nodes }) => ({ id, help, nodes: nodes.slice(0, 3).map(({ html, failureSummary }) => [html.slice(0, 200), failureSummary]) }));
}

// --- Numbers ---

// Over a time that is past: reports that come late are in by then, and both say the same.
async function numbers(browser) {
  const to = Date.now() - 20_000;
  const from = to - 40_000;
  const { context, page } = await visitor(browser);
  await enter(page);
  const overview = async () => {
    const { totals: [total] } = await api(`/v1/stats?from=${from}&to=${to}`);
    await page.goto(address("overview", `?from=${from}&to=${to}`));
    await page.waitForSelector("#requests");
    const shown = {};
    for (const id of ["requests", "hit-ratio", "byte-hit-ratio", "offload", "ttfb-p95", "errors", "saved"]) shown[id] = await value(page, `data#${id}`);
    const wanted = {
      requests: total.requests, "hit-ratio": total.hits / total.requests, "byte-hit-ratio": total.hit_bytes / total.bytes,
      offload: Math.max(0, 1 - total.origin_bytes / total.bytes), "ttfb-p95": total.ttfb_us.p95, errors: total.errors, saved: Math.max(0, total.bytes - total.origin_bytes),
    };
    return { total, shown, wanted };
  };
  let total, wanted;
  await comes("the overview's numbers are the API's", overview, (seen) => {
    ({ total, wanted } = seen);
    return total.requests > 0 && JSON.stringify(seen.shown) === JSON.stringify(wanted);
  });
  await page.fill("#price", "0.1");
  await page.waitForFunction((worth) => Number(document.getElementById("saved").value) === worth, (wanted.saved / 1e9) * 0.1);
  check("money saved is what origins did not send, at the price that was named", true);

  await page.click("[aria-label='Table: Requests per second']");
  await comes("a chart is a table, too", () => page.locator("#chart-requests tbody tr").count(), (rows) => rows > 10);
  await page.click("[aria-label='Chart: Requests per second']");
  await page.focus("#chart-ttfb .reader");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await page.waitForSelector("#chart-ttfb .reader[aria-valuenow='1']");
  await comes("a chart is read point by point with the keyboard", () => page.getAttribute("#chart-ttfb .reader", "aria-valuetext"), (read) => /p95 /.test(read));
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("[aria-label='PNG: Requests per second']")]);
  const file = path.join(PICTURES, "chart.png");
  await download.saveAs(file);
  check("a chart is saved as a PNG", fs.readFileSync(file).subarray(1, 4).toString() === "PNG" && fs.statSync(file).size > 5000, fs.statSync(file).size);

  const [table] = await Promise.all([page.waitForEvent("download"), page.click("[aria-label='CSV of what is shown']")]);
  const lines = fs.readFileSync(await table.path(), "utf8").trim().split("\r\n");
  const summed = lines.slice(1).reduce((sum, line) => sum + Number(line.split(",")[lines[0].split(",").indexOf("requests")]), 0);
  check("the numbers are saved as CSV, and sum to the same", summed === total.requests, { summed, wanted: total.requests });

  const whys = async () => {
    const why = await api(`/v1/stats/why?from=${from}&to=${to}`);
    await page.goto(address("why", `?from=${from}&to=${to}`));
    await page.waitForSelector("data#why-all");
    const causes = Object.fromEntries(await page.locator(".why-requests").evaluateAll((nodes) => nodes.map((node) => [node.dataset.why, Number(node.value)])));
    const others = Object.fromEntries(why.items.filter((item) => !item.is_hit && item.requests > 0).map((item) => [item.why, item.requests]));
    const sum = why.items.reduce((sum, item) => sum + item.requests, 0);
    return { causes, others, sum, shownSum: await value(page, "data#why-all") };
  };
  await comes("each non-hit has its cause, as the API says", whys, ({ causes, others }) =>
    Object.keys(others).length > 1 && Object.entries(others).every(([name, requests]) => causes[name] === requests) && Object.keys(causes).length === Object.keys(others).length);
  await comes("the causes sum to all requests", whys, ({ sum, shownSum }) => shownSum === sum && sum === total.requests);

  const byPop = async () => {
    const { totals } = await api(`/v1/stats?from=${from}&to=${to}&by=pop`);
    await page.goto(address("places", `?from=${from}&to=${to}`));
    await page.waitForSelector("#pops tbody tr");
    const pops = await page.evaluate(() => Array.from(document.querySelectorAll("#pops tbody tr"), (row) => [row.querySelector("a").textContent, Number(row.querySelector("data").value)]));
    return { pops, sent: totals.map((one) => [one.key, one.requests]).sort((a, b) => b[1] - a[1]) };
  };
  await comes("requests by PoP are the API's", byPop, ({ pops, sent }) => JSON.stringify(pops) === JSON.stringify(sent));

  await page.goto(address("overview"));
  await page.waitForSelector(".land.level-6");
  const map = async () => {
    const { totals } = await api("/v1/stats?by=country&step=1m");
    const visited = totals.filter(({ key, requests }) => key !== "-" && requests > 0).map(({ key }) => key).sort();
    return { visited, coloured: await page.locator(".map .land:not(.level-0) title").allTextContents() };
  };
  await comes("the map shows where visitors come from", map, ({ visited, coloured }) =>
    visited.length > 8 && coloured.length === visited.length && coloured.some((text) => text.startsWith("Germany: ")));
  await context.close();
}

// --- How fast pages are ---

// Visits pages of the shop through an edge, in a browser of its own: what it tells of them when it leaves is what is shown.
async function views(count) {
  const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", `--host-resolver-rules=MAP www.shop.example:80 127.0.0.1:${EDGES.split(" ")[0]}`];
  const visitors = await chromium.launch({ executablePath: CHROMIUM, headless: true, args });
  const page = await visitors.newPage();
  for (let number = 0; number < count; number += 1) {
    await page.goto(`http://www.shop.example/products/${20 + number}`);
    // The edge's own script, which it has put into the page, is there before the page is left.
    await page.waitForFunction(() => performance.getEntriesByType("resource").some(({ name }) => name.endsWith("/.perigee/beacon.js")), undefined, { timeout: PATIENCE });
  }
  await page.goto("about:blank");
  return visitors;
}

async function speeds(browser) {
  const visitors = await views(5);
  const told = await until(async () => (await api("/v1/stats/rum")).total?.views >= 5);
  check("browsers tell of their page views", told !== undefined);
  await visitors.close();
  const { context, page, complaints } = await visitor(browser);
  await enter(page);
  await page.goto(address("speed"));
  await page.waitForSelector("data#speed-views");
  const both = async () => ({ shown: await value(page, "data#speed-views"), sent: (await api("/v1/stats/rum")).total.views });
  await comes("page views are as many as the API says", both, ({ shown, sent }) => shown === sent && sent >= 5);
  const first = async () => ({ shown: await value(page, "data#speed-ttfb"), sent: (await api("/v1/stats/rum")).total.metrics.ttfb.p75 });
  await comes("and as fast", first, ({ shown, sent }) => shown === sent);
  await page.selectOption("#speed-by", "group");
  await comes("they are told by group of pages", () => page.textContent("#speed-by-key"), (said) => said.includes("/products/"));
  await page.click(".test-name:has-text('products')");
  await page.waitForSelector("#chart-test-lcp .line");
  const test = async () => {
    const { items } = await api("/v1/page-tests/products");
    const series = items.at(-1).series.filter(({ view }) => view === "first view");
    return {
      count: items.length, sent: series.map(({ medians }) => medians.lcp),
      shown: await page.locator(".test-lcp").evaluateAll((nodes) => nodes.map((node) => Number(node.value))),
    };
  };
  await comes("a page test shows what it has measured, by each way", test, ({ count, sent, shown }) => count === 2 && sent.length === 2 && JSON.stringify(sent) === JSON.stringify(shown));
  await comes("with what was changed meanwhile", () => page.locator("#chart-test-lcp .marker").count(), (markers) => markers > 0);
  await comes("and by what means its place was emulated", () => page.textContent("main"), (said) => said.includes("Emulated by a relay"));
  await picture(page, "speed-test");
  // Told as if measured: from a place of one name, by one means and by another.
  for (const [means, lcp] of [["relay", 900], ["relay", 950], ["packets", 300]]) {
    await api("/v1/page-tests", {
      name: "apart", url: "http://www.shop.example/", browser: "Chrome/126", over_budget: [],
      series: [{ place: "far", emulated_by: means, line: "80 ms to the origin, 10 ms to the edges", way: "CDN", is_edge: true, view: "first view", values: { lcp: [lcp] } }],
    });
  }
  await page.goto(address("speed", "?test=apart"));
  await page.waitForSelector("#test-place");
  const apart = async () => ({
    kinds: (await page.locator("#test-place option").allTextContents()).join("; "),
    last: Number(await page.getAttribute("#chart-test-lcp .reader", "aria-valuemax")), lcp: await value(page, ".test-lcp"),
  });
  await comes("what was measured by other means is in no line with it", apart, ({ kinds, last, lcp }) => kinds === "far, packets; far, relay" && last === 0 && lcp === 300);
  await page.selectOption("#test-place", { label: "far, relay" });
  await comes("and has a line of its own", apart, ({ last, lcp }) => last === 1 && lcp === 950);
  await page.click("#test button:has-text('Forget')");
  await page.fill("#dialog-word", "apart");
  await page.click("dialog button[type=submit]");
  const left = async () => ({ shown: await page.locator(".test-name").allTextContents(), kept: (await api("/v1/page-tests")).items.map(({ name }) => name) });
  await comes("a page test that nobody needs any more is forgotten", left, ({ shown, kept }) => shown.join() === "products" && kept.join() === "products");
  // As if a newer control had written some.
  await page.route((url) => url.pathname.startsWith("/v1/page-tests"), async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...(await response.json()), unread: 2 } });
  });
  await page.goto(address("speed", "?test=products"));
  const unread = () => page.locator("#tests .unread, #test .unread").allTextContents();
  await comes("what control cannot read is told of beside what it can", unread, (said) => said.length === 2 && said.every((one) => one.includes("2 more") && one.includes("upgrade")));
  check("page speed: nothing on the console", complaints.length === 0, complaints);
  await context.close();
}

// --- A link shows the same to others; paper, too ---

async function shares(browser) {
  const { context, page } = await visitor(browser, { permissions: ["clipboard-read", "clipboard-write"] });
  await enter(page);
  await page.goto(address("overview", "?site=shop"));
  await page.waitForSelector("#requests");
  await page.click("text=Copy link");
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  const { searchParams } = new URL(copied);
  check("a copied link has the view and its time, and no token", searchParams.get("site") === "shop" && Number(searchParams.get("to")) > Number(searchParams.get("from")) && !copied.includes("pgt_"), copied);
  const paper = await page.pdf({ format: "A4", printBackground: true });
  fs.writeFileSync(path.join(PICTURES, "overview.pdf"), paper);
  await page.emulateMedia({ media: "print" });
  const isBare = await page.evaluate(() => ["nav", ".tools button", ".chart-tools button", "#price"].every((selector) => document.querySelector(selector).offsetParent === null));
  check("on paper there is nothing to click", isBare && paper.length > 10_000, paper.length);
  await page.emulateMedia({ media: null });
  await page.selectOption("#theme", "dark");
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.selectOption("#theme", "light");
  const light = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  check("the theme can be chosen", dark !== light, { dark, light });
  await context.close();
}

// --- Changes ---

async function purges(browser) {
  const { context, page, complaints } = await visitor(browser);
  await enter(page);
  await page.goto(address("purges"));
  await page.click("label:has-text('Surrogate keys')");
  await page.fill("#purge-text", "static\npages");
  await page.fill("#purge-reason", "new photos");
  await page.click("#purge button[type=submit]");
  await page.waitForSelector("#proof-state[data-state=done]");
  const position = new URL(page.url()).searchParams.get("position");
  const receipts = async () => ({
    shown: await page.evaluate(() => Array.from(document.querySelectorAll("[aria-label=Receipts] tbody tr"), (row) => row.querySelector("strong").textContent).sort()),
    sent: (await api(`/v1/purges/${position}`)).receipts.map(({ node }) => node).sort(),
  });
  await comes("a purge shows the receipt of each node", receipts, ({ shown, sent }) => JSON.stringify(shown) === JSON.stringify(sent) && shown.length === 2);
  await comes("and stands in the list with its reason", () => page.textContent("#history"), (listed) => listed.includes("new photos") && listed.includes(position));
  await picture(page, "purge-proven");
  await page.click("label:has-text('Everything')");
  await page.click("#purge button[type=submit]");
  const yes = page.locator("dialog button[type=submit]");
  await comes("purging everything wants a word typed first", () => yes.isDisabled(), (isDisabled) => isDisabled);
  await page.fill("#dialog-word", "everything");
  await page.waitForSelector("dialog button[type=submit]:not([disabled])");
  check("and then can be done", true);
  await picture(page, "purge-everything");
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog", { state: "detached" });
  check("or left", true);
  check("purging: nothing on the console", complaints.length === 0, complaints);
  await context.close();
}

async function configures(browser) {
  const { context, page, complaints } = await visitor(browser);
  await enter(page);
  await page.goto(address("configuration"));
  await page.waitForSelector("#config-state[data-good=true]");
  const text = await page.inputValue("#config-text");
  await page.fill("#config-text", text.replace('ttl = "1d"', 'ttl = "5 parsecs"'));
  const line = text.split("\n").findIndex((line) => line.includes('ttl = "1d"')) + 1;
  await comes("the editor shows what check says, with the line", () => page.textContent(".findings li"), (said) => said.includes("parsecs") && said.includes(`${line}:`));
  await comes("and what has errors cannot be applied", () => page.locator("#apply button[type=submit]").isDisabled(), (isDisabled) => isDisabled);
  await picture(page, "configuration-wrong");
  await page.fill("#config-text", text.replace('ttl = "1d"', 'ttl = "2d"'));
  await page.fill("#config-reason", "keep photos longer");
  await page.waitForSelector("#config-state[data-good=true]");
  await page.click("#config-diff button");
  await comes("the editor shows what is changed", () => page.locator(".diff .new, .diff .old").allTextContents(), (lines) => lines.length === 2 && lines.join().includes('ttl = "2d"'));
  // One roll-out at a time: that of the first configuration may still be watched.
  if (["running", "paused"].includes((await api("/v1/rollouts/current")).state)) await api("/v1/rollouts/current/undo", {});
  await page.check("input[value=all]");
  await page.click("#apply button[type=submit]");
  await page.waitForSelector("#rollout-state[data-state=running]");
  await comes("what is applied is rolled out, with its reason", () => api("/v1/rollouts/current"), ({ state, reason }) => state === "running" && reason === "keep photos longer");
  await context.close();
  // The browser itself says of each answer to a wrong configuration that it is one.
  const others = complaints.filter((text) => !(text.includes("status of 422") && text.endsWith("/v1/configurations")));
  check("the editor: nothing else on the console", others.length === 0, others);
}

// A roll-out is paused, goes on, and is taken back, by what stands on the page.
async function takesBack(browser) {
  const { context, page, complaints } = await visitor(browser);
  await enter(page);
  await page.goto(address("rollouts"));
  await page.waitForSelector("#rollout-state[data-state=running]");
  await page.click("text=Pause");
  await page.waitForSelector("#rollout-state[data-state=paused]");
  const state = async () => (await api("/v1/rollouts/current")).state;
  await comes("a roll-out is paused", state, (state) => state === "paused");
  await page.click("text=Resume");
  await page.waitForSelector("#rollout-state[data-state=running]");
  await comes("and goes on", state, (state) => state === "running");
  await picture(page, "rollout-running");
  await page.click("text=Take back");
  await page.click("dialog button[type=submit]");
  await page.waitForSelector("#rollout-state[data-state=undone]");
  await comes("and is taken back", state, (state) => state === "undone");
  const { versions } = await api("/v1/configurations");
  await comes("each configuration stands there with author and reason", () => page.textContent("#versions"), (list) => versions.every(({ author, reason }) => list.includes(author) && list.includes(reason)));
  await page.goto(address("audit"));
  await comes("the audit log says who did it", () => page.textContent("#entries"), (entries) => entries.includes("rollout.undo") && entries.includes("admin"));
  check("changing: nothing on the console", complaints.length === 0, complaints);
  await context.close();
}

// --- Who may less ---

async function looksOnly(browser) {
  const { secret } = await api("/v1/tokens", { name: `viewer-${Date.now()}`, role: "viewer" });
  const { context, page, complaints } = await visitor(browser);
  await page.goto(address("purges", `#token=${secret}`));
  await page.waitForSelector("#purge .hint");
  await comes("a viewer is told what purging needs, and cannot", () => page.locator("#purge button[type=submit]").isDisabled(), (isDisabled) => isDisabled);
  await page.goto(address("configuration"));
  await page.waitForSelector("#config-text");
  await comes("a viewer reads configurations only", () => page.locator("#config-text").evaluate((area) => area.readOnly), (readOnly) => readOnly);
  await page.goto(address("audit"));
  await page.waitForSelector(".hint");
  await comes("a viewer is told who reads the audit log", () => page.textContent("main"), (said) => said.includes("admin"));
  check("looking only: nothing on the console", complaints.length === 0, complaints);
  await context.close();
}

async function losesControl(browser) {
  const { context, page } = await visitor(browser);
  await enter(page);
  await page.goto(address("nodes"));
  await page.waitForSelector(".node-state");
  await context.setOffline(true);
  await page.waitForSelector(".lost");
  const look = async () => ({ said: await page.textContent(".lost"), nodes: await page.locator(".node-state").count() });
  await comes("without control, the page says so and shows what was known", look, ({ said, nodes }) => said.includes("does not answer") && nodes === 2);
  await picture(page, "nodes-without-control");
  await context.setOffline(false);
  await page.waitForSelector(".lost", { state: "detached" });
  check("and goes on when control is back", true);
  await context.close();
}

// --- An edge dies ---

async function loses(browser) {
  const { context, page, complaints } = await visitor(browser);
  await enter(page);
  await page.goto(address("overview"));
  await page.waitForSelector(".attention");
  process.kill(Number(EDGE_PIDS.split(" ").at(-1)), "SIGKILL");
  const took = await until(async () => (await page.locator(".attention").textContent()).includes("nyc-1"));
  check(`an edge that dies shows on the overview (after ${took === undefined ? "never" : (took / 1000).toFixed(1)} s)`, took !== undefined);
  await comes("and on the map", () => page.locator(".map .pop").evaluateAll((nodes) => nodes.map((node) => node.getAttribute("class"))), (marks) => marks.some((name) => /warn|bad/.test(name)));
  await picture(page, "overview-edge-lost");
  await page.goto(address("nodes"));
  const state = page.locator(".node-state[data-node=nyc-1]");
  await state.waitFor();
  const other = page.locator(".node-state[data-node=fra-1]");
  const isShown = await until(async () => (await state.getAttribute("data-state")) !== "good" && (await other.getAttribute("data-state")) === "good");
  check("and among the nodes, where the other one is well", isShown !== undefined);
  await picture(page, "nodes-edge-lost");
  check("losing an edge: nothing on the console", complaints.length === 0, complaints);
  await context.close();
}

(async () => {
  fs.mkdirSync(PICTURES, { recursive: true });
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    const seen = await until(async () => (await api("/v1/stats")).totals?.[0]?.requests > 500);
    check("nodes report what visitors ask", seen !== undefined);
    await signsIn(browser);
    await everyPage(browser);
    await numbers(browser);
    await speeds(browser);
    await shares(browser);
    await purges(browser);
    await configures(browser);
    await takesBack(browser);
    await looksOnly(browser);
    await losesControl(browser);
    await loses(browser);
  } catch (error) {
    check(`the walk goes to its end: ${error.stack}`, false);
  } finally {
    await browser.close();
  }
  process.exit(failures === 0 ? 0 : 1);
})();
