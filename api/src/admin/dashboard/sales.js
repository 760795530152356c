// The section Sales: shows and the state of their seats.

import { $, count, el, fill, number, time } from "./dom.js";
import { get } from "./api.js";

let shows = [];

function bar({ name, seats, confirmed, held, available }) {
  const label = `${name}: of ${seats} seats ${confirmed} confirmed, ${held} held, ${available} available`;
  const parts = [["confirmed", confirmed], ["held", held]].map(([kind, share]) => {
    const part = el("i", { class: kind });
    part.style.width = `${(100 * share) / seats}%`;
    return part;
  });
  return el("td", {}, el("div", { class: "bar", role: "img", "aria-label": label }, ...parts));
}

/** Updates the existing bar instead of replacing it, so that the change is animated. */
function moved(show) {
  const old = document.querySelector(`#shows tr[data-key="${show.id}"] .bar`);
  const now = bar(show);
  if (!old) return now;
  const fresh = now.firstChild;
  old.setAttribute("aria-label", fresh.getAttribute("aria-label"));
  [...fresh.children].forEach((part, at) => { old.children[at].style.width = part.style.width; });
  return old.parentElement.cloneNode(true);
}

function show() {
  const wanted = $("shows-filter").value.trim().toLowerCase();
  const fits = ({ id, name }) => String(id) === wanted || name.toLowerCase().includes(wanted);
  fill("shows", shows.filter(fits).map((one) => ({
    key: one.id,
    cells: [
      el("td", {}, `${one.name} `, el("small", {}, `#${one.id}`)),
      el("td", { class: "wide" }, time(one.startTime)),
      moved(one),
      number(count(one.confirmed)),
      number(count(one.held)),
      number(count(one.available)),
    ],
  })));
}

$("shows-filter").addEventListener("input", show);

export async function refresh() {
  shows = await get("sales");
  show();
}
