// The map of the world: countries by how much their visitors ask, and the PoPs. What it shows stands in a list beside it, too.

import { h } from "./dom.js";
import * as format from "./format.js";
import { COUNTRIES, POINTS, SCALE } from "./world.js";

// Without Antarctica.
const BOX = { x: -490, y: -236, width: 980, height: 432 };
// Shades of a country, from little to much.
const LEVELS = 6;

// Equal Earth (Šavrič, Patterson and Jenny 2018), as the outlines were drawn.
function project(latitude, longitude) {
  const [a1, a2, a3, a4] = [1.340264, -0.081106, 0.000893, 0.003796];
  const theta = Math.asin((Math.sqrt(3) / 2) * Math.sin((latitude * Math.PI) / 180));
  const square = theta * theta;
  const six = square ** 3;
  const x = ((longitude * Math.PI) / 180) * Math.cos(theta) / ((Math.sqrt(3) / 2) * (a1 + 3 * a2 * square + six * (7 * a3 + 9 * a4 * square)));
  const y = theta * (a1 + a2 * square + six * (a3 + a4 * square));
  return [x * SCALE, -y * SCALE];
}

// By the root: a country with a hundredth still differs from one with nothing.
function level(value, most) {
  if (!(value > 0)) return 0;
  return Math.max(1, Math.ceil(Math.sqrt(value / most) * LEVELS));
}

// `visitors`: requests by country's code. `pops`: [{ name, latitude, longitude, state, text }], state "good", "warn" or "bad".
export function map({ id, visitors, pops }) {
  const most = Math.max(1, ...visitors.values());
  const told = (code) => `${format.country(code)}: ${format.whole(visitors.get(code) ?? 0)} requests`;
  const placed = pops.filter((pop) => pop.latitude !== null).map((pop) => ({ ...pop, point: project(pop.latitude, pop.longitude) }));
  const busiest = [...visitors].sort(([, a], [, b]) => b - a).slice(0, 5).map(([code]) => told(code));
  const said = `PoPs: ${placed.map((pop) => `${pop.name}, ${pop.text}`).join("; ") || "none with a place"}. Visitors: ${busiest.join("; ") || "none in this time"}.`;
  return h("svg", { class: "map", id, role: "img", "aria-labelledby": `${id}-title ${id}-text`, viewBox: `${BOX.x} ${BOX.y} ${BOX.width} ${BOX.height}` },
    h("title", { id: `${id}-title` }, "PoPs and visitors in the world"),
    h("desc", { id: `${id}-text` }, said),
    h("g", { transform: "scale(.1)" }, COUNTRIES.map(([code, d]) =>
      h("path", { d, class: `land level-${level(visitors.get(code), most)}`, key: code || d }, visitors.get(code) ? h("title", {}, told(code)) : null))),
    POINTS.filter(([code]) => visitors.get(code)).map(([code, latitude, longitude]) => {
      const [x, y] = project(latitude, longitude);
      return h("circle", { key: code, class: `land level-${level(visitors.get(code), most)}`, cx: x.toFixed(1), cy: y.toFixed(1), r: 3 }, h("title", {}, told(code)));
    }),
    marks(placed));
}

// Dots, and a name beside each as far as there is room.
function marks(pops) {
  const taken = [];
  const isFree = (box) => taken.every((other) => box.x > other.x + other.width || other.x > box.x + box.width || box.y > other.y + other.height || other.y > box.y + box.height);
  for (const { point: [x, y] } of pops) taken.push({ x: x - 7, y: y - 7, width: 14, height: 14 });
  return pops.map(({ name, state, text, point: [x, y] }) => {
    const width = name.length * 9 + 4;
    const places = [[x + 11, y - 9, "start", x + 11], [x - 11 - width, y - 9, "end", x - 11], [x - width / 2, y - 30, "middle", x], [x - width / 2, y + 10, "middle", x]];
    const place = places.find(([left, top]) => isFree({ x: left, y: top, width, height: 18 }) && left > BOX.x && left + width < BOX.x + BOX.width);
    if (place) taken.push({ x: place[0], y: place[1], width, height: 18 });
    return h("g", { class: `pop ${state}`, key: name },
      h("title", {}, `${name}: ${text}`),
      h("circle", { class: "halo", cx: x.toFixed(1), cy: y.toFixed(1), r: 12 }),
      h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 6.5 }),
      place ? h("text", { x: place[3].toFixed(1), y: (place[1] + 14.5).toFixed(1), "text-anchor": place[2] }, name) : null);
  });
}
