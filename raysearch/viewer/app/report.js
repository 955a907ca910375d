// The report in words: sections of plain blocks, as the page of the run has always had them.

function reportView(place, sections, chosen) {
  place.replaceChildren(
    el(
      "nav",
      { class: "sections" },
      sections.map((s) => el("a", { href: address("report", s.id) }, s.short)),
    ),
    ...sections.map((s) => el("section", { id: s.id, class: "card" }, el("h2", {}, s.title), s.blocks.map(block))),
  );
  if (chosen) document.getElementById(chosen)?.scrollIntoView();
}

function block(it) {
  return BLOCKS[it.kind](it);
}

const BLOCKS = {
  text: (it) => el("p", { class: it.look }, it.text),
  heading: (it) => el("h3", {}, it.text),
  list: (it) =>
    el(
      "ul",
      {},
      it.items.map((text) => el("li", {}, text)),
    ),
  facts: (it) =>
    el(
      "dl",
      { class: "figures" },
      it.items.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
    ),
  code: (it) => el("pre", {}, it.text),
  fold: (it) => el("details", { open: it.open }, el("summary", {}, it.title), it.blocks.map(block)),
  table: (it) => [
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { id: it.id },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            it.head.map((name) => el("th", { scope: "col" }, name)),
          ),
        ),
        el(
          "tbody",
          {},
          it.rows.map((row) =>
            el("tr", { class: it.marked?.includes(it.rows.indexOf(row)) ? "as-well" : "" }, row.map(tableValue)),
          ),
        ),
      ),
    ),
    it.note ? el("p", { class: "soft" }, it.note) : null,
  ],
  effects: () => effectMaps(current),
  training: (it) => training(it.fits, it.title),
  intervals: (it) => intervalsChart(it),
  stops: (it) => stopsChart(it),
};

// A value is a text, or {text, small, cell, span}: with small words, a link to its pairs, a scale.
function tableValue(value) {
  if (value === null || typeof value !== "object")
    return el("td", { class: String(value).length > 24 ? "words" : null }, String(value ?? "–"));
  const text = value.cell ? el("a", { href: address("cell", value.cell) }, value.text) : value.text;
  return el(
    "td",
    { class: String(value.text).length > 40 ? "words" : null },
    text,
    value.small ? [el("br"), el("small", { class: "soft" }, value.small)] : null,
    value.span ? scale(...value.span) : null,
  );
}

function scale(to, from, threshold) {
  const at = (share) => 200 * share;
  return svg(
    "svg",
    { viewBox: "0 0 200 10", class: "scale", "aria-hidden": "true" },
    drawn("rect", "yes", { x: 0, y: 2, width: at(to ?? 0), height: 6 }),
    drawn("rect", "open", { x: at(to ?? 0), y: 2, width: at((from ?? 1) - (to ?? 0)), height: 6 }),
    drawn("rect", "no", { x: at(from ?? 1), y: 2, width: at(1 - (from ?? 1)), height: 6 }),
    drawn("line", "mark", { x1: at(threshold), x2: at(threshold), y1: 0, y2: 10 }),
  );
}

// What attribution foresaw, as maps of their own.
function effectMaps(run) {
  const { maps, effect, pairs, asked } = run.index.effects,
    place = el("div", { class: "maps" });
  const most = Math.max(1e-9, ...effect.filter((e) => e !== null));
  const level = (h) => (effect[h] === null ? null : Math.round((LEVELS * Math.max(effect[h], 0)) / most));
  const told = (h) =>
    effect[h] === null
      ? "cannot be interchanged on some fit pair"
      : `effect ${share(effect[h], 3)}, the mean of ${many(pairs[h], "fit pair")}`;
  drawMaps(place, run, maps, {
    open: () => {},
    level,
    hollow: () => false,
    accepted: (h) => asked[h],
    cell: (h) => ({
      text: effect[h] === null ? "×" : share(effect[h]),
      kind: asked[h] ? "accept" : "",
      level: level(h),
      title: [told(h), asked[h] ? "asked about" : "not asked about"],
    }),
  });
  return place;
}
