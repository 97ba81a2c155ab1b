// The review's page: asks the server for queues and rows, and sends decisions. Keyboard first; see KEYS in dialogs.js.

import { askEdit, askLabel, askName, askNote, help, openDialogs } from "/dialogs.js";
import { button, count, el, line, showLabels, showPeople, showQueues, showRow } from "/view.js";

const $ = (selector) => document.querySelector(selector);
const saved = (() => { try { return JSON.parse(localStorage.getItem("finery-review")) || {}; } catch { return {}; } })();
const now = { reviewer: "", info: null, queue: "", filters: {}, handle: "", at: null, item: null, aside: false, done: 0, empty: "", opened: 0, sent: 0 };
const ahead = new Map();  // place in the queue -> promise of its item
const visited = [];  // [row id, place], newest last
let busy = false;

async function call(path, parameters = {}) {
  const answer = await fetch(`/api/${path}?${new URLSearchParams({ reviewer: now.reviewer, ...parameters })}`);
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(found.error), { status: answer.status });
  return found;
}

async function send(body) {
  const answer = await fetch("/api/decide", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  return { status: answer.status, found: await answer.json() };
}

function remember() {
  try { localStorage.setItem("finery-review", JSON.stringify({ reviewer: now.reviewer, queue: now.queue, filters: now.filters })); } catch { /* private window */ }
}

function say(text) { $("#said").textContent = text; }

function notice(text) {
  $("#notice").hidden = !text;
  $("#notice").textContent = text || "";
}

// What goes wrong is said on the page, never lost.
const guarded = (work) => async (...given) => {
  try { return await work(...given); } catch (error) {
    notice(error.status ? error.message : "The review does not answer. Is it still running? Nothing was lost that the page had confirmed.");
    return undefined;
  }
};

// --- queues

const refresh = guarded(async () => {
  const sent = now.sent, info = await call("state");
  if (sent !== now.sent) return later();  // asked before a decision that is written now: it would undo the one before
  now.info = info;
  showQueues($("#queues"), now.info, now.queue, openQueue);
  showLabels($("#labels"), now.info, now.queue, openQueue);
  showPeople($("#people"), now.info);
  $("#who").replaceChildren(line(now.reviewer || "name?", 30));
  $("#all-labels").replaceChildren(...now.info.labels.slice(0, 500).map(([label]) => el("option", { value: label })));
  if (now.info.stale) notice("The data was built anew since this review was started. Stop it and start it again.");
});

const openQueue = guarded(async (name, filters = {}) => {
  document.body.classList.remove("menu");
  $("#menu").setAttribute("aria-expanded", "false");
  const mine = ++now.opened;
  if (filters.text) say("Searching…");
  const found = await call("open", { queue: name, ...filters });
  if (mine !== now.opened) return;
  notice("");
  ahead.clear();
  visited.length = 0;
  Object.assign(now, { queue: name, filters, handle: found.handle, empty: found.empty, title: found.title, all: found.count });
  for (const field of ["text", "label", "source"]) $("#filter").elements[field].value = filters[field] || "";
  remember();
  say(filters.text || filters.label || filters.source ? `${count(found.count)} rows fit.` : "");
  if (found.at === null) { now.done = found.count; showEnd(); } else await go(found.at);
  await refresh();
});

function fetchItem(at) {
  if (!ahead.has(at)) {
    const coming = call("item", { handle: now.handle, at });
    coming.catch(() => ahead.delete(at));
    ahead.set(at, coming);
    if (ahead.size > 12) ahead.delete(ahead.keys().next().value);
  }
  return ahead.get(at);
}

const go = guarded(async (at) => {
  let item;
  try { item = await fetchItem(at); } catch (error) {
    if (error.status !== 404) throw error;
    return openQueue(now.queue, now.filters);  // the server was started anew
  }
  Object.assign(now, { at, item, aside: false, done: item.done });
  draw();
  window.scrollTo(0, 0);
  for (const next of [item.open, at + 1]) if (next !== null && next < item.count && next !== at) fetchItem(next).catch(() => {});
});

function progress(done, all) {
  $("#progress").setAttribute("aria-valuemax", all);
  $("#progress").setAttribute("aria-valuenow", done);
  $("#progress i").style.width = `${all ? (100 * done) / all : 0}%`;
}

function showEnd() {
  Object.assign(now, { at: null, item: null, aside: false });
  $("#title").replaceChildren(line(now.title, 60));
  $("#place").textContent = now.all ? `${count(now.all)} rows` : "";
  progress(now.all, now.all);
  const next = now.info?.queues.find((each) => each.count > each.done && each.name !== now.queue && !["all", "decided"].includes(each.name));
  const text = now.all ? "You have decided about every row of this queue." : now.empty;
  $("#row").replaceChildren(el("div", { class: "end" }, el("p", {}, text),
    next && button(`Go on with: ${next.title}`, "↵", () => openQueue(next.name), { class: "main" }), now.all ? button("Look at them again", "", () => go(0)) : null));
  drawActions();
  $("#row button")?.focus();
}

// --- the row

function mine() { return now.item?.decisions.find((each) => each.reviewer === now.reviewer && each.stands); }

function draw() {
  const item = now.item;
  $("#title").replaceChildren(line(now.title, 60));
  $("#place").textContent = `${count(now.at + 1)} of ${count(now.all)}, ${count(now.done)} decided`;
  progress(now.done, now.all);
  showRow($("#row"), item, now.reviewer, now.aside ? "The other row. x: back to the pair" : "", showAll);
  drawActions();
}

const showAll = guarded(async () => {
  const whole = await call("whole", { id: now.item.row.id });
  now.item = { ...now.item, row: whole.row, beside: null };
  draw();
});

function drawActions() {
  const own = mine(), suggestion = now.item?.flag?.suggestion, off = !now.item;
  const pressed = (action) => ({ class: action, "aria-pressed": own?.action === action ? "true" : "false", disabled: off });
  $("#actions").replaceChildren(
    button("Keep", "k", () => act("keep"), pressed("keep")), button("Drop", "d", () => act("drop"), pressed("drop")),
    button("Relabel", "r", relabel, pressed("relabel")), button("Edit", "e", edit, pressed("edit")),
    suggestion && suggestion !== now.item.row.label ? button(`Label: ${suggestion.slice(0, 30)}`, "s", () => act("relabel", { label: suggestion }), { class: "suggested" }) : "",
    button("Note", "n", note, { disabled: off }), button("Undo", "u", undo),
    el("span", { class: "steps" }, button("‹", "", () => step(-1), { "aria-label": "Previous row", disabled: off }), button("›", "", () => step(1), { "aria-label": "Next row", disabled: off }), button("?", "", help, { "aria-label": "Keys" })));
}

const step = guarded(async (by) => {
  if (now.at === null) return by < 0 && now.all ? go(now.all - 1) : undefined;
  const next = now.at + by;
  if (next < 0) return say("This is the first row.");
  if (next >= now.all) return now.item.open === null || now.item.open === now.at ? (mine() ? showEnd() : say("This is the last row.")) : say("This is the last row. o: the next open one.");
  say("");
  return go(next);
});

// --- decisions

async function decide(action, more = {}) {
  const item = now.item, before = mine();
  const body = { id: item.row.id, action, reviewer: now.reviewer, seen: item.row.seen, known: item.known, reason: now.aside ? "other row of a pair" : now.queue.startsWith("label/") ? "label" : now.queue, ...more };
  let sent;
  try { sent = await send(body); } catch {
    const problem = "The review does not answer. Is it still running? This was not written.";
    notice(problem);
    return problem;
  }
  const { status, found } = sent;
  if (status === 409) Object.assign(item, { decisions: found.decisions, known: found.known, held_back: false });
  if (status !== 200) {
    if (status === 409) draw();
    notice(found.error);
    return found.error;
  }
  notice("");
  now.sent += 1;
  if (now.info) now.info.latest = action === "undo" || action === "note" ? now.info.latest : { id: item.row.id, key: found.written.key };
  Object.assign(item, { decisions: found.decisions, known: found.known, held_back: found.held_back });
  for (const [at, coming] of [...ahead]) coming.then((each) => { if (each.row.id === item.row.id && at !== now.at) ahead.delete(at); }, () => {});
  if (!now.aside) now.done += (mine() ? 1 : 0) - (before ? 1 : 0);
  later();
  return "";
}

let timer = 0;
function later() { clearTimeout(timer); timer = setTimeout(refresh, 300); }

const named = async () => now.reviewer || (await askName("", setName));

// One at a time: keys pressed while a decision is on its way do nothing.
const once = (work) => async (...given) => {
  if (busy || !now.item) return;
  busy = true;
  try { if (await named()) await work(...given); } finally { busy = false; }
};

const SAID = { keep: "Kept", drop: "Dropped", relabel: "Relabelled", edit: "Edited", note: "Noted" };

async function onwards(action) {
  const others = now.item.decisions.filter((each) => each.stands && each.reviewer !== now.reviewer);
  const own = mine();
  const differ = own && others.filter((each) => each.action !== own.action || each.label !== own.label);
  say(`${SAID[action]}. u: undo.` + (differ?.length ? ` ${differ[0].reviewer} said ${differ[0].action}.` : ""));
  if (now.aside) { ahead.delete(now.at); return go(now.at); }
  if (action === "note") return draw();
  visited.push([now.item.row.id, now.at]);
  const next = now.item.open;
  if (next === null || next === now.at) return now.done >= now.all ? showEnd() : go(now.at);
  return go(next);
}

const act = once(async (action, more) => { if (!(await decide(action, more))) await onwards(action); });

const relabel = once(async () => {
  if (await askLabel(now.info?.labels || [], now.item.row.label, now.item.flag?.suggestion, (label) => decide("relabel", { label }))) await onwards("relabel");
});

const note = once(async () => { if (await askNote((text) => decide("note", { note: text }))) await onwards("note"); });

const edit = once(guarded(async () => {
  const whole = await call("whole", { id: now.item.row.id });
  const own = mine();
  const messages = own?.messages || whole.messages, rejected = own?.messages ? own.rejected || whole.rejected : whole.rejected;
  const sent = (entered) => decide("edit", entered.rejected ? entered : { messages: entered.messages });
  if (await askEdit(messages, rejected, sent)) await onwards("edit");
}));

const undo = guarded(async () => {
  if (busy) return;
  busy = true;
  try {
    const own = mine();
    const target = own ? { id: now.item.row.id, key: own.key } : now.info?.latest;
    if (!target) return say("You have nothing to undo.");
    const { status, found } = await send({ id: target.id, action: "undo", undoes: target.key, reviewer: now.reviewer, known: [], reason: "undo" });
    if (status !== 200) return notice(found.error);
    notice("");
    now.sent += 1;
    ahead.clear();
    const place = own && !now.aside ? now.at : visited.findLast(([id]) => id === target.id)?.[1];
    await refresh();
    if (place !== undefined && place !== null) await go(place); else await lookAt(target.id);
    say("Undone.");
  } finally { busy = false; }
});

const lookAt = guarded(async (id) => {
  const item = await call("row", { id });
  Object.assign(now, { item: { ...item, open: now.at }, aside: true });
  draw();
});

const other = guarded(async () => {
  if (now.aside) return now.at === null ? showEnd() : go(now.at);
  return now.item?.beside?.here ? lookAt(now.item.beside.id) : say("There is no other row to decide about.");
});

// --- keys and the rest

function toggleQueues() {
  const open = document.body.classList.toggle("menu");
  $("#menu").setAttribute("aria-expanded", String(open));
  ($("#queues [aria-current]") || $("#queues button"))?.focus();
}

const setName = async (name) => { now.reviewer = name; remember(); return ""; };

const rename = async () => {
  const name = await askName(now.reviewer, setName);
  if (name) await openQueue(now.queue, now.filters);
};

const keys = {
  k: () => act("keep"), d: () => act("drop"), r: relabel, e: edit, n: note, u: undo, x: other, q: toggleQueues, "?": help,
  s: () => now.item?.flag?.suggestion ? act("relabel", { label: now.item.flag.suggestion }) : say("No label is suggested."),
  ArrowRight: () => step(1), ".": () => step(1), ArrowLeft: () => step(-1), ",": () => step(-1),
  o: () => now.item && now.item.open !== null ? go(now.item.open) : undefined,
  "/": () => $("#filter").elements.text.focus(),
  Escape: () => { document.body.classList.remove("menu"); $("#menu").setAttribute("aria-expanded", "false"); },
};

document.addEventListener("keydown", (event) => {
  if (openDialogs() || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = event.target.closest("input, textarea, select");
  if (typing && event.key === "Escape") { typing.blur(); return; }
  if (typing || event.repeat && !event.key.startsWith("Arrow")) return;
  const work = keys[event.key];
  if (work) { event.preventDefault(); work(); }
});

$("#filter").addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = $("#filter").elements;
  const filters = Object.fromEntries(["text", "label", "source"].map((name) => [name, fields[name].value]).filter(([, value]) => value));
  document.activeElement.blur();
  openQueue(now.queue, filters);
});
$("#menu").addEventListener("click", toggleQueues);
$("#who").addEventListener("click", rename);
$("#label-filter").addEventListener("input", () => showLabels($("#labels"), now.info, now.queue, openQueue));
setInterval(() => { if (!document.hidden && !busy) refresh(); }, 20000);

const start = guarded(async () => {
  now.reviewer = saved.reviewer || "";
  let info = await call("state");
  if (!now.reviewer) {
    await askName(info.reviewer, setName);
    info = await call("state");
  }
  now.info = info;
  const waiting = info.queues.find((each) => each.count > each.done) || info.queues[0];
  const known = saved.queue && (saved.queue.startsWith("label") || info.queues.some((each) => each.name === saved.queue));
  await openQueue(known ? saved.queue : waiting.name, known ? saved.filters || {} : {});
  if (!now.handle) await openQueue(waiting.name);  // the label of last time is gone
});
start();
