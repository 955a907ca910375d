// Draws maps: layers upward, positions or heads across. Few cells are a table, many a canvas. A cell
// without a verdict is hollow.

const MOST_ELEMENTS = 3000;

function mapTitle(run, map) {
  return [run.index.variables[map.variable], ...map.shared];
}

function drawMap(run, map, look) {
  const figure = el("figure", { class: "map" }, el("h3", {}, mapTitle(run, map).join(" · ")));
  figure.append(map.cells.length <= MOST_ELEMENTS ? tableMap(run, map, look) : canvasMap(run, map, look));
  return figure;
}

function tableMap(run, map, look) {
  const width = map.labels.length;
  const head = map.labels.map((label, x) =>
    el(
      "th",
      { scope: "col" },
      map.axis === "head" ? `head ${label.join(" ")}` : label.flatMap((line) => [line, el("br")]).slice(0, -1),
      map.examples[x] ? el("q", {}, map.examples[x]) : null,
    ),
  );
  const rows = map.layers.map((layer, y) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, layer),
      map.labels.map((_, x) => tableCell(run, map.cells[y * width + x], look)),
    ),
  );
  const table = el(
    "table",
    { class: map.layers.length > 16 ? "heat tall" : "heat", role: "grid" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "layer"), head)),
    el("tbody", {}, rows),
  );
  table.addEventListener("click", (event) => look.open(Number(event.target.closest("td[data-h]")?.dataset.h ?? -1)));
  table.addEventListener("keydown", (event) => moveInTable(event, table, look));
  const first = $("td[data-h]", table);
  if (first) first.tabIndex = 0;
  return el("div", { class: "wide" }, table);
}

