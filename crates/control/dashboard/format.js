// Numbers, sizes and times for people. Decimal units: a price is per GB.

const LOCALE = "en";
const number = (digits) => new Intl.NumberFormat(LOCALE, { maximumFractionDigits: digits, minimumFractionDigits: digits });
const formats = [0, 1, 2].map(number);

// Three digits are what one reads: 1.23, 12.3, 123.
const short = (value) => formats[Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2].format(value);

const scaled = (value, units, base = 1000) => {
  let index = 0;
  let rest = value;
  while (Math.abs(rest) >= base * 0.9995 && index < units.length - 1) {
    rest /= base;
    index += 1;
  }
  const text = index === 0 && Number.isInteger(rest) ? formats[0].format(rest) : short(rest);
  return units[index] ? `${text} ${units[index]}` : text;
};

export const none = "–";
const or = (format) => (value) => (value === null || value === undefined || Number.isNaN(value) ? none : format(value));

export const whole = or((value) => formats[0].format(value));
export const count = or((value) => scaled(value, ["", "k", "M", "G", "T"]));
export const bytes = or((value) => scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"]));
export const bits = or((value) => scaled(value, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]));
export const rate = or((value) => `${scaled(value, ["", "k", "M", "G"])}/s`);
export const micros = or((value) => scaled(value, ["µs", "ms", "s"]));
export const percent = or((value) => `${value > 0.9995 && value < 1 ? "99.9" : formats[1].format(value * 100)} %`);
export const money = or((value) => (Math.abs(value) >= 1000 ? formats[0] : formats[2]).format(value));

// A span of time, in ms: 4 s, 12 min, 3 h, 5 d.
export const span = or((ms) => {
  const units = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];
  const [unit, size] = units.find(([, size]) => ms >= size * 1.5) ?? ["s", 1000];
  return `${Math.max(0, Math.round(ms / size))} ${unit}`;
});

const clock = (options) => new Intl.DateTimeFormat("en-GB", options);
const second = clock({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = clock({ hour: "2-digit", minute: "2-digit" });
const day = clock({ day: "numeric", month: "short" });
const dayMinute = clock({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = clock({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const time = or((ms) => second.format(ms));
export const moment = or((ms) => full.format(ms));
export const date = or((ms) => clock({ day: "numeric", month: "short", year: "numeric" }).format(ms));
// A tick of an axis that shows so many ms.
export const tick = (ms, shown) => (shown <= 300_000 ? second : shown <= 86_400_000 * 1.1 ? minute : shown <= 3 * 86_400_000 ? dayMinute : day).format(ms);

// What statistics call a country, a PoP or another thing that is not known.
export const UNKNOWN = "-";

let regions;
try {
  regions = new Intl.DisplayNames([LOCALE], { type: "region" });
} catch {
  regions = undefined;
}
// The name of a country by its code; what has none, as it is.
export function country(code) {
  if (code === UNKNOWN) return "not known";
  if (!/^[A-Z]{2}$/.test(code)) return code;
  if (code === "XK") return "Kosovo";
  try {
    return regions?.of(code) ?? code;
  } catch {
    return code;
  }
}
