// Starts the page: tabs, the API key, and what the service says of its models.

import { apiKey } from "./api.js";
import { startBatch } from "./batch.js";
import { byId, notify, tell } from "./dom.js";
import { startLive } from "./live.js";
import { known, loadModels, startModels, variantNames } from "./models.js";
import { startTry } from "./try.js";

const ASKS = "This service asks for an API key.";
const tabs = [...document.querySelectorAll('[role="tab"]')];

function select(tab) {
  for (const other of tabs) {
    const selected = other === tab;
    other.setAttribute("aria-selected", String(selected));
    other.tabIndex = selected ? 0 : -1;
    byId(other.getAttribute("aria-controls")).hidden = !selected;
  }
  document.dispatchEvent(new CustomEvent("crisp:tab", { detail: tab.getAttribute("aria-controls") }));
}

function startTabs() {
  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => {
      history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
      select(tab);
    });
    tab.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: -1 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      tabs.at(steps[event.key] % tabs.length).click();
      tabs.find((other) => other.tabIndex === 0).focus();
    });
  }
  const fromAddress = () => {
    const wanted = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
    if (wanted) select(wanted);
  };
  addEventListener("hashchange", fromAddress);
  fromAddress();
}

function startKey() {
  const form = byId("key-form");
  const open = byId("key-open");
  const show = (why) => {
    const say = form.hidden ? tell : notify;
    form.hidden = false;
    open.hidden = false;
    byId("key-forget").hidden = !apiKey.get();
    say(byId("key-why"), why);
  };
  const hide = (says) => {
    form.hidden = true;
    tell(byId("key-says"), says);
    const field = document.querySelector('[role="tabpanel"]:not([hidden]) textarea:not([hidden])');
    (field ?? tabs.find((tab) => tab.tabIndex === 0)).focus();
  };
  open.hidden = !apiKey.get();
  open.addEventListener("click", () => {
    if (form.hidden) show(apiKey.get() ? "The service is asked with an API key." : ASKS);
    else form.hidden = true;
    if (!form.hidden) byId("key").focus();
  });
  document.addEventListener("crisp:refused", ({ detail }) => {
    if (detail.status !== 401) return;
    show(apiKey.get() ? "The service does not know this API key." : ASKS);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const key = byId("key").value.trim();
    if (/[^ -~]/.test(key)) { // no header can carry it
      tell(byId("key-why"), "An API key has only English letters, digits and signs. Was something else pasted with it?");
      byId("key").focus();
      return;
    }
    apiKey.set(key);
    byId("key").value = "";
    hide(key ? "The page uses this API key now." : "The page uses no API key now.");
    loadModels();
  });
  byId("key-forget").addEventListener("click", () => {
    apiKey.set("");
    open.hidden = true;
    hide("The page uses no API key now.");
  });
}

function showFacts() {
  const { default: chosen, variants } = known();
  const { manifest, operators } = variants[chosen];
  const parameters = `${(manifest.parameters / 1e6).toFixed(1)} M parameters`;
  const kernel = operators.kernel === "compiled" ? "compiled operators" : "fallback operators, slower";
  byId("foot").textContent = `${variantNames().join(" and ")}: ${parameters}, ${manifest.precision}, `
    + `texts up to ${manifest.max_tokens} tokens, ${kernel}.`;
}

document.addEventListener("crisp:models", showFacts);
startTry();
startBatch();
startLive();
startKey();
startTabs();
startModels();
byId("loading").remove();
