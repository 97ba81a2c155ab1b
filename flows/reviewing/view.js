// What the page shows of a row. Everything of the data becomes text nodes; characters that would hide or reorder text are named instead.

const ODD = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e01ef}])\1*/gu;
const MOST_MARKS = 2000;  // of one text; what follows is shown as a dot

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((each) => each !== null && each !== undefined && each !== false));
  return node;
}

export function button(name, key, work, attributes = {}) {
  const node = el("button", { type: "button", ...attributes }, el("span", {}, name), key && el("kbd", {}, key));
  node.addEventListener("click", work);
  return node;
}

export const count = (number) => number.toLocaleString("en");

// A text whose odd characters are marked with their code point, runs of one as one.
export function safe(text) {
  const whole = document.createDocumentFragment();
  let at = 0, marks = 0;
  for (const found of text.matchAll(ODD)) {
    whole.append(text.slice(at, found.index));
    at = found.index + found[0].length;
    marks += 1;
    if (marks > MOST_MARKS) { whole.append("·"); continue; }
    const times = found[0].length / found[1].length;
    const name = "U+" + found[1].codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + (times > 1 ? ` ×${count(times)}` : "");
    whole.append(el("span", { class: "odd", title: "a character that cannot be seen" }, name));
  }
  whole.append(text.slice(at));
  return whole;
}

const clean = (text) => text.replace(ODD, "·");  // for one line where a mark has no place

export function line(text, most = 120) {
  const short = clean(String(text));
  return el("bdi", {}, short.length > most ? short.slice(0, most) + "…" : short);
}

function message(each, onAll) {
  if (each.more) return el("p", { class: "soft" }, `${count(each.more)} more messages. `, button("Show all", "", onAll));
  const text = el("div", { class: "text", dir: "auto" });
  for (const [part, mark] of each.pieces) text.append(mark ? el("mark", { class: mark }, safe(part)) : safe(part));
  if (!each.pieces.length && !each.chars) text.append(el("span", { class: "soft" }, "(empty)"));
  const cut = each.chars > each.shown;
  return el("section", { class: "message" }, el("h4", {}, line(each.role, 40)), text,
    cut && el("p", { class: "soft" }, `The first ${count(each.shown)} of ${count(each.chars)} characters. `, button("Show all", "", onAll)),
    each.extra && el("details", {}, el("summary", {}, "extra"), el("div", { class: "text" }, safe(each.extra))));
}

function texts(row, onAll) {
  const body = el("div", { class: "texts" });
  if (row.rejected) body.append(el("h3", {}, "The better answer"));
  for (const each of row.messages || []) body.append(message(each, onAll));
  if (row.rejected) {
    body.append(el("h3", {}, "The worse answer"));
    for (const each of row.rejected) body.append(message(each, onAll));
  }
  if (row.meta) body.append(el("details", {}, el("summary", {}, "Other columns"), el("div", { class: "text code" }, safe(row.meta))));
  return body;
}

function head(row, extra) {
  const later = row.later;
  return el("header", { class: "head" },
    el("p", {}, el("span", { class: "label" + (row.label === null ? " none" : "") }, row.label === null ? "no label" : line(row.label, 80)),
      el("span", { class: "where" }, line(row.source, 80), `:${row.line}`), el("span", { class: "soft" }, row.kind),
      row.group && el("span", { class: "soft" }, "group ", line(row.group, 40)),
      later && later.split && el("span", { class: "soft" }, `in ${later.split}`)),
    later && later.stage && el("p", { class: "fallen" }, el("strong", {}, `Dropped later by ${later.stage} (${later.reason}). `), line(later.detail, 400)),
    extra);
}

function why(item) {
  const list = el("ul", { class: "why" });
  const shown = item.flag ? [item.flag, ...item.flags.filter((each) => each.queue !== item.flag.queue || each.kind !== item.flag.kind)] : item.flags;
  for (const each of shown) {
    list.append(el("li", {}, el("strong", {}, line(each.kind.replaceAll("_", " "), 60)),
      each.score !== null && each.score !== undefined && el("span", { class: "soft" }, " " + (Math.round(each.score * 1000) / 1000)), " ", line(each.detail || "", 600)));
  }
  return list.childElementCount ? list : null;
}

const SAID = { keep: "keep", drop: "drop", edit: "edit", note: "note" };

