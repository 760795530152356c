// Making and filling elements. All text becomes text nodes: what users wrote is never read as HTML.

export const $ = (id) => document.getElementById(id);

/** An element with these properties and children; `class`, `data-…`, `aria-…` and such are attributes. */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A cell with a number. */
export const number = (value) => el("td", { class: "number" }, value);

/** Shows these rows in a table, or what stands for none. Rows with the same key stay the same elements, so that what somebody
 *  has the focus on stays there. */
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

/** Shows facts in a `dl`: pairs of a name and a value. */
export const facts = (pairs) => pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);

const whole = new Intl.NumberFormat("en");
/** A count; at its limit there may be more. */
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
/** A time as this place's clocks show it; the date when it is another day. */
export function time(text) {
  if (!text) return "–";
  const date = new Date(text);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? date.toLocaleTimeString() : date.toLocaleString();
}

/** Asks before something is done. */
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
/** Tells what went wrong, for a while. */
export function complain(text) {
  const notice = $("notice");
  notice.textContent = text;
  notice.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { notice.hidden = true; }, 8000);
}
