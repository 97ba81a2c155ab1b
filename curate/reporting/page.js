"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    return node;
  };

  // Headers that sort. A cell's value is its data-v, else its text; a column is sorted as numbers if every cell with a value is one.
  const valueOf = (row, at) => {
    const cell = row.cells[at];
    return cell === undefined ? "" : (cell.dataset.v ?? cell.textContent).trim();
  };
  const numberOf = (text) => (text === "" ? NaN : Number(text.replace(/[,%\s]/g, "")));
  const sortBy = (table, at, descending) => {
    for (const body of table.tBodies) {
      const rows = [...body.rows];
      const values = rows.map((row) => valueOf(row, at));
      const numbers = values.map(numberOf);
      const numeric = values.every((value, each) => value === "" || !Number.isNaN(numbers[each]));
      const order = rows.map((_, each) => each);
      order.sort((a, b) => {
        if (values[a] === "" || values[b] === "") return (values[a] === "") - (values[b] === "");  // empty cells last, either way
        const less = numeric ? numbers[a] - numbers[b] : values[a].localeCompare(values[b], undefined, { numeric: true });
        return descending ? -less : less;
      });
      body.append(...order.map((each) => rows[each]));
    }
  };
  for (const table of all("table.sort")) {
    const heads = [...(table.tHead?.rows[table.tHead.rows.length - 1]?.cells ?? [])];
    heads.forEach((head, at) => {
      if (!head.textContent.trim()) return;
      const button = make("button", { type: "button", class: "by" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numeric = head.classList.contains("n");
        const now = head.getAttribute("aria-sort");
        const descending = now === null ? numeric : now === "ascending";  // the largest first, or the first letter
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sortBy(table, at, descending);
      });
    });
  }

  // A search field over rows and items: those with every word typed stay.
  all("[data-filter]").forEach((box, number) => {
    const items = [...all("tbody > tr", box), ...all(".item", box)];
    if (items.length < 6) return;
    const titleOf = (item) => item.parentElement?.closest("details")?.querySelector("summary")?.textContent ?? "";
    const texts = items.map((item) => `${item.textContent} ${box.contains(item.parentElement?.closest("details")) ? titleOf(item) : ""}`.toLowerCase());
    const bar = make("div", { class: "bar" });
    const field = make("input", { type: "search", id: `filter-${number}`, placeholder: "type to filter", autocomplete: "off" });
    const told = make("output", { for: field.id, "aria-live": "polite" });
    bar.append(make("label", { for: field.id }, box.dataset.filter), field, told);
    box.prepend(bar);
    const groups = all("details", box).filter((group) => group.querySelector(".item"));
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      items.forEach((item, at) => {
        item.hidden = !words.every((word) => texts[at].includes(word));
        shown += item.hidden ? 0 : 1;
      });
      for (const group of groups) {
        group.hidden = !group.querySelector(".item:not([hidden])");
        if (words.length && !group.hidden) group.open = true;
      }
      told.textContent = words.length ? `${shown} of the ${items.length} on this page` : "";
    });
  });

  // Open and close everything below.
  for (const box of all("[data-fold]")) {
    const folds = all("details", box);
    if (folds.length < 2) continue;
    const bar = make("div", { class: "bar" });
    for (const [text, open] of [["Open all", true], ["Close all", false]]) {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => folds.forEach((fold) => { fold.open = open; }));
      bar.append(button);
    }
    box.prepend(bar);
  }

  // A link into something closed opens it.
  const reveal = () => {
    let node = null;
    try {
      node = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch {
      return;  // no such thing can be on this page
    }
    if (node === null) return;
    for (let each = node; each !== null; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    node.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();

  // What a mark says, beside the pointer and at once.
  const tip = make("div", { id: "tip", "aria-hidden": "true" });
  tip.hidden = true;
  document.body.append(tip);
  const titles = new Map();
  const told = (target) => {
    const mark = target instanceof Element ? target.closest("svg *") : null;
    if (mark === null) return null;
    const title = [...mark.children].find((child) => child.tagName === "title");
    if (title !== undefined) {  // the browser's own, slower tip would stand beside ours
      titles.set(mark, title.textContent);
      mark.setAttribute("aria-label", title.textContent);
      title.remove();
    }
    return titles.get(mark) ?? null;
  };
  addEventListener("pointerover", (event) => {
    const text = told(event.target);
    tip.hidden = text === null;
    tip.textContent = text ?? "";
  });
  addEventListener("pointermove", (event) => {
    if (tip.hidden) return;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 4))}px`;
    tip.style.top = `${event.clientY + 16 + height > innerHeight ? event.clientY - height - 8 : event.clientY + 16}px`;
  });
})();
