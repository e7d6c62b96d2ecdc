// The explorer: which page is shown, and that it stays true while the chain goes on and the node comes and goes.

import * as pages from "/explorer-pages.js";
import { call, callAll, make, Refusal, resolveNames, TOKEN } from "/explorer-parts.js";

const REFRESH_MS = 1000;
const RETRY_MS_MAX = 8000;
const byId = (id) => document.getElementById(id);
let status = null; // the last answer of chain_status
let shown = null; // the page that is shown, if it could be
let turn = 0; // which rendering is the last: an earlier one that comes late is thrown away
let isMissing = false; // whether the page is missing only because the node did not answer
let wait = REFRESH_MS;

class NoSuchPage extends Error {}

// What a text may name, in the order in which it is tried.
function guess(query) {
  if (/^\d{1,15}$/.test(query)) return [["block", "chain_block", { height: Number(query) }]];
  if (query.startsWith("wp1")) return [["participant", "participant_get", { participant: query }]];
  if (query.includes(":")) return [["lot", "lot_get", { lot: query }]];
  if (query.length === 64) return [["tx", "tx_get", { tx_id: query }], ["block", "chain_block", { block_id: query }]];
  return [
    ...["site", "meter", "claim", "bill", "escrow", "offer", "document"].map((kind) => [kind, `${kind}_get`, { [kind]: query }]),
    ["proposal", "governance_get", { proposal: query }],
  ];
}

async function find(query) {
  const kinds = guess(query);
  const answers = await callAll(kinds.map(([, method, params]) => [method, params]));
  const place = answers.findIndex((answer) => !(answer instanceof Refusal));
  if (place < 0) throw answers.at(-1);
  byId("query").value = "";
  location.replace(`#/${kinds[place][0]}/${encodeURIComponent(query)}`);
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand into the address
  }
}

async function makePage() {
  const [, name, id] = location.hash.match(/^#\/([a-z]*)\/?(.*)$/) ?? [null, "find", location.hash.slice(1)];
  const text = decode(id);
  if (name === "find" && text) {
    await find(text);
    return null;
  }
  const page = pages[name || "overview"] ?? (name === "find" ? pages.overview : null);
  if (!page) throw new NoSuchPage("there is no such page");
  return page(status, text);
}

async function render({ moveFocus }) {
  const mine = ++turn;
  const main = byId("main");
  try {
    const page = await makePage();
    if (mine !== turn || page === null) return;
    main.replaceChildren(...page.elements.filter(Boolean));
    document.title = `${page.title} · Wattprint`;
    shown = page;
    isMissing = false;
    resolveNames(main).catch(() => {}); // without names there are ids
  } catch (error) {
    if (mine !== turn) return;
    shown = null;
    isMissing = !(error instanceof Refusal || error instanceof NoSuchPage);
    const [title, text] = isMissing ? ["No answer", "The node did not answer; this page comes when it does."] : ["Not found", error.message];
    main.replaceChildren(make("h1", {}, title), make("p", { class: "bad" }, text), ...makeTokenForm(error));
  }
  for (const link of byId("nav").children) {
    if (link.getAttribute("href") === (location.hash || "#/")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (moveFocus) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

function makeTokenForm(error) {
  if (error.reason !== "token_required") return [];
  const input = make("input", { type: "password", "aria-label": "Token", autocomplete: "off" });
  const form = make("form", { class: "row" }, input, make("button", {}, "Use this token"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, input.value.trim());
    tick();
  });
  return [form];
}

function tell(state, text) {
  const place = byId("connection");
  if (place.dataset.state === state && state !== "live") return;
  place.dataset.state = state;
  if (place.textContent !== text) place.textContent = text;
}

async function tick() {
  const before = status;
  try {
    status = await call("chain_status");
    wait = REFRESH_MS;
  } catch (error) {
    wait = Math.min(2 * wait, RETRY_MS_MAX);
    if (error instanceof Refusal && error.reason === "token_required") {
      tell("gone", "this node wants a token");
      if (!byId("main").querySelector("form")) byId("main").replaceChildren(make("h1", {}, "A token, please"), ...makeTokenForm(error));
    } else tell("gone", "no answer from the node; trying again");
    return;
  }
  const isBack = before === null || byId("connection").dataset.state === "gone" || before.chain_id !== status.chain_id;
  if (status.forks?.length) tell("forked", `fork seen at height ${status.forks[0]}: these books may not stand`);
  else tell("live", status.syncing ? "catching up" : "live");
  byId("chain").textContent = `Chain ${status.chain_id} · node ${status.moniker} · version ${status.version}`;
  if (isBack || isMissing || (shown?.isLive && status.block_id !== before.block_id)) await render({ moveFocus: false });
}

async function loop() {
  if (!document.hidden) await tick();
  setTimeout(loop, wait);
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = byId("query").value.trim();
  if (query) location.hash = encodeURIComponent(query);
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address after # names our pages
  byId("main").focus();
});
window.addEventListener("hashchange", () => status && render({ moveFocus: true }));
document.addEventListener("visibilitychange", () => document.hidden || tick());
loop();
