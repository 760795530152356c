// Whether everything holds, and what the database has to carry.

import { $, bytes, complain, count, el, facts, fill, number, time } from "./dom.js";
import { get, post } from "./api.js";

/** Of the program, told by the last look. */
let version = "";
export const setVersion = (text) => { version = text; };

function showAudit({ isRunning, audit, failure }) {
  $("audit").disabled = isRunning;
  $("audit-result").textContent = result(isRunning, audit, failure);
  $("invariants").hidden = !audit;
  fill("invariants", (audit?.invariants ?? []).map(({ name, broken, examples }) => ({
    key: name,
    cells: [el("td", {}, name), el("td", { class: `number ${broken ? "state dead" : ""}` }, count(broken)), el("td", {}, examples.join("; "))],
  })));
}

function result(isRunning, audit, failure) {
  if (isRunning) return "Reading every booking …";
  if (failure) return `It could not look: ${failure}`;
  if (!audit) return "It reads every booking, and locks none.";
  const broken = audit.invariants.filter((one) => one.broken > 0).length;
  const whole = `${count(audit.shows)} shows and ${count(audit.bookings)} bookings at ${time(audit.at)}`;
  return broken ? `${broken} broken, of ${whole}` : `All hold, of ${whole}`;
}

$("audit").addEventListener("click", async () => {
  try { showAudit(await post("audit")); } catch (error) { complain(error.message); }
});

export async function refresh() {
  const [audit, finds, database] = await Promise.all([get("audit"), get("interventions?limit=200"), get("database")]);
  showAudit(audit);
  fill("finds", finds.filter(({ actor }) => actor === "janitor").slice(0, 50).map((find) => ({
    key: find.id,
    cells: [el("td", {}, time(find.at)), el("td", {}, find.target), number(count(find.affected))],
  })));
  const { pool } = database;
  $("database").replaceChildren(...facts([
    ["ticketing", version],
    ["PostgreSQL", database.version],
    ["Size", bytes(database.bytes)],
    ["Connections to the server", `${count(database.connections)} of ${count(database.maxConnections)}`],
    ["This api's own", `${count(pool.open - pool.idle)} busy, ${count(pool.idle)} idle, ${count(pool.max)} at most`],
  ]));
  fill("tables", database.tables.map((table) => ({
    key: table.name,
    cells: [el("td", {}, table.name), number(bytes(table.bytes)), number(count(table.rows)), number(count(table.deadRows)), el("td", {}, time(table.vacuumedAt))],
  })));
}
