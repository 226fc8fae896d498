// Describe elements as plain objects, then patch them into the page or write them as text.
// Patching keeps what is there, so that the focus stays where it was.

import { BEFORE, GRID, INK, MUTED, PAPER, variables } from "./colours.js";

/** Describe an element. Functions and objects among the attributes become properties. */
export const h = (tag, attributes = {}, ...children) => ({
  tag,
  attributes,
  children: children
    .flat(Infinity)
    .filter((child) => child != null && child !== false)
    .map((child) => (typeof child === "object" ? child : String(child))),
});

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "open"]);
const isProperty = (name, value) =>
  PROPERTIES.has(name) || typeof value === "function" || typeof value === "object";

function element(parent, tag) {
  const drawn = tag === "svg" || parent.namespaceURI === SVG;
  return drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
}

function dress(node, attributes) {
  for (const { name } of [...node.attributes]) {
    if (!(name in attributes) && !PROPERTIES.has(name)) node.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (isProperty(name, value)) {
      if (node[name] !== value) node[name] = value;
    } else if (node.getAttribute(name) !== String(value)) {
      node.setAttribute(name, value);
    }
  }
}

/** Make the children of `parent` what `children` describe. */
export function patch(parent, children) {
  children.forEach((child, place) => {
    let node = parent.childNodes[place];
    const isText = typeof child === "string";
    const fits = node && (isText ? node.nodeType === 3 : node.localName === child.tag);
    if (!fits) {
      const made = isText ? document.createTextNode(child) : element(parent, child.tag);
      node ? node.replaceWith(made) : parent.append(made);
      node = made;
    }
    if (!isText) {
      dress(node, child.attributes);
      patch(node, child.children);
    } else if (node.data !== child) {
      node.data = child;
    }
  });
  while (parent.childNodes.length > children.length) parent.lastChild.remove();
}

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function markup(node) {
  if (typeof node === "string") return escape(node);
  const attributes = Object.entries(node.attributes)
    .filter(([name, value]) => !isProperty(name, value) && !/^(aria-|role$|tabindex$)/.test(name))
    .map(([name, value]) => ` ${name}="${escape(value)}"`);
  const inner = node.children.map(markup).join("");
  return `<${node.tag}${attributes.join("")}>${inner}</${node.tag}>`;
}

/** The picture as a file of its own: it says what it shows, and follows light and dark. */
export function still(picture, alt) {
  const { width, height } = picture.attributes;
  const style = `svg{${variables(0)}}@media (prefers-color-scheme: dark){svg{${variables(1)}}}`;
  return (
    `<svg xmlns="${SVG}" viewBox="0 0 ${width} ${height}" role="img">\n` +
    `<title>${escape(alt)}</title>\n<style>${style}</style>\n` +
    `<g font-family="system-ui, sans-serif" font-size="13" fill="${INK}">` +
    `${picture.children.map(markup).join("\n")}</g>\n</svg>\n`
  );
}

// Numbers

/** A number for people: fixed decimals, a real minus sign, no minus before zero. */
export const show = (value, digits = 2) => {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
};

const px = (value) => Number(value.toFixed(2));

/** A linear map from [a, b] to [from, to]; `clip` keeps to the ends. */
export function scale(a, b, from, to) {
  const map = (value) => px(from + ((value - a) / (b - a)) * (to - from));
  map.invert = (pixel) => a + ((pixel - from) / (to - from)) * (b - a);
  map.clip = (value) => map(Math.min(b, Math.max(a, value)));
  map.ends = [from, to];
  return map;
}

// Marks

export const picture = (width, height, ...children) =>
  h("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, children);

export const group = (...children) => h("g", {}, children);

export const text = (x, y, content, more = {}) => h("text", { x, y, ...more }, content);

/** Words that stay legible over lines. */
export const heading = (x, y, content, more = {}) =>
  text(x, y, content, { "paint-order": "stroke", stroke: PAPER, "stroke-width": 4, ...more });

export const line = (x1, y1, x2, y2, stroke = MUTED, more = {}) =>
  h("line", { x1, y1, x2, y2, stroke, ...more });

export const path = (points, stroke, more = {}) => {
  const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");
  return h("path", { d, fill: "none", stroke, "stroke-width": 2, ...more });
};

export const dot = (x, y, fill = BEFORE, r = 5) =>
  h("circle", { cx: x, cy: y, r, fill, stroke: PAPER });

export const diamond = (x, y, fill, r = 9, more = {}) =>
  h("path", { d: `M${x} ${y - r}l${r} ${r}l${-r} ${r}l${-r} ${-r}z`, fill, ...more });

export const cross = (x, y, stroke, r = 5) =>
  [PAPER, stroke].map((colour, i) =>
    h("path", {
      d: `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`,
      stroke: colour,
      "stroke-width": 5.5 - 3 * i,
      fill: "none",
    }),
  );

/** Mean and one deviation to either side, as in the book's strips. */
export const bar = (to, { mean, variance }, y, colour, thickness = 10, more = {}) => {
  const deviation = Math.sqrt(variance);
  const [left, right] = [to.clip(mean - deviation), to.clip(mean + deviation)];
  const height = thickness;
  return group(
    h("rect", {
      x: left,
      y: y - height / 2,
      width: px(right - left),
      height,
      fill: colour,
      opacity: 0.35,
      ...more,
    }),
    line(to.clip(mean), y - height, to.clip(mean), y + height, colour, { "stroke-width": 2.5 }),
  );
};

/** A horizontal axis with ticks below. */
export const axis = (to, y, ticks, more = {}) =>
  group(
    line(to.ends[0], y, to.ends[1], y),
    ticks.map((tick) => [
      line(to(tick), y, to(tick), y + 4),
      text(to(tick), y + 17, show(tick, 0), { "text-anchor": "middle", "font-size": 12, ...more }),
    ]),
  );

/** A vertical axis: grid lines with their values at the left. */
export const rules = (to, left, right, ticks, digits = 0) =>
  group(
    ticks.map((tick) => [
      line(left, to(tick), right, to(tick), tick ? GRID : MUTED),
      text(left - 6, to(tick) + 4, show(tick, digits), { "text-anchor": "end", "font-size": 12 }),
    ]),
  );

/**
 * What can be dragged, or moved with the arrow keys: one number of a list.
 * `along` is "x" or "y"; `to` is the scale of that direction.
 */
export const grip = ({ label, field, index, value, at, along, to, limits }, ...marks) =>
  h(
    "g",
    {
      class: `grip along-${along}`,
      role: "slider",
      tabindex: 0,
      "aria-label": label,
      "aria-valuemin": limits.min,
      "aria-valuemax": limits.max,
      "aria-valuenow": value,
      "aria-orientation": along === "x" ? "horizontal" : "vertical",
      grip: { field, index, value, at, along, to },
    },
    h("circle", { class: "target", cx: at[0], cy: at[1], r: 22, fill: "transparent" }),
    marks,
  );
