// The explorer: what JSON-RPC answers, as a page. It only ever sets text, so nothing on the chain can act in it.
"use strict";

const BLOCKS_SHOWN = 12;
const REFRESH_MS = 1000;
const byId = (id) => document.getElementById(id);
const blocks = new Map(); // height → answer of chain_block
let lastId = 0;

async function call(method, params = {}) {
  const body = JSON.stringify({ jsonrpc: "2.0", method, params, id: ++lastId });
  const response = await fetch("/rpc", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  const answer = await response.json();
  if (answer.error) {
    const data = answer.error.data || {};
    throw new Error([data.reason || answer.error.message, data.item].filter(Boolean).join(": "));
  }
  return answer.result;
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function makeLink(text, query) {
  const link = make("a", text);
  link.href = "#" + encodeURIComponent(query);
  return link;
}

const formatTime = (ms) => new Date(ms).toISOString().replace("T", " ").slice(0, 19);
const shorten = (text) => (text.length > 20 ? text.slice(0, 10) + "…" + text.slice(-6) : text);

function showPairs(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", name), make("dd", String(value))]));
}

function showStatus(status) {
  showPairs(byId("status"), [
    ["Chain", status.chain_id],
    ["Node", `${status.moniker}, version ${status.version}` + (status.syncing ? ", catching up" : "")],
    ["Height", status.height],
    ["Block time", formatTime(status.block_time_ms) + " UTC"],
    ["State root", status.state_root],
    ["Validators", status.validators.map((one) => one.moniker).join(", ")],
    ["Peers", status.peers.length],
    ["Pending transactions", status.mempool_transactions],
  ]);
}

async function showBlocks(status) {
  const first = Math.max(0, status.height - BLOCKS_SHOWN + 1);
  for (const height of [...blocks.keys()]) if (height < first) blocks.delete(height);
  for (let height = first; height <= status.height; height++) {
    if (!blocks.has(height)) blocks.set(height, await call("chain_block", { height }));
  }
  const names = new Map(status.validators.map((one) => [one.public_key, one.moniker]));
  const rows = [...blocks.entries()].sort(([a], [b]) => b - a).map(([height, block]) => {
    const row = make("tr");
    const cell = make("td");
    cell.append(makeLink(height, String(height)));
    const proposer = names.get(block.header.proposer) || (height ? shorten(block.header.proposer) : "genesis");
    row.append(
      cell,
      make("td", formatTime(block.header.time_ms)),
      make("td", block.tx_ids.length),
      make("td", proposer),
      make("td", shorten(block.block_id)),
    );
    return row;
  });
  byId("blocks").replaceChildren(...rows);
}

function makeTable(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const table = make("table");
  const head = make("tr");
  head.append(...names.map((name) => make("th", name.replaceAll("_", " "))));
  table.append(head);
  for (const row of rows) {
    const line = make("tr");
    for (const name of names) {
      const value = row[name] ?? "";
      const isNumber = typeof value === "number";
      const shown = isNumber ? value.toLocaleString("en") : typeof value === "object" ? JSON.stringify(value) : value;
      line.append(make("td", shown, isNumber ? "number" : ""));
    }
    table.append(line);
  }
  return table;
}

const isTable = (value) => Array.isArray(value) && value.length > 0 && value.every((row) => row && typeof row === "object" && !Array.isArray(row));

function showAnswer(title, answer) {
  const parts = [make("h3", title)];
  const plain = {};
  const tables = [];
  for (const [name, value] of Object.entries(answer)) {
    if (isTable(value)) tables.push(make("h4", name.replaceAll("_", " ")), makeTable(value));
    else if (name === "tx_ids") tables.push(make("h4", "transactions"), makeLinks(value));
    else plain[name] = value;
  }
  parts.push(make("pre", JSON.stringify(plain, null, 2)), ...tables);
  return parts;
}

function makeLinks(texts) {
  const list = make("ul");
  for (const text of texts) {
    const item = make("li");
    item.append(makeLink(text, text));
    list.append(item);
  }
  return list;
}

// What a text may name, in the order in which it is tried; every question that has an answer is shown.
function findQuestions(query) {
  if (/^\d{1,15}$/.test(query)) return [["Block", "chain_block", { height: Number(query) }]];
  if (query.startsWith("wp1")) {
    return [
      ["Participant", "participant_get", { participant: query }],
      ["Credits", "credit_balance", { holder: query }],
      ["Energy", "energy_balance", { holder: query }],
      ["Where this participant's energy came from", "trace_holder", { participant: query }],
    ];
  }
  if (query.length === 64) {
    return [["Transaction", "tx_get", { tx_id: query }], ["Block", "chain_block", { block_id: query }]];
  }
  if (query.includes(":")) return [["Lot", "trace_lot", { lot: query }]];
  return [
    ["Site", "site_get", { site: query }],
    ["Who bought the output of this site", "trace_source", { site: query }],
    ["Meter", "meter_get", { meter: query }],
    ["Who bought the output of this meter", "trace_source", { meter: query }],
    ["Claim", "claim_get", { claim: query }],
    ["Bill", "bill_get", { bill: query }],
    ["Deposit", "escrow_get", { escrow: query }],
  ];
}

async function search(query) {
  const found = byId("found");
  if (!query) {
    found.hidden = true;
    return;
  }
  const parts = [];
  let refusal = "nothing has this name";
  for (const [title, method, params] of findQuestions(query)) {
    try {
      parts.push(...showAnswer(title, await call(method, params)));
    } catch (error) {
      refusal = error.message;
    }
  }
  found.replaceChildren(make("h2", query), ...(parts.length ? parts : [make("p", refusal, "refused")]));
  found.hidden = false;
}

function searchFromAddress() {
  const query = decodeURIComponent(location.hash.slice(1));
  byId("query").value = query;
  search(query);
}

async function refresh() {
  try {
    const status = await call("chain_status");
    showStatus(status);
    await showBlocks(status);
    byId("connection").textContent = "live";
  } catch (error) {
    byId("connection").textContent = "no answer from the node";
  }
  setTimeout(refresh, REFRESH_MS);
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = encodeURIComponent(byId("query").value.trim());
});
window.addEventListener("hashchange", searchFromAddress);
searchFromAddress();
refresh();
