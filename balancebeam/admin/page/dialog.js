// The dialog of one server: its facts, its admin state and its weight. A change that takes traffic
// from the server is confirmed first.

import {byId, clock, count, definition, duration, percent, rate, setText, show, showProblem} from "./dom.js";
import {request} from "./stream.js";

const dialog = byId("server"), actions = byId("server-actions"), confirmation = byId("server-confirm");
const weight = byId("server-weight"), problem = byId("server-problem"), confirmed = byId("server-confirmed");
let current = null, change = null, latest = null, opener = null, toastTimer = 0;

const inFlight = ({in_flight: number}) => number === 0 ? "nothing is in flight"
  : `${count(number)} in flight ${number === 1 ? "finishes" : "finish"} first`;

const QUESTIONS = {
  drain: (server) => ["Drain",
    `Drain ${server.address}? It gets no new requests; ${inFlight(server)}.`],
  maintenance: (server) => ["Start maintenance",
    `Take ${server.address} into maintenance? It gets neither new requests nor health checks; `
    + `${inFlight(server)}.`],
  weight: (server) => ["Set weight 0",
    `Set the weight of ${server.address} to 0? It gets no new requests.`],
};

export function openDialog(server) {
  current = server;
  setText(byId("server-title"), server.address);
  setText(byId("server-pool"), `pool ${server.pool}`);
  weight.value = server.weight;
  opener = null;
  showProblem(problem, "");
  showActions();
  renderFacts(server);
  dialog.showModal();
}

// Updates the open dialog; called for each snapshot.
export function renderDialog(snapshot) {
  latest = snapshot;
  if (!dialog.open) return;
  const server = snapshot.servers.find((item) => isSame(item, current) && item.reason !== "removed");
  if (server) {
    current = server;
    renderFacts(server);
  } else {
    showProblem(problem, "This server has been removed from its pool.");
    show(actions, false);
    show(confirmation, false);
  }
}

const isSame = (one, other) => one.pool === other.pool && one.address === other.address;

function renderFacts(server) {
  definition(byId("server-facts"), [
    ["State", server.state, server.state === "down" ? "bad" : server.state === "up" ? "" : "attention"],
    ["Reason", server.reason || "–"],
    ["Since", server.since ? clock(server.since) : "start"],
    ["Requests", `${rate(server.rate)} /s, ${count(server.requests)} in total`],
    ["Failures", `${percent(server.error_rate)}, ${count(server.failures)} in total`],
    ["Latency", `p50 ${duration(server.p50)}, p99 ${duration(server.p99)}`],
    ["In flight", count(server.in_flight)],
  ]);
  for (const button of actions.querySelectorAll("[data-state]")) {
    const active = {drain: "draining", maintenance: "maintenance"}[button.dataset.state];
    const ready = server.state === "up" || server.state === "down";
    button.disabled = active ? server.state === active : ready;
  }
}

function showActions() {
  change = null;
  show(actions, true);
  show(confirmation, false);
}

// Back from the confirmation: the focus returns to the control that led there.
function cancel() {
  showActions();
  if (opener) opener.focus();
  opener = null;
}

function ask(name, content) {
  const [label, text] = QUESTIONS[name](current);
  change = content;
  opener = document.activeElement;
  setText(byId("server-question"), text);
  setText(confirmed, label);
  const others = latest.servers.filter((item) => item.pool === current.pool
    && item.available && !isSame(item, current));
  const warning = byId("server-warning");
  setText(warning, others.length ? "" : `No other server of pool ${current.pool} is available: `
    + "its requests will be answered with 503.");
  show(warning, others.length === 0);
  showProblem(problem, "");
  show(actions, false);
  show(confirmation, true);
  byId("server-cancel").focus();
}

async function apply(content) {
  const server = current;
  showProblem(problem, "");
  confirmed.disabled = true;
  try {
    const path = `upstreams/${encodeURIComponent(server.pool)}/${encodeURIComponent(server.address)}`;
    const result = await request(path, {
      method: "PATCH",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(content),
    });
    dialog.close();
    toast(`${result.address}: ${result.state}, weight ${result.weight}`);
  } catch (error) {
    cancel();
    showProblem(problem, `Not changed: ${error.message}`);
  } finally {
    confirmed.disabled = false;
  }
}

function toast(text) {
  const node = byId("toast");
  showProblem(node, text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => show(node, false), 5000);
}

for (const button of actions.querySelectorAll("[data-state]")) {
  const state = button.dataset.state;
  button.addEventListener("click", () => (state === "ready" ? apply({state}) : ask(state, {state})));
}
byId("server-weight-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = weight.valueAsNumber;
  if (value === 0 && current.weight > 0) ask("weight", {weight: value});
  else apply({weight: value});
});
confirmed.addEventListener("click", () => apply(change));
byId("server-cancel").addEventListener("click", cancel);
byId("server-close").addEventListener("click", () => dialog.close());
// A click beside the dialog closes it, as Escape does.
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
