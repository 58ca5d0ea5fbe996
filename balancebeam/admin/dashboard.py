"""
The dashboard: an HTML page with all servers, updated every second.

One document without external resources. It reads `GET /readyz` and `GET /upstreams`.
"""

from __future__ import annotations

DASHBOARD_HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>balancebeam</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem;
    padding: 0 1rem }
  table { border-collapse: collapse; width: 100% }
  th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd }
  td.number { text-align: right; font-variant-numeric: tabular-nums }
  .up { color: #176b2c } .down { color: #a11 } .draining, .maintenance { color: #8a5a00 }
  #problem { color: #a11 }
  @media (prefers-color-scheme: dark) { body { background: #111; color: #ddd }
    .up { color: #6c6 } .down { color: #f77 } .draining, .maintenance { color: #db6 } }
</style>
<h1>balancebeam</h1>
<p id="ready"></p><p id="problem" role="alert"></p>
<table><thead><tr><th>Pool<th>Server<th>State<th>Weight<th>In flight<th>Requests<th>Requests/s
<th>Failures<th>Reason</tr></thead><tbody id="servers"></tbody></table>
<script>
"use strict";
// Without user name and password, which fetch rejects in a URL.
const base = location.origin + location.pathname.replace(/[^/]*$/, "");
const previousRequests = new Map();
let previousTime = 0;
function addCell(row, text, className) {
  const cell = row.insertCell();
  cell.textContent = text;
  if (className) cell.className = className;
}
async function update() {
  try {
    const ready = await fetch(base + "readyz");
    document.getElementById("ready").textContent = "Status: " + (await ready.json()).data;
    const response = await fetch(base + "upstreams");
    if (!response.ok) throw new Error((await response.json()).data);
    const servers = (await response.json()).data, now = performance.now();
    const rows = document.createElement("tbody");
    rows.id = "servers";
    for (const server of servers) {
      const row = rows.insertRow(), key = server.pool + " " + server.address;
      const requests = server.requests - previousRequests.get(key);
      const rate = previousRequests.has(key) ? requests * 1000 / (now - previousTime) : 0;
      previousRequests.set(key, server.requests);
      addCell(row, server.pool);
      addCell(row, server.address + (server.backup ? " (backup)" : ""));
      addCell(row, server.state, server.state);
      for (const number of [server.weight, server.in_flight, server.requests, rate.toFixed(0),
                            server.failures])
        addCell(row, number, "number");
      addCell(row, server.reason);
    }
    previousTime = now;
    document.getElementById("servers").replaceWith(rows);
    document.getElementById("problem").textContent = "";
  } catch (error) {
    document.getElementById("problem").textContent = "Update failed: " + error.message;
  }
  setTimeout(update, 1000);
}
update();
</script>
"""
