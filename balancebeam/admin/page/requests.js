// Recent requests: failed, slow or all, each with its attempts and phases.

import {
  bytes, byId, clock, definition, duration, element, setText, show, showProblem, svgElement,
  updateChildren,
} from "./dom.js";
import {request} from "./stream.js";
import {explain} from "./explain.js";

// Milliseconds between two queries while the view is open.
const REFRESH = 3000;

const PHASES = ["queue", "connect", "first_byte", "body"];
const EMPTY = {failed: "No request failed.", slow: "No request yet.", "": "No request yet."};
const buttons = [...document.querySelectorAll("#view-requests [data-kind]")];
let kind = "failed", timer = 0, visible = false;

// Shows the links of the views that this balancer supports.
export async function enableRequests(links) {
  try {
    const response = await fetch("openapi.json", {cache: "no-store"});
    const {paths} = await response.json();
    for (const link of links) {
      const path = {requests: "/requests", explain: "/explain"}[link.hash.slice(1)];
      if (path) show(link, path in paths);
    }
  } catch {
    // The stream reports that the balancer cannot be reached.
    setTimeout(() => enableRequests(links), REFRESH);
  }
}

export function showRequests(on) {
  visible = on;
  clearTimeout(timer);
  if (on) refresh();
}

async function refresh() {
  clearTimeout(timer);
  const asked = kind;
  try {
    const found = await request(`requests?limit=100${asked ? `&${asked}=1` : ""}`);
    if (asked === kind) render(Array.isArray(found) ? found : found.requests);
    showProblem(byId("requests-problem"), "");
  } catch (error) {
    showProblem(byId("requests-problem"), `Not read: ${error.message}`);
  }
  if (visible) timer = setTimeout(refresh, REFRESH);
}

function render(requests) {
  setText(byId("no-requests"), EMPTY[kind]);
  show(byId("no-requests"), requests.length === 0);
  updateChildren(byId("request-list"), requests, (item) => `${item.id} ${item.time}`, create, () => {});
}

const total = (phases) => PHASES.reduce((sum, name) => sum + (phases[name] || 0), 0);

function create(item) {
  const failed = item.status >= 500 || item.ended === "server" || item.ended === "timeout";
  const summary = element("summary", {},
    element("span", {class: "number start"}, clock(item.time)),
    element("span", {class: failed ? "number bad" : "number"}, String(item.status || "–")),
    element("span", {class: "target"}, `${item.method} ${item.host || ""}${item.target}`),
    element("span", {class: "number"}, duration(total(item.phases || {}))),
    element("span", {class: item.ended === "complete" ? "muted" : ""}, item.ended));
  const details = element("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(explanationOf(item));
  });
  return element("li", {}, details);
}

function explanationOf(item) {
  const facts = element("dl", {class: "facts"});
  definition(facts, [
    ["Id", item.id], ["Client", item.client], ["Frontend", item.frontend || "–"],
    ["Route", item.route || "default"], ["Pool", item.pool || "–"], ["Bytes", bytes(item.bytes)],
  ]);
  const attempts = element("ol", {class: "tries"}, ...(item.tries || []).map((attempt) =>
    element("li", {}, element("strong", {}, attempt.server || "–"),
      ` ${[attempt.reason, attempt.result].filter(Boolean).join(" → ")}, ${duration(attempt.seconds)}`)));
  const button = element("button", {type: "button"}, "Explain it now");
  button.addEventListener("click", () => explain(item));
  return element("div", {class: "explained"}, facts, phaseBar(item.phases || {}),
    attempts.childElementCount ? attempts : element("p", {class: "muted"}, "No server was tried."),
    button);
}

function phaseBar(phases) {
  const sum = total(phases);
  const bar = svgElement("svg", {class: "phases", viewBox: "0 0 400 8", "aria-hidden": "true",
    preserveAspectRatio: "none"});
  let start = 0;
  for (const name of PHASES) {
    const width = sum ? 400 * (phases[name] || 0) / sum : 0;
    bar.append(svgElement("rect", {class: name, x: String(start), width: String(width), height: "8"}));
    start += width;
  }
  const legend = element("p", {class: "legend"}, ...PHASES.map((name) => element("span", {class: name},
    `${name.replace("_", " ")} ${duration(phases[name])}`)));
  return element("div", {}, bar, legend);
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    kind = button.dataset.kind;
    for (const item of buttons) item.setAttribute("aria-pressed", String(item === button));
    refresh();
  });
}
