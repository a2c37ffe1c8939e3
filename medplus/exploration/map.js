"use strict";
// A map of points that is panned, zoomed, clicked and drawn upon. Points are written into the
// canvas's pixels by hand: 20,000 of them take a few milliseconds without any graphics card.
const makeMap = (() => {
  const RADIUS = 3.2, QUIET = 2.4;
  const REACH = 14;
  const MOST_PICTURES = 160;
  const PICTURES = [30, 76];
  const FURTHEST = 400;

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // A disc as rows of coverage, from 0 to 256.
  function disc(radius) {
    const reach = Math.ceil(radius + 0.5);
    const found = { reach, dx: [], dy: [], cover: [] };
    for (let y = -reach; y <= reach; y++) {
      for (let x = -reach; x <= reach; x++) {
        const cover = clamp(radius + 0.5 - Math.hypot(x, y), 0, 1);
        if (cover > 0) { found.dx.push(x); found.dy.push(y); found.cover.push(Math.round(cover * 256)); }
      }
    }
    return found;
  }

  function inside(path, x, y) {
    let odd = false;
    for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
      const [ax, ay] = path[i], [bx, by] = path[j];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  }

  // hooks: select(i), hover(i, x, y), lasso(rows), picture(context, i, x, y, side) or null
  return (box, hooks) => {
    const points = box.querySelector("#points"), marks = box.querySelector("#marks");
    const ink = points.getContext("2d", { alpha: false, willReadFrequently: true });
    const pen = marks.getContext("2d");
    const view = { x: 0.5, y: 0.5, scale: 1 };
    let image, pixels, width = 0, height = 0, dpr = 1, smallest = 1;
    let places = new Float32Array(0), shown = new Uint8Array(0);
    // What is drawn: the order from bottom to top, a colour for each point, and which are quiet.
    let order = [], colours = new Uint32Array(0), quiet = new Uint8Array(0);
    let ground = 0, line = "#888", accent = "#06c";
    let selected = -1, near = [], hovered = -1, path = null, lasso = false, asked = 0;
    const timing = { frames: 0, ms: 0 };

    const atX = (i) => (places[2 * i] - view.x) * view.scale + width / 2;
    const atY = (i) => (places[2 * i + 1] - view.y) * view.scale + height / 2;

    function resize() {
      dpr = Math.min(devicePixelRatio || 1, 2);
      const before = width && height ? view.scale / Math.min(width, height) : null;
      width = box.clientWidth; height = box.clientHeight;
      for (const canvas of [points, marks]) { canvas.width = Math.max(1, Math.round(width * dpr)); canvas.height = Math.max(1, Math.round(height * dpr)); }
      image = ink.createImageData(points.width, points.height);
      pixels = new Uint32Array(image.data.buffer);
      smallest = 0.92 * Math.min(width, height);
      view.scale = before === null ? smallest : before * Math.min(width, height);
      draw();
    }

    function stamp(shape, x, y, colour) {
      const w = points.width, h = points.height, { dx, dy, cover, reach } = shape;
      const whole = x >= reach && y >= reach && x < w - reach && y < h - reach;
      const rb = colour & 0xff00ff, g = colour & 0x00ff00;
      for (let k = 0; k < cover.length; k++) {
        const px = x + dx[k], py = y + dy[k];
        if (!whole && (px < 0 || py < 0 || px >= w || py >= h)) continue;
        const at = py * w + px, a = cover[k];
        if (a === 256) { pixels[at] = colour; continue; }
        const under = pixels[at], b = 256 - a;
        pixels[at] = (0xff000000 | (((((under & 0xff00ff) * b + rb * a) >>> 8) & 0xff00ff) | ((((under & 0x00ff00) * b + g * a) >>> 8) & 0x00ff00))) >>> 0;
      }
    }

    // From afar points are a little smaller than close by.
    function radius() {
      const near = clamp(Math.log2(view.scale / smallest) / 5, 0, 1);
      const many = clamp(Math.sqrt(3000 / Math.max(1, order.length)), 0.6, 1.25);
      return (RADIUS * many + 2.5 * near) * dpr;
    }

    function drawPoints() {
      pixels.fill(ground);
      const full = disc(radius()), small = disc(radius() * QUIET / RADIUS);
      const kx = view.scale * dpr, ox = (width / 2 - view.x * view.scale) * dpr, oy = (height / 2 - view.y * view.scale) * dpr;
      const w = points.width + full.reach, h = points.height + full.reach;
      for (let k = 0; k < order.length; k++) {
        const i = order[k];
        const x = Math.round(places[2 * i] * kx + ox), y = Math.round(places[2 * i + 1] * kx + oy);
        if (x < -full.reach || y < -full.reach || x > w || y > h) continue;
        stamp(quiet[i] ? small : full, x, y, colours[i]);
      }
      ink.putImageData(image, 0, 0);
    }

    function inView() {
      const found = [];
      for (let k = 0; k < order.length; k++) {
        const i = order[k], x = atX(i), y = atY(i);
        if (x > -20 && y > -20 && x < width + 20 && y < height + 20 && found.push(i) > MOST_PICTURES) return null;
      }
      return found;
    }

    const css = (colour) => `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;

    // Round a picture of that side, or round a point.
    function frame(i, side, size, colour, thick) {
      if (!side) return ring(i, size, colour, thick);
      pen.strokeStyle = colour; pen.lineWidth = thick;
      const half = side / 2 + 5;
      return pen.strokeRect(atX(i) - half, atY(i) - half, 2 * half, 2 * half);
    }

    function ring(i, size, colour, thick) {
      pen.strokeStyle = colour; pen.lineWidth = thick;
      pen.beginPath(); pen.arc(atX(i), atY(i), size, 0, 2 * Math.PI); pen.stroke();
    }

    function drawMarks() {
      pen.setTransform(dpr, 0, 0, dpr, 0, 0);
      pen.clearRect(0, 0, width, height);
      const rows = hooks.picture && view.scale > 2 * smallest ? inView() : null;
      const side = rows ? clamp(0.45 * Math.sqrt((width * height) / Math.max(1, rows.length)), ...PICTURES) : 0;
      pen.imageSmoothingEnabled = false;
      for (const i of rows ?? []) {
        const x = atX(i) - side / 2, y = atY(i) - side / 2;
        pen.fillStyle = css(colours[i]);
        pen.fillRect(x - 3, y - 3, side + 6, side + 6);
        hooks.picture(pen, i, x, y, side);
      }
      if (selected >= 0) {
        pen.strokeStyle = accent; pen.lineWidth = 1;
        pen.globalAlpha = 0.55;
        pen.beginPath();
        for (const i of near) if (shown[i]) { pen.moveTo(atX(selected), atY(selected)); pen.lineTo(atX(i), atY(i)); }
        pen.stroke();
        pen.globalAlpha = 1;
        for (const i of near) if (shown[i]) frame(i, side, 6, accent, 1.5);
        frame(selected, side, 8, line, 5);
        frame(selected, side, 8, accent, 2.5);
      }
      if (hovered >= 0 && hovered !== selected) ring(hovered, 7, line, 2);
      if (path) {
        pen.strokeStyle = accent; pen.lineWidth = 2; pen.setLineDash([6, 4]);
        pen.beginPath();
        path.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
        pen.closePath(); pen.stroke(); pen.setLineDash([]);
        pen.globalAlpha = 0.08; pen.fillStyle = accent; pen.fill(); pen.globalAlpha = 1;
      }
    }

    function drawNow() {
      asked = 0;
      const begin = performance.now();
      drawPoints();
      drawMarks();
      timing.frames++; timing.ms += performance.now() - begin;
    }
    const draw = () => { asked ||= requestAnimationFrame(drawNow); };
    const mark = () => { if (!asked) drawMarks(); };

    function pick(x, y, reach = REACH) {
      let best = -1, least = reach * reach;
      for (let k = order.length - 1; k >= 0; k--) {
        const i = order[k], dx = atX(i) - x, dy = atY(i) - y, d = dx * dx + dy * dy;
        if (d < least) { least = d; best = i; }
      }
      return best;
    }

    // About the selected point where it is in sight, else about the middle.
    function zoomHere(factor) {
      const x = selected < 0 ? -1 : atX(selected), y = selected < 0 ? -1 : atY(selected);
      if (x < 0 || y < 0 || x > width || y > height) zoom(factor, width / 2, height / 2);
      else zoom(factor, x, y);
    }

    function zoom(factor, x, y) {
      const scale = clamp(view.scale * factor, smallest / 2, smallest * FURTHEST);
      const px = (x - width / 2) / view.scale + view.x, py = (y - height / 2) / view.scale + view.y;
      view.x = px - (x - width / 2) / scale; view.y = py - (y - height / 2) / scale; view.scale = scale;
      draw();
    }

    function fit() { Object.assign(view, { x: 0.5, y: 0.5, scale: smallest }); draw(); }

    // Keeps a point in sight.
    function reveal(i) {
      const x = atX(i), y = atY(i), edge = 24;
      if (x > edge && y > edge && x < width - edge && y < height - edge) return;
      view.x = places[2 * i]; view.y = places[2 * i + 1];
      draw();
    }

    // The nearest shown point that lies more in this direction than aside.
    function neighbour(dx, dy) {
      if (selected < 0 || !shown[selected]) return pick(width / 2, height / 2, Infinity);
      let best = -1, least = Infinity;
      for (const i of order) {
        const x = places[2 * i] - places[2 * selected], y = places[2 * i + 1] - places[2 * selected + 1];
        const along = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
        const cost = along * along + 4 * aside * aside;
        if (i !== selected && along > 0 && aside <= along && cost < least) { least = cost; best = i; }
      }
      return best;
    }

    /* ---- Pointers ---- */
    const held = new Map();
    let moved = 0, apart = 0;
    const place = (event) => { const at = box.getBoundingClientRect(); return [event.clientX - at.left, event.clientY - at.top]; };
    const spread = () => { const [a, b] = [...held.values()]; return [Math.hypot(a[0] - b[0], a[1] - b[1]), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2]; };

    box.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      held.set(event.pointerId, place(event));
      box.setPointerCapture(event.pointerId);
      hover(-1);
      moved = 0;
      if (held.size === 2) { path = null; moved = 99; apart = spread()[0]; } else if (lasso || event.shiftKey) path = [place(event)];
    });
    box.addEventListener("pointermove", (event) => {
      const [x, y] = place(event), before = held.get(event.pointerId);
      if (!before) { if (event.pointerType !== "touch") hover(pick(x, y), x, y); return; }
      held.set(event.pointerId, [x, y]);
      moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
      if (held.size === 2) {
        const [now, cx, cy] = spread();
        if (apart > 0) zoom(now / apart, cx, cy);
        apart = now;
      } else if (path) { path.push([x, y]); mark(); } else if (moved > 4) {
        box.classList.add("panning");
        view.x -= (x - before[0]) / view.scale; view.y -= (y - before[1]) / view.scale;
        draw();
      }
    });
    function release(event) {
      if (!held.delete(event.pointerId)) return;
      box.classList.remove("panning");
      if (path && path.length > 2 && event.type === "pointerup") {
        const rows = order.filter((i) => inside(path, atX(i), atY(i)));
        path = null;
        hooks.lasso(rows);
      } else if (event.type === "pointerup" && moved <= 4 && !held.size) hooks.select(pick(...place(event)));
      path = null;
      draw();
    }
    box.addEventListener("pointerup", release);
    box.addEventListener("pointercancel", release);
    box.addEventListener("pointerleave", () => hover(-1));
    box.addEventListener("dblclick", (event) => zoom(2, ...place(event)));
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      hover(-1);
      zoom(Math.exp(-clamp(event.deltaY, -120, 120) / 300), ...place(event));
    }, { passive: false });

    function hover(i, x = 0, y = 0) {
      if (i === hovered) return;
      hovered = i;
      mark();
      hooks.hover(i, x, y);
    }

    resize();
    new ResizeObserver(resize).observe(box);
    return {
      view, timing, fit, zoom: zoomHere, neighbour, reveal, draw, drawNow,
      at: (i) => [atX(i), atY(i)],
      setPlaces(values) { places = values; fit(); },
      setLook(look) { ({ order, colours, quiet, shown, ground, line, accent } = look); draw(); },
      setSelected(i, neighbours) { selected = i; near = neighbours; draw(); },
      setLasso(on) { lasso = on; box.classList.toggle("lasso", on); },
      dropPath() { const was = path !== null; path = null; draw(); return was; },
    };
  };
})();
