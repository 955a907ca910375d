// Makes elements. What users wrote only ever becomes a text node or an attribute's value.

function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(place, ...children) {
  return filled(place, {}, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

const share = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const many = (n, one, more = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;
const dateWords = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") : "");

// Says that a list is cut; the empty text where it is whole, for null would be shown as a word.
function firstOf(n, most) {
  if (n <= most) return "";
  const cut = `Only the first ${most.toLocaleString("en")} of ${n.toLocaleString("en")} are shown.`;
  return el("p", { class: "soft cut" }, cut);
}
