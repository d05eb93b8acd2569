// From descriptions of elements to elements: `h` describes, `show` makes what is on the page be so.
//
// Pages describe themselves as a whole each time; only what differs is touched, so that focus, selection and scrolling stay. An
// element is the same as before if its tag is, and its key where it has one.

const SVG = "http://www.w3.org/2000/svg";
// Set as properties, since what the attribute says is only where they begin.
const PROPERTIES = new Set(["value", "checked", "open", "selected", "indeterminate"]);

// Describes an element: h("a", { href: "/" }, "text", h("b"), …). Children that are null, undefined or false are left out.
// Properties: attributes by name; `onclick` and the like take functions; `style` takes an object; `ref` is called once with the element, when it is on the page.
export function h(tag, properties, ...children) {
  const { key, ref, ...rest } = properties ?? {};
  return { tag, key, ref, properties: rest, children: described(children) };
}

function described(children) {
  const found = [];
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === true) continue;
    found.push(typeof child === "object" ? child : { tag: "#text", text: String(child) });
  }
  return found;
}

// Makes the children of `parent` be as described.
export function show(parent, ...children) {
  place(parent, described(children), parent.namespaceURI === SVG);
  for (const [ref, node] of arrived.splice(0)) ref(node);
}

// Elements that are new on the page, with what is to be called.
const arrived = [];

function place(parent, wanted, isSvg) {
  const keyed = new Map();
  const free = new Map();
  for (const shown of parent.shown ?? []) {
    if (keyed.has(shown.key)) shown.node.remove();
    else if (shown.key !== undefined) keyed.set(shown.key, shown);
    else if (free.has(shown.tag)) free.get(shown.tag).push(shown);
    else free.set(shown.tag, [shown]);
  }
  const now = wanted.map((description) => {
    const candidate = description.key === undefined ? free.get(description.tag)?.shift() : keyed.get(description.key);
    if (candidate && candidate.tag === description.tag) {
      if (description.key !== undefined) keyed.delete(description.key);
      return update(candidate, description, isSvg);
    }
    return create(description, isSvg);
  });
  for (const shown of keyed.values()) shown.node.remove();
  for (const list of free.values()) for (const shown of list) shown.node.remove();
  let next = parent.firstChild;
  for (const { node } of now) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
  parent.shown = now;
}

function create(description, isSvg) {
  const { tag, key } = description;
  if (tag === "#text") return { tag, text: description.text, node: document.createTextNode(description.text) };
  const inSvg = isSvg || tag === "svg";
  const node = inSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  const shown = update({ tag, key, node, properties: {} }, description, inSvg);
  if (description.ref) arrived.push([description.ref, node]);
  return shown;
}

function update(shown, description, isSvg) {
  const { node } = shown;
  if (shown.tag === "#text") {
    if (shown.text !== description.text) node.data = description.text;
    return { ...shown, text: description.text };
  }
  const inSvg = isSvg || shown.tag === "svg";
  const { properties } = description;
  for (const name of Object.keys(shown.properties)) if (!(name in properties)) set(node, name, null);
  const late = [];
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") styles(node, value, shown.properties.style);
    else if (shown.properties[name] !== value) PROPERTIES.has(name) ? late.push([name, value]) : set(node, name, value);
  }
  place(node, description.children, inSvg);
  // A list's value names one of its options, which are there only now.
  for (const [name, value] of late) if (node[name] !== value) node[name] = value;
  return { ...shown, properties };
}

function set(node, name, value) {
  if (name.startsWith("on")) node[name] = value;
  else if (PROPERTIES.has(name)) node[name] = value ?? "";
  else if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}

function styles(node, wanted, before = {}) {
  for (const name of Object.keys(before)) if (!(name in wanted)) node.style.removeProperty(name);
  for (const [name, value] of Object.entries(wanted)) if (before[name] !== value) node.style.setProperty(name, value);
}
