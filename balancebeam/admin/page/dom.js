// Elements, formats and sparklines. Values become text nodes only, never markup.

// Without user name and password, which fetch rejects in a URL.
export const base = location.origin + location.pathname.replace(/[^/]*$/, "");

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function svgElement(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Unchanged text is not set again, so that neither a selection nor a screen reader is disturbed.
export function setText(node, value) {
  const text = value === null || value === undefined ? "" : String(value);
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export function setClass(node, name, on) {
  if (node.classList.contains(name) !== Boolean(on)) node.classList.toggle(name, Boolean(on));
}

export function show(node, visible) {
  if (node.hidden === Boolean(visible)) node.hidden = !visible;
}

export function showProblem(node, text) {
  setText(node, text);
  show(node, text);
}

// The children of `parent` for `items`, in their order; each is made once for its key.
export function updateChildren(parent, items, keyOf, create, update) {
  const nodes = parent.nodesByKey || new Map();
  const kept = new Map();
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const node = nodes.get(key) || create(item);
    kept.set(key, node);
    update(node, item);
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  for (const [key, node] of nodes) if (!kept.has(key)) node.remove();
  parent.nodesByKey = kept;
}

// A table with the columns [heading, class]. The roles remain where CSS makes rows into cards.
export function table(caption, columns) {
  const headings = columns.map(([heading, kind = ""]) => {
    const cell = element("th", {scope: "col", role: "columnheader", class: kind}, heading);
    return cell;
  });
  const body = element("tbody", {role: "rowgroup"});
  return [
    element("table", {role: "table"},
      element("caption", {class: "hidden"}, caption),
      element("thead", {role: "rowgroup"}, element("tr", {role: "row"}, ...headings)), body),
    body,
  ];
}

export function row(columns) {
  const cells = columns.map(([heading, kind = ""], index) => index
    ? element("td", {role: "cell", class: kind, "data-label": heading})
    : element("th", {role: "rowheader", scope: "row", class: kind}));
  const node = element("tr", {role: "row"}, ...cells);
  node.cellsByIndex = cells;
  return node;
}

// A table of texts: columns are [heading, class, text of an item, class of an item].
export function textTable(parent, caption, columns, items, keyOf, empty) {
  if (!parent.body) {
    const [node, body] = table(caption, columns);
    parent.frame = element("div", {class: "card"}, node);
    parent.none = element("p", {class: "empty"}, empty);
    parent.append(parent.frame, parent.none);
    parent.body = body;
  }
  show(parent.frame, items.length > 0);
  show(parent.none, items.length === 0);
  updateChildren(parent.body, items, keyOf, () => row(columns), (node, item) => {
    columns.forEach(([, kind = "", text, attention], index) => {
      const cell = node.cellsByIndex[index];
      setText(cell, text(item));
      const name = `${kind} ${attention ? attention(item) : ""}`.trim();
      if (cell.className !== name) cell.className = name;
    });
  });
}

export function definition(parent, facts) {
  updateChildren(parent, facts, ([name]) => name, ([name]) => {
    const value = element("dd");
    const node = element("div", {}, element("dt", {}, name), value);
    node.value = value;
    return node;
  }, (node, [, value, kind]) => {
    setText(node.value, value);
    const name = kind || "";
    if (node.value.className !== name) node.value.className = name;
  });
}

// Formats.

export function count(value) {
  if (value === null || value === undefined) return "–";
  // In a tenth of the time of toLocaleString.
  return Math.round(value).toFixed(0).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 10 ? value.toFixed(1) : count(Math.round(value));
}

export function percent(value) {
  if (value === null || value === undefined) return "–";
  const number = value * 100;
  if (number === 0) return "0\u2009%";
  if (number < 0.1) return "<\u20090.1\u2009%";
  return `${number < 10 && number !== Math.round(number) ? number.toFixed(1) : Math.round(number)}\u2009%`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const milliseconds = seconds * 1000;
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

export function age(seconds) {
  for (const [size, unit, small] of [[86400, "d", 3600], [3600, "h", 60], [60, "min", 0]]) {
    if (seconds >= size) {
      const rest = small ? Math.floor((seconds % size) / small) : 0;
      const restUnit = size === 86400 ? "h" : "min";
      return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${restUnit}` : ""}`;
    }
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let index = 0;
  while (value >= 1024 && index < units.length - 1) { value /= 1024; index += 1; }
  return `${value < 10 && index ? value.toFixed(1) : Math.round(value)} ${units[index]}`;
}

export function clock(time) {
  const moment = new Date(time);
  const today = moment.toDateString() === new Date().toDateString();
  const text = moment.toLocaleTimeString("en-GB");
  return today ? text : `${moment.toLocaleDateString("en-CA")} ${text}`;
}

// Sparklines: a minute of samples, the newest at the right.

const SAMPLES = 60, WIDTH = 118, HEIGHT = 24;

export function sparkline() {
  const area = svgElement("path", {class: "area"}), line = svgElement("path", {class: "line"});
  const node = svgElement("svg", {
    class: "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
    "aria-hidden": "true", focusable: "false",
  }, area, line);
  node.paths = [area, line];
  return node;
}

export function drawSparkline(node, samples, highest) {
  const scale = (HEIGHT - 3) / Math.max(highest, 1), first = SAMPLES - samples.length;
  const points = samples.map((value, index) =>
    `${(first + index) * 2},${(HEIGHT - 1.5 - value * scale).toFixed(1)}`);
  const [area, line] = node.paths;
  setAttribute(line, "d", points.length > 1 ? `M${points.join("L")}` : "");
  setAttribute(area, "d", points.length > 1
    ? `M${first * 2},${HEIGHT}L${points.join("L")}L${WIDTH},${HEIGHT}Z` : "");
}
