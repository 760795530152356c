// The section Queue: queues, workers and operator actions.

import { complain, confirmed, count, el, fill, number, rate, seconds, time } from "./dom.js";
import { get, post } from "./api.js";

const MAX_COUNTED = 100_000;
const ALIVE_SECONDS = 30;

export const isAlive = (worker) => worker.heartbeatAgeSeconds < ALIVE_SECONDS;

async function steer({ name, paused }, whenDone) {
  const question = paused
    ? `Resume the queue ${name}? Its jobs will run again.`
    : `Pause the queue ${name}? Its jobs wait until it is resumed. Seats of expired holds go back on sale anyway, somewhat later.`;
  if (!await confirmed(question)) return;
  try {
    await post(`queues/${encodeURIComponent(name)}/${paused ? "resume" : "pause"}`);
    whenDone();
  } catch (error) {
    complain(error.message);
  }
}

function cells(queue, whenDone) {
  const { depth } = queue;
  const at = (state) => number(el("a", { href: `#jobs?queue=${encodeURIComponent(queue.name)}&state=${state}` }, count(depth[state], MAX_COUNTED)));
  const pause = queue.paused ? `paused by ${queue.paused.by} since ${time(queue.paused.at)}` : null;
  return [
    el("td", {}, queue.name, pause && el("small", { class: "state due" }, ` ${pause}`)),
    at("scheduled"), at("due"), at("running"), at("failed"), at("dead"), at("done"),
    number(seconds(queue.dueLagSeconds)),
    number(count(queue.doneLastMinute, MAX_COUNTED)),
    el("td", {}, el("button", { onclick: () => steer(queue, whenDone), "data-does": queue.paused ? "resume" : "pause" }, queue.paused ? "Resume" : "Pause")),
  ];
}

/** Shows the queues of the last poll, and the workers. */
export function show(look, workers, whenDone) {
  // A button captures the state of the queue, so a new state gets a new row.
  fill("queues", look.queues.map((queue) => ({ key: `${queue.name} ${queue.paused ? "paused" : ""}`, cells: cells(queue, whenDone) })));
  fill("workers", workers.map((worker) => ({
    key: worker.id,
    cells: [
      el("td", {}, worker.id),
      el("td", {}, worker.queue),
      el("td", { class: `number ${isAlive(worker) ? "" : "state dead"}` }, isAlive(worker) ? seconds(worker.heartbeatAgeSeconds) : `lost for ${seconds(worker.heartbeatAgeSeconds)}`),
      el("td", {}, worker.running.length ? `${worker.running.length}: ${worker.running.slice(0, 5).join(" ")}` : "none"),
    ],
  })));
}

export async function refresh() {
  const done = await get("interventions?limit=200");
  fill("interventions", done.filter(({ actor }) => actor !== "janitor").slice(0, 50).map((one) => ({
    key: one.id,
    cells: [el("td", {}, time(one.at)), el("td", {}, one.actor), el("td", {}, one.action), el("td", {}, one.target), number(rate(one.affected))],
  })));
}
