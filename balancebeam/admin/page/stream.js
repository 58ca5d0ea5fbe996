// The event stream. EventSource cannot report the status of a response, so this reads the body
// of a fetch; the browser sends the token as it does for the page.

import {base} from "./dom.js";

// Without a challenge for Basic: no dialog of the browser for the requests of this script.
const SCRIPT = {"X-Requested-With": "fetch"};

// Milliseconds: the server sends an event per second, so a stream that is silent is lost.
const SILENCE = 6000, FIRST_DELAY = 1000, LONGEST_DELAY = 30000;

// Calls onEvent(name, data) for each event and onStatus(state, text) for each change of the state
// "connecting", "live" or "lost". It never ends.
export async function readEvents(onEvent, onStatus) {
  let failures = 0;
  for (;;) {
    const problem = await readStream(onEvent, () => { failures = 0; onStatus("live", "Live"); });
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures) * (0.8 + 0.4 * Math.random());
    failures += 1;
    for (let left = Math.ceil(delay / 1000); left > 0; left -= 1) {
      onStatus("lost", `${problem}. Next attempt in ${left} s.`);
      await new Promise((resolve) => setTimeout(resolve, delay / Math.ceil(delay / 1000)));
    }
    onStatus("connecting", `${problem}. Connecting…`);
  }
}

// Reads one stream to its end, and returns why it ended.
async function readStream(onEvent, onLive) {
  const controller = new AbortController();
  let timer = setTimeout(() => controller.abort(), SILENCE);
  try {
    const response = await fetch(`${base}events`, {
      signal: controller.signal, cache: "no-store", headers: SCRIPT,
    });
    if (!response.ok) return await rejection(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return "The balancer closed the connection";
      clearTimeout(timer);
      timer = setTimeout(() => controller.abort(), SILENCE);
      const events = (buffer + value).split("\n\n");
      buffer = events.pop();
      for (const event of events) {
        const {name, data} = parseEvent(event);
        if (data) {
          onLive();
          onEvent(name, JSON.parse(data));
        }
      }
    }
  } catch (error) {
    if (controller.signal.aborted) return "The balancer does not respond";
    return error instanceof TypeError ? "The balancer cannot be reached" : `Invalid event: ${error.message}`;
  } finally {
    clearTimeout(timer);
    controller.abort();
  }
}

function parseEvent(text) {
  let name = "message";
  const data = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return {name, data: data.join("\n")};
}

async function rejection(response) {
  if (response.status === 401) return "The token is required: reload the page to enter it";
  return `The balancer responded with ${response.status}: ${await problemOf(response)}`;
}

// The message of an error response.
export async function problemOf(response) {
  try {
    const {data} = await response.json();
    return typeof data === "string" ? data : data.title;
  } catch {
    return response.statusText;
  }
}

// The data of a response in JSend form; raises an Error with its message otherwise.
export async function request(path, options = {}) {
  const response = await fetch(base + path, {
    cache: "no-store", ...options, headers: {...SCRIPT, ...options.headers},
  });
  if (!response.ok) throw new Error(await problemOf(response));
  return (await response.json()).data;
}
