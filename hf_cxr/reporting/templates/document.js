"use strict";
(() => {
  const UNSORTED = "none";

  // Tables: a click on a heading sorts by its column, a second click the other way, a third as it was.
  // Numbers are in data-sort; a cell without one comes last either way.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.hasAttribute("data-sort") ? Number(cell.dataset.sort || NaN) : cell.textContent.trim();
  };
  const compare = (one, other, sign) => {
    if (typeof one === "string" && typeof other === "string") {
      return sign * one.localeCompare(other, undefined, { numeric: true });
    }
    const missing = Number.isNaN(one) - Number.isNaN(other);
    return missing || (Number.isNaN(one) ? 0 : sign * (one < other ? -1 : one > other ? 1 : 0));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    const sort = (column) => {
      const heading = headings[column];
      const first = heading.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const now = heading.getAttribute("aria-sort");
      const next = now === UNSORTED ? first : now === first ? second : UNSORTED;
      headings.forEach((each) => each.setAttribute("aria-sort", UNSORTED));
      heading.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const rows = [...original];
      if (next !== UNSORTED) {
        rows.sort((a, b) => compare(key(a, column), key(b, column), sign));
      }
      body.append(...rows);
    };
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", UNSORTED);
      button.addEventListener("click", () => sort(column));
    });
  }

  // A table or picture that is wider than the page says so.
  const marker = new ResizeObserver((entries) => {
    entries.forEach(({ target }) => { target.classList.toggle("cut", target.scrollWidth > target.clientWidth + 1); });
  });
  document.querySelectorAll(".wide, .picture").forEach((box) => { marker.observe(box); });

  // Printing: what is folded is printed in full, and folded again afterwards.
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open])")];
    opened.forEach((each) => { each.open = true; });
  });
  window.addEventListener("afterprint", () => {
    opened.forEach((each) => { each.open = false; });
    opened = [];
  });

  // Contents: the part that is being read is marked; on a narrow screen the list closes after a choice.
  const links = new Map();
  for (const link of document.querySelectorAll("nav a")) {
    links.set(document.getElementById(link.hash.slice(1)), link);
    link.addEventListener("click", () => { link.closest("details").open = false; });
  }
  if (links.size) {
    const parts = [...links.keys()];
    const mark = () => {
      const passed = parts.filter((part) => part.getBoundingClientRect().top < window.innerHeight * 0.3);
      links.forEach((link) => link.removeAttribute("aria-current"));
      if (passed.length) {
        links.get(passed[passed.length - 1]).setAttribute("aria-current", "true");
      }
    };
    let waiting = false;
    window.addEventListener("scroll", () => {
      if (!waiting) {
        waiting = true;
        requestAnimationFrame(() => { waiting = false; mark(); });
      }
    }, { passive: true });
    mark();
  }
})();
