// The section Jobs: search, details of a job, and actions.

import { $, complain, confirmed, count, el, facts, fill, number, time } from "./dom.js";
import { get, page, post } from "./api.js";

/** Actions, by the states that allow them, and their descriptions. */
const ACTIONS = {
  retry: { states: ["failed", "dead"], label: "Retry", what: "run again now" },
  run: { states: ["scheduled", "failed"], label: "Run now", what: "run now instead of at the scheduled time" },
  cancel: { states: ["scheduled", "due", "failed"], label: "Cancel", what: "be marked dead and not run. Seats of expired holds go back on sale anyway" },
};
const allowed = (state) => Object.entries(ACTIONS).filter(([, { states }]) => states.includes(state));

let listed = [];
let next = null;

function wanted() {
  const form = new FormData($("jobs-filter"));
  const query = new URLSearchParams();
  for (const name of ["state", "bookingId", "showId"]) if (form.get(name)) query.set(name, form.get(name));
  return { queue: form.get("queue"), state: form.get("state"), query };
}

const path = ({ queue, query }, rest = "") => `queues/${encodeURIComponent(queue)}/jobs${rest}?${query}`;

function show() {
  fill("jobs-list", listed.map((job) => ({
    key: job.id,
    cells: [
      el("td", {}, el("button", { class: "link", onclick: () => open(job.id) }, job.id)),
      el("td", { class: `state ${job.state}` }, job.state),
      el("td", { class: "wide" }, time(job.runAt)),
      number(`${job.attempts} of ${job.maxAttempts}`),
      el("td", { class: "error" }, job.error ?? ""),
    ],
  })));
  $("jobs-empty").hidden = listed.length > 0;
  $("jobs-more").hidden = !next;
}

export async function refresh() {
  const filter = wanted();
  if (!filter.queue) return;
  // Keeps the list of a user who has loaded more pages.
  if (listed.length > 100) return;
  const { body, next: more } = await page(path(filter));
  [listed, next] = [body, more];
  show();
  bulk(filter);
}

function bulk(filter) {
  const actions = allowed(filter.state);
  const names = actions.map(([action]) => action).join();
  if ($("jobs-bulk").dataset.actions === names) return;
  $("jobs-bulk").dataset.actions = names;
  $("jobs-bulk").replaceChildren(...actions.flatMap(([action, { label }]) => [el("button", { type: "button", "data-bulk": action, onclick: () => actOnAll(action) }, `${label} all`), " "]));
}

async function actOnAll(action) {
  const filter = wanted();
  await attempt(async () => {
    const { count: number, hasMore } = await get(path(filter, "/count"));
    const how = hasMore ? `The first ${count(number)}` : count(number);
    if (number === 0) complain("No jobs match any more.");
    else if (await confirmed(`${how} ${filter.state} jobs will ${ACTIONS[action].what}. Continue?`)) {
      await post(path(filter, `/${action}`));
    }
  });
  await look();
}

async function look() {
  listed = [];
  await attempt(refresh);
}

async function attempt(work) {
  try { await work(); } catch (error) { complain(error.message); }
}

async function open(id) {
  await attempt(async () => {
    detail(await get(`jobs/${encodeURIComponent(id)}`));
    if (!$("job").open) $("job").showModal();
  });
}

async function act(action, id) {
  if (!await confirmed(`This job will ${ACTIONS[action].what}. Continue?`)) return;
  await attempt(async () => detail(await post(`jobs/${encodeURIComponent(id)}/${action}`)));
  await look();
}

function detail(job) {
  $("job-title").textContent = `Job ${job.id}`;
  const bookings = job.bookings.map((booking) => el("tr", {},
    el("td", {}, String(booking.id)), el("td", {}, String(booking.showId)), el("td", {}, booking.userName),
    number(String(booking.numberOfSeats)), el("td", {}, booking.status), el("td", {}, time(booking.expiresAt))));
  const heads = ["Booking", "Show", "User", "Seats", "Status", "Hold deadline"].map((head) => el("th", {}, head));
  $("job-body").replaceChildren(
    el("p", {}, ...allowed(job.state).flatMap(([action, { label }]) => [el("button", { "data-action": action, onclick: () => act(action, job.id) }, label), " "])),
    el("dl", { class: "facts" }, ...facts([
      ["State", el("span", { class: `state ${job.state}` }, job.state)],
      ["Queue", job.queue],
      ["Attempts", `${job.attempts} of ${job.maxAttempts}`],
      ["Trace", job.traceparent ?? "–"],
    ])),
    ...(job.error ? [el("h3", {}, "Error"), el("pre", { class: "error" }, job.error)] : []),
    el("h3", {}, "Timeline"),
    el("dl", { class: "facts" }, ...facts(job.timeline.map(({ at, what }) => [time(at), what]))),
    el("h3", {}, `Bookings (${job.bookings.length})`),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...bookings))),
    el("h3", {}, "Payload"),
    el("pre", {}, JSON.stringify(job.payload)),
  );
}

/** Fills the list of queues to choose from. */
export function queues(names) {
  const select = $("jobs-filter").elements.queue;
  if ([...select.options].map((option) => option.value).join() === names.join()) return;
  select.replaceChildren(...names.map((name) => el("option", {}, name)));
  preset();
}

/** Sets the filters from the URL, such as `#jobs?state=dead`. */
export function preset() {
  const [, query] = location.hash.split("?");
  if (!location.hash.startsWith("#jobs?")) return;
  const form = $("jobs-filter");
  for (const [name, value] of new URLSearchParams(query)) if (form.elements[name]) form.elements[name].value = value;
  listed = [];
}

$("jobs-filter").addEventListener("submit", (event) => { event.preventDefault(); look(); });
$("jobs-filter").addEventListener("change", look);
$("jobs-more").addEventListener("click", () => attempt(async () => {
  const { body, next: more } = await page(next);
  [listed, next] = [[...listed, ...body], more];
  show();
}));
