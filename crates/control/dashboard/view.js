// What is being looked at: the page and its parameters. It stands in the address, so that a link shows the same to others.

const BASE = "/dashboard/";
// They go along from page to page.
const KEPT = ["range", "from", "to", "site", "pop"];

export const RANGES = { "5m": 300_000, "15m": 900_000, "1h": 3_600_000, "6h": 21_600_000, "24h": 86_400_000, "7d": 604_800_000, "30d": 2_592_000_000 };
export const RANGE = "15m";

let listener = () => {};
export const onChange = (then) => { listener = then; };

// The page and its parameters as the address says.
export function read() {
  const page = location.pathname.slice(BASE.length) || "overview";
  return { page, ...Object.fromEntries(new URLSearchParams(location.search)) };
}

// The address of a page; filters go along.
export function link(page, parameters = {}) {
  const current = read();
  const query = new URLSearchParams();
  for (const name of KEPT) if (!(name in parameters) && current[name]) query.set(name, current[name]);
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined && value !== "") query.set(name, value);
  const text = query.toString();
  return `${BASE}${page === "overview" ? "" : page}${text ? `?${text}` : ""}`;
}

// Goes to an address of the dashboard.
export function go(address) {
  history.pushState(null, "", address);
  listener({ isOther: true });
}

// Changes parameters of the page that is shown.
export function change(parameters) {
  const { page, ...current } = read();
  history.replaceState(null, "", link(page, { ...current, ...parameters }));
  listener({ isOther: false });
}

// The stretch of time that is looked at. Without `to` it ends now, and goes on.
export function period(view, now) {
  const from = Number(view.from);
  const to = Number(view.to);
  if (from > 0 && to > from) return { from, to, isLive: false };
  const length = RANGES[view.range] ?? RANGES[RANGE];
  return { from: now - length, to: now, isLive: true };
}

// The address of what is shown now, with its time fixed: what it shows stays the same.
export function frozen(now) {
  const { page, ...current } = read();
  const { from, to } = period(current, now);
  return location.origin + link(page, { ...current, range: null, from: Math.round(from), to: Math.round(to) });
}

addEventListener("popstate", () => listener({ isOther: true }));
// Links within the dashboard load nothing.
addEventListener("click", (event) => {
  const anchor = event.target instanceof Element ? event.target.closest("a[href]") : null;
  if (!anchor || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(anchor.href);
  if (url.origin !== location.origin || !url.pathname.startsWith(BASE) || anchor.hasAttribute("download") || anchor.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(url.pathname + url.search);
});

// Asks for the page to be drawn anew, with what has changed in it.
export const redraw = () => dispatchEvent(new Event("perigee-redraw"));
