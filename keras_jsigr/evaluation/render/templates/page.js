"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Theme: what the system asks for until the button is used.
  const root = document.documentElement;
  const toggle = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const nameToggle = () => { toggle.textContent = isDark() ? "Light colours" : "Dark colours"; };
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameToggle();
  });
  system.addEventListener("change", nameToggle);
  nameToggle();
  toggle.hidden = false;

  // Sorting: the headers become buttons; rows without a value go last.
  const valueOf = (row, column, numeric) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.trim();
    const text = cell.dataset.value ?? "";
    return text === "" ? NaN : Number(text.replace("inf", "Infinity"));
  };
  const compare = (a, b, sign) => {
    if (typeof a === "string") return sign * a.localeCompare(b, "en", { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a === b ? 0 : sign * (a < b ? -1 : 1);
  };
  for (const table of all("table[data-sortable]")) {
    const body = table.tBodies[0];
    const headers = all("th[data-sort]", table);
    for (const header of headers) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const down = header.getAttribute("aria-sort") === "ascending";
        const column = Number(header.dataset.column ?? header.cellIndex);
        const numeric = header.dataset.sort === "number";
        for (const other of headers) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", down ? "descending" : "ascending");
        const keyed = [...body.rows].map((row) => [valueOf(row, column, numeric), row]);
        keyed.sort((a, b) => compare(a[0], b[0], down ? -1 : 1));
        body.append(...keyed.map((pair) => pair[1]));
      });
    }
  }

  // Tables wider than the window say so.
  const beyond = all(".scroll").map((box) => {
    const hint = document.createElement("p");
    hint.className = "beyond";
    hint.textContent = "The table goes on to the right.";
    box.after(hint);
    return [box, hint];
  });
  const tell = () => {
    for (const [box, hint] of beyond) hint.hidden = box.scrollWidth <= box.clientWidth + 1;
  };
  addEventListener("resize", tell);
  all("details").forEach((each) => each.addEventListener("toggle", tell));
  tell();

  // Filtering: by words anywhere in a row, and by the exact text of a column.
  for (const box of all(".filter")) {
    const rows = [...document.getElementById(box.dataset.table).tBodies[0].rows];
    const words = box.querySelector("input");
    const selects = all("select", box);
    const count = box.querySelector("output");
    const apply = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits = wanted.every((word) => text.includes(word)) && selects.every((select) =>
          select.selectedIndex === 0 ||
          row.cells[select.dataset.column].textContent.trim() === select.value.trim());
        row.hidden = !fits;
        shown += fits;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    for (const control of [words, ...selects]) control.addEventListener("input", apply);
    apply();
    box.hidden = false;
  }

  // Paging through the examples; all of them are shown without this script and in print.
  for (const pager of all(".pager")) {
    const items = all(".example", pager);
    const size = Number(pager.dataset.size);
    const controls = pager.querySelector(".pages");
    const buttons = all("button", controls);
    const last = Math.ceil(items.length / size) - 1;
    let page = 0;
    const show = (wanted) => {
      page = Math.min(Math.max(wanted, 0), last);
      items.forEach((item, i) => { item.hidden = Math.floor(i / size) !== page; });
      const end = Math.min(items.length, (page + 1) * size);
      controls.querySelector("output").textContent =
        `${page * size + 1} to ${end} of ${items.length}`;
      buttons[0].disabled = page === 0;
      buttons[1].disabled = page === last;
    };
    const turn = (step) => {
      const focused = document.activeElement;
      show(page + step);
      // A disabled button loses the focus of the keyboard.
      if (focused.disabled) buttons.find((button) => !button.disabled)?.focus();
    };
    for (const button of buttons) {
      button.addEventListener("click", () => turn(Number(button.dataset.step)));
    }
    controls.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) turn(step);
    });
    const follow = (hash) => {
      const place = items.findIndex((item) => `#${item.id}` === hash);
      if (place < 0) return;
      show(Math.floor(place / size));
      items[place].scrollIntoView();
      items[place].focus({ preventScroll: true });
    };
    addEventListener("hashchange", () => follow(location.hash));
    // A link followed twice in a row changes no hash.
    addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      // With a key held the link opens elsewhere.
      const here = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
      if (link && here) follow(link.hash);
    });
    show(0);
    follow(location.hash);
    controls.hidden = last < 1;
  }

  // Print: what is folded is opened, and folded again afterwards.
  let opened = [];
  const unfold = () => {
    opened = opened.concat(all("details:not([open])"));
    for (const part of opened) part.open = true;
  };
  const fold = () => {
    for (const part of opened) part.open = false;
    opened = [];
  };
  addEventListener("beforeprint", unfold);
  addEventListener("afterprint", fold);
})();
