// The third tab: what the service does right now, from /metrics and from what this page asked.

import { get } from "./api.js";
import { chart } from "./charts.js";
import { byId, count, element, notify, rate } from "./dom.js";
import { ownAgreement, ownLatency } from "./own_requests.js";
import { buckets, parse, quantile, total } from "./prometheus.js";

const EVERY_MS = 2000;
const SPAN_MS = 2 * 60 * 1000;
const ENDPOINTS = new Set(["/predict", "/compare", "/hf"]);
const LATENCY = "crisp_http_request_seconds";

let names = [];
let before = null; // { at, samples } of the last look
let timer = null;
const history = []; // { at, throughput: {variant: texts/s}, p50, p95, agreement }

export function startLive() {
  document.addEventListener("crisp:models", ({ detail }) => {
    names = Object.keys(detail.variants).sort((a, b) => (b === detail.default) - (a === detail.default));
  });
  const charts = {
    throughput: chart(byId("chart-throughput"), { label: "Throughput in texts a second", format: rate }),
    latency: chart(byId("chart-latency"), { label: "Latency in milliseconds", format: rate }),
    agreement: chart(byId("chart-agreement"), {
      label: "Agreement in percent", format: (value) => value.toFixed(0), ceiling: 100, nothing: "nothing compared yet",
    }),
  };
  const isSeen = () => !byId("live").hidden && document.visibilityState === "visible";
  const look = async () => {
    clearTimeout(timer);
    if (!isSeen()) return;
    await measure();
    draw(charts);
    if (isSeen()) timer = setTimeout(look, EVERY_MS);
  };
  document.addEventListener("crisp:tab", look);
  document.addEventListener("visibilitychange", look);
}

async function measure() {
  let samples;
  try {
    samples = parse(await get("metrics", "text"));
    notify(byId("live-note"), null);
  } catch (error) {
    notify(byId("live-note"), error.message, error.hint);
    return;
  }
  const at = Date.now();
  if (before && at - before.at > 0 && at - before.at < 10 * EVERY_MS) history.push(between(before, { at, samples }));
  while (history.length && history[0].at < at - SPAN_MS) history.shift();
  before = { at, samples };
  showTiles(samples);
}

/** What happened between two looks at the metrics. */
function between(first, second) {
  const seconds = (second.at - first.at) / 1000;
  const added = (name, labels) => Math.max(0, total(second.samples, name, labels) - total(first.samples, name, labels));
  const ofInterest = ({ endpoint }) => ENDPOINTS.has(endpoint);
  const histograms = [first, second].map(({ samples }) => buckets(samples, LATENCY, ofInterest));
  const ms = (share) => {
    const value = quantile(...histograms, share);
    return value === null ? null : 1000 * value;
  };
  const agreeing = added("crisp_shadow_texts_total", { result: "agree" });
  const compared = agreeing + added("crisp_shadow_texts_total", { result: "disagree" });
  return {
    at: second.at,
    throughput: Object.fromEntries(names.map((variant) =>
      [variant, added("crisp_texts_total", { variant, outcome: "ok" }) / seconds])),
    p50: ms(0.5),
    p95: ms(0.95),
    agreement: compared ? 100 * agreeing / compared : null,
  };
}

function draw({ throughput, latency, agreement }) {
  const points = (value) => history.map((entry) => ({ at: entry.at, value: value(entry) ?? null }));
  throughput(names.map((name) => ({ name, points: points((entry) => entry.throughput[name]) })), SPAN_MS);
  latency([
    { name: "median", points: points((entry) => entry.p50) },
    { name: "95th percentile", points: points((entry) => entry.p95) },
    { name: "this page", points: ownLatency() },
  ], SPAN_MS);
  agreement([
    { name: "this page", points: ownAgreement() },
    { name: "shadow mode", points: points((entry) => entry.agreement) },
  ], SPAN_MS);
}

function showTiles(samples) {
  const tiles = [
    ["texts answered", count(total(samples, "crisp_texts_total", { outcome: "ok" }))],
    ["tokens in the queue", count(total(samples, "crisp_queue_tokens"))],
    ["requests waiting", count(total(samples, "crisp_queue_requests"))],
    ["refused", count(total(samples, "crisp_rejections_total"))],
  ];
  if (total(samples, "crisp_operator_fallback")) tiles.push(["operators", "fallback"]);
  byId("live-tiles").replaceChildren(...tiles.map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value))));
}