function told(item, reviewer) {
  const list = el("ul", { class: "decisions", "aria-label": "Decisions about this row" });
  for (const each of item.decisions) {
    const own = each.reviewer === reviewer;
    list.append(el("li", { class: each.stands ? each.action : "note" }, el("strong", {}, own ? "you" : line(each.reviewer, 60)), ": ",
      each.action === "relabel" ? el("span", {}, "relabel as ", el("em", {}, line(each.label, 80))) : SAID[each.action] || each.action,
      each.note && el("span", {}, " “", line(each.note, 2000), "”"), el("span", { class: "soft" }, " " + when(each.time)),
      each.outdated && el("span", { class: "warn" }, " about an earlier text of this row"),
      each.messages && el("details", {}, el("summary", {}, "the edited text"), ...[...each.messages, ...(each.rejected || [])].map((turn) =>
        el("section", { class: "message" }, el("h4", {}, turn.role), el("div", { class: "text", dir: "auto" }, safe(turn.content.slice(0, 20000))))))));
  }
  if (item.held_back) list.append(el("li", { class: "soft" }, "What others decided is shown when you have decided."));
  return list.childElementCount ? list : null;
}

function when(time) {
  const seconds = (Date.now() - new Date(time)) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  return time.slice(0, 10);
}

export function showRow(place, item, reviewer, aside, onAll) {
  const parts = [aside && el("p", { class: "aside" }, aside), why(item), told(item, reviewer)];
  const one = el("div", { class: "one" }, head(item.row), texts(item.row, onAll));
  const beside = item.beside && el("div", { class: "one other" },
    head(item.beside, item.beside.about && el("p", { class: "soft" }, item.beside.about)), texts(item.beside, null));
  if (beside && item.beside.here) beside.querySelector(".head").append(el("p", { class: "soft" }, el("kbd", {}, "x"), " decide about this one"));
  place.replaceChildren(...parts.filter(Boolean), beside ? el("div", { class: "pair" }, one, beside) : one);
}

export function showQueues(place, info, current, open) {
  const list = el("ul");
  for (const each of info.queues) {
    const [group, kind] = each.name.split("/");
    const name = kind === undefined ? each.title : kind.replaceAll("_", " ");
    list.append(el("li", { class: (kind === undefined ? "" : "kind ") + (each.count ? "" : "empty") }, entry(name, each, each.name === current, () => open(each.name))));
  }
  place.replaceChildren(list);
}

function entry(name, each, current, work) {
  const share = each.count ? Math.round((100 * each.done) / each.count) : 0;
  const node = el("button", { type: "button", "aria-current": current ? "true" : null }, line(name, 40),
    el("span", { class: "n" }, each.count ? `${count(each.done)} / ${count(each.count)}` : "0"), el("progress", { max: 100, value: share, "aria-hidden": "true" }));
  node.addEventListener("click", work);
  return node;
}

export function showLabels(section, info, current, open) {
  section.hidden = !info.labels.length;
  const wanted = section.querySelector("input").value.toLowerCase();
  const fitting = info.labels.filter(([label]) => label.toLowerCase().includes(wanted));
  section.querySelector("ul").replaceChildren(...fitting.slice(0, 40).map(([label, all, done]) =>
    el("li", {}, entry(label, { count: all, done }, current === "label/" + label, () => open("label/" + label)))));
  const left = fitting.length - 40 + info.labels_left_out;
  if (fitting.length > 40 || info.labels_left_out) section.querySelector("ul").append(el("li", { class: "soft" }, `${count(left)} more`));
}

export function showPeople(place, info) {
  const parts = [el("h2", {}, "Reviewers")];
  const names = Object.entries(info.reviewers);
  parts.push(el("ul", {}, ...names.map(([name, rows]) => el("li", {}, line(name, 40), ` ${count(rows)} ${rows === 1 ? "row" : "rows"}`))));
  if (!names.length) parts.push(el("p", { class: "soft" }, "No decision yet."));
  for (const each of info.agreement) {
    const kappa = each.kappa === null ? "not defined: each said one thing only" : (Math.round(each.kappa * 100) / 100).toFixed(2);
    parts.push(el("p", { class: "kappa" }, line(each.one, 30), " and ", line(each.other, 30), `: the same on ${count(each.agreed)} of ${count(each.rows)}, `,
      el("span", { title: "Cohen's kappa: 1 is full agreement, 0 what chance would give" }, "κ "), el("strong", {}, kappa)));
  }
  if (info.vanished) parts.push(el("p", { class: "warn" }, `${count(info.vanished)} decisions are about rows that are not in the data now.`));
  parts.push(el("p", { class: "soft" }, `${count(info.decisions)} lines in `, line(info.file, 200)));
  place.replaceChildren(...parts);
}
