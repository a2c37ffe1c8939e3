"use strict";
// Every name is written with textContent or as a value, never as HTML.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const json = (id) => JSON.parse($(`#${id}`).textContent);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const narrow = matchMedia("(max-width: 700px)");

  const board = json("board-data");
  const table = $("#board");
  const body = table.tBodies[0];
  const form = $("#filters");
  const number = new Intl.NumberFormat("en");
  const DEFAULTS = { dataset: board.average ?? "", protocol: "", size: "", backbone: "", q: "", sort: "-acc" };
  const STEP = 200;
  const state = { ...DEFAULTS };
  const more = $("#more");
  let found = [];
  let limit = STEP;

  const rows = board.rows.map((row, place) => {
    const dataset = board.datasets[row.at[0]];
    const protocol = board.protocols[row.at[1]];
    const backbone = board.backbones[row.at[2]];
    const words = [dataset, protocol.name, protocol.label, row.size, backbone.name, backbone.label];
    return { ...row, place, dataset, protocol, backbone, words: words.join(" ").toLowerCase() };
  });

  // What a column is sorted by: backbones and protocols keep the paper's order.
  const VALUE = {
    backbone: (row) => row.at[2],
    dataset: (row) => row.at[0],
    protocol: (row) => row.at[1],
    size: (row) => row.size,
    acc: (row) => row.acc,
    low: (row) => row.low,
    auc: (row) => row.auc,
    seeds: (row) => row.seeds,
    cost: (row) => row.cost,
  };

  function compare(key, sign) {
    const value = VALUE[key];
    return (a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place;
      return sign * (x - y) || a.place - b.place;
    };
  }

  function visible() {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = rows.filter(
      (row) =>
        (!state.dataset || row.dataset === state.dataset) &&
        (!state.protocol || row.protocol.name === state.protocol) &&
        (!state.size || String(row.size) === state.size) &&
        (!state.backbone || row.backbone.name === state.backbone) &&
        words.every((word) => row.words.includes(word)),
    );
    const descending = state.sort.startsWith("-");
    return matching.sort(compare(state.sort.replace("-", ""), descending ? -1 : 1));
  }

  function scoreCell(text, mark) {
    const cell = make("td", { className: "num" });
    if (mark === "best") cell.append(make("strong", { textContent: text }));
    else if (mark === "second") cell.append(make("u", { textContent: text }));
    else cell.textContent = text;
    if (mark) cell.append(make("span", { className: "unseen", textContent: ` ${mark}` }));
    return cell;
  }

  function rowElement(row) {
    if (row.element) return row.element;
    const element = make("tr");
    for (const key of board.columns) {
      if (key === "backbone") {
        const swatch = make("span", { className: "swatch" });
        swatch.style.background = row.backbone.colour;
        const opener = make("button", { type: "button", className: "opener", title: row.backbone.name });
        opener.dataset.row = row.place;
        opener.setAttribute("aria-expanded", "false");
        opener.append(swatch, row.backbone.label);
        element.append(make("th", { scope: "row" }, opener));
      } else if (key === "acc" || key === "auc") {
        element.append(scoreCell(row.text[key], row.marks[key === "acc" ? 0 : 1]));
      } else {
        const text = key === "protocol" ? row.protocol.label : row.text[key] ?? row[key];
        const numeric = key !== "dataset" && key !== "protocol";
        element.append(make("td", { className: numeric ? "num" : "", textContent: text }));
      }
    }
    row.element = element;
    return element;
  }

  function originElement(row) {
    const cell = make("div");
    const say = (text) => cell.append(make("p", { textContent: text }));
    const list = (items) => cell.append(make("ul", {}, ...items.map((item) => make("li", {}, item))));
    say(`${row.backbone.name}, ${row.protocol.label}, ${row.size} px, ${row.dataset}`);
    if (row.dataset === board.average) {
      const parts = rows.filter(
        (other) =>
          other.dataset !== board.average && other.size === row.size &&
          other.at[1] === row.at[1] && other.at[2] === row.at[2],
      );
      say(`The mean over ${parts.length} datasets:`);
      list(parts.map((part) => `${part.dataset}: ${part.text.acc}`));
    }
    for (const line of row.lines ?? []) say(line);
    if (row.runs) {
      say(row.runs.length === 1 ? "The run:" : `The mean over ${row.runs.length} runs:`);
      list(row.runs.map(([run, link]) => {
        const name = make("code", { textContent: run });
        return link === null ? name : make("a", { href: link }, name);
      }));
    }
    const conditions = board.conditions[row.protocol.name];
    if (conditions) say(`Conditions: ${conditions}`);
    if (board.doi) {
      const link = make("a", { href: `https://doi.org/${board.doi}`, rel: "noreferrer", textContent: `doi:${board.doi}` });
      cell.append(make("p", {}, "Source: ", link));
    }
    return make("tr", { className: "origin" }, make("td", { colSpan: board.columns.length }, cell));
  }

  function toggle(opener) {
    const row = rows[Number(opener.dataset.row)];
    row.open = !row.open;
    opener.setAttribute("aria-expanded", String(row.open));
    if (row.open) {
      row.origin ??= originElement(row);
      rowElement(row).after(row.origin);
    } else row.origin.remove();
  }

  function show() {
    found = visible();
    body.replaceChildren(...elementsOf(0, limit));
    for (const heading of table.tHead.rows[0].cells) {
      const key = state.sort.replace("-", "");
      if (heading.dataset.key !== key) heading.removeAttribute("aria-sort");
      else heading.setAttribute("aria-sort", state.sort.startsWith("-") ? "descending" : "ascending");
    }
    sayHowMany();
  }

  // Laying out all rows at once takes long enough to be felt, so that the rest come on demand.
  function showMore(upTo) {
    const start = limit;
    limit = upTo;
    body.append(...elementsOf(start, limit));
    sayHowMany();
  }

  function elementsOf(start, end) {
    return found.slice(start, end).flatMap((row) => (row.open ? [rowElement(row), row.origin] : [rowElement(row)]));
  }

  function sayHowMany() {
    const [matching, all] = [number.format(found.length), number.format(rows.length)];
    const hidden = found.length - limit;
    $("#shown").textContent = hidden > 0
      ? `${matching} of ${all} rows found, the first ${limit} shown`
      : `${matching} of ${all} rows shown`;
    more.hidden = hidden <= 0;
  }

  /* The state of the leaderboard stands in the address, so that a view can be sent to others. */

  function writeAddress() {
    const changed = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
    const fragment = changed.length ? `#${new URLSearchParams(changed)}` : "#leaderboard";
    try {
      history.replaceState(null, "", fragment);
    } catch (error) {
      // A frame without an address, as in a mail's preview, has none to write to.
    }
  }

  function readAddress() {
    if (!location.hash.includes("=")) return false;
    const given = new URLSearchParams(location.hash.slice(1));
    for (const key of Object.keys(DEFAULTS)) state[key] = given.get(key) ?? DEFAULTS[key];
    if (!board.columns.includes(state.sort.replace("-", ""))) state.sort = DEFAULTS.sort;
    for (const key of ["dataset", "protocol", "size", "backbone"]) {
      const known = [...form.elements[key].options].some((option) => option.value === state[key]);
      if (!known) state[key] = DEFAULTS[key];
    }
    return true;
  }

  function fillForm() {
    for (const key of ["dataset", "protocol", "size", "backbone", "q"]) form.elements[key].value = state[key];
  }

  function change(part) {
    Object.assign(state, part);
    limit = STEP;
    show();
    writeAddress();
  }

  function csv() {
    const quote = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
    const split = (text) => (text === "–" ? ["", ""] : [...text.split(" ± "), ""].slice(0, 2));
    const bounds = (text) => (text === "–" ? ["", ""] : text.split(" to "));
    const head = ["dataset", "protocol", "backbone", "size", "acc_mean", "acc_std", "auc_mean", "auc_std", "n_seeds", "acc_low", "acc_high", "device_seconds"];
    const lines = visible().map((row) => [
      row.dataset, row.protocol.name, row.backbone.name, row.size, ...split(row.text.acc),
      ...split(row.text.auc), row.seeds, ...bounds(row.text.low), row.cost,
    ]);
    return [head, ...lines].map((line) => line.map(quote).join(",")).join("\r\n") + "\r\n";
  }

  // On a phone the score stands next to the name, where it can be seen without scrolling.
  function putScoreFirst() {
    const order = ["backbone", "acc", ...board.columns.filter((key) => key !== "backbone" && key !== "acc")];
    board.columns = order;
    const heads = new Map([...table.tHead.rows[0].cells].map((head) => [head.dataset.key, head]));
    table.tHead.rows[0].replaceChildren(...order.map((key) => heads.get(key)));
  }

  function startBoard() {
    if (narrow.matches) putScoreFirst();
    const sizes = [...new Set(rows.map((row) => row.size))].sort((a, b) => a - b);
    const options = {
      dataset: [["", "all"], ...board.datasets.map((name) => [name, name])],
      protocol: [["", "all"], ...board.protocols.map(({ name, label }) => [name, label])],
      size: [["", "all"], ...sizes.map((size) => [String(size), `${size} px`])],
      backbone: [["", "all"], ...board.backbones.map(({ name, label }) => [name, label])],
    };
    for (const [key, choices] of Object.entries(options)) {
      form.elements[key].append(...choices.map(([value, text]) => make("option", { value, textContent: text })));
    }
    for (const heading of table.tHead.rows[0].cells) {
      const button = make("button", { type: "button", textContent: heading.textContent });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const key = heading.dataset.key;
        const numeric = heading.classList.contains("num");
        const again = state.sort.replace("-", "") === key;
        const descending = again ? !state.sort.startsWith("-") : numeric;
        change({ sort: (descending ? "-" : "") + key });
      });
    }
    form.addEventListener("input", (event) => change({ [event.target.name]: event.target.value }));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      change({ ...DEFAULTS });
      fillForm();
    });
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      const reading = event.target.closest("a") || String(getSelection()) !== "";
      const opener = reading ? null : row.querySelector(".opener");
      if (opener) toggle(opener);
    });
    more.addEventListener("click", () => showMore(found.length));
    const box = table.parentElement;
    box.addEventListener("scroll", () => {
      const left = box.scrollHeight - box.scrollTop - box.clientHeight;
      if (left < 600 && found.length > limit) showMore(limit + STEP);
    }, { passive: true });
    const download = $("#download");
    download.addEventListener("click", () => {
      URL.revokeObjectURL(download.href);
      download.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    });
    window.addEventListener("hashchange", () => {
      if (readAddress()) { limit = STEP; fillForm(); show(); }
    });
    form.hidden = download.hidden = false;
    const given = readAddress();
    fillForm();
    show();
    if (given) $("#leaderboard").scrollIntoView();
  }

  startBoard();
})();
