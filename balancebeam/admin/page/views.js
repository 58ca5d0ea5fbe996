// The views of limits, state changes, frontends and the configuration.

import {base, byId, clock, count, duration, setText, showProblem, textTable} from "./dom.js";
import {problemOf} from "./stream.js";

// Days before the end of a certificate: ACME renews with a third of 90 days left.
const EXPIRES_SOON = 14;

const LIMITS = [
  ["Limit", "name", (limit) => limit.name],
  ["Applies to", "", (limit) => limit.scope],
  ["Allows", "", (limit) => limit.window === null ? `${count(limit.requests)} at the same time`
    : `${count(limit.requests)} in ${duration(limit.window).replace(/\.0+ /, " ")}`],
  ["Per", "", (limit) => limit.key.join(", ")],
  ["Algorithm", "muted", (limit) => limit.algorithm + (limit.dry_run ? " (dry run)" : "")],
  ["Refused, last minute", "number", (limit) => count(limit.rejected_last_minute),
    (limit) => limit.rejected_last_minute ? "attention" : ""],
  ["Refused, total", "number", (limit) => count(limit.rejected)],
];

const CHANGES = [
  ["Time", "name number start", (change) => clock(change.time)],
  ["Pool", "", (change) => change.pool],
  ["Server", "", (change) => change.address],
  ["Change", "", (change) => change.previous ? `${change.previous} → ${change.state}` : change.state,
    (change) => change.state === "down" ? "bad" : ""],
  ["Reason", "muted text", (change) => change.reason],
];

const FRONTENDS = [
  ["Frontend", "name", (item) => item.name],
  ["Listens on", "text", (item) => item.bind.join(", ")],
  ["Mode", "", (item) => item.mode + (item.tls ? " over TLS" : "")],
  ["Pool", "", (item) => item.pool === null ? "redirect to https" : item.pool],
  ["Clients", "number", (item) => count(item.connections)
    + (item.max_connections ? ` of ${count(item.max_connections)}` : ""),
    (item) => item.max_connections && item.connections >= item.max_connections ? "attention" : ""],
  ["Rejected", "number", (item) => count(item.rejected)],
  ["Certificates", "text", (item) => item.certificates.map(certificateText).join("; ") || "–",
    (item) => certificateClass(Math.min(...item.certificates.map((one) => one.days_left)))],
];

function certificateText({name, days_left: days}) {
  if (days < 0) return `${name}: expired`;
  return `${name}: ${count(days)} ${days === 1 ? "day" : "days"} left`;
}

function certificateClass(days) {
  return days < 0 ? "bad" : days < EXPIRES_SOON ? "attention" : "";
}

export function renderLimits({limits}) {
  textTable(byId("limits"), "Limits", LIMITS, limits.map((limit, index) => ({...limit, index})),
    (limit) => `${limit.scope} ${limit.index}`, "No limit is configured.");
}

export function renderChanges({changes}) {
  textTable(byId("changes"), "Recent state changes", CHANGES, changes,
    (change) => `${change.time} ${change.pool} ${change.address} ${change.state}`,
    "No server has changed its state since the start.");
}

export function renderFrontends({frontends}) {
  textTable(byId("frontends"), "Frontends", FRONTENDS, frontends, (item) => item.name,
    "No frontend is configured.");
}

export async function showConfiguration() {
  const problem = byId("configuration-problem");
  try {
    const response = await fetch(`${base}config`, {cache: "no-store"});
    if (!response.ok) throw new Error(await problemOf(response));
    setText(byId("configuration"), await response.text());
    showProblem(problem, "");
  } catch (error) {
    showProblem(problem, `Not read: ${error.message}`);
  }
}
