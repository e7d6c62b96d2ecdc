// The pages: what each asks the node, and how the answer reads. Each gives its title and its elements.

import {
  call, callAll, formatCents, formatCount, formatName, formatTime, formatWh, make, makeBadge, makeBar, makeCard, makeChart, makeFigures,
  makeLink, makeList, makeLongList, makeRaw, makeTable, makeTime, Refusal, shorten, show, showObject,
} from "/explorer-parts.js";

const BLOCKS_SHOWN = 12;
const BUSY_SHOWN = 5; // blocks with transactions, when the last have none
const BUSY_STEP = 50; // blocks looked at in one request
const BUSY_LOOKED_AT_MAX = 200;
const TRANSACTIONS_SHOWN = 100;
const HOURS_SHOWN = 168; // a week
const NUMBER = "number";
const blocks = new Map(); // height → answer of chain_block; final blocks never change
const busy = new Map(); // the same, of blocks with transactions
let lookedUpTo = 0; // heights up to this one were looked at for those
let chainId = "";

const makeTitle = (kind, name) => make("h1", {}, make("span", { class: "kind" }, kind), name);
const findValidator = (status, key) => status.validators.find((one) => one.public_key === key)?.moniker ?? shorten(key);

// — the chain —

async function fetchBlocks(status) {
  if (chainId !== status.chain_id) {
    blocks.clear();
    busy.clear();
    lookedUpTo = 0;
  }
  chainId = status.chain_id;
  const first = Math.max(0, status.height - BLOCKS_SHOWN + 1);
  for (const height of [...blocks.keys()]) if (height < first || height > status.height) blocks.delete(height);
  const missing = [];
  for (let height = first; height <= status.height; height++) if (!blocks.has(height)) missing.push(height);
  const answers = await callAll(missing.map((height) => ["chain_block", { height }]));
  answers.forEach((answer, place) => answer instanceof Refusal || blocks.set(missing[place], answer));
  return [...blocks.values()].sort((a, b) => b.height - a.height);
}

// A quiet chain still makes blocks: the last with transactions, as far back as is worth looking.
async function fetchBusyBlocks(status, last) {
  for (const block of last) if (block.tx_ids.length) busy.set(block.height, block);
  const least = Math.max(lookedUpTo, status.height - BUSY_LOOKED_AT_MAX, 0);
  for (let top = status.height - last.length; top > least && busy.size < BUSY_SHOWN; top -= BUSY_STEP) {
    const heights = Array.from({ length: Math.min(BUSY_STEP, top - least) }, (_, place) => top - place);
    const answers = await callAll(heights.map((height) => ["chain_block", { height }]));
    for (const answer of answers) if (!(answer instanceof Refusal) && answer.tx_ids.length) busy.set(answer.height, answer);
  }
  lookedUpTo = status.height;
  const found = [...busy.values()].sort((a, b) => b.height - a.height).slice(0, BUSY_SHOWN);
  busy.clear();
  for (const block of found) busy.set(block.height, block);
  return found;
}

function makeBlockTable(title, status, found) {
  const rows = found.map((block) => [
    makeLink("block", block.height, formatCount(block.height)),
    makeTime(block.header.time_ms),
    formatCount(block.tx_ids.length),
    block.height ? findValidator(status, block.header.proposer) : "genesis",
    make("span", { class: "id", title: block.block_id }, shorten(block.block_id)),
  ]);
  return makeTable(title, [["Height"], ["Time"], ["Transactions", NUMBER], ["Proposer"], ["Block id"]], rows);
}

