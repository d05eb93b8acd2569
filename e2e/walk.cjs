// Walks a site in headless Chromium, directly and through the edge, and compares what a visitor sees.
//
// Environment: DIRECT and EDGE (base URLs), WALK ("plain": the edge has no rules; "rules": it keeps pages for minutes),
// PURGE (command that takes a URL), CHROMIUM (its path), PICTURES (folder for screenshots that differ).
// Prints `ok NAME` or `not ok NAME` for each check; exits with 1 when one is not.
"use strict";
const { execFileSync } = require("node:child_process");
const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");

const { DIRECT, EDGE, WALK, PURGE, CHROMIUM, PICTURES } = process.env;
const PAGES = ["/", "/lamps/", "/wicks/", "/about/", "/about", "/search/?query=lamps", "/no-such-page/", "/admin/login/"];
const ADMIN_PAGES = ["/admin/", "/admin/images/", "/admin/reports/locked/", "/django-admin/"];
// The page that is edited: another one in each walk, since both walk the same site.
const EDITED = WALK === "rules" ? { slug: "lamps", title: "Lamps" } : { slug: "about", title: "About us" };
const EDITOR = { username: "editor", password: "walk-the-pages" };

let failures = 0;

function check(name, holds, details) {
  if (!holds) failures += 1;
  console.log(`${holds ? "ok" : "not ok"} ${WALK}: ${name}`);
  if (!holds && details !== undefined) console.log(JSON.stringify(details, null, 1));
}

