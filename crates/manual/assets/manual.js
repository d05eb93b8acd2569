// The search: all words of the query have to be in a section; those in its heading count most. What it looks through is loaded when
// somebody searches, as a script, so that it works from a disk too.
(() => {
  const root = document.currentScript.dataset.root;
  const query = document.getElementById("query");
  const results = document.getElementById("results");
  const SHOWN_MAX = 20;
  let loading = null;

  const load = () => loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = root + "search-index.js";
    script.onload = done;
    script.onerror = failed;
    document.head.append(script);
  });

  const element = (name, text) => Object.assign(document.createElement(name), { textContent: text });

  function found(words) {
    const hits = [];
    for (const [path, title, anchor, heading, text] of SECTIONS) {
      const head = `${title} ${heading}`.toLowerCase(), body = text.toLowerCase();
      let score = 0;
      const all = words.every((word) => {
        const inHead = head.includes(word), inBody = body.includes(word);
        score += (inHead ? 10 : 0) + (inBody ? 1 : 0) + (heading.toLowerCase() === word ? 20 : 0);
        return inHead || inBody;
      });
      if (all) hits.push({ score, path, title, anchor, heading, text, at: Math.max(0, body.indexOf(words[0]) - 50) });
    }
    return hits.sort((a, b) => b.score - a.score);
  }

  async function show() {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    results.hidden = words.length === 0;
    if (results.hidden) return;
    try {
      await load();
    } catch {
      results.replaceChildren(element("p", "search-index.js could not be loaded."));
      return;
    }
    const hits = found(words);
    results.replaceChildren(...hits.slice(0, SHOWN_MAX).map((hit) => {
      const link = element("a", hit.heading === hit.title ? hit.title : `${hit.title}: ${hit.heading}`);
      link.href = `${root}${hit.path}#${hit.anchor}`;
      link.append(element("small", hit.text.slice(hit.at, hit.at + 160)));
      return link;
    }));
    if (hits.length === 0) results.append(element("p", "Nothing has all these words."));
    if (hits.length > SHOWN_MAX) results.append(element("p", `and ${hits.length - SHOWN_MAX} more`));
  }

  query.addEventListener("input", show);
  query.addEventListener("focus", () => load().catch(() => {}));
  results.addEventListener("click", () => { results.hidden = true; });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== query) {
      event.preventDefault();
      query.focus();
    } else if (event.key === "Escape") {
      results.hidden = true;
    }
  });
})();
