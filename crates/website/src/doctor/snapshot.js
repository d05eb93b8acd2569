// A line for each element of the page: name, attributes, text; each URL absolute, however it was written.
(() => {
  const absolute = (url) => { try { return new URL(url, document.baseURI).href; } catch { return url; } };
  const urls = new Set(["src", "href", "poster", "data-src", "data-original", "data-lazy-src", "xlink:href", "action"]);
  const css = (text) => text
    .replace(/url\(\s*(["']?)([^"')]+)\1\s*\)/gi, (_, quote, url) => `url(${absolute(url)})`)
    .replace(/@import\s+(["'])(.+?)\1/gi, (_, quote, url) => `@import "${absolute(url)}"`)
    .replace(/image-set\(([^)]*)\)/gi, (_, set) => `image-set(${set.replace(/(["'])(.+?)\1/g, (_, quote, url) => `"${absolute(url)}"`)})`);
  const candidates = (text) => text.split(/,\s+/).map((candidate) => {
    const [url, ...rest] = candidate.trim().split(/\s+/);
    return [absolute(url), ...rest].join(" ");
  }).join(", ");
  const lines = [];
  for (const element of document.querySelectorAll("*")) {
    let line = element.localName;
    for (const { name, value } of [...element.attributes].sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (name === "crossorigin" && element.hasAttribute("integrity")) continue;
      if (element.localName === "meta" && name === "content" && /security-policy/i.test(element.httpEquiv)) continue;
      const shown = urls.has(name) ? absolute(value)
        : /srcset$/.test(name) ? candidates(value)
        : name === "style" ? css(value)
        : name === "content" && /^(https?:)?\//.test(value) ? absolute(value) : value;
      line += `|${name}=${shown}`;
    }
    for (const { nodeType, data } of element.childNodes) {
      if (nodeType !== Node.TEXT_NODE || !data.trim() || element.type === "importmap") continue;
      line += `|#${element.localName === "style" ? css(data) : data.trim()}`;
    }
    lines.push(line);
  }
  return lines;
})()