// What one visit to `where` showed: pixels, console, and each response by path.
async function visit(context, base, where) {
  const page = await context.newPage();
  const console_ = [];
  const responses = [];
  const said = (text) => console_.push(text.replaceAll(base, "SITE"));
  page.on("console", (message) => {
    // Chromium asks for the icon that the site lacks once for each host, not for each visit.
    if (!message.location().url.endsWith("/favicon.ico")) said(`${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => said(`error: ${error.message}`));
  page.on("requestfailed", (request) => said(`failed: ${request.url()} ${request.failure()?.errorText}`));
  page.on("response", (response) => responses.push(response));
  const main = await page.goto(base + where, { waitUntil: "networkidle" });
  const seen = {
    where,
    status: main.status(),
    cacheStatus: main.headers()["cache-status"] ?? "",
    cacheControl: main.headers()["cache-control"] ?? "",
    html: await page.content(),
    pixels: await page.screenshot({ fullPage: true, animations: "disabled", caret: "hide" }),
    console: console_.sort(),
    responses: responses.map((response) => ({
      path: response.url().replace(base, ""),
      status: response.status(),
      cacheStatus: response.headers()["cache-status"] ?? "",
    })),
  };
  await page.close();
  return seen;
}

// A browser that nobody used before: nothing in its cache, no cookies.
async function fresh(browser) {
  return browser.newContext({ viewport: { width: 1000, height: 800 }, reducedMotion: "reduce" });
}

const isHit = (cacheStatus) => /;\s*hit\b/.test(cacheStatus);
// Without rules only those files hit that the site itself calls fresh: the static ones.
const keptFiles = WALK === "rules" ? /^\/(static|media)\// : /^\/static\//;
const isFile = ({ path: where }) => keptFiles.test(where);
const outcomes = ({ responses }) => responses.map(({ path: where, status }) => `${status} ${where}`).sort();

// `direct` and `edge` are visits; `again` makes both anew.
async function checkSame(name, direct, edge, again) {
  let same = direct.pixels.equals(edge.pixels);
  // From one load to the next Chromium may smooth the edge of an icon differently: what stays different counts.
  for (let turn = 0; !same && turn < 3; turn += 1) {
    const [otherDirect, otherEdge] = await again();
    same = otherDirect.pixels.equals(otherEdge.pixels);
  }
  if (!same) {
    fs.mkdirSync(PICTURES, { recursive: true });
    const stem = path.join(PICTURES, `${WALK}${edge.where.replace(/\W+/g, "-")}`);
    fs.writeFileSync(`${stem}direct.png`, direct.pixels);
    fs.writeFileSync(`${stem}edge.png`, edge.pixels);
  }
  check(`${name} looks the same pixel by pixel`, same, same ? undefined : PICTURES);
  const [a, b] = [JSON.stringify(direct.console), JSON.stringify(edge.console)];
  check(`${name} says the same on the console`, a === b, { direct: direct.console, edge: edge.console });
  const [c, d] = [outcomes(direct), outcomes(edge)];
  check(`${name} loads the same files`, JSON.stringify(c) === JSON.stringify(d), { direct: c, edge: d });
}

async function logIn(context, base) {
  const page = await context.newPage();
  await page.goto(`${base}/admin/login/`);
  await page.fill("[name=username]", EDITOR.username);
  await page.fill("[name=password]", EDITOR.password);
  await Promise.all([page.waitForURL(`${base}/admin/`), page.click("[type=submit]")]);
  await page.close();
}

async function publicPages(browser) {
  for (const where of PAGES) {
    const visits = async (...bases) => {
      const seen = [];
      for (const base of bases) {
        const context = await fresh(browser);
        seen.push(await visit(context, base, where));
        await context.close();
      }
      return seen;
    };
    const [direct, first, second] = await visits(DIRECT, EDGE, EDGE);
    await checkSame(`${where}, first view,`, direct, first, () => visits(DIRECT, EDGE));
    await checkSame(`${where}, second view,`, direct, second, () => visits(DIRECT, EDGE));
    const files = second.responses.filter(isFile);
    const missed = files.filter((file) => file.status === 200 && !isHit(file.cacheStatus));
    check(`${where}: its ${files.length} files hit on the second view`, missed.length === 0, missed);
    if (WALK === "rules" && second.status === 200 && !where.startsWith("/admin")) {
      check(`${where} itself hits on the second view`, isHit(second.cacheStatus), second.cacheStatus);
    }
  }
}

async function loggedIn(browser) {
  const editorDirect = await fresh(browser);
  const editor = await fresh(browser);
  await logIn(editorDirect, DIRECT);
  await logIn(editor, EDGE);
  check("the editor logs in through the edge", true);
  for (const where of ADMIN_PAGES) {
    const visits = async () => [await visit(editorDirect, DIRECT, where), await visit(editor, EDGE, where)];
    const [direct, edge] = await visits();
    await checkSame(`${where} as the editor`, direct, edge, visits);
    check(`${where} as the editor is not from the cache`, !isHit(edge.cacheStatus), edge.cacheStatus);
    const stranger = await fresh(browser);
    const seen = await visit(stranger, EDGE, where);
    const leaked = /Log out|>\s*editor\s*</.test(seen.html);
    const atLogin = seen.html.includes('name="password"');
    const { status, cacheStatus, responses, html } = seen;
    check(`${where} shows a stranger the login form only`, !leaked && atLogin, { status, cacheStatus, responses, html });
    check(`${where} to a stranger is not from the cache`, !isHit(seen.cacheStatus), seen.cacheStatus);
    await stranger.close();
  }
  // A public page that greets its editor with a bar: each kind of visitor must keep getting their own.
  for (const round of [1, 2, 3]) {
    const asEditor = await visit(editor, EDGE, "/wicks/");
    check(`round ${round}: the editor sees the editor's bar`, asEditor.html.includes("wagtail-userbar"));
    const stranger = await fresh(browser);
    const asStranger = await visit(stranger, EDGE, "/wicks/");
    check(`round ${round}: a stranger does not`, !asStranger.html.includes("wagtail-userbar"), asStranger.cacheStatus);
    await stranger.close();
  }
  await editorDirect.close();
  return editor;
}

async function editAndPurge(browser, editor) {
  const before = await strangersTitle(browser);
  const page = await editor.newPage();
  await page.goto(`${EDGE}/admin/`);
  const number = await page.evaluate(async (slug) => {
    const answer = await fetch(`/admin/api/main/pages/?slug=${slug}&type=home.HomePage`);
    return (await answer.json()).items[0].id;
  }, EDITED.slug);
  await page.goto(`${EDGE}/admin/pages/${number}/edit/`, { waitUntil: "networkidle" });
  await page.fill("[name=title]", `${EDITED.title}, renewed`);
  await Promise.all([
    page.waitForNavigation(),
    page.evaluate(() => document.querySelector("[name=action-publish]").click()),
  ]);
  await page.close();
  check("a stranger saw the old title before", before.title === EDITED.title, before.title);
  const kept = await strangersTitle(browser);
  if (WALK === "rules") {
    check("and still does while the edge keeps it", kept.title === EDITED.title && isHit(kept.cacheStatus), kept);
    const [program, ...words] = PURGE.split(" ");
    execFileSync(program, [...words, "--url", `${EDGE}/${EDITED.slug}/`], { stdio: "inherit" });
  }
  const after = await strangersTitle(browser);
  check("the new title is there after the purge", after.title === `${EDITED.title}, renewed`, after);
}

async function strangersTitle(browser) {
  const context = await fresh(browser);
  const page = await context.newPage();
  const main = await page.goto(`${EDGE}/${EDITED.slug}/`);
  const seen = { title: await page.textContent("h1"), cacheStatus: main.headers()["cache-status"] ?? "" };
  await context.close();
  return seen;
}

// Each text file in each coding, one at a time, as Chromium decodes it: byte for byte what the site itself sends.
async function eachCoding(browser) {
  const context = await fresh(browser);
  const page = await context.newPage();
  const files = new Set();
  page.on("response", (response) => {
    const where = response.url().replace(EDGE, "");
    if (/^\/static\/.*\.(css|js|svg)$/.test(where.split("?")[0])) files.add(where);
  });
  for (const where of ["/", "/wicks/", "/admin/login/"]) await page.goto(EDGE + where, { waitUntil: "networkidle" });
  // Asks until an answer has the coding, for ten seconds at most: the copy is made behind the first hit.
  const ask = ({ where, coding }) => page.evaluate(async ({ where, coding }) => {
    for (let turn = 0; ; turn += 1) {
      const answer = await fetch(where, { cache: "no-store" });
      const body = await answer.arrayBuffer();
      const told = answer.headers.get("content-encoding") ?? "identity";
      if (told === coding || turn === 200) {
        const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
        const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
        return { told, hex, sent: Number(answer.headers.get("content-length")), bytes: body.byteLength };
      }
      await new Promise((done) => setTimeout(done, 50));
    }
  }, { where, coding });
  const plain = new Map();
  for (const where of files) {
    const answer = await fetch(DIRECT + where, { headers: { "accept-encoding": "identity" } });
    const body = Buffer.from(await answer.arrayBuffer());
    plain.set(where, { bytes: body.length, hex: createHash("sha256").update(body).digest("hex") });
  }
  for (const coding of ["gzip", "br", "zstd"]) {
    await page.setExtraHTTPHeaders({ "accept-encoding": coding });
    const wrong = [];
    let [sent, bytes] = [0, 0];
    for (const [where, { bytes: length, hex }] of plain) {
      const seen = await ask({ where, coding: length < 1024 ? "identity" : coding });
      if (seen.hex !== hex || (length >= 1024 && seen.told !== coding)) wrong.push({ where, length, ...seen });
      [sent, bytes] = [sent + seen.sent, bytes + seen.bytes];
    }
    const saved = (100 * (1 - sent / bytes)).toFixed(1);
    const name = `${plain.size} files in ${coding} are what the site sends, in ${sent} bytes for ${bytes} (${saved} % saved)`;
    check(name, wrong.length === 0 && plain.size > 0 && sent < bytes, wrong);
  }
  await context.close();
}

(async () => {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  try {
    await publicPages(browser);
    const editor = await loggedIn(browser);
    await editAndPurge(browser, editor);
    await eachCoding(browser);
  } catch (error) {
    check(`the walk goes to its end: ${error.stack}`, false);
  } finally {
    await browser.close();
  }
  process.exit(failures === 0 ? 0 : 1);
})();
