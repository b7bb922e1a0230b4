// A predicted slide: its picture, one layer of values over it, moved by mouse, touch and keys.
(() => {
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("slide-data").textContent);
  const NONE = data.levels + 1;
  const typed = (text, Kind) => new Kind(bytes(text).buffer);
  const x = typed(data.x, Float32Array), y = typed(data.y, Float32Array);
  const n = x.length, half = data.place_px / 2;
  const regionOf = data.regions && typed(data.regions.of, Uint16Array);
  const colour = colourScale(data.colours);
  const map = element("map"), pen = map.getContext("2d");
  const pick = element("gene"), find = element("find"), fade = element("fade");
  const scale = element("scale"), region = element("region");
  const levelsOf = (layer) => {
    if (typeof layer.values === "string") { // unpacked when it is first shown
      layer.values = typed(layer.values, data.levels < 255 ? Uint8Array : Uint16Array);
    }
    return layer.values;
  };
  const value = (layer, i) => {
    const level = levelsOf(layer)[i];
    return level === NONE ? null : atLevel(layer, level, data.levels);
  };
  // Digits after which steps between levels begin.
  const digits = (layer) =>
    Math.max(0, Math.ceil(-Math.log10((layer.max - layer.min) / data.levels)));
  const layer = () => data.layers[current];
  const inRegion = (i) => !region || region.value === "" || regionOf[i] === Number(region.value);
  let current = data.first;

  // What is seen: the picture's pixel in the middle, and pixels of the page per pixel of it.
  const view = { x: 0, y: 0, zoom: 1 };
  const box = (() => {
    const ends = (values) => {
      let low = Infinity, high = -Infinity;
      for (const v of values) [low, high] = [Math.min(low, v), Math.max(high, v)];
      return [low - 2 * half, high + 2 * half];
    };
    return [...ends(x), ...ends(y)];
  })();
  const zoomFor = (width, height) => Math.min(map.clientWidth / width, map.clientHeight / height);
  const home = () => zoomFor(box[1] - box[0], box[3] - box[2]);
  const farthest = () => Math.min(home(), zoomFor(...data.size)) * 0.9;
  const nearest = () => Math.max(8 * home(), map.clientWidth / (6 * data.place_px));
  let moved = false;
  function fit() {
    Object.assign(view, { x: (box[0] + box[1]) / 2, y: (box[2] + box[3]) / 2, zoom: home() });
    moved = false;
    redraw();
  }
  function move(dx, dy) { // by pixels of the page
    const within = (at, size) => Math.max(0, Math.min(size, at));
    view.x = within(view.x - dx / view.zoom, data.size[0]);
    view.y = within(view.y - dy / view.zoom, data.size[1]);
    moved = true;
    redraw();
  }
  function zoomBy(factor, atX = map.clientWidth / 2, atY = map.clientHeight / 2) {
    const dx = atX - map.clientWidth / 2, dy = atY - map.clientHeight / 2;
    const zoom = Math.max(farthest(), Math.min(nearest(), view.zoom * factor));
    const keptX = view.x + dx / view.zoom, keptY = view.y + dy / view.zoom;
    view.zoom = zoom;
    [view.x, view.y] = [keptX - dx / zoom, keptY - dy / zoom];
    move(0, 0);
  }
  const inPicture = (atX, atY) => [
    view.x + (atX - map.clientWidth / 2) / view.zoom,
    view.y + (atY - map.clientHeight / 2) / view.zoom,
  ];

  function limits() {
    const one = layer();
    if (scale.value === "own") return [one.low, one.high];
    const alike = data.layers.filter((other) => other.unit === one.unit);
    return [Math.min(...alike.map((o) => o.low)), Math.max(...alike.map((o) => o.high))];
  }

  // The values alone, opaque, so that they fade as a whole; squares end at whole pixels and overlap
  // by one, so that no seam shows.
  const sheet = document.createElement("canvas");
  function drawValues(width, height, dots, left, top) {
    [sheet.width, sheet.height] = [width, height];
    const on = sheet.getContext("2d");
    const one = layer(), [low, high] = limits(), zoom = view.zoom * dots;
    const reach = Math.max(half * zoom, 1);
    for (let i = 0; i < n; i += 1) {
      const cx = (x[i] - left) * zoom, cy = (y[i] - top) * zoom;
      if (cx < -reach || cy < -reach || cx > width + reach || cy > height + reach) continue;
      if (!inRegion(i)) continue;
      const v = value(one, i);
      on.beginPath();
      if (data.square && v !== null) {
        const [from, above] = [Math.floor(cx - reach), Math.floor(cy - reach)];
        on.rect(from, above, Math.ceil(cx + reach) - from, Math.ceil(cy + reach) - above);
      } else {
        on.arc(cx, cy, reach * (v === null && data.square ? 0.8 : 1), 0, 2 * Math.PI);
      }
      if (v === null) {
        on.strokeStyle = "#555";
        on.lineWidth = 1.5 * dots;
        on.stroke();
      } else {
        on.fillStyle = colour((v - low) / (high - low));
        on.fill();
      }
    }
  }

  const picture = new Image();
  let pointed = -1, cross = false;
  function drawMap(dots) {
    const width = Math.max(1, Math.round(map.clientWidth * dots));
    const height = Math.max(1, Math.round(map.clientHeight * dots));
    [map.width, map.height] = [width, height];
    const zoom = view.zoom * dots;
    const left = view.x - width / 2 / zoom, top = view.y - height / 2 / zoom;
    const frame = [-left * zoom, -top * zoom, data.size[0] * zoom, data.size[1] * zoom];
    pen.drawImage(picture, ...frame);
    const shown = fade.value / 100;
    pen.fillStyle = `rgba(255,255,255,${0.55 * shown})`; // the H&E pales beneath a map
    pen.fillRect(...frame);
    drawValues(width, height, dots, left, top);
    pen.globalAlpha = shown;
    pen.drawImage(sheet, 0, 0);
    pen.globalAlpha = 1;
    if (pointed >= 0) {
      const reach = half * zoom + dots;
      const [cx, cy] = [(x[pointed] - left) * zoom, (y[pointed] - top) * zoom];
      for (const [style, wide] of [["#fff", 4], ["#000", 2]]) {
        pen.strokeStyle = style;
        pen.lineWidth = wide * dots;
        pen.beginPath();
        if (data.square) pen.rect(cx - reach, cy - reach, 2 * reach, 2 * reach);
        else pen.arc(cx, cy, reach, 0, 2 * Math.PI);
        pen.stroke();
      }
    }
    if (cross) {
      pen.fillStyle = "#d55e00";
      pen.fillRect(width / 2 - 9 * dots, height / 2 - dots, 18 * dots, 2 * dots);
      pen.fillRect(width / 2 - dots, height / 2 - 9 * dots, 2 * dots, 18 * dots);
    }
    if (data.mpp !== null) {
      const px = (um) => (um / data.mpp / data.scale) * zoom;
      const um = data.bars_um.filter((each) => px(each) <= width / 4).pop();
      if (um) {
        drawScaleBar(pen, 6 * dots, height - 6 * dots, dots, px(um),
          um >= 1000 ? `${um / 1000} mm` : `${um} µm`);
      }
    }
  }

  const trustOf = (one) =>
    data.trust[one.trust][0] + (one.r === null ? "" : `, held-out r ${one.r.toFixed(2)}`);
  function place(i) {
    if (i < 0) return "";
    const full = [x[i], y[i]].map((at) => at * data.scale - 0.5);
    const at = data.mpp === null ? `at ${full.map((v) => v.toFixed(0)).join(", ")} px` :
      `at ${full.map((v) => (v * data.mpp).toFixed(0)).join(", ")} µm`;
    const where = regionOf && regionOf[i] < data.regions.names.length ?
      `, ${data.regions.names[regionOf[i]]}` : "";
    const one = layer(), v = value(one, i);
    const says = v === null ? "no value" : `${v.toFixed(2)} ${one.unit}`;
    return `${data.places[i]} ${at}${where}: ${one.name} ${says} (trust: ${trustOf(one)})`;
  }

  function listRegions() {
    if (!regionOf) return;
    const one = layer(), rows = data.regions.names.map((name, at) => {
      const values = [];
      for (let i = 0; i < n; i += 1) {
        const v = regionOf[i] === at ? value(one, i) : null;
        if (v !== null) values.push(v);
      }
      values.sort((a, b) => a - b);
      const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
      const told = (v) => (values.length ? v.toFixed(2) : "–");
      return [name, values.length, told(mean), told(percentile(values, 0.5)),
        told(percentile(values, 0.9))];
    });
    const table = element("by-region"), row = (cells, kind) => {
      const line = document.createElement("tr");
      cells.forEach((cell, at) => {
        const made = document.createElement(at === 0 || kind === "head" ? "th" : "td");
        made.scope = kind === "head" ? "col" : "row";
        made.textContent = cell;
        line.append(made);
      });
      return line;
    };
    table.replaceChildren();
    table.createCaption().textContent = `${one.name} by region, in ${one.unit}`;
    table.createTHead().append(row(["region", "places", "mean", "median", "90th percentile"], "head"));
    table.createTBody().append(...rows.map((cells) => row(cells)));
  }

  function say() {
    const one = layer(), [low, high] = limits();
    element("title").textContent = one.name;
    const doubt = one.trust !== "yes";
    const [mark, told] = data.trust[one.trust];
    element("state").textContent = `Trust: ${mark} (${told})` +
      (one.r === null ? "" : `, held-out r ${one.r.toFixed(2)}`) +
      (region && region.value !== "" ? `; region ${data.regions.names[region.value]} alone` : "");
    element("state").classList.toggle("doubt", doubt);
    drawColours(element("bar"), colour);
    element("low").textContent = `≤ ${low.toFixed(2)}`;
    element("high").textContent = `≥ ${high.toFixed(2)}`;
    element("unit").textContent = one.unit;
    map.setAttribute("aria-label", `${one.name} over the H&E of ${data.slide}: ${n} places, ` +
      `colours from ${low.toFixed(2)} to ${high.toFixed(2)} ${one.unit}`);
    element("readout").textContent = place(pointed);
    listRegions();
    redraw();
  }

  let waiting = false;
  function redraw() {
    // On the page as a whole a finger that goes up or down scrolls the page, not the map.
    map.style.touchAction = view.zoom > home() * 1.05 ? "none" : "pan-y";
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      drawMap(window.devicePixelRatio || 1);
    });
  }

  function pointAt(atX, atY) {
    const [px, py] = inPicture(atX, atY);
    let best = -1, closest = Infinity;
    for (let i = 0; i < n; i += 1) {
      const dx = Math.abs(x[i] - px), dy = Math.abs(y[i] - py);
      if (dx > half || dy > half) continue;
      const far = dx * dx + dy * dy;
      if ((data.square || far <= half * half) && far < closest) [best, closest] = [i, far];
    }
    if (best === pointed) return;
    pointed = best;
    element("readout").textContent = place(best);
    redraw();
  }

  const fingers = new Map();
  const at = (event) => {
    const around = map.getBoundingClientRect();
    return [event.clientX - around.left - map.clientLeft, event.clientY - around.top - map.clientTop];
  };
  map.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, at(event));
    map.setPointerCapture(event.pointerId);
    cross = false;
    pointAt(...at(event));
  });
  map.addEventListener("pointermove", (event) => {
    const now = at(event), before = fingers.get(event.pointerId);
    if (before) {
      const other = [...fingers].find(([id]) => id !== event.pointerId);
      fingers.set(event.pointerId, now);
      if (other) {
        const [ox, oy] = other[1];
        const spread = (p) => Math.max(10, Math.hypot(p[0] - ox, p[1] - oy));
        zoomBy(spread(now) / spread(before), (now[0] + ox) / 2, (now[1] + oy) / 2);
        move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      } else {
        move(now[0] - before[0], now[1] - before[1]);
      }
      return;
    }
    cross = false;
    pointAt(...now);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    map.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  }
  map.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse" && !cross) pointAt(-1e6, -1e6);
  });
  map.addEventListener("wheel", (event) => {
    event.preventDefault();
    // By lines, by fingers that part on a touchpad (small steps), or by pixels.
    const step = event.deltaMode === 1 ? 0.05 : event.ctrlKey ? 0.01 : 0.0015;
    zoomBy(Math.exp(-event.deltaY * step), ...at(event));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => move(map.clientWidth / 12, 0),
    ArrowRight: () => move(-map.clientWidth / 12, 0),
    ArrowUp: () => move(0, map.clientHeight / 12),
    ArrowDown: () => move(0, -map.clientHeight / 12),
    "+": () => zoomBy(1.4),
    "=": () => zoomBy(1.4),
    "-": () => zoomBy(1 / 1.4),
    "0": fit,
  };
  map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    cross = true;
    keys[event.key]();
    pointAt(map.clientWidth / 2, map.clientHeight / 2);
  });
  map.addEventListener("blur", () => {
    cross = false;
    redraw();
  });
  element("closer").addEventListener("click", () => zoomBy(1.4));
  element("farther").addEventListener("click", () => zoomBy(1 / 1.4));
  element("fit").addEventListener("click", fit);

  // The list: groups by trust; what does not hold the searched letters leaves it.
  const listed = data.layers.some((one) => one.is_set) ? "genes and sets" : "genes";
  const groups = [...pick.children].map((group) => [group, [...group.children]]);
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let shown = 0;
    for (const [group, all] of groups) {
      const there = all.filter((each) => data.layers[each.value].name.toLowerCase().includes(wanted));
      group.replaceChildren(...there);
      group.hidden = there.length === 0;
      shown += there.length;
    }
    pick.value = current;
    element("count").textContent =
      wanted ? `${shown} of ${data.layers.length} ${listed}` : "Gene, most trusted first";
  });
  find.addEventListener("keydown", (event) => {
    const first = pick.querySelector("option");
    if (event.key === "Enter" && first) choose(first.value);
    if (event.key === "ArrowDown") {
      event.preventDefault();
      if (first && pick.selectedIndex < 0) choose(first.value);
      pick.focus();
    }
  });
  function choose(place) {
    current = Number(place);
    pick.value = current;
    say();
  }
  pick.addEventListener("change", () => {
    if (pick.value !== "") choose(pick.value);
  });
  fade.addEventListener("input", redraw);
  scale.addEventListener("change", say);
  if (region) region.addEventListener("change", say);

  function save(content, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name.replace(/[^\w.+-]+/g, "_");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  function table(layers) {
    const head = [...data.columns, ...(regionOf ? ["region"] : []), ...layers.map((one) => one.key)];
    const lines = [head.map(cell).join(",")];
    for (let i = 0; i < n; i += 1) {
      const full = [x[i], y[i]].map((v) => v * data.scale - 0.5);
      const um = full.map((v) => (data.mpp === null ? "" : (v * data.mpp).toFixed(1)));
      const row = [cell(data.places[i]), ...full.map((v) => v.toFixed(1)), ...um];
      if (regionOf) row.push(cell(data.regions.names[regionOf[i]] ?? ""));
      for (const one of layers) {
        const v = value(one, i);
        row.push(v === null ? "" : v.toFixed(digits(one)));
      }
      lines.push(row.join(","));
    }
    return new Blob([lines.join("\n"), "\n"], { type: "text/csv" });
  }
  function captioned() {
    const dots = window.devicePixelRatio || 1;
    [pointed, cross] = [-1, false];
    drawMap(dots);
    const made = document.createElement("canvas"), line = 22 * dots, edge = 10 * dots;
    const one = layer(), [low, high] = limits();
    const words = [
      `${one.name} on ${data.slide}`,
      `Trust: ${trustOf(one)}`,
      data.research,
      ...data.warnings.map((warning) => `Warning: ${warning}`),
      `Colours: ${low.toFixed(2)} to ${high.toFixed(2)} ${one.unit}`,
    ];
    [made.width, made.height] = [map.width, map.height + (words.length + 1.6) * line];
    const on = made.getContext("2d");
    on.fillStyle = "#fff";
    on.fillRect(0, 0, made.width, made.height);
    on.drawImage(map, 0, 0);
    on.fillStyle = "#000";
    words.forEach((text, i) => {
      on.font = `${i ? "" : "bold "}${14 * dots}px sans-serif`;
      on.fillText(text, edge, map.height + (i + 1) * line, made.width - 2 * edge);
    });
    const top = map.height + (words.length + 0.5) * line;
    on.drawImage(element("bar"), edge, top, made.width - 2 * edge, line / 2);
    return made;
  }
  element("save-picture").addEventListener("click", () =>
    captioned().toBlob((content) => save(content, `${data.slide}_${layer().key}.png`)));
  element("save-gene").addEventListener("click", () =>
    save(table([layer()]), `${data.slide}_${layer().key}.csv`));
  element("save-all").addEventListener("click", () =>
    save(table(data.layers), `${data.slide}.csv`));

  window.addEventListener("beforeprint", () => drawMap(window.devicePixelRatio || 1));
  new ResizeObserver(() => (moved ? redraw() : fit())).observe(map);
  picture.src = data.image;
  picture.decode().then(() => {
    pick.value = current;
    fit();
    say();
    pick.selectedOptions[0]?.scrollIntoView({ block: "nearest" });
    document.documentElement.dataset.ready = "yes";
  });
})();