export async function overview(status) {
  const found = await fetchBlocks(status);
  const withTransactions = await fetchBusyBlocks(status, found);
  const title = "Last blocks with transactions";
  return {
    title: "Blocks",
    isLive: true,
    elements: [
      make("h1", {}, "Who bought this green energy?"),
      make("p", { class: "quiet" }, "Every watt-hour that a meter signs for has an identity here. ",
        make("a", { href: "#/sources" }, "Choose a source"), " to see who has its output, or ",
        make("a", { href: "#/participants" }, "a participant"), " to see where its energy came from."),
      makeFigures(["Height", formatCount(status.height)], ["Validators", formatCount(status.validators.length)],
        ["Peers of this node", formatCount(status.peers.length)], ["Pending", formatCount(status.mempool_transactions)]),
      makeCard("Last blocks", makeBlockTable("Last blocks", status, found)),
      withTransactions.length && !found.some((block) => block.tx_ids.length)
        ? makeCard(title, makeBlockTable(title, status, withTransactions))
        : null,
    ],
  };
}

export async function block(status, id) {
  const answer = await call("chain_block", /^\d+$/.test(id) ? { height: Number(id) } : { block_id: id });
  const { header, certificate } = answer;
  const shown = answer.tx_ids.slice(0, TRANSACTIONS_SHOWN);
  const transactions = await callAll(shown.map((tx_id) => ["tx_get", { tx_id }]));
  const rows = transactions.map((one, place) => [
    makeLink("tx", shown[place]),
    one.transaction?.type ?? "–",
    one.transaction ? makeLink("participant", one.transaction.sender) : "–",
  ]);
  const signers = (certificate?.signatures ?? []).map((one) => findValidator(status, one.voter)).join(", ");
  const steps = make("p", {}, answer.height ? makeLink("block", answer.height - 1, "← earlier") : "", "  ",
    answer.height < status.height ? makeLink("block", answer.height + 1, "later →") : "");
  const more = answer.tx_ids.length - shown.length;
  return {
    title: `Block ${answer.height}`,
    elements: [
      makeTitle("Block", formatCount(answer.height)),
      steps,
      makeCard("", makeList([
        ["Time", makeTime(header.time_ms)],
        ["Proposed by", answer.height ? findValidator(status, header.proposer) : "genesis"],
        ["Final, because these signed", signers || "genesis needs nobody"],
        ["Block id", make("span", { class: "id" }, answer.block_id)],
        ["State root", make("span", { class: "id" }, header.state_root)],
      ])),
      makeCard(`${formatCount(answer.tx_ids.length)} transactions`,
        rows.length ? makeTable("Transactions", [["Id"], ["What"], ["Signed by"]], rows) : null,
        more > 0 ? make("p", { class: "quiet" }, `and ${formatCount(more)} more, which the JSON below lists`) : null),
      makeRaw(answer),
    ],
  };
}

export async function tx(_status, id) {
  const answer = await call("tx_get", { tx_id: id });
  const inner = answer.transaction;
  const events = groupEvents(answer.events).map(([name, group]) =>
    make("li", {}, make("b", {}, name), group.length > 1 ? makeEventTable(name, group) : showObject(group[0])),
  );
  return {
    title: `Transaction ${shorten(id)}`,
    elements: [
      makeTitle("Transaction", inner?.type ?? shorten(id)),
      answer.error ? make("p", { class: "bad" }, `${answer.error.data.reason}: ${answer.error.data.item}`) : null,
      makeCard("", makeList([
        ["Status", makeBadge(answer.status)],
        ...(answer.status === "committed" ? [["In block", makeLink("block", answer.height, formatCount(answer.height))], ["Time", makeTime(answer.time_ms)]] : []),
        ...(inner ? [["Signed by", makeLink("participant", inner.sender)]] : []),
        ...(inner?.cosigners.length ? [["And by", show("cosigners", inner.cosigners)]] : []),
        ["Id", make("span", { class: "id" }, answer.tx_id)],
      ])),
      events.length ? makeCard("What it did", make("ol", { class: "story" }, ...events)) : null,
      makeRaw(answer),
    ],
  };
}

