// The API of control, as everybody may use it: a token, JSON, and errors that say what to do.

const TOKEN = "perigee-token";

// How far this browser's clock is from control's, in ms; it says times to the second.
let offset = 0;
const OFFSET_MIN = 2000;

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

// Now, by control's clock.
export const now = () => Date.now() + offset;

// What the API answered when it did not do what it was asked, or that it did not answer (status 0).
export class Problem extends Error {
  constructor(status, { error, found, wanted, next, diagnostics }) {
    super(error);
    Object.assign(this, { status, found, wanted, next, diagnostics });
  }
}

// Asks, and returns the answer. Throws a Problem. With `body`, POST.
export async function ask(path, { method, body, signal, as = token.get() } = {}) {
  const headers = { authorization: `Bearer ${as}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { error: "control does not answer", next: "visitors are served all the same; this page tries again" });
  }
  const date = Date.parse(response.headers.get("date") ?? "");
  if (date) offset = Math.abs(date - Date.now()) > OFFSET_MIN ? date - Date.now() : 0;
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { error: `the answer is not JSON: ${text.slice(0, 200)}` };
  }
  if (!response.ok || answer?.error) throw new Problem(response.status, answer);
  return answer;
}

// Has the browser save what a path answers.
export async function download(path, name) {
  const response = await fetch(path, { headers: { authorization: `Bearer ${token.get()}` } });
  if (!response.ok) throw new Problem(response.status, await response.json());
  saveAs(await response.blob(), name);
}

// Has the browser save a file.
export function saveAs(blob, name) {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
}

// A path with a query; parameters that are null or empty are left out, and lists repeat their name.
export function path(base, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") query.append(name, one);
  }
  const text = query.toString();
  return text ? `${base}?${text}` : base;
}
