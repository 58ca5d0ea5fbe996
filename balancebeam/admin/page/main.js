// The admin page: navigation, the event stream, and the parts that every view has.

import {bytes, byId, age, clock, count, definition, percent, rate, setText, show, showProblem} from "./dom.js";
import {readEvents} from "./stream.js";
import {renderServers} from "./servers.js";
import {renderDialog} from "./dialog.js";
import {renderChanges, renderFrontends, renderLimits, showConfiguration} from "./views.js";
import {enableRequests, showRequests} from "./requests.js";
import {renderExplainForm} from "./explain.js";

const links = [...document.querySelectorAll("#views a")];
let snapshot = null, drawing = false, view = "servers";

function navigate(moveFocus) {
  const name = location.hash.slice(1);
  const link = links.find((item) => item.hash.slice(1) === name && !item.hidden) || links[0];
  view = link.hash.slice(1);
  for (const item of links) {
    if (item === link) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
    show(byId(`view-${item.hash.slice(1)}`), item === link);
  }
  document.title = view === "servers" ? "balancebeam" : `${link.textContent} – balancebeam`;
  showRequests(view === "requests");
  if (view === "configuration") showConfiguration();
  if (moveFocus) byId("main").focus({preventScroll: true});
  draw();
}

// One drawing per frame, and none while the page is hidden.
function draw() {
  if (drawing || snapshot === null) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    render(snapshot);
  });
}

const renderers = {
  servers: (data) => { renderSummary(data); renderServers(data); },
  limits: renderLimits,
  changes: renderChanges,
  frontends: renderFrontends,
  configuration: (data) => renderProcess(data.process),
  explain: renderExplainForm,
};

function render(data) {
  setText(byId("version"), data.process.version);
  if (renderers[view]) renderers[view](data);
  renderDialog(data);
  const draining = data.process.draining;
  showProblem(byId("banner"), draining
    ? "The balancer is shutting down: requests in progress finish, new clients are not accepted."
    : data.process.not_ready ? `Not ready: ${data.process.not_ready}` : "");
}

function renderSummary({servers, pools, frontends, process}) {
  const sum = (items, name) => items.reduce((total, item) => total + item[name], 0);
  const up = servers.filter((server) => server.state === "up").length;
  const finished = pools.filter((pool) => pool.error_rate !== null);
  const weighted = finished.reduce((total, pool) => total + pool.error_rate * pool.rate, 0);
  const traffic = sum(finished, "rate");
  const errors = finished.length ? (traffic ? weighted / traffic : 0) : null;
  definition(byId("summary"), [
    ["Requests/s", rate(sum(pools, "rate"))],
    ["Errors", percent(errors), errors >= 0.01 ? "bad" : ""],
    ["In flight", count(sum(pools, "in_flight"))],
    ["Queued", count(sum(pools, "queued")), sum(pools, "queued") ? "attention" : ""],
    ["Servers up", `${up} of ${servers.length}`, up < servers.length ? "attention" : ""],
    ["Clients", count(sum(frontends, "connections"))],
    ["CPU", percent(process.cpu)],
    ["Uptime", process.uptime === null ? "–" : age(process.uptime)],
  ]);
}

function renderProcess(process) {
  definition(byId("process"), [
    ["Version", process.version],
    ["Uptime", process.uptime === null ? "–" : age(process.uptime)],
    ["Memory", bytes(process.rss)],
    ["CPU", percent(process.cpu)],
    ["Reloads", String(process.reloads)],
    ["Rejected reloads", String(process.reloads_failed), process.reloads_failed ? "attention" : ""],
    ["Last reload", process.reloaded_at ? clock(process.reloaded_at) : "never"],
  ]);
}

function announce(change) {
  const from = change.previous ? `, was ${change.previous}` : "";
  setText(byId("announcements"),
    `${change.address} in pool ${change.pool} is ${change.state}${from}: ${change.reason}`);
}

function streamStatus(state, text) {
  byId("stream").dataset.state = state;
  document.body.classList.toggle("stale", state !== "live" && snapshot !== null);
  setText(byId("stream-text"), state === "live" ? "Live" : state === "lost" ? "Disconnected" : "Connecting…");
  if (state === "live") draw();
  else showProblem(byId("banner"), `${text}${snapshot ? " The values are from "
    + clock(snapshot.time) + "." : ""}`);
}

function applyChange(change) {
  if (snapshot === null) return;
  snapshot.changes.unshift(change);
  snapshot.changes.splice(100);
  for (const server of snapshot.servers) {
    if (server.pool === change.pool && server.address === change.address && change.state !== "removed") {
      Object.assign(server, {state: change.state, reason: change.reason, since: change.time});
    }
  }
  announce(change);
}

addEventListener("hashchange", () => navigate(true));
navigate(false);
enableRequests(links).then(() => navigate(false));
readEvents((name, data) => {
  if (name === "snapshot") snapshot = data;
  else if (name === "change") applyChange(data);
  draw();
}, streamStatus);