// Runs of events of one kind: a table says many of them in less room.
function groupEvents(events) {
  const groups = [];
  for (const { event: name, ...rest } of events) {
    if (groups.at(-1)?.[0] === name) groups.at(-1)[1].push(rest);
    else groups.push([name, [rest]]);
  }
  return groups;
}

function makeEventTable(name, group) {
  const columns = [...new Set(group.flatMap((one) => Object.keys(one)))];
  const heads = columns.map((column) => [formatName(column), typeof group[0][column] === "number" && !column.endsWith("_ms") ? NUMBER : null]);
  return makeTable(name, heads, group.map((one) => columns.map((column) => show(column, one[column]))));
}

// — energy —

export async function sources() {
  const heads = [["Source"], ["Technology"], ["Grid zone"], ["Capacity", NUMBER], ["Owner"]];
  const ask = async (cursor) => {
    const page = await call("site_list", { limit: 200, cursor });
    return { items: page.sites.filter((site) => site.technology !== "load"), next: page.next_cursor };
  };
  const list = await makeLongList("Sources", heads, ask, (site) => [
    makeLink("site", site.site, site.label || shorten(site.site)), site.technology, site.zone,
    `${formatCount(site.capacity_w / 1000)} kW`, makeLink("participant", site.owner),
  ]);
  return { title: "Sources", elements: [make("h1", {}, "Sources"), makeCard("", list)] };
}

async function makeSourceParts(what) {
  const [answer, byHour] = await callAll([["trace_source", what], ["trace_source", { ...what, by: "hour", limit: HOURS_SHOWN }]]);
  if (answer instanceof Refusal) return [make("p", { class: "quiet" }, answer.message)];
  if (!answer.metered_wh) return [make("p", { class: "quiet" }, "It has not produced anything yet.")];
  const rows = answer.rows.map((row) => [
    makeLink("participant", row.participant, row.label || undefined), formatWh(row.wh), makeBar(row.claimed_wh, row.held_wh, answer.wh),
    formatWh(row.claimed_wh), formatWh(row.held_wh),
  ]);
  const heads = [["Who"], ["Has", NUMBER], ["Share", "share"], ["Claimed", NUMBER], ["Holds", NUMBER]];
  const hours = byHour instanceof Refusal ? [] : byHour.rows.map((row) => ({ start_ms: row.start_ms, part: row.claimed_wh, whole: row.wh }));
  return [
    makeFigures(["Metered", formatWh(answer.metered_wh)], ["Minted", formatWh(answer.minted_wh)], ["Claimed", formatWh(answer.claimed_wh)],
      ["Still held", formatWh(answer.held_wh)]),
    answer.holds
      ? make("p", { class: "good" }, `✓ The sums are complete: what everyone below has adds up to the ${formatCount(answer.wh)} Wh that were minted.`)
      : make("p", { class: "bad" }, "✗ The sums are not complete: the health page has the audit."),
    makeCard("Who has its output", makeTable("Who has its output", heads, rows)),
    hours.length ? makeCard("Hour by hour", makeChart("Production by hour", hours, "claimed", "produced")) : null,
  ];
}

export async function site(_status, id) {
  const answer = await call("site_get", { site: id });
  const { meters, label, shares, ...facts } = answer;
  return {
    title: label || "Site",
    elements: [
      makeTitle(answer.technology === "load" ? "Consumer's site" : `Source · ${answer.technology}`, label || shorten(id)),
      ...(answer.technology === "load" ? [] : await makeSourceParts({ site: id })),
      makeCard("The site", makeList([
        ["Owner", makeLink("participant", facts.owner)], ["Utility", makeLink("participant", facts.utility)],
        ["Grid zone", facts.zone], ["Capacity", `${formatCount(facts.capacity_w / 1000)} kW`], ["Commissioned", makeTime(facts.commissioned_ms)],
        ["Its energy goes to", make("ul", {}, ...shares.map(([who, weight]) => make("li", {}, makeLink("participant", who), ` (weight ${weight})`)))],
        ["Meters", show("meters", meters)], ["Id", make("span", { class: "id" }, id)],
      ])),
      makeRaw(answer),
    ],
  };
}

