// The origin behind the test's sites: `node origin.cjs PORT`. What becomes of an answer is in its path.
"use strict";
const http = require("node:http");

const image = Buffer.alloc(20_000, "x");
const page = (where) => `<!doctype html><html lang=en><title>${where}</title><p>${"text ".repeat(300)}</p>`;
const html = { "content-type": "text/html" };

http.createServer((request, response) => {
  const where = request.url.split("?")[0];
  const send = (status, headers, body) => {
    response.writeHead(status, headers);
    response.end(body);
  };
  request.resume();
  if (where.startsWith("/static/")) return send(200, { "content-type": "image/png", etag: '"1"' }, image);
  if (where.startsWith("/cart/")) return send(200, { ...html, "set-cookie": "session=1" }, page(where));
  if (where.startsWith("/api/")) return send(200, { "content-type": "application/json", "cache-control": "no-store" }, '{"ok":true}');
  if (where.startsWith("/login")) return send(200, { ...html, "cache-control": "max-age=60", "set-cookie": "session=2" }, page(where));
  if (where.startsWith("/broken")) return send(500, { "content-type": "text/plain" }, "no");
  if (where.startsWith("/slow")) return setTimeout(() => send(200, { ...html, "cache-control": "max-age=2" }, page(where)), 80);
  return send(200, { ...html, "cache-control": "max-age=60", "surrogate-key": "pages" }, page(where));
}).listen(Number(process.argv[2]), "127.0.0.1");
