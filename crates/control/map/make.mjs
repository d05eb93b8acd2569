// Draws the map of the world that the dashboard shows: writes ../dashboard/world.js. Usage: npm ci && node make.mjs
//
// Outlines: Natural Earth 1:110m, version 4.1, public domain, as TopoJSON from npm's world-atlas (ISC). Projection: Equal Earth, which
// keeps areas true. Countries too small for this scale get the point that crates/model/data/places.txt has for them. The dashboard
// has the projection's formula itself (map.js), so that PoPs stand where the outlines are.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { geoEqualEarth, geoPath } from "d3-geo";
import { feature } from "topojson-client";

const require = createRequire(import.meta.url);
const atlas = require("world-atlas/countries-110m.json");
const codes = new Map(require("i18n-iso-countries/codes.json").map(([two, , number]) => [number, two]));
// Natural Earth gives no ISO number to these.
const unnumbered = { Kosovo: "XK" };

const SCALE = 180;
const projection = geoEqualEarth().scale(SCALE).translate([0, 0]).precision(0.3);

// A path in tenths of a pixel, relative and without what rounding has made one point.
const draw = (shape) => {
  const rings = [];
  let ring;
  const context = {
    moveTo: (x, y) => rings.push((ring = [[Math.round(x * 10), Math.round(y * 10)]])),
    lineTo: (x, y) => ring.push([Math.round(x * 10), Math.round(y * 10)]),
    closePath: () => {},
    arc: () => {},
  };
  geoPath(projection, context)(shape);
  return rings.map((points) => {
    let [x, y] = points[0];
    let text = `M${x} ${y}l`;
    for (const [nextX, nextY] of points.slice(1)) {
      if (nextX === x && nextY === y) continue;
      text += `${nextX - x} ${nextY - y} `;
      [x, y] = [nextX, nextY];
    }
    return `${text.trim().replaceAll(" -", "-")}z`;
  }).filter((text) => text.length > 24).join("");
};

const countries = feature(atlas, atlas.objects.countries).features
  .filter(({ properties }) => properties.name !== "Antarctica")
  .map((shape) => [codes.get(shape.id) ?? unnumbered[shape.properties.name] ?? "", draw(shape)])
  .filter(([, path]) => path !== "")
  .sort(([a], [b]) => (a < b ? -1 : 1));
const drawn = new Set(countries.map(([code]) => code));
const points = readFileSync(new URL("../../model/data/places.txt", import.meta.url), "utf8").split("\n")
  .map((line) => line.match(/^country:(\S+) (\S+) (\S+)$/))
  .filter((found) => found && !drawn.has(found[1]))
  .map(([, code, latitude, longitude]) => [code, Number(latitude), Number(longitude)]);

const lines = (rows) => rows.map((row) => `  ${JSON.stringify(row)},`).join("\n");
writeFileSync(new URL("../dashboard/world.js", import.meta.url), `// Written by ../map/make.mjs. Outlines: Natural Earth (naturalearthdata.com), public domain.

// The scale of the projection, in the map's units per radian.
export const SCALE = ${SCALE};

// ISO 3166-1 code ("" where there is none) and outline, in tenths of a unit.
export const COUNTRIES = [
${lines(countries)}
];

// Countries without an outline at this scale: code, latitude, longitude.
export const POINTS = [
${lines(points)}
];
`);