export async function meter(_status, id) {
  const answer = await call("meter_get", { meter: id });
  const isProducer = answer.channels.some((one) => one.channel === "production");
  return {
    title: `Meter ${answer.serial}`,
    elements: [
      makeTitle("Meter", answer.serial),
      ...(isProducer ? await makeSourceParts({ meter: id }) : []),
      makeCard("The meter", showObject(answer)),
      makeRaw(answer),
    ],
  };
}

export async function lot(_status, id) {
  const answer = await call("trace_lot", { lot: id });
  const steps = [
    make("li", {}, make("b", {}, "minted"), " ", makeTime(answer.mint.time_ms), showObject({ tx_id: answer.mint.tx_id, slices: answer.mint.slices })),
    ...answer.movements.map(({ event, time_ms, index, ...rest }) => make("li", {}, make("b", {}, event), " ", makeTime(time_ms), showObject(rest))),
  ];
  const rows = answer.slices.map((one) => [
    makeLink("participant", one.holder), `${formatCount(one.first_wh)} to ${formatCount(one.end_wh)} Wh`, formatWh(one.wh), makeBadge(one.status),
  ]);
  return {
    title: "Lot",
    elements: [
      makeTitle(`Lot · ${answer.technology}`, `${formatWh(answer.wh)} of ${formatTime(answer.start_ms).slice(0, 16)} UTC`),
      makeCard("", makeList([["Site", makeLink("site", answer.site)], ["Meter", makeLink("meter", answer.meter)], ["Grid zone", answer.zone],
        ["Id", make("span", { class: "id" }, answer.lot)]])),
      makeCard("Whose it is now", makeTable("Slices", [["Who"], ["Part"], ["Size", NUMBER], ["Status"]], rows)),
      makeCard("What happened to it", make("ol", { class: "story" }, ...steps)),
      makeRaw(answer),
    ],
  };
}

export async function claims() {
  const heads = [["Claim"], ["For"], ["Energy", NUMBER], ["Period"], ["Kind"], ["Status"]];
  const ask = async (cursor) => {
    const page = await call("claim_list", { limit: 50, cursor });
    return { items: page.claims, next: page.next_cursor };
  };
  const list = await makeLongList("Claims", heads, ask, (one) => [
    makeLink("claim", one.claim), makeLink("participant", one.beneficiary), formatWh(one.wh), formatTime(one.period_start_ms).slice(0, 16),
    one.is_hourly ? "hourly" : "volumetric", makeBadge(one.status),
  ]);
  return { title: "Claims", elements: [make("h1", {}, "Claims"), make("p", { class: "quiet" }, "What was used, by whom. A watt-hour is claimed once, ever."), makeCard("", list)] };
}

export async function claim(_status, id) {
  const answer = await call("claim_get", { claim: id });
  const rows = answer.slices.map((one) => [show("lot", one.lot), one.site ? makeLink("site", one.site) : "–", formatWh(one.end_wh - one.first_wh)]);
  const { slices, ...facts } = answer;
  const save = make("button", { type: "button" }, "Save its certificate");
  save.addEventListener("click", async () => {
    save.disabled = true;
    try {
      const text = JSON.stringify(await call("certificate_get", { claim: id }));
      const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      make("a", { href: url, download: `claim-${id}.json` }).click();
      URL.revokeObjectURL(url);
    } catch (error) {
      save.after(make("p", { class: "bad" }, error.message));
    }
    save.disabled = false;
  });
  return {
    title: "Claim",
    elements: [
      makeTitle(answer.is_hourly ? "Claim · matched hour by hour" : "Claim · volumetric", formatWh(answer.wh)),
      makeCard("", showObject(facts), make("p", {}, save), make("p", { class: "quiet" }, "Anybody can check it without a node: ",
        make("code", {}, "wattprint certificate verify FILE --genesis genesis.json"))),
      makeCard("Of these lots", makeTable("Lots", [["Lot"], ["Site"], ["Energy", NUMBER]], rows)),
      makeRaw(answer),
    ],
  };
}

