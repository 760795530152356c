// The section Health: audit, janitor repairs, and the state of the database.

import { $, bytes, complain, count, el, facts, fill, number, time } from "./dom.js";
import { get, post } from "./api.js";

/** Version of the program, from the last overview. */
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
  if (failure) return `The audit could not run: ${failure}`;
  if (!audit) return "The audit reads every booking and locks none.";
  const broken = audit.invariants.filter((one) => one.broken > 0).length;
  const whole = `${count(audit.shows)} shows and ${count(audit.bookings)} bookings at ${time(audit.at)}`;
  return broken ? `${broken} violated (${whole})` : `All invariants hold (${whole})`;
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
    ["Server connections", `${count(database.connections)} of ${count(database.maxConnections)}`],
    ["Pool of this api", `${count(pool.open - pool.idle)} busy, ${count(pool.idle)} idle, ${count(pool.max)} max`],
  ]));
  fill("tables", database.tables.map((table) => ({
    key: table.name,
    cells: [el("td", {}, table.name), number(bytes(table.bytes)), number(count(table.rows)), number(count(table.deadRows)), el("td", {}, time(table.vacuumedAt))],
  })));
}
