"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);

  // Light or dark: the system's choice, until the reader chooses.
  const theme = one("#theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  const dark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const say = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  if (stored) document.documentElement.dataset.theme = stored;
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* private windows store nothing */ }
    say();
  });
  system.addEventListener("change", say);
  say();

  // A link into a closed case table opens the table; a link to a known failure opens its first example.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const folded = target.closest("details") || target.querySelector(":scope > details");
    if (folded) folded.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  all('a[href^="#"]').forEach((a) => a.addEventListener("click", () => {
    if (a.getAttribute("href") === location.hash) reveal();
  }));

  // Filter: all words must occur, and one of the chosen statuses.
  const rows = all(".cases tbody tr[data-s]").map((row) => {
    const body = row.parentElement;
    const title = body.closest("details").querySelector("caption").textContent;
    const check = body.querySelector("th").textContent;
    return { row, body, status: row.dataset.s, text: `${title} ${check} ${row.textContent}`.toLowerCase() };
  });
  const cards = all(".card").map((card) => ({ card, status: card.dataset.s, text: card.textContent.toLowerCase() }));
  const cells = all(".matrix a[data-cell]").map((a) => ({ td: a.parentElement, body: document.getElementById(a.dataset.cell) }));
  const chosen = new Set();
  const find = one("#find");

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const active = words.length > 0 || chosen.size > 0;
    const fits = ({ status, text }) =>
      (chosen.size === 0 || chosen.has(status)) && words.every((word) => text.includes(word));
    const left = new Map();
    let shown = 0;
    for (const item of rows) {
      const fit = fits(item);
      item.row.hidden = !fit;
      if (fit) { shown += 1; left.set(item.body, true); }
    }
    for (const body of all(".cases tbody")) body.hidden = !left.has(body);
    for (const details of all(".cases")) {
      details.hidden = !all("tbody", details).some((body) => !body.hidden);
    }
    for (const { card, ...item } of cards) card.hidden = !fits(item);
    for (const { td, body } of cells) td.classList.toggle("dim", active && !left.has(body));
    for (const line of all(".matrix tbody tr")) {
      line.hidden = active && !all("td:not(.dim):not(.empty)", line).length;
    }
    for (const scheme of all(".scheme")) {
      scheme.hidden = active && !all(".matrix tbody tr, .cases", scheme).some((part) => !part.hidden);
    }
    one("#shown").value = active ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} cases` : "";
  };
  let pending = 0;
  find.addEventListener("input", () => { clearTimeout(pending); pending = setTimeout(filter, 120); });
  one(".tools").addEventListener("submit", (event) => { event.preventDefault(); filter(); });
  for (const button of all(".toggles button")) {
    button.addEventListener("click", () => {
      const status = button.dataset.status;
      if (!chosen.delete(status)) chosen.add(status);
      button.setAttribute("aria-pressed", String(chosen.has(status)));
      filter();
    });
  }
  one(".tools").hidden = false;

  // Sort by number if both cells are numbers, otherwise by text; rows stay in their group.
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell ? cell.dataset.v ?? cell.textContent.trim() : "";
  };
  const number = (text) => text === "" ? NaN : Number(text.replaceAll(",", "").replace("∞", "Infinity"));
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    if (a === "" || b === "") return (a === "") - (b === ""); // empty cells come last
    return a.localeCompare(b, "en", { numeric: true });
  };
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        for (const body of table.tBodies) {
          const sorted = [...body.rows].filter((row) => !row.classList.contains("group"));
          sorted.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
          body.append(...sorted);
        }
      });
    });
  }
  reveal();
})();
