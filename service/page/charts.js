// Line charts over time, as SVG that is drawn anew at the width it has.

import { element, shape } from "./dom.js";

const HEIGHT = 176;
const MARGIN = { left: 40, right: 12, top: 10, bottom: 22 };

/**
 * A chart in `box`. `update(series, span)` draws: series are { name, points: [{ at, value }] }, times
 * in ms, value null where there is none; span is how many ms back the chart goes.
 */
export function chart(box, { label, format, ceiling = null, floor = 0, nothing = "no requests yet" }) {
  const svg = shape("svg", { role: "img", "aria-label": label });
  const keys = element("ul", { class: "keys" });
  box.replaceChildren(svg, keys);
  let last = null;
  const draw = () => {
    if (last && box.clientWidth) drawn(svg, keys, { ...last, label, format, ceiling, floor, nothing, width: box.clientWidth });
  };
  new ResizeObserver(draw).observe(box);
  return (series, span) => {
    last = { series, span, now: Date.now() };
    draw();
  };
}

function drawn(svg, keys, { series: given, span, now, label, format, ceiling, floor, nothing, width }) {
  const series = given.map(({ name, points }) => ({ name, points: points.filter(({ at }) => at >= now - span) }));
  const plot = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const values = series.flatMap(({ points }) => points.map(({ value }) => value)).filter((value) => value !== null);
  const top = ceiling ?? nice(Math.max(...values, 0));
  const low = Math.min(floor, ...values);
  const x = (at) => MARGIN.left + plot.width * (1 - (now - at) / span);
  const y = (value) => MARGIN.top + plot.height * (1 - (value - low) / (top - low || 1));
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const value = low + share * (top - low);
    parts.push(shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }));
    parts.push(shape("text", { class: "end", x: MARGIN.left - 8, y: y(value) + 4 }, format(value)));
  }
  parts.push(shape("text", { x: MARGIN.left, y: HEIGHT - 4 }, `${Math.round(span / 60000)} min ago`));
  parts.push(shape("text", { class: "end", x: width - MARGIN.right, y: HEIGHT - 4 }, "now"));
  for (const [index, { points }] of series.entries()) {
    for (const run of unbroken(points)) {
      const corners = run.map(({ at, value }) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
      parts.push(run.length > 1
        ? shape("polyline", { class: `series-${index}`, points: corners.join(" ") })
        : shape("circle", { class: `series-${index}`, cx: x(run[0].at), cy: y(run[0].value), r: 2.5 }));
    }
  }
  if (!values.length) {
    parts.push(shape("text", { class: "middle", x: MARGIN.left + plot.width / 2, y: MARGIN.top + plot.height * 0.75 + 4 }, nothing));
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren(...parts);
  const latest = series.map(({ name, points }) => ({ name, value: points.findLast(({ value }) => value !== null)?.value ?? null }));
  const says = latest.map(({ name, value }) => `${name} ${value === null ? "none" : format(value)}`);
  svg.setAttribute("aria-label", `${label}: ${says.join(", ")}`);
  keys.replaceChildren(...latest.map(({ name, value }, index) => element(
    "li", {},
    shape("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, shape("polyline", { class: `series-${index}`, points: "1,4 23,4" })),
    name, element("strong", {}, value === null ? "–" : format(value)))));
}

/** Runs of points that have values. */
function unbroken(points) {
  const runs = [[]];
  for (const point of points) {
    if (point.value === null) runs.push([]);
    else runs.at(-1).push(point);
  }
  return runs.filter((run) => run.length);
}

/** The next of 1, 2, 5, 10, 20, 50... */
function nice(value) {
  if (!(value > 0)) return 1;
  const magnitude = 10 ** Math.floor(Math.log10(value));
  return magnitude * [1, 2, 5, 10].find((step) => step * magnitude >= value);
}
