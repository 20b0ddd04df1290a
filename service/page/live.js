// The third tab: what the service does right now, from /metrics and from what this page asked.

import { get } from "./api.js";
import { chart } from "./charts.js";
import { byId, count, notify, part, percent, rate, showTiles, tell } from "./dom.js";
import { known, ordered } from "./models.js";
import { ownAgreement, ownLatency } from "./own_requests.js";
import { buckets, parse, quantile, total, valuesOf } from "./prometheus.js";

const EVERY_MS = 2000;
const SPAN_MS = 2 * 60 * 1000;
const ENDPOINTS = ["/predict", "/compare", "/hf"];
const REFUSED = ["429", "503"]; // statuses

let before = null; // { at, samples } of the last look
let timer = null;
const history = []; // of what happened between two looks

export function startLive() {
  const charts = {
    throughput: chart(byId("chart-throughput"), { label: "Throughput in texts a second", format: rate }),
    latency: chart(byId("chart-latency"), { label: "Latency in milliseconds", format: rate }),
    agreement: chart(byId("chart-agreement"), {
      label: "Agreement in percent", format: (value) => part(value, 100, 1), ceiling: 100, nothing: "nothing compared yet",
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
    samples = parse(await get("metrics", { kind: "text" }));
    notify(byId("live-note"), null);
  } catch (error) {
    const say = byId("live-note").hidden ? tell : notify;
    say(byId("live-note"), error.message, error.hint);
    byId("live-tiles").classList.add("old");
    return;
  }
  const at = Date.now();
  if (before && at - before.at > 0 && at - before.at < 10 * EVERY_MS) history.push(between(before, { at, samples }));
  while (history.length && history[0].at < at - SPAN_MS) history.shift();
  before = { at, samples };
  showNow(samples);
}

/** What happened between two looks at the metrics. */
function between(first, second) {
  const seconds = (second.at - first.at) / 1000;
  const added = (name, wanted) => Math.max(0, total(second.samples, name, wanted) - total(first.samples, name, wanted));
  const endpoint = ENDPOINTS;
  const histograms = [first, second].map(({ samples }) => buckets(samples, "crisp_http_request_seconds", { endpoint }));
  const ms = (share) => {
    const value = quantile(...histograms, share);
    return value === null ? null : 1000 * value;
  };
  const agreeing = added("crisp_shadow_texts_total", { result: "agree" });
  const compared = agreeing + added("crisp_shadow_texts_total", { result: "disagree" });
  return {
    at: second.at,
    throughput: Object.fromEntries(valuesOf(second.samples, "crisp_texts_total", "variant").map((variant) =>
      [variant, added("crisp_texts_total", { variant, outcome: "ok" }) / seconds])),
    requests: added("crisp_http_requests_total", { endpoint }),
    refused: added("crisp_http_requests_total", { endpoint, status: REFUSED }),
    p50: ms(0.5),
    p95: ms(0.95),
    agreement: compared ? 100 * agreeing / compared : null,
  };
}

function draw({ throughput, latency, agreement }) {
  const points = (value) => history.map((entry) => ({ at: entry.at, value: value(entry) ?? null }));
  throughput(variants().map((name) => ({ name, points: points((entry) => entry.throughput[name]) })), SPAN_MS);
  latency([
    { name: "median", points: points((entry) => entry.p50) },
    { name: "95th percentile", points: points((entry) => entry.p95) },
    { name: "this page", points: ownLatency() },
  ], SPAN_MS);
  notify(byId("latency-note"), refusals());
  agreement([
    { name: "this page", points: ownAgreement() },
    { name: "shadow mode", points: points((entry) => entry.agreement) },
  ], SPAN_MS);
}

/** The variants that there are, and those before them that answered as far back as the charts go. */
function variants() {
  const names = before ? valuesOf(before.samples, "crisp_texts_total", "variant") : [];
  const there = known()?.variants;
  return ordered(names.filter((name) => !there || name in there || history.some(({ throughput }) => throughput[name] > 0)));
}

/** What the latency leaves out: it is that of answers. */
function refusals() {
  const sum = (field) => history.reduce((all, entry) => all + entry[field], 0);
  const [requests, refused] = [sum("requests"), sum("refused")];
  if (!refused) return "";
  return `${percent(refused / requests)} of the requests were refused (429 or 503), and are not in here.`;
}

function showNow(samples) {
  const tiles = [
    ["texts answered", count(total(samples, "crisp_texts_total", { outcome: "ok" }))],
    ["tokens in the queue", count(total(samples, "crisp_queue_tokens"))],
    ["requests waiting", count(total(samples, "crisp_queue_requests"))],
    ["refused", count(total(samples, "crisp_rejections_total"))],
  ];
  if (total(samples, "crisp_operator_fallback")) tiles.push(["operators", "fallback"]);
  showTiles(byId("live-tiles"), tiles);
  byId("live-tiles").classList.remove("old");
}
