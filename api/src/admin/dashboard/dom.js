// Helpers to make and fill elements. All text becomes text nodes: user input is never parsed as HTML.

export const $ = (id) => document.getElementById(id);

/** Makes an element with children. Properties `on…` are event listeners, all others are attributes. */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Makes a table cell with a number. */
export const number = (value) => el("td", { class: "number" }, value);

/** Shows these rows in a table, or its placeholder if there are none. A row with the same key keeps its
 *  elements, so that the keyboard focus is not lost. */
export function fill(table, rows) {
  const body = $(table).tBodies[0];
  const before = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const after = rows.map(({ key, cells }) => {
    const row = before.get(String(key)) ?? el("tr", { "data-key": key });
    cells.forEach((cell, at) => {
      const old = row.cells[at];
      if (!old) row.append(cell);
      else if (!old.contains(document.activeElement) && !old.isEqualNode(cell)) old.replaceWith(cell);
    });
    return row;
  });
  if (after.length !== body.rows.length || after.some((row, at) => row !== body.rows[at])) body.replaceChildren(...after);
  const empty = $(`${table}-empty`);
  if (empty) empty.hidden = rows.length > 0;
}

/** Makes the children of a `dl` from pairs of name and value. */
export const facts = (pairs) => pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);

const whole = new Intl.NumberFormat("en");
/** Formats a count; a count at its limit may be higher. */
export const count = (value, limit = Infinity) => (value >= limit ? "≥ " : "") + whole.format(value);
export const rate = (value) => whole.format(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return `${Math.round(value / 3600)} h`;
}
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) { value /= 1000; at += 1; }
  return `${value.toFixed(at && value < 100 ? 1 : 0)} ${units[at]}`;
}
/** Formats a time in the local time zone, with the date if it is not today. */
export function time(text) {
  if (!text) return "–";
  const date = new Date(text);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? date.toLocaleTimeString() : date.toLocaleString();
}

/** Asks the user to confirm an action. */
export function confirmed(question) {
  $("confirm-text").textContent = question;
  const dialog = $("confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

let hiding;
/** Shows an error message for 8 seconds. */
export function complain(text) {
  const notice = $("notice");
  notice.textContent = text;
  notice.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { notice.hidden = true; }, 8000);
}
