// A drawing of the page as a PNG: the SVG with all styles written into it, painted on a canvas.

import { saveAs } from "./api.js";

const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity", "font-family", "font-size", "font-weight", "display"];
const PADDING = 20;
const HEAD = 34;

// Has the browser save `svg` as a picture, with its title above.
export async function save(svg, title) {
  const { width, height } = svg.getBoundingClientRect();
  const blob = await picture(svg, title, Math.round(width), Math.round(height));
  saveAs(blob, `${title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.png`);
}

async function picture(svg, title, width, height) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg.querySelectorAll("*"), copy.querySelectorAll("*")];
  from.forEach((node, index) => {
    const computed = getComputedStyle(node);
    for (const name of STYLES) to[index].setAttribute(name, computed.getPropertyValue(name));
    to[index].setAttribute("class", node.classList.contains("cursor") ? "is-cursor" : "");
  });
  copy.querySelector(".is-cursor")?.remove();
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const source = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = source;
    await image.decode();
    const scale = 2;
    const canvas = document.createElement("canvas");
    canvas.width = (width + 2 * PADDING) * scale;
    canvas.height = (height + 2 * PADDING + HEAD) * scale;
    const context = canvas.getContext("2d");
    const [page, behind] = [getComputedStyle(document.body), getComputedStyle(svg.closest(".chart"))];
    context.scale(scale, scale);
    context.fillStyle = behind.backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = page.color;
    context.font = `600 15px ${page.fontFamily}`;
    context.fillText(title, PADDING, PADDING + 14);
    context.drawImage(image, PADDING, PADDING + HEAD, width, height);
    return await new Promise((done, failed) => canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("the picture is too large"))), "image/png"));
  } finally {
    URL.revokeObjectURL(source);
  }
}