// — people —

export async function participants() {
  const heads = [["Name"], ["Roles"], ["KYC"], ["Since"]];
  const ask = async (cursor) => {
    const page = await call("participant_list", { limit: 100, cursor });
    return { items: page.participants, next: page.next_cursor };
  };
  const list = await makeLongList("Participants", heads, ask, (one) => [
    makeLink("participant", one.participant, one.label || undefined), one.roles.join(", ").replaceAll("_", " "), one.is_frozen ? makeBadge("frozen") : one.kyc,
    formatTime(one.registered_ms).slice(0, 10),
  ]);
  return { title: "Participants", elements: [make("h1", {}, "Participants"), makeCard("", list)] };
}

export async function participant(_status, id) {
  const [answer, credits, energy, traced] = await callAll([
    ["participant_get", { participant: id }], ["credit_balance", { holder: id }], ["energy_balance", { holder: id }], ["trace_holder", { participant: id }],
  ]);
  if (answer instanceof Refusal) throw answer;
  const elements = [
    makeTitle(answer.roles.join(", ").replaceAll("_", " "), answer.label || shorten(id)),
    answer.is_frozen ? make("p", { class: "bad" }, "Frozen: what it has stays where it is.") : null,
    makeFigures(["Claimed", formatWh(energy.claimed_wh ?? 0)], ["Holds", formatWh(energy.active_wh ?? 0)], ["Credits", formatCents(credits.balance_cents ?? 0)]),
  ];
  if (traced instanceof Refusal) elements.push(make("p", { class: "quiet" }, traced.message));
  else elements.push(...makeHolderParts(traced));
  elements.push(
    makeCard("The participant", makeList([["Address", make("span", { class: "id" }, id)], ["KYC", answer.kyc], ["Registered", makeTime(answer.registered_ms)],
      ["By", answer.registrar ? makeLink("participant", answer.registrar) : "genesis"], ["Public key", make("span", { class: "id" }, answer.public_key)]])),
    makeRaw({ ...answer, credits, energy, traced }),
  );
  return { title: answer.label || "Participant", elements };
}

function makeHolderParts(traced) {
  const { consumption } = traced;
  const rows = [...traced.sources].sort((a, b) => b.wh - a.wh).map((one) => [
    makeLink("site", one.site, one.label || undefined), formatWh(one.wh), makeBar(one.claimed_wh, one.held_wh, traced.wh), one.technology, one.zone,
  ]);
  const heads = [["Source"], ["Energy", NUMBER], ["Share", "share"], ["Technology"], ["Grid zone"]];
  const hours = consumption.hours.slice(-HOURS_SHOWN).map((one) => ({ start_ms: one.start_ms, part: one.claimed_wh, whole: one.consumed_wh }));
  const percent = (consumption.matching_score_per_mille ?? 0) / 10;
  return [
    rows.length ? makeCard("Where its energy came from", makeTable("Sources", heads, rows)) : make("p", { class: "quiet" }, "It has no energy of anybody."),
    consumption.consumed_wh
      ? makeCard("Matched hour by hour", make("p", {}, make("b", {}, `${percent} %`), ` of its ${formatWh(consumption.consumed_wh)} are claimed in the very hour of consumption.`),
        makeChart("Consumption by hour", hours, "claimed", "consumed"))
      : null,
  ];
}

// — health —

