// The explain form, and the answer of the balancer.

import {byId, count, definition, element, row, setText, showProblem, table, updateChildren} from "./dom.js";
import {request} from "./stream.js";

const form = byId("explain-form"), result = byId("explanation");

const LIMITS = [["Limit", "name"], ["Applies to"], ["Key"], ["Remaining", "number"], ["Effect"]];
const CANDIDATES = [["Server", "name"], ["State"], ["Weight", "number"], ["In flight", "number"],
  ["Reason", "text"]];

export function renderExplainForm({frontends}) {
  const names = ["", ...frontends.map((frontend) => frontend.name)];
  updateChildren(form.elements.frontend, names, (name) => name,
    (name) => element("option", {value: name}, name || "default"), () => {});
}

// Opens the view for a recent request.
export function explain({method, host, target, client, frontend}) {
  form.elements.frontend.append(...(frontend && ![...form.elements.frontend.options].some(
    (option) => option.value === frontend) ? [element("option", {value: frontend}, frontend)] : []));
  Object.entries({method, host, target, client, frontend}).forEach(([name, value]) => {
    form.elements[name].value = value || "";
  });
  location.hash = "#explain";
  submit();
}

async function submit() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.set(name, value);
  try {
    render(await request(`explain?${query}`));
    showProblem(byId("explain-problem"), "");
  } catch (error) {
    result.replaceChildren();
    showProblem(byId("explain-problem"), error.message);
  }
}

function textRows(caption, columns, items) {
  const [node, body] = table(caption, columns);
  for (const texts of items) {
    const line = row(columns);
    texts.forEach((text, index) => setText(line.cellsByIndex[index], text));
    body.append(line);
  }
  return element("div", {class: "card"}, node);
}

function render(answer) {
  const facts = element("dl", {class: "summary"});
  definition(facts, [
    ["Frontend", answer.frontend || "–"], ["Route", answer.route || "default"],
    ["Pool", answer.pool || "–"],
    ["Answer", answer.answer ? `${answer.answer} by the proxy` : "forwarded", answer.answer ? "attention" : ""],
  ]);
  result.replaceChildren(facts);
  if (answer.limits.length) {
    result.append(element("h3", {}, "Limits"), textRows("Limits", LIMITS, answer.limits.map((limit) => [
      limit.name, limit.scope, limit.key, count(limit.remaining),
      limit.refuses ? `refuses, retry after ${limit.retry_after} s` : "admits",
    ])));
  }
  result.append(element("h3", {}, "Candidates, in order"));
  if (answer.candidates.length) {
    result.append(textRows("Candidates", CANDIDATES, answer.candidates.map((server) => [
      server.server, server.state, server.weight, count(server.in_flight), server.reason,
    ])));
  } else {
    result.append(element("p", {class: "empty"}, "No server is a candidate."));
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
