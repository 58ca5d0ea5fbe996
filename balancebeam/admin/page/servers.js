// The tables of servers, one for each pool.

import {
  age, byId, count, drawSparkline, duration, element, percent, rate, row, setAttribute, setClass,
  setText, show, sparkline, svgElement, table, updateChildren,
} from "./dom.js";
import {openDialog} from "./dialog.js";

const COLUMNS = [
  ["Server", "name"], ["State", "state"], ["Weight", "number"], ["Share", "number share"],
  ["Requests/s", "number"], ["Last minute", "trend"], ["Errors", "number"], ["p50", "number"],
  ["p99", "number"], ["In flight", "number"], ["Idle", "number"], ["Actions", "actions"],
];

// Failures in a hundred requests that need attention.
const BAD_ERROR_RATE = 0.01;

const filter = byId("filter"), attention = byId("attention");
let latest = null;

// With hundreds of servers most rows are outside of the window. Their numbers follow in the next
// frames, some rows in each, and their graphics when they come near.
const ROWS_PER_FRAME = 12;
const deferred = new Set();
let scheduled = false;

function defer(node) {
  deferred.add(node);
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(fillDeferred);
}

function fillDeferred() {
  let left = ROWS_PER_FRAME;
  for (const node of deferred) {
    if (left === 0) break;
    left -= 1;
    fillRow(node);
  }
  scheduled = deferred.size > 0;
  if (scheduled) requestAnimationFrame(fillDeferred);
}

const nearby = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    target.near = isIntersecting;
    if (isIntersecting) fillRow(target);
  }
}, {rootMargin: "200px"});

for (const input of [filter, attention]) {
  input.addEventListener("input", () => latest && renderServers(latest));
}

export function needsAttention(server) {
  return server.state !== "up" || server.weight === 0 || server.error_rate >= BAD_ERROR_RATE;
}

export function renderServers(data) {
  latest = data;
  const text = filter.value.trim().toLowerCase();
  const shown = data.servers.filter((server) => (!attention.checked || needsAttention(server))
    && `${server.pool} ${server.address} ${server.state}`.toLowerCase().includes(text));
  const pools = data.pools.map((pool) => ({
    ...pool,
    all: data.servers.filter((server) => server.pool === pool.name),
    shown: shown.filter((server) => server.pool === pool.name),
  })).filter((pool) => pool.shown.length || !(text || attention.checked));
  show(byId("no-servers"), pools.length === 0);
  updateChildren(byId("pools"), pools, (pool) => pool.name, createPool, updatePool);
}

function createPool(pool) {
  const [node, body] = table(`Servers of pool ${pool.name}`, COLUMNS);
  const meta = element("p", {class: "muted meta"}), trend = sparkline();
  const id = `pool-${pool.name}`;
  const section = element("section", {class: "pool", "aria-labelledby": id},
    element("div", {class: "title"}, element("h2", {id}, pool.name), meta, trend),
    element("div", {class: "card wide"}, node));
  return Object.assign(section, {body, meta, trend});
}

function updatePool(section, pool) {
  const unit = pool.mode === "tcp" ? "connections/s" : "requests/s";
  const parts = [`${pool.available} of ${pool.servers} available`, `${rate(pool.rate)} ${unit}`];
  if (pool.p99 !== null) parts.push(`p50 ${duration(pool.p50)}, p99 ${duration(pool.p99)}`);
  if (pool.error_rate) parts.push(`${percent(pool.error_rate)} errors`);
  if (pool.queued) parts.push(`${count(pool.queued)} queued`);
  parts.push(pool.algorithm);
  setText(section.meta, parts.join(" · "));
  drawSparkline(section.trend, pool.history, Math.max(...pool.history, 0));
  // One scale for the servers of a pool, so that their lines can be compared.
  let highest = 0;
  for (const {history} of pool.all) for (const value of history) if (value > highest) highest = value;
  updateChildren(section.body, pool.shown, (server) => `${server.address} ${server.reason === "removed"}`,
    createRow, (node, server) => updateRow(node, server, highest));
}

function createRow(server) {
  const node = row(COLUMNS);
  const cells = node.cellsByIndex;
  const name = element("span", {class: "address"}, server.address);
  const tag = element("span", {class: "tag"});
  cells[0].append(name, tag);
  const state = element("span", {class: "word"}), reason = element("span", {class: "reason"});
  cells[1].append(element("span", {class: "dot"}), state, reason);
  const bar = svgElement("rect", {height: "4", rx: "2"});
  const share = element("span");
  cells[3].append(share, svgElement("svg", {class: "bar", viewBox: "0 0 48 4", "aria-hidden": "true"},
    svgElement("rect", {class: "track", width: "48", height: "4", rx: "2"}), bar));
  const trend = sparkline();
  cells[5].append(trend);
  const button = element("button", {type: "button", "aria-haspopup": "dialog"}, "Manage",
    element("span", {class: "hidden"}, ` ${server.address}`));
  button.addEventListener("click", () => openDialog(node.server));
  cells[11].append(button);
  nearby.observe(node);
  return Object.assign(node, {tag, state, reason, share, bar, trend, button, near: false});
}

function updateRow(node, server, highest) {
  Object.assign(node, {server, highest});
  setAttribute(node, "data-state", server.state);
  setText(node.state, server.state);
  const since = server.since ? `, ${age((Date.now() - new Date(server.since)) / 1000)}` : "";
  setText(node.reason, server.state === "up" ? "" : `${server.reason}${since}`);
  setAttribute(node.reason, "title", server.reason);
  show(node.button, server.reason !== "removed");
  if (node.near) fillRow(node);
  else defer(node);
}

// The numbers, and the graphics of a row that can be seen.
function fillRow(node) {
  deferred.delete(node);
  const {server, cellsByIndex: cells} = node;
  const tags = [server.backup ? "backup" : "", server.source === "configured" ? "" : server.source];
  setText(node.tag, tags.filter(Boolean).join(", "));
  setText(cells[2], server.weight);
  setClass(cells[2], "attention", server.weight === 0);
  setText(node.share, percent(server.share));
  setText(cells[4], rate(server.rate));
  setText(cells[6], percent(server.error_rate));
  setClass(cells[6], "bad", server.error_rate >= BAD_ERROR_RATE);
  setText(cells[7], duration(server.p50));
  setText(cells[8], duration(server.p99));
  setText(cells[9], count(server.in_flight));
  setText(cells[10], count(server.idle));
  if (!node.near) return;
  setAttribute(node.bar, "width", String(Math.round(48 * (server.share || 0))));
  drawSparkline(node.trend, server.history, node.highest);
}