function tableCell(run, h, look) {
  if (h < 0) return el("td");
  const { text, kind, level, title } = look.cell(h);
  return el(
    "td",
    {
      "data-h": h,
      tabindex: -1,
      class: `${kind} ${level === null ? "none" : `h${level}`}`,
      title: title.join("\n"),
      "aria-label": title.join(", "),
    },
    text,
  );
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function moveInTable(event, table, look) {
  const cell = event.target.closest("td[data-h]");
  if (!cell) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    look.open(Number(cell.dataset.h));
    return;
  }
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  const rows = [...table.tBodies[0].rows];
  let y = rows.indexOf(cell.parentNode),
    x = cell.cellIndex,
    next = null;
  do {
    y += step[0];
    x += step[1];
    next = rows[y]?.cells[x];
  } while (next && !next.dataset.h);
  if (!next?.dataset?.h) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

// A canvas over what is in sight of all cells; under it what the pointer or the cursor is at, in words.
function canvasMap(run, map, look) {
  const columns = map.labels.length,
    rows = map.layers.length;
  const w = Math.max(3, Math.min(14, Math.floor(15000 / columns))),
    tall = 14;
  const canvas = el("canvas", { height: rows * tall, tabindex: 0, role: "grid", class: "many" });
  const band = el("div", {}, canvas),
    wide = el("div", { class: "wide" }, band);
  band.style.width = `${columns * w}px`;
  const told = el(
    "p",
    { class: "soft told", "aria-live": "polite" },
    `${many(map.cells.length, "cell")}: point at one, or walk with the arrow keys`,
  );
  let at = map.cells.findIndex((h) => h >= 0);
  const draw = () => {
    const seen = Math.min(columns * w, wide.clientWidth);
    if (canvas.width !== seen) canvas.width = seen;
    paintCells(canvas.getContext("2d"), map, look, w, tall, at, wide.scrollLeft);
  };
  const tell = (i) => {
    if (map.cells[i] >= 0) told.textContent = look.cell(map.cells[i]).title.join(" · ");
  };
  const under = (event) =>
    Math.floor(event.offsetY / tall) * columns +
    Math.min(Math.floor((event.offsetX + wide.scrollLeft) / w), columns - 1);
  canvas.addEventListener("mousemove", (event) => tell(under(event)));
  canvas.addEventListener("click", (event) => {
    at = under(event);
    draw();
    look.open(map.cells[at] ?? -1);
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter") look.open(map.cells[at]);
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    const y = Math.floor(at / columns) + step[0],
      x = (at % columns) + step[1];
    if (x < 0 || x >= columns || y < 0 || y >= rows) return;
    at = y * columns + x;
    const left = wide.scrollLeft;
    wide.scrollLeft = Math.min(Math.max(left, (x + 1) * w - canvas.width), x * w);
    draw();
    tell(at);
  });
  wide.addEventListener("scroll", () => requestAnimationFrame(draw));
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(wide);
  return el(
    "div",
    {},
    el(
      "p",
      { class: "soft" },
      `layers ${map.layers.at(-1)} (below) to ${map.layers[0]}; ${many(columns, map.axis)} across`,
    ),
    wide,
    told,
  );
}

// Paints the columns in sight: those from `left`, in dots, as far as the canvas is wide.
function paintCells(context, map, look, w, tall, at, left) {
  const colours = levelColours(),
    columns = map.labels.length,
    width = context.canvas.width;
  const style = getComputedStyle(document.documentElement);
  const accept = style.getPropertyValue("--accept"),
    line = style.getPropertyValue("--line");
  const first = Math.floor(left / w),
    last = Math.min(Math.ceil((left + width) / w), columns);
  context.clearRect(0, 0, width, context.canvas.height);
  for (let i = first; i < map.cells.length; i += i % columns === last - 1 ? columns - last + first + 1 : 1) {
    const h = map.cells[i];
    if (h < 0) continue;
    const x = (i % columns) * w - left,
      y = Math.floor(i / columns) * tall;
    const level = look.level(h);
    context.fillStyle = level === null ? line : colours[level];
    if (!look.hollow(h)) context.fillRect(x, y, w - (w > 4), tall - 1);
    else {
      context.strokeStyle = line;
      context.strokeRect(x + 0.5, y + 0.5, w - 1, tall - 1.5);
    }
    if (look.accepted(h)) {
      context.fillStyle = accept;
      context.fillRect(x, y + tall - 4, w - (w > 4), 3);
    }
  }
  context.strokeStyle = style.getPropertyValue("--ink");
  context.lineWidth = 2;
  context.strokeRect((at % columns) * w - left, Math.floor(at / columns) * tall, w, tall - 1);
}

function levelColours() {
  const probe = el("i");
  document.body.append(probe);
  const found = Array.from({ length: LEVELS + 1 }, (_, level) => {
    probe.className = `h${level}`;
    return getComputedStyle(probe).backgroundColor;
  });
  probe.remove();
  return found;
}

// The look of the cells of one run.
function runLook(run) {
  const { iia, verdict } = run.h;
  return {
    open: (h) => {
      if (h >= 0) go("cell", run.h.id[h], { variable: route().query.get("variable") });
    },
    level: (h) => run.level(h),
    hollow: (h) => verdict[h] === ".",
    accepted: (h) => verdict[h] === "a",
    cell: (h) => ({
      text: iia[h] === null ? ({ f: "failed", ".": "" }[verdict[h]] ?? "–") : iia[h].toFixed(2),
      kind: { a: "accept", u: "undecided", f: "failed", ".": "alive" }[verdict[h]] ?? "decided",
      level: verdict[h] === "." ? null : run.level(h),
      title: run.words(h),
    }),
  };
}

const drawAll = new Map(); // by the place of the maps
let reveal = () => {};
window.addEventListener("beforeprint", () => drawAll.forEach((draw) => draw()));

// Draws each map when it comes into view, and all of them before printing.
function drawMaps(place, run, maps, look) {
  const drawn = new Map(),
    holders = new Map();
  const draw = (holder) => {
    if (!drawn.has(holder)) return;
    holder.replaceChildren(drawMap(run, drawn.get(holder), look));
    holder.style.minHeight = "";
    drawn.delete(holder);
    watcher.unobserve(holder);
  };
  const watcher = new IntersectionObserver(
    (seen) => seen.filter((s) => s.isIntersecting).forEach((s) => draw(s.target)),
    { rootMargin: "400px" },
  );
  for (const map of maps) {
    const holder = el("div", { class: map.labels.length > 8 ? "holder broad" : "holder" });
    holder.style.minHeight = `${Math.min(60 + 30 * map.layers.length, 900)}px`;
    drawn.set(holder, map);
    holders.set(map, holder);
    place.append(holder);
    watcher.observe(holder);
  }
  reveal = (h) => {
    const holder = holders.get(run.index.maps[run.places[h]?.[0]]);
    if (holder) draw(holder);
    const cell = $(`td[data-h="${h}"]`, place);
    cell?.classList.add("open");
    (cell ?? holder)?.scrollIntoView({ block: "nearest" });
  };
  [...drawAll.keys()].filter((old) => !old.isConnected).forEach((old) => drawAll.delete(old));
  drawAll.set(place, () => [...drawn.keys()].forEach(draw));
}
