// What pages are made of: calls to the node, and elements. Only text is ever set, so nothing on the chain can act here.

export const TOKEN = "wattprint-token"; // of a node whose readers need one; it stays in this tab
const NAMES_MAX = 100; // of participants and sites that one page resolves
const names = new Map(); // address or site → label
let lastId = 0;

export class Refusal extends Error {
  constructor({ code, message, data }) {
    super([data?.reason ?? message, data?.item].filter(Boolean).join(": "));
    this.code = code;
    this.reason = data?.reason ?? "";
  }
}

async function post(body) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch("/rpc", { method: "POST", headers, body: JSON.stringify(body) });
  return response.json();
}

const makeRequest = (method, params = {}) => ({ jsonrpc: "2.0", method, params, id: ++lastId });

export async function call(method, params) {
  const answer = await post(makeRequest(method, params));
  if (answer.error) throw new Refusal(answer.error);
  return answer.result;
}

// Several calls in one request: a result each, or the refusal.
export async function callAll(calls) {
  if (!calls.length) return [];
  const requests = calls.map(([method, params]) => makeRequest(method, params));
  const answers = await post(requests);
  if (!Array.isArray(answers)) throw new Refusal(answers.error);
  const byId = new Map(answers.map((one) => [one.id, one]));
  return requests.map(({ id }) => {
    const answer = byId.get(id);
    return answer.error ? new Refusal(answer.error) : answer.result;
  });
}

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const shorten = (text) => (text.length > 20 ? `${text.slice(0, 10)}…${text.slice(-6)}` : text);
export const formatTime = (ms) => new Date(ms).toISOString().replace("T", " ").slice(0, 19);
export const formatCount = (value) => value.toLocaleString("en");
export const formatCents = (cents) => (cents / 100).toLocaleString("en", { minimumFractionDigits: 2 });

export const formatName = (name) => name.replace(/_(ms|wh|cents)$/, "").replaceAll("_", " ");

export function formatWh(wh) {
  const [divisor, unit] = wh >= 1e9 ? [1e9, "GWh"] : wh >= 1e6 ? [1e6, "MWh"] : wh >= 1e4 ? [1e3, "kWh"] : [1, "Wh"];
  return `${(wh / divisor).toLocaleString("en", { maximumFractionDigits: 3 })} ${unit}`;
}

export const makeTime = (ms) => make("time", { datetime: new Date(ms).toISOString() }, `${formatTime(ms)} UTC`);

// A link to a page of ours. A participant or a site shows its label once the node has told it.
export function makeLink(kind, id, text) {
  const link = make("a", { href: `#/${kind}/${encodeURIComponent(id)}`, title: String(id) }, text ?? shorten(String(id)));
  if (text === undefined) {
    link.className = "id";
    if (kind === "participant" || kind === "site") link.dataset.name = id;
  }
  return link;
}

export async function resolveNames(root) {
  const links = [...root.querySelectorAll("a[data-name]")];
  const wanted = [...new Set(links.map((link) => link.dataset.name))].filter((id) => !names.has(id)).slice(0, NAMES_MAX);
  const answers = await callAll(
    wanted.map((id) => (id.startsWith("wp1") ? ["participant_get", { participant: id }] : ["site_get", { site: id }])),
  );
  wanted.forEach((id, place) => names.set(id, answers[place].label ?? ""));
  for (const link of links) {
    const label = names.get(link.dataset.name);
    if (!label) continue;
    link.textContent = label;
    link.classList.remove("id");
  }
}

export function makeTable(title, heads, rows) {
  const head = make("tr", {}, ...heads.map(([name, kind]) => make("th", { scope: "col", class: kind ?? null }, name)));
  const body = rows.map((cells) =>
    make("tr", {}, ...cells.map((cell, place) => make("td", { class: heads[place][1] ?? null }, cell))),
  );
  const table = make("table", { "aria-label": title }, make("thead", {}, head), make("tbody", {}, ...body));
  return make("div", { class: "scroll", role: "region", "aria-label": title, tabindex: "0" }, table);
}

export const makeCard = (title, ...children) => make("section", { class: "card" }, title ? make("h2", {}, title) : null, ...children);

export const makeFigures = (...pairs) =>
  make("div", { class: "figures" }, ...pairs.map(([name, value]) => make("div", { class: "figure" }, make("span", {}, name), make("b", {}, value))));

export const makeList = (pairs) => make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));

const STOPPED = new Set(["dropped", "expired", "impaired", "void", "withdrawn", "retired", "suspended", "refused", "failed"]);
export const makeBadge = (word) => make("span", { class: STOPPED.has(word) ? "badge stopped" : "badge" }, word.replaceAll("_", " "));

// Parts of a whole: what was claimed, and what is held.
export function makeBar(claimed, held, whole) {
  const bar = make("div", { class: "meter", role: "img", "aria-label": `${whole ? Math.round((100 * (claimed + held)) / whole) : 0} per cent` });
  for (const [part, kind] of [[claimed, "claimed"], [held, "held"]]) {
    const piece = make("i", { class: kind });
    piece.style.width = `${whole ? (100 * part) / whole : 0}%`;
    bar.append(piece);
  }
  return bar;
}

const HOUR_MS = 3_600_000;
const COLUMNS_MAX = 750; // a month; of a longer time only the hours that have something are drawn

