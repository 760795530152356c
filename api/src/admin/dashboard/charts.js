// Line charts of the history of polls that the server keeps.

import { $ } from "./dom.js";

const REMEMBERED_SECONDS = 30 * 60;
const history = [];

/** Returns the time of the newest known poll, to request only later ones. */
export const newest = () => history.at(-1)?.at;

/** Adds later polls, and drops those that are too old. */
export function remember(points) {
  history.push(...points.map((point) => ({ ...point, seconds: Date.parse(point.at) / 1000 })));
  const last = history.at(-1)?.seconds ?? 0;
  while (history.length && history[0].seconds < last - REMEMBERED_SECONDS) history.shift();
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const LINES = {
  "chart-bookings": [["bookings", "bookingsPerSecond", "blue"], ["refusals", "refusalsPerSecond", "amber"]],
  "chart-overdue": [["overdue", "overdueHolds", "red"]],
  "chart-depth": [["scheduled", "scheduled", "grey"], ["due", "due", "amber"], ["running", "running", "blue"], ["failed", "failed", "violet"], ["dead", "dead", "red"]],
  "chart-lag": [["due lag", "dueLagSeconds", "amber"], ["expiry lag (p99)", "expiryLagP99Seconds", "red"]],
  "chart-done": [["done", "doneLastMinute", "green"]],
};
const charts = new Map();

function make(id) {
  const place = $(id);
  const axis = { stroke: () => color("soft"), grid: { stroke: () => color("line"), width: 1 }, ticks: { stroke: () => color("line") }, font: "11px system-ui" };
  const lines = LINES[id].map(([label, , hue]) => ({
    label, stroke: () => color(hue), width: 1.5, points: { show: false }, value: (_, value) => value === null || value === undefined ? "–" : Math.round(value * 100) / 100,
  }));
  const chart = new uPlot({
    width: place.clientWidth || 300,
    height: 170,
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.05] } },
    series: [{ label: "time", value: (_, value) => value ? new Date(value * 1000).toLocaleTimeString() : "–" }, ...lines],
    axes: [{ ...axis, space: 70 }, { ...axis, size: 58 }],
  }, [[], ...lines.map(() => [])], place);
  charts.set(id, chart);
  return chart;
}

/** Draws the visible charts. */
export function draw() {
  for (const [id, lines] of Object.entries(LINES)) {
    const place = $(id);
    if (place.offsetParent === null) continue;
    const chart = charts.get(id) ?? make(id);
    if (chart.width !== place.clientWidth) chart.setSize({ width: place.clientWidth, height: 170 });
    chart.setData([history.map((point) => point.seconds), ...lines.map(([, key]) => history.map((point) => point[key]))]);
  }
}

addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.redraw()));
