// Windows over the page: label, edit, note, name, help. Each gives what was entered, or null.

import { button, count, el, line } from "/view.js";

function ask(title, body, buttons, closed, className = "") {
  const dialog = el("dialog", { "aria-label": title, class: className }, el("h2", {}, title), body, el("p", { class: "problem", role: "alert" }), el("div", { class: "buttons" }, ...buttons));
  dialog.addEventListener("close", () => { dialog.remove(); closed(); });
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("textarea, input")?.focus();
  return dialog;
}

const openDialogs = () => document.querySelector("dialog[open]") !== null;
export { openDialogs };

// Shown until `work` takes the value without an error; its message stays in the window, and nothing that was typed is lost.
function form(title, body, name, value, work, className = "") {
  return new Promise((resolve) => {
    let result = null;
    const send = async () => {
      const entered = value();
      if (entered === null) return;
      dialog.querySelectorAll(".buttons button").forEach((each) => (each.disabled = true));
      const problem = await work(entered);
      dialog.querySelectorAll(".buttons button").forEach((each) => (each.disabled = false));
      if (problem) { dialog.querySelector(".problem").textContent = problem; return; }
      result = entered;
      dialog.close();
    };
    const dialog = ask(title, body, [button("Cancel", "Esc", () => dialog.close()), button(name, "Ctrl ↵", send, { class: "main" })], () => resolve(result), className);
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
    });
  });
}

export function askNote(work) {
  const area = el("textarea", { rows: 4, "aria-label": "Note", maxlength: 20000 });
  return form("Note for other reviewers", area, "Save", () => area.value.trim() || null, work);
}

export function askName(current, work) {
  const input = el("input", { "aria-label": "Your name", maxlength: 100, autocomplete: "name" });
  input.value = current;
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) input.closest("dialog").querySelector("button.main").click();
  });
  const body = el("div", {}, el("p", { class: "soft" }, "It stands beside each of your decisions. Two reviewers need two names."), input);
  return form("Who decides?", body, "Go on", () => input.value.trim() || null, work);
}

export function askLabel(labels, current, suggestion, work) {
  return new Promise((resolve) => {
    let result = null, chosen = 0, shown = [];
    const input = el("input", { "aria-label": "Label", role: "combobox", "aria-expanded": "true", "aria-controls": "choices", "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false" });
    const list = el("ul", { id: "choices", role: "listbox" });
    const dialog = ask("New label", el("div", {}, input, list), [button("Cancel", "Esc", () => dialog.close())], () => resolve(result), "picker");
    const take = async (label) => {
      const problem = await work(label);
      if (problem) { dialog.querySelector(".problem").textContent = problem; return; }
      result = label;
      dialog.close();
    };
    const draw = () => {
      const wanted = input.value.trim().toLowerCase();
      const starts = [], holds = [];
      for (const [label, rows] of labels) {
        if (label === current) continue;
        const low = label.toLowerCase();
        if (low.startsWith(wanted)) starts.push([label, rows]); else if (low.includes(wanted)) holds.push([label, rows]);
      }
      const found = [...starts, ...holds].slice(0, 12).map(([label, rows]) => ({ label, about: `${count(rows)} rows` }));
      if (suggestion && !wanted) found.unshift({ label: suggestion, about: "suggested" });
      shown = found.filter((each, at) => found.findIndex((other) => other.label === each.label) === at);
      const typed = input.value.trim();
      if (typed && typed !== current && !labels.some(([label]) => label === typed)) shown.push({ label: typed, about: "a new label" });
      chosen = Math.min(chosen, Math.max(shown.length - 1, 0));
      list.replaceChildren(...shown.map((each, at) => {
        const node = el("li", { role: "option", id: `choice-${at}`, "aria-selected": at === chosen ? "true" : "false" }, line(each.label, 80), el("span", { class: "soft" }, each.about));
        node.addEventListener("click", () => take(each.label));
        return node;
      }));
      input.setAttribute("aria-activedescendant", shown.length ? `choice-${chosen}` : "");
      list.children[chosen]?.scrollIntoView({ block: "nearest" });
    };
    input.addEventListener("input", () => { chosen = 0; draw(); });
    input.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) { event.preventDefault(); chosen = (chosen + step + shown.length) % Math.max(shown.length, 1); draw(); }
      if (event.key === "Tab" && shown.length && !event.shiftKey) { event.preventDefault(); input.value = shown[chosen].label; chosen = 0; draw(); }
      if (event.key === "Enter" && shown.length) { event.preventDefault(); take(shown[chosen].label); }
    });
    draw();
    input.focus();
  });
}

const AFTER = { user: "assistant", assistant: "user", system: "user", tool: "assistant" };

// Messages that were not touched go back as they were: a text field would change their line ends.
function turns(messages) {
  const body = el("div", { class: "turns" });
  const add = (message) => {
    const area = el("textarea", { "aria-label": message.role, spellcheck: (message.content ?? "").length < 20000 ? "true" : "false", dir: "auto" });
    area.value = message.content ?? "";
    const before = area.value;
    area.rows = Math.min(16, Math.max(2, before.slice(0, 4000).split("\n").length + Math.floor(Math.min(before.length, 4000) / 90)));
    const node = el("section", { class: "message" }, el("h4", {}, line(message.role, 40), button("Remove", "", () => node.remove(), { class: "small" })), area);
    node.now = () => ({ role: message.role, content: area.value === before ? message.content ?? "" : area.value, extra: message.extra ?? null });
    body.insertBefore(node, more);
    return area;
  };
  const more = button("Add a message", "", () => {
    const last = [...body.querySelectorAll("section")].pop();
    add({ role: last ? AFTER[last.now().role] || "text" : "user", content: "", extra: null }).focus();
  }, { class: "small" });
  body.append(more);
  for (const message of messages) add(message);
  body.now = () => [...body.querySelectorAll("section")].map((node) => node.now());
  return body;
}

export function askEdit(messages, rejected, work) {
  const better = turns(messages), worse = rejected && turns(rejected);
  const body = el("div", { class: "editor" }, rejected && el("h3", {}, "The better answer"), better, rejected && el("h3", {}, "The worse answer"), worse);
  return form("Edit", body, "Save", () => ({ messages: better.now(), rejected: worse ? worse.now() : null }), work, "wide");
}

export const KEYS = [
  ["k", "keep"], ["d", "drop"], ["r", "relabel"], ["s", "take the suggested label"], ["e", "edit the messages"], ["n", "note for other reviewers"],
  ["u", "undo: this row's decision, else your last one"], ["→ or .", "next row"], ["← or ,", "previous row"], ["o", "next row that is open"],
  ["x", "decide about the other row of a pair, and back"], ["/", "filter"], ["q", "queues"], ["Esc", "close, or leave a field"], ["?", "this help"],
];

export function help() {
  const table = el("table", {}, el("tbody", {}, ...KEYS.map(([key, what]) => el("tr", {}, el("th", { scope: "row" }, el("kbd", {}, key)), el("td", {}, what)))));
  const about = el("p", { class: "soft" }, "A decision is on the disk when the next row appears. The next run of the pipeline applies it. Words that differ from the row beside are marked.");
  return new Promise((resolve) => {
    const dialog = ask("Keys", el("div", {}, table, about), [button("Close", "Esc", () => dialog.close(), { class: "main" })], resolve);
  });
}
