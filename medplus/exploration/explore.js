"use strict";
// Every name is written with textContent or as a value, never as HTML.
(() => {
  const $ = (selector) => document.querySelector(selector);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const number = new Intl.NumberFormat("en");
  const counted = (n) => `${number.format(n)} ${n === 1 ? "image" : "images"}`;

  const data = JSON.parse($("#data").textContent);
  $("#data").remove();
  const unpack = ({ type, data: text }) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new { Uint8Array, Uint16Array, Uint32Array, Float32Array }[type](bytes.buffer);
  };
  const n = data.names.length, k = data.k;
  const index = unpack(data.index), neighbours = unpack(data.neighbours), distances = unpack(data.distances);
  for (const one of data.maps) one.places = Float32Array.from(unpack(one.places), (v, i) => (i % 2 ? 65535 - v : v) / 65535);
  for (const one of data.columns) {
    one.values = unpack(one.values);
    one.counts = new Uint32Array(one.names.length);
    for (const value of one.values) one.counts[value]++;
    one.shown = null; // or the set of categories that are shown
  }
  for (const run of data.runs) { run.predicted = unpack(run.predicted); run.score = unpack(run.score); }
  const column = (key) => data.columns.find((one) => one.key === key);
  const classes = column("class"), splits = column("split");
  const lowered = data.names.map((name) => name.toLowerCase());
  const split = (i) => splits.names[splits.values[i]];

  const state = { colour: classes, selected: -1, chosen: [], q: "" };
  const MOST_NAMES = 40, MOST_SHOWN = 60;
  let shown = new Uint8Array(n), listed = [];

  /* ---- Colours ---- */
  const PALETTE = ["#2a86d8", "#e07b00", "#2a9d63", "#c653a6", "#8b68e0", "#d2483c", "#1f9bad", "#8a8a1f", "#a8683c", "#7488a8"];
  const WRONG = { right: "#2a86d8", wrong: "#e0492e" };
  const GREY = "#8b93a0";
  function colourOf(one, value) {
    if (value === one.quiet) return GREY;
    if (one.key.startsWith("error_")) return WRONG[one.names[value]];
    if (one.key === "errors") {
      const t = value / Math.max(1, data.runs.length); // blue for none, then from yellow to red
      return value ? `oklch(${0.7 - 0.14 * t} 0.17 ${85 - 58 * t})` : WRONG.right;
    }
    return PALETTE[value] ?? `oklch(${0.56 + (value % 3) * 0.05} 0.14 ${(value * 137.5) % 360})`;
  }
  const probe = make("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  function rgb(colour) {
    probe.fillStyle = colour; probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  }
  const word = ([r, g, b]) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  const resolved = (property, element) => getComputedStyle(element)[property];

  /* ---- Pictures ---- */
  const pictures = data.thumbnails;
  const sheets = (pictures?.sheets ?? []).map((text) => Object.assign(new Image(), { src: `data:image/webp;base64,${text}` }));
  if (pictures) pictures.sheets = null;
  function picture(context, i, x, y, side) {
    const { columns, side: s } = pictures, per = columns * columns;
    const at = i % per, sheet = sheets[Math.floor(i / per)];
    if (sheet.complete && sheet.naturalWidth) context.drawImage(sheet, (at % columns) * s, Math.floor(at / columns) * s, s, s, x, y, side, side);
  }
  function thumb(i, style = "thumb") {
    if (!pictures) return "";
    const s = pictures.side;
    const canvas = make("canvas", { width: s, height: s, className: style, role: "img", ariaLabel: `image ${data.names[i]}` });
    const draw = () => picture(canvas.getContext("2d"), i, 0, 0, s);
    sheets[Math.floor(i / pictures.columns ** 2)].decode().then(draw, () => {});
    return canvas;
  }
  const named = (i) => make("bdi", { textContent: data.names[i] });

  const map = makeMap($("#map"), { select, hover, lasso: choose, picture: pictures ? picture : null });

  /* ---- What is shown, and how ---- */
  function look() {
    const filters = data.columns.filter((one) => one.shown !== null);
    const one = state.colour, words = state.q.trim().toLowerCase();
    const chosen = new Set(state.chosen);
    listed = [];
    let count = 0;
    for (let i = 0; i < n; i++) {
      shown[i] = filters.every((filter) => filter.shown.has(filter.values[i])) ? 1 : 0;
      count += shown[i];
      if (words && shown[i] && lowered[i].includes(words)) listed.push(i);
    }
    const ground = rgb(resolved("backgroundColor", $("#map")));
    const tints = one.names.map((_, value) => rgb(colourOf(one, value)));
    const faint = tints.map((tint) => tint.map((v, c) => Math.round(ground[c] * 0.82 + v * 0.18)));
    const marked = words ? new Set(listed) : chosen.size ? chosen : null;
    const [strong, weak] = [tints, faint].map((list) => Uint32Array.from(list, word));
    const colours = new Uint32Array(n), quiet = new Uint8Array(n), rank = new Float64Array(n);
    const order = [];
    for (let i = 0; i < n; i++) {
      if (!shown[i]) continue;
      const value = one.values[i], dim = marked !== null && !marked.has(i);
      colours[i] = dim ? weak[value] : strong[value];
      quiet[i] = value === one.quiet || dim ? 1 : 0;
      // Rare categories lie on top, what says nothing and what is not meant at the bottom.
      rank[i] = (dim ? 0 : 4e9) + (value === one.quiet ? 0 : 2e9 - one.counts[value]);
      order.push(i);
    }
    order.sort((a, b) => rank[a] - rank[b] || a - b);
    map.setLook({
      order, colours, quiet, shown, ground: word(ground),
      line: resolved("color", document.body), accent: resolved("outlineColor", accent),
    });
    const found = words ? `, ${counted(listed.length)} found` : "";
    $("#status").textContent = (count < n ? `${number.format(count)} of ${counted(n)} shown` : counted(n)) + found;
  }
  const accent = make("span", { hidden: true, style: "outline-color: var(--accent)" });
  document.body.append(accent);

  function legend() {
    const one = state.colour;
    $("#legend-title").textContent = one.label;
    const parts = one.names.slice(0, MOST_NAMES).map((name, value) => {
      const on = one.shown === null || one.shown.has(value);
      const dot = make("span", { className: "dot" });
      dot.style.background = colourOf(one, value);
      const count = make("span", { className: "count", textContent: number.format(one.counts[value]) });
      const button = make("button", { type: "button", ariaPressed: String(on), title: one.shown === null ? "Show this alone" : "Show or hide" },
        dot, make("bdi", { textContent: name || "(no name)" }), count);
      button.addEventListener("click", () => {
        if (one.shown === null) one.shown = new Set([value]);
        else if (!one.shown.delete(value)) one.shown.add(value);
        if (!one.shown.size || one.shown.size === one.names.length) one.shown = null;
        refresh();
        $("#legend").children[value].focus();
      });
      return button;
    });
    if (one.names.length > MOST_NAMES) parts.push(make("p", { textContent: `and ${number.format(one.names.length - MOST_NAMES)} more, in colours of their own` }));
    const others = data.columns.filter((each) => each.shown !== null);
    if (others.length) {
      const all = make("button", { type: "button", textContent: `Show all (now by ${others.map((each) => each.label).join(", ")})` });
      all.addEventListener("click", showAll);
      parts.push(all);
    }
    $("#legend").replaceChildren(...parts);
  }
  function showAll() { for (const one of data.columns) one.shown = null; refresh(); }
  function refresh() { look(); legend(); }

  /* ---- One image ---- */
  const nearOf = (i) => [...neighbours.subarray(i * k, (i + 1) * k)];

  function select(i) {
    state.selected = i;
    map.setSelected(i, i < 0 ? [] : nearOf(i));
    $("#detail").replaceChildren(...(i < 0 ? [hint()] : detail(i)));
  }

  const hint = () => make("p", { className: "keys", textContent: "Click an image, or press an arrow key on the map, to see its nearest neighbours and what runs predict of it." });

  function facts(i) {
    const list = make("dl", { className: "facts" });
    const add = (term, text) => list.append(make("dt", { textContent: term }), make("dd", {}, make("bdi", { textContent: text })));
    add("split", `${split(i)}, number ${index[i]}`);
    for (const one of data.columns) {
      if (["class", "group", "cluster"].includes(one.key)) add(one.label, one.names[one.values[i]]);
    }
    if (data.flags[i]) add("audit", data.flags[i]);
    return list;
  }

  const scored = (run, i) => (run.score[i] === 255 ? "" : (run.score[i] / 250).toFixed(2));

  function predictions(i) {
    if (!data.runs.length) return [];
    const body = make("tbody");
    for (const run of data.runs) {
      const value = run.predicted[i];
      const right = value - 1 === classes.values[i];
      const said = value === 0 ? make("td", { textContent: "not scored", colSpan: 2 }) :
        make("td", { className: right ? "ok" : "bad", textContent: `${right ? "✓" : "✗"} ${data.words[value - 1]}`, title: right ? "right" : "wrong" });
      const row = make("tr", {}, make("th", { scope: "row", textContent: run.name, title: run.path }), said);
      if (value) row.append(make("td", { className: "num", textContent: scored(run, i) }));
      body.append(row);
    }
    return [make("h3", { textContent: "Predictions" }), make("table", {}, body)];
  }

  function tile(i, ...lines) {
    const button = make("button", { type: "button", title: data.names[i] }, thumb(i), ...lines);
    button.addEventListener("click", () => { select(i); map.reveal(i); });
    return make("li", {}, button);
  }

  function detail(i) {
    const list = make("ol", { className: "near" });
    nearOf(i).forEach((j, rank) => {
      const same = classes.values[j] === classes.values[i];
      list.append(tile(j,
        make("span", { className: same ? "" : "other", textContent: classes.names[classes.values[j]] }),
        make("span", { textContent: `${split(j)} · ${distances[i * k + rank].toPrecision(3)}` }),
        ...(pictures ? [] : [named(j)])));
    });
    return [
      make("h2", {}, named(i)), make("div", { className: "card" }, thumb(i, "thumb whole"), facts(i)), ...predictions(i),
      make("h3", { textContent: "Nearest images, over all splits" }), list,
    ];
  }

  function hover(i, x, y) {
    const tip = $("#tip");
    tip.hidden = i < 0;
    if (i < 0) return;
    tip.replaceChildren(thumb(i), make("span", {}, named(i), make("br"), `${classes.names[classes.values[i]]} · ${split(i)}`));
    const box = $("#map");
    tip.style.left = `${Math.max(4, Math.min(x + 14, box.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > box.clientHeight ? y - tip.offsetHeight - 12 : y + 18}px`;
  }

  /* ---- Many images ---- */
  function csv() {
    const quote = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
    const head = ["name", "split", "index", ...data.columns.filter((one) => one !== splits).map((one) => one.label), ...data.runs.map((run) => `score: ${run.name}`)];
    const lines = state.chosen.map((i) => [
      data.names[i], split(i), index[i],
      ...data.columns.filter((one) => one !== splits).map((one) => one.names[one.values[i]]),
      ...data.runs.map((run) => scored(run, i)),
    ]);
    return [head, ...lines].map((line) => line.map(quote).join(",")).join("\r\n") + "\r\n";
  }

  function choose(rows) {
    state.chosen = [...rows].sort((a, b) => a - b);
    setLasso(false);
    const part = $("#chosen");
    part.hidden = !rows.length;
    look();
    if (!rows.length) return part.replaceChildren();
    const link = make("a", { className: "button", download: `${data.name.replace(/[^\w.-]+/g, "_")}-chosen.csv`, href: "#chosen", textContent: "Download CSV" });
    link.addEventListener("click", () => {
      URL.revokeObjectURL(link.href);
      link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    });
    const clear = make("button", { type: "button", className: "quiet", textContent: "Clear" });
    clear.addEventListener("click", () => choose([]));
    const list = make("ol", { className: "near" });
    for (const i of state.chosen.slice(0, MOST_SHOWN)) list.append(tile(i, ...(pictures ? [] : [named(i)])));
    const more = rows.length > MOST_SHOWN ? [make("p", { className: "keys", textContent: `and ${number.format(rows.length - MOST_SHOWN)} more; the CSV has all` })] : [];
    part.replaceChildren(make("h2", { textContent: `${counted(rows.length)} chosen` }), make("div", { className: "actions" }, link, clear), list, ...more);
    $("#status").textContent = `${counted(rows.length)} chosen`;
    return undefined;
  }

  const lassoButton = $("#lasso");
  function setLasso(on) { lassoButton.ariaPressed = String(on); map.setLasso(on); }

  /* ---- Controls and keys ---- */
  const form = $("#controls"), { map: which, colour, q } = form.elements;
  function search(text) { state.q = text; look(); }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function go(direction) {
    const i = map.neighbour(...direction);
    if (i < 0) return;
    select(i);
    map.reveal(i);
  }
  function escape() {
    if (map.dropPath() || lassoButton.ariaPressed === "true") setLasso(false);
    else if (state.q) { q.value = ""; search(""); }
    else if (state.chosen.length) choose([]);
    else if (state.selected >= 0) select(-1);
    else showAll();
  }
  const KEYS = {
    "/": () => { q.focus(); q.select(); }, l: () => setLasso(lassoButton.ariaPressed !== "true"),
    "+": () => map.zoom(1.5), "=": () => map.zoom(1.5), "-": () => map.zoom(1 / 1.5), 0: () => map.fit(), Escape: escape,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select");
    if (typing && event.key === "Escape") { escape(); $("#map").focus(); return; }
    const onMap = document.activeElement === $("#map") || document.activeElement === document.body;
    if (typing || (ARROWS[event.key] && !onMap)) return;
    const act = ARROWS[event.key] ? () => go(ARROWS[event.key]) : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  which.append(...data.maps.map((one, at) => make("option", { value: at, textContent: one.label })));
  colour.append(...data.columns.map((one) => make("option", { value: one.key, textContent: one.label })));
  which.addEventListener("change", () => map.setPlaces(data.maps[which.value].places));
  colour.addEventListener("change", () => { state.colour = column(colour.value); refresh(); });
  q.addEventListener("input", () => search(q.value));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!listed.length) return;
    const next = listed[(listed.indexOf(state.selected) + 1) % listed.length]; // Enter again: the next
    select(next);
    map.reveal(next);
  });
  lassoButton.addEventListener("click", () => setLasso(lassoButton.ariaPressed !== "true"));
  $("#choose").addEventListener("click", () => choose(state.q ? listed : [...shown.keys()].filter((i) => shown[i])));
  $("#in").addEventListener("click", () => map.zoom(1.5));
  $("#out").addEventListener("click", () => map.zoom(1 / 1.5));
  $("#fit").addEventListener("click", () => map.fit());
  new MutationObserver(look).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look);

  form.hidden = false;
  map.setPlaces(data.maps[0].places);
  refresh();
  select(-1);
  for (const sheet of sheets) sheet.decode().then(() => map.draw(), () => {});
  window.medplusMap = map; // for who measures it
})();
