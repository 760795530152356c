// Status line and tiles, choice of the section, and periodic refresh.

import { $, count, el, rate, seconds } from "./dom.js";
import { get } from "./api.js";
import * as charts from "./charts.js";
import * as sales from "./sales.js";
import * as queue from "./queue.js";
import * as jobs from "./jobs.js";
import * as health from "./health.js";

const SECTIONS = { sales, queue, jobs, health };
const EVERY_MS = 2000;
/** Age at which the last poll is stale. */
const STALE_MS = 15_000;

let look = null;
let lookedAt = 0;
let workers = [];
let failure = null;

/** Returns the current problems, the worst first. */
function troubles() {
  const found = [];
  const alarm = (text) => found.unshift({ state: "alarm", text });
  const attention = (text) => found.push({ state: "attention", text });
  const sum = (state) => look.queues.reduce((all, one) => all + one.depth[state], 0);
  const lag = Math.max(0, ...look.queues.map((one) => one.dueLagSeconds));
  if (sum("dead") > 0) attention(sum("dead") === 1 ? "1 dead job" : `${count(sum("dead"))} dead jobs`);
  for (const { name } of look.queues.filter((one) => one.paused)) attention(`${name} is paused`);
  if (look.expiryLagP99Seconds > 5) attention(`holds expire ${seconds(look.expiryLagP99Seconds)} late (p99)`);
  if (lag > 5) attention(`the oldest due job has waited ${seconds(lag)}`);
  const open = look.oldestTransaction;
  if (open?.seconds > 60) attention(`a transaction has been open for ${seconds(open.seconds)} (${open.holder}): dead rows cannot be removed`);
  if (look.longestOverdueSeconds > 15) alarm(`holds are overdue by ${seconds(look.longestOverdueSeconds)}`);
  if (!workers.some(queue.isAlive)) alarm("no worker is running");
  if (failure) alarm(`no current data: ${failure}`);
  return found;
}

function tile(name, value, state) {
  return el("div", { "data-state": state }, el("dt", {}, name), el("dd", {}, value));
}

function showGlance() {
  const verdict = $("verdict");
  if (!look) {
    if (failure) [verdict.textContent, verdict.dataset.state] = [failure, "alarm"];
    return;
  }
  const found = troubles();
  verdict.textContent = found.length ? found.map(({ text }) => text).join(" · ") : "All is well";
  verdict.dataset.state = found[0]?.state ?? "well";
  $("seen").textContent = `as of ${new Date(look.at).toLocaleTimeString()}`;
  const depth = (state) => look.queues.reduce((all, one) => all + one.depth[state], 0);
  const lag = Math.max(0, ...look.queues.map((one) => one.dueLagSeconds));
  const alive = workers.filter(queue.isAlive).length;
  $("tiles").replaceChildren(
    tile("Bookings/s", rate(look.bookingsPerSecond)),
    tile("Refusals/s", rate(look.refusalsPerSecond)),
    tile("Expiring in 30 s", count(look.holdsEndingSoon, 10_000)),
    tile("Overdue holds", count(look.overdueHolds, 10_000), look.longestOverdueSeconds > 15 ? "alarm" : undefined),
    tile("Expiry lag (p99)", seconds(look.expiryLagP99Seconds), look.expiryLagP99Seconds > 5 ? "attention" : undefined),
    tile("Due lag", seconds(lag), lag > 5 ? "attention" : undefined),
    tile("Dead jobs", count(depth("dead"), 100_000), depth("dead") ? "attention" : undefined),
    tile("Workers", count(alive), alive ? undefined : "alarm"),
  );
}

const section = () => location.hash.slice(1).split("?")[0] in SECTIONS ? location.hash.slice(1).split("?")[0] : "sales";

function showSection() {
  for (const id of Object.keys(SECTIONS)) $(`at-${id}`).hidden = id !== section();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${section()}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  jobs.preset();
}

async function refresh() {
  try {
    const since = charts.newest();
    const [overview, seen] = await Promise.all([get(`overview${since ? `?since=${encodeURIComponent(since)}` : ""}`), get("workers")]);
    workers = seen;
    if (overview.now && overview.now.at !== look?.at) [look, lookedAt] = [overview.now, Date.now()];
    charts.remember(overview.history);
    failure = overview.failure;
    health.setVersion(overview.version);
    if (look) {
      queue.show(look, workers, soon);
      jobs.queues(look.queues.map(({ name }) => name));
    }
    await SECTIONS[section()].refresh();
  } catch (error) {
    failure = error.message;
  }
  if (!failure && look && Date.now() - lookedAt > STALE_MS) failure = "the server has stopped polling the database";
  showGlance();
  charts.draw();
}

let timer;
let isRefreshing = false;
async function loop() {
  clearTimeout(timer);
  if (isRefreshing) return;
  isRefreshing = true;
  // A hidden page sends no requests.
  if (!document.hidden) await refresh();
  isRefreshing = false;
  timer = setTimeout(loop, EVERY_MS);
}

/** Refreshes soon after an action, when the server has polled the database. */
function soon() {
  setTimeout(loop, 200);
}

addEventListener("hashchange", () => { showSection(); loop(); });
document.addEventListener("visibilitychange", loop);
showSection();
loop();