export async function health(status) {
  const [ready, parameters] = await Promise.all([fetch("/readyz").then((response) => response.json()), call("chain_parameters")]);
  const connected = new Map(status.peers.map((peer) => [peer.public_key, peer]));
  const rows = status.validators.map((one) => {
    const peer = connected.get(one.public_key);
    const isHere = one.public_key === status.public_key;
    return [one.moniker, isHere ? "this node" : peer ? `connected for ${formatDuration(peer.connected_ms)}` : make("span", { class: "badge stopped" }, "not connected"),
      peer ? formatCount(peer.score) : "–", make("span", { class: "id", title: one.public_key }, shorten(one.public_key))];
  });
  const others = status.peers.filter((peer) => !status.validators.some((one) => one.public_key === peer.public_key));
  const audit = makeCard("Do the sums hold?", make("p", { class: "quiet" }, "The node recomputes every sum of the ledger from its whole state."));
  const button = make("button", { type: "button" }, "Audit now");
  button.addEventListener("click", () => runAudit(audit, button));
  audit.append(button);
  return {
    title: "Health",
    elements: [
      make("h1", {}, "Health"),
      make("p", { class: ready.ready ? "good" : "bad" }, ready.ready ? "✓ Ready: this node is up to date and sees a quorum of validators." : `✗ Not ready: ${ready.reason.replaceAll("_", " ")}.`),
      makeFigures(["Height", formatCount(status.height)], ["Last block", makeTime(status.block_time_ms)], ["Round", formatCount(status.round)], ["Pending", formatCount(status.mempool_transactions)]),
      makeCard("Validators", makeTable("Validators", [["Name"], ["Seen from here"], ["Score", NUMBER], ["Public key"]], rows)),
      others.length ? makeCard("Other peers", show("peers", others.map((peer) => peer.moniker))) : null,
      audit,
      makeCard("This node", makeList([["Name", status.moniker], ["Version", status.version], ["Validator", status.is_validator ? "yes" : "no"],
        ["State root", make("span", { class: "id" }, status.state_root)], ["Metrics", make("a", { href: "/metrics" }, "/metrics")]])),
      makeCard("Parameters of the chain", showObject(parameters.parameters)),
    ],
  };
}

const formatDuration = (ms) => (ms < 60000 ? `${Math.floor(ms / 1000)} s` : ms < 3600000 ? `${Math.floor(ms / 60000)} min` : `${Math.floor(ms / 3600000)} h`);

async function runAudit(card, button) {
  button.disabled = true;
  card.querySelectorAll(".result").forEach((old) => old.remove());
  const result = make("div", { class: "result", "aria-live": "polite" });
  card.append(result);
  try {
    const answer = await call("chain_audit");
    const rows = answer.sums.map((sum) => [sum.name.replaceAll("_", " "), `${formatCount(sum.left)} ${sum.relation} ${formatCount(sum.right)}`, sum.unit, sum.holds ? "✓" : "✗"]);
    result.append(
      make("p", { class: answer.holds ? "good" : "bad" }, answer.holds ? `✓ All ${answer.sums.length} sums hold at height ${formatCount(answer.height)}.` : "✗ A sum does not hold."),
      makeTable("Sums", [["Sum"], ["Both sides", NUMBER], ["Unit"], ["Holds"]], rows),
    );
  } catch (error) {
    result.append(make("p", { class: "bad" }, error.message));
  }
  button.disabled = false;
}

// — whatever else there is —

const makeRecordPage = (kind, method, parameter) => async (_status, id) => {
  const answer = await call(method, { [parameter]: id });
  return { title: kind, elements: [makeTitle(kind, shorten(id)), makeCard("", showObject(answer)), makeRaw(answer)] };
};

export const bill = makeRecordPage("Bill", "bill_get", "bill");
export const escrow = makeRecordPage("Deposit", "escrow_get", "escrow");
export const offer = makeRecordPage("Offer", "offer_get", "offer");
const paper = makeRecordPage("Document", "document_get", "document");
export { paper as document };
export const proposal = makeRecordPage("Proposal", "governance_get", "proposal");