// Answers leave out hours with nothing in them; in a picture a night is a gap.
function fillHours(columns) {
  const first = columns[0]?.start_ms ?? 0;
  const count = columns.length ? (columns.at(-1).start_ms - first) / HOUR_MS + 1 : 0;
  if (count > COLUMNS_MAX) return columns;
  const known = new Map(columns.map((column) => [column.start_ms, column]));
  return Array.from({ length: count }, (_, n) => known.get(first + n * HOUR_MS) ?? { start_ms: first + n * HOUR_MS, part: 0, whole: 0 });
}

// Columns over time, each with a part of it in another colour. The same figures stand in a table below.
export function makeChart(title, columns, partName, wholeName) {
  const most = Math.max(1, ...columns.map(({ whole }) => whole));
  const chart = make("div", { class: "chart", role: "img", "aria-label": `${title}: the table below has the figures` });
  for (const { start_ms, part, whole } of fillHours(columns)) {
    const column = make("i", { title: `${formatTime(start_ms)}: ${formatWh(part)} ${partName} of ${formatWh(whole)}` });
    const inner = make("b");
    column.style.height = `${(100 * whole) / most}%`;
    inner.style.height = `${whole ? (100 * part) / whole : 0}%`;
    column.append(inner);
    chart.append(column);
  }
  const ends = columns.length ? [columns[0], columns.at(-1)].map(({ start_ms }) => make("span", {}, formatTime(start_ms).slice(0, 16))) : [];
  const rows = columns.map(({ start_ms, part, whole }) => [formatTime(start_ms).slice(0, 16), formatCount(part), formatCount(whole)]);
  const heads = [["Hour (UTC)"], [`${partName}, Wh`, "number"], [`${wholeName}, Wh`, "number"]];
  return make(
    "div",
    {},
    make("p", { class: "quiet" }, make("span", { class: "key" }, partName), "  ", make("span", { class: "key held" }, wholeName)),
    chart,
    make("div", { class: "ends" }, ...ends),
    make("details", {}, make("summary", {}, "As a table"), makeTable(title, heads, rows)),
  );
}

const KINDS = {
  ...Object.fromEntries(["participant", "holder", "owner", "utility", "consumer", "sender", "recipient", "claimant", "beneficiary", "issuer", "registrar", "depositor", "reader", "seller", "buyer", "operator"].map((name) => [name, "participant"])),
  ...Object.fromEntries(["site", "meter", "lot", "claim", "bill", "escrow", "offer", "document"].map((name) => [name, name])),
  consumption_meter: "meter", service_point: "meter", tx_id: "tx", height: "block", block_id: "block", proposal: "proposal",
};

// Any value of an answer, by its name: links, times and amounts as people read them.
export function show(name, value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (name === "lot") return showLot(value);
  if (Array.isArray(value)) return showArray(name, value);
  if (typeof value === "object") return showObject(value);
  if (KINDS[name] && (name !== "height" || value > 0)) return makeLink(KINDS[name], value, name === "height" ? formatCount(value) : undefined);
  if (typeof value === "number") return showNumber(name, value);
  if (name === "status" || name === "state") return makeBadge(value);
  if (/^[0-9a-f]{40,}$/.test(value)) return make("span", { class: "id", title: value }, shorten(value));
  return value.startsWith("wp1") ? makeLink("participant", value) : value;
}

// A lot by when it began: its id says the meter first, which is the same in a whole column.
function showLot(value) {
  const id = value.meter ? `${value.meter}:${value.start_ms}:${value.version}` : value;
  const [meter, start] = id.split(":");
  return makeLink("lot", id, `${formatTime(Number(start)).slice(0, 16)} · ${meter.slice(0, 6)}…`);
}

export const showObject = (value) =>
  makeList(Object.entries(value).filter(([name]) => name !== "lot_id").map(([name, one]) => [formatName(name), show(name, one)]));

function showNumber(name, value) {
  if (name.endsWith("_ms") && value >= 1e11) return makeTime(value);
  if (name === "wh" || name.endsWith("_wh")) return formatWh(value);
  if (name === "cents" || name.endsWith("_cents")) return formatCents(value);
  return formatCount(value);
}

function showArray(name, values) {
  if (!values.length) return "–";
  const single = name.replace(/s$/, "");
  const items = values.map((one) => make("li", {}, Array.isArray(one) ? showArray(name, one) : show(single, one)));
  return make("ul", {}, ...items);
}

export const makeRaw = (answer) =>
  make("details", { class: "card" }, make("summary", {}, "As JSON"), make("pre", { tabindex: "0" }, JSON.stringify(answer, null, 2)));

// A list that goes on: rows of a page, and a button for the next.
export async function makeLongList(title, heads, ask, makeRow) {
  const wrapper = make("div");
  const more = make("button", { type: "button", class: "plain" }, "Show more");
  let body = null;
  let cursor = null;
  async function load() {
    more.disabled = true;
    const { items, next } = await ask(cursor);
    if (body === null) {
      const table = makeTable(title, heads, items.map(makeRow));
      body = table.querySelector("tbody");
      wrapper.append(items.length ? table : make("p", { class: "quiet" }, "Nothing yet."));
    } else body.append(...makeTable(title, heads, items.map(makeRow)).querySelectorAll("tbody tr"));
    cursor = next;
    if (cursor) wrapper.append(more);
    else more.remove();
    more.disabled = false;
    await resolveNames(wrapper);
  }
  more.addEventListener("click", () => load().catch((error) => wrapper.append(make("p", { class: "bad" }, error.message))));
  await load();
  return wrapper;
}
