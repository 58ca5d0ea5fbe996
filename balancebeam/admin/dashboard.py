"""The live page about all servers: one file, no other origin, refreshed every second."""

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
<table><thead><tr><th>Pool<th>Server<th>State<th>Weight<th>In flight<th>Requests<th>Per second
<th>Failures<th>Reason</tr></thead><tbody id="servers"></tbody></table>
<script>
"use strict";
// Without the user's name and password, which fetch does not take in an address.
const here = location.origin + location.pathname.replace(/[^/]*$/, "");
const before = new Map();
let last = 0;
function cell(row, text, kind) {
  const one = row.insertCell();
  one.textContent = text;
  if (kind) one.className = kind;
}
async function look() {
  try {
    const ready = await fetch(here + "readyz");
    document.getElementById("ready").textContent = (await ready.json()).data;
    const answer = await fetch(here + "upstreams");
    if (!answer.ok) throw new Error((await answer.json()).data);
    const servers = (await answer.json()).data, now = performance.now();
    const rows = document.createElement("tbody");
    rows.id = "servers";
    for (const one of servers) {
      const row = rows.insertRow(), key = one.pool + " " + one.address;
      const rate = before.has(key) ? (one.requests - before.get(key)) * 1000 / (now - last) : 0;
      before.set(key, one.requests);
      cell(row, one.pool); cell(row, one.address); cell(row, one.state, one.state);
      for (const number of [one.weight, one.in_flight, one.requests, rate.toFixed(0), one.failures])
        cell(row, number, "number");
      cell(row, one.reason);
    }
    last = now;
    document.getElementById("servers").replaceWith(rows);
    document.getElementById("problem").textContent = "";
  } catch (error) {
    document.getElementById("problem").textContent = "Nothing new: " + error.message;
  }
  setTimeout(look, 1000);
}
look();
</script>
"""
