// Visitors of the test's sites: asks the edges on the ports in EDGES, about 40 times a second, until it is ended. Each says by
// X-Forwarded-For that it comes from one of the networks in visitors.csv, the first ones more often.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const ports = process.env.EDGES.split(" ").map(Number);
const agents = ports.map(() => new http.Agent({ keepAlive: true, maxSockets: 4 }));
const PATHS = [
  ...Array.from({ length: 24 }, (_, number) => [8 / (number + 1), "www.shop.example", `/static/photo-${number}.png`]),
  ...Array.from({ length: 12 }, (_, number) => [3 / (number + 1), "www.shop.example", `/products/${number}`]),
  [0.6, "www.shop.example", "/slow"],
  [0.8, "www.shop.example", "/api/stock"],
  [0.8, "www.shop.example", "/cart/1"],
  [0.3, "www.shop.example", "/login"],
  [0.12, "www.shop.example", "/broken"],
  [1.5, "blog.example", "/"],
  [1, "blog.example", "/posts/1"],
];
const NETWORKS = fs.readFileSync(path.join(__dirname, "visitors.csv"), "utf8").match(/^10\.\d+/gm);

// Chance with a seed, so that two runs ask alike.
let seed = 7;
const chance = () => {
  seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
  return seed / 2_147_483_648;
};
const pick = () => {
  let left = chance() * PATHS.reduce((sum, [weight]) => sum + weight, 0);
  return PATHS.find(([weight]) => (left -= weight) <= 0) ?? PATHS[0];
};

function ask() {
  const [, host, where] = pick();
  const index = chance() < 0.6 ? 0 : 1;
  const unseen = chance() < 0.06 ? `?id=${Math.floor(chance() * 1e6)}` : "";
  const client = `${NETWORKS[Math.floor(chance() ** 2 * NETWORKS.length)]}.0.${1 + Math.floor(chance() * 200)}`;
  const request = http.get({
    host: "127.0.0.1",
    port: ports[index],
    path: where + unseen,
    agent: agents[index],
    headers: { host, "x-forwarded-for": client, "accept-encoding": "identity" },
  }, (response) => response.resume());
  // An edge that was killed answers nobody.
  request.on("error", () => {});
}

setInterval(ask, 25);
