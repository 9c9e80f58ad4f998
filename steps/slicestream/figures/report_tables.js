"use strict";
// The page without plots: theme, tables that sort and filter, ways from a nodule to its overlay.
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const toggle = document.getElementById("theme");
  const name = () => {
    toggle.textContent = dark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
  };
  try { const kept = localStorage.getItem("slicestream-theme"); if (kept === "light" || kept === "dark") root.dataset.theme = kept; } catch { /* storage is off */ }
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("slicestream-theme", root.dataset.theme); } catch { /* storage is off */ }
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  const valueOf = (row, column) => {
    const text = row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
    const number = Number(text);
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  // what has no value stands last, whichever way the others are sorted
  const compare = (a, b, way) => a === null ? (b === null ? 0 : 1) : b === null ? -1 : way * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

  const clear = {};
  for (const table of document.querySelectorAll("table[data-sorts]")) {
    const body = table.tBodies[0], first = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const tools = document.querySelector(`.tools[data-for="${table.id}"]`);
    const worst = tools.querySelector(".worst"), search = tools.querySelector("input"), select = tools.querySelector("select"), told = tools.querySelector("output");
    const show = (rows, sorted, way) => {
      body.append(...rows);
      for (const head of heads) head.removeAttribute("aria-sort");
      sorted?.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      worst?.setAttribute("aria-pressed", String(!sorted));
    };
    heads.forEach((head, column) => {
      if (!head.textContent.trim() || head.dataset.sort === "no") return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        show(first.slice().sort((a, b) => compare(valueOf(a, column), valueOf(b, column), way)), head, way);
      });
    });
    worst?.addEventListener("click", () => show(first));
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), wanted = select?.value ?? "";
      let count = 0;
      for (const row of first) {
        const text = (row.dataset.text ?? row.textContent).toLowerCase();
        row.hidden = !(words.every((word) => text.includes(word)) && (!wanted || row.dataset.status === wanted));
        count += !row.hidden;
      }
      told.textContent = count === first.length ? `${count} rows` : `${count} of ${first.length} rows`;
    };
    search.addEventListener("input", filter);
    select?.addEventListener("change", filter);
    clear[table.id] = (text = "") => { search.value = text; if (select) select.value = ""; filter(); };
    filter();
  }
  for (const link of document.querySelectorAll("a[data-series]"))
    link.addEventListener("click", () => clear.nodule_table?.(link.dataset.series));

  const gallery = document.querySelector(".gallery"), more = document.querySelector(".more");
  const unfold = () => { gallery?.classList.remove("folded"); if (more) more.hidden = true; };
  if (gallery && more) {
    gallery.classList.add("folded");
    more.hidden = false;
    more.addEventListener("click", () => { unfold(); gallery.children[20].querySelector("figure").focus(); });
  }
  // A link's aim may be filtered out, folded away, or inside a scrolled table.
  const arrive = () => {
    const aim = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!aim || !(aim.matches("tr, .gallery li"))) return;
    if (aim.hidden) clear[aim.closest("table").id]();
    if (aim.matches(".gallery li")) unfold();
    for (const other of document.querySelectorAll(".here")) other.classList.remove("here");
    aim.classList.add("here");
    const focused = aim.matches("tr") ? aim : aim.querySelector("figure");
    focused.tabIndex = -1;
    focused.focus({ preventScroll: true });
    aim.scrollIntoView({ block: "center" });
  };
  // On paper nothing can be opened.
  addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details:not([open])")) { part.open = true; part.dataset.shut = ""; } });
  addEventListener("afterprint", () => { for (const part of document.querySelectorAll("details[data-shut]")) { part.open = false; delete part.dataset.shut; } });
  addEventListener("hashchange", arrive);
  addEventListener("load", arrive);
})();
