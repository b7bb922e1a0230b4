// What is folded is printed open, and is then as it was.
(() => {
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const part of opened) part.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
  });
})();
// Tables first: they work without the viewer's data.
(() => {
  const collator = new Intl.Collator("en", { numeric: true });
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    table.tHead.querySelectorAll("th").forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const numbers = head.dataset.kind === "number";
        // Numbers start with the highest, words with A.
        const first = numbers ? "descending" : "ascending";
        const second = numbers ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? second : first;
        table.tHead.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...body.rows].sort((a, b) => {
          const left = valueOf(a, column), right = valueOf(b, column);
          if (left === "" || right === "") return (left === "") - (right === ""); // gaps last
          return sign * (numbers ? left - right : collator.compare(left, right));
        });
        body.append(...rows);
      });
    });
  }
  const filter = document.getElementById("gene-filter");
  if (filter) {
    const table = document.getElementById("gene-table");
    const count = document.getElementById("gene-count");
    filter.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const there = row.cells[0].textContent.toLowerCase().includes(wanted);
        row.classList.toggle("hidden", !there);
        shown += there;
      }
      count.textContent = `${shown} of ${table.tBodies[0].rows.length} genes`;
    });
  }
})();

// The viewer: measured beside predicted, drawn over the H&E.
(() => {
  const root = document.getElementById("viewer");
  if (!root) {
    document.documentElement.dataset.ready = "yes";
    return;
  }
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const MISSING = 255; // values are 0 to 254
  const WIDTH = 900; // pixels of a drawing; the page scales it
  const colour = colourScale(data.colours);
  for (const section of data.sections) {
    section.measured = bytes(section.measured);
    section.predicted = bytes(section.predicted);
    section.picture = null;
    if (section.image) {
      section.picture = new Image();
      section.picture.src = section.image;
    }
  }
  const element = (id) => document.getElementById(id);
  const pickSection = element("pick-section"), pickGene = element("pick-gene");
  const pickScale = element("pick-scale"), fade = element("fade");
  const panels = ["measured", "predicted"].map((kind) => ({
    kind,
    canvas: element(`map-${kind}`),
    bar: element(`bar-${kind}`),
    low: element(`low-${kind}`),
    high: element(`high-${kind}`),
    title: element(`title-${kind}`),
  }));

  const state = () => ({
    section: data.sections[pickSection.value],
    gene: data.genes[pickGene.value],
    at: Number(pickGene.value),
  });
  const valuesOf = (section, kind, at) => {
    const n = section.x.length;
    return section[kind].subarray(at * n, (at + 1) * n);
  };
  const inUnit = (gene, level) => atLevel(gene, level, 254);
  const limits = (gene, values) => {
    if (pickScale.value === "gene") return [gene.low, gene.high];
    const there = values.filter((level) => level !== MISSING).sort();
    if (!there.length) return [gene.low, gene.high];
    const low = inUnit(gene, percentile(there, 0.01)), high = inUnit(gene, percentile(there, 0.99));
    return high > low ? [low, high] : [low - 0.5, high + 0.5];
  };

  function drawMap(panel, section, gene, at) {
    const values = valuesOf(section, panel.kind, at);
    const [low, high] = limits(gene, values);
    const [left, top, width, height] = section.crop;
    const zoom = WIDTH / width;
    const canvas = panel.canvas;
    canvas.width = WIDTH;
    canvas.height = Math.max(1, Math.round(height * zoom));
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    if (section.picture && section.picture.complete && section.picture.naturalWidth) {
      pen.drawImage(section.picture, -left * zoom, -top * zoom,
        section.picture.naturalWidth * zoom, section.picture.naturalHeight * zoom);
    }
    // One layer, so that the map fades as a whole and the H&E pales beneath it as on paper.
    const shown = fade.value / 100;
    pen.fillStyle = `rgba(255,255,255,${0.55 * shown})`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.globalAlpha = shown;
    const radius = Math.max(1.5, (section.spot_px / 2) * zoom);
    let missing = 0;
    for (let i = 0; i < values.length; i += 1) {
      pen.beginPath();
      pen.arc((section.x[i] - left) * zoom, (section.y[i] - top) * zoom, radius, 0, 2 * Math.PI);
      if (values[i] === MISSING) {
        missing += 1;
        pen.strokeStyle = "#555";
        pen.lineWidth = 1.5;
        pen.stroke();
      } else {
        pen.fillStyle = colour((inUnit(gene, values[i]) - low) / (high - low));
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    if (section.scale_bar && panel.kind === "measured") {
      const px = WIDTH / Math.max(150, canvas.clientWidth); // of the drawing, a pixel of the page
      drawScaleBar(pen, 5 * px, canvas.height - 3 * px, px, section.scale_bar.px * zoom,
        section.scale_bar.label);
    }
    drawColours(panel.bar, colour);
    panel.low.textContent = `≤ ${low.toFixed(2)}`;
    panel.high.textContent = `≥ ${high.toFixed(2)}`;
    panel.title.textContent = panel.kind;
    const note = missing ? `; ${missing} spots not predicted (rings)` : "";
    canvas.setAttribute("aria-label", `${gene.name} ${panel.kind} in section ${section.name}: ` +
      `${values.length} spots, ${low.toFixed(2)} to ${high.toFixed(2)} ${gene.unit}${note}`);
    return missing;
  }

  function draw() {
    const { section, gene, at } = state();
    const missing = Math.max(...panels.map((panel) => drawMap(panel, section, gene, at)));
    const r = section.r[at];
    element("viewer-state").textContent =
      `${gene.name}, section ${section.name} (patient ${section.patient}, ${section.x.length} spots)` +
      (r === null ? "" : `, r ${r.toFixed(2)}`) +
      `; map at ${fade.value} % over the H&E` +
      (pickScale.value === "gene" ? "" : "; each map on its own scale") +
      (missing ? "; rings: not predicted in this fold" : "");
    element("viewer-unit").textContent = `Colours: ${gene.unit}.`;
    element("readout").textContent = "";
  }

  function readout(event) {
    const { section, gene, at } = state();
    const box = event.currentTarget.getBoundingClientRect();
    const [left, top, width, height] = section.crop;
    const x = left + ((event.clientX - box.left) / box.width) * width;
    const y = top + ((event.clientY - box.top) / box.height) * height;
    let best = -1, nearest = section.spot_px ** 2;
    section.x.forEach((spotX, i) => {
      const distance = (spotX - x) ** 2 + (section.y[i] - y) ** 2;
      if (distance < nearest) [best, nearest] = [i, distance];
    });
    const say = (kind) => {
      const level = valuesOf(section, kind, at)[best];
      return level === MISSING ? "none" : inUnit(gene, level).toFixed(2);
    };
    element("readout").textContent = best < 0 ? "" :
      `Spot ${section.spots[best]}: measured ${say("measured")}, predicted ${say("predicted")}`;
  }

  const step = (by) => {
    const n = pickGene.options.length;
    pickGene.selectedIndex = (pickGene.selectedIndex + by + n) % n;
    draw();
  };
  element("gene-before").addEventListener("click", () => step(-1));
  element("gene-after").addEventListener("click", () => step(1));
  for (const control of [pickSection, pickGene, pickScale]) control.addEventListener("change", draw);
  fade.addEventListener("input", draw);
  for (const panel of panels) {
    panel.canvas.addEventListener("pointermove", readout);
    panel.canvas.addEventListener("pointerdown", readout);
  }
  for (const button of document.querySelectorAll("button.gene")) {
    button.addEventListener("click", () => {
      pickGene.value = button.dataset.place;
      draw();
      root.scrollIntoView();
      pickGene.focus({ preventScroll: true });
    });
  }
  for (const event of ["beforeprint", "resize"]) window.addEventListener(event, draw);
  const loads = data.sections.filter((section) => section.picture)
    .map((section) => section.picture.decode());
  Promise.all(loads).then(() => {
    draw();
    document.documentElement.dataset.ready = "yes";
  });
})();
