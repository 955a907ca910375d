// One hypothesis, beside the maps: its verdict, its pairs, the evidence, and what it stands against.

async function openCell(place, run, id, query) {
  const h = run.number(id);
  if (h === undefined) {
    place.replaceChildren(closeButton(), el("p", {}, `This run has no hypothesis ${id}.`));
    return;
  }
  const cell = await run.cell(h);
  if (route().argument !== id) return; // another one was opened meanwhile
  drawCell(place, run, h, cell, query, (keys) => ({ href: changed(keys) }));
}

function drawCell(place, run, h, cell, query, link) {
  const verdict = VERDICTS[run.h.verdict[h]];
  const { iia, low, high } = run.h,
    threshold = run.index.run.threshold;
  place.replaceChildren(
    closeButton(),
    el("h2", { tabindex: -1 }, run.variable(h) ?? "", el("small", {}, cell.where)),
    el(
      "p",
      { class: "verdict" },
      el("b", { class: `badge ${verdict.split(" ")[0]}` }, verdict),
      cell.control ? el("span", { class: "soft" }, ` control: ${cell.control.replaceAll("_", " ")}`) : null,
      iia[h] === null
        ? null
        : el(
            "span",
            {},
            ` ${run.index.run.score} ${share(iia[h], 3)}`,
            low[h] === null ? null : ` · ${share(low[h], 3)} – ${share(high[h], 3)}`,
            ` · n = ${run.h.n[h]}`,
          ),
    ),
    iia[h] === null ? "" : intervalBar(iia[h], low[h], high[h], threshold),
    ...cell.warnings.map((text) => el("p", { class: "warning" }, text)),
    pairsOf(run, h, cell, query, link),
    ...[evidence(run, h, cell.outcomes.test ?? ""), training(cell.intervention.fits)].filter(Boolean),
    ...tables(run, cell),
  );
}

function closeButton() {
  return el(
    "button",
    { type: "button", class: "close", "aria-label": "Close", title: "Close (Escape)", click: closeCell },
    "×",
  );
}

function closeCell() {
  const { view, argument, query } = route();
  if (view !== "cell") {
    $("#cell").hidden = true;
    document.body.classList.remove("with-cell");
    return;
  }
  go("maps", "", { variable: query.get("variable") });
  $(`td[data-h="${current?.number(argument)}"]`)?.focus();
}

function tables(run, cell) {
  const interval = (low, high) => (low === null ? "" : `${share(low, 3)} – ${share(high, 3)}`);
  const found = [];
  const add = (title, head, rows) => {
    if (rows.length) found.push(el("h3", {}, title), plainTable(head, rows));
  };
  if (cell.holdout) {
    const [iia, low, high, n] = cell.holdout;
    add("Holdout", [run.index.run.score, "95 % interval", "pairs"], [[share(iia, 3), interval(low, high), n]]);
  }
  add(
    "Controls",
    ["control", "IIA", "better by (95 % interval)", ""],
    cell.controls.map(([name, iia, low, high, well]) => [
      name.replaceAll("_", " "),
      share(iia, 3),
      interval(low, high),
      well ? "does as well" : "",
    ]),
  );
  add(
    "Sets of pairs",
    ["set", "IIA", "95 % interval", "matches", "pairs"],
    cell.sets.map(([set, iia, low, high, m, n]) => [set, share(iia, 3), interval(low, high), m, n]),
  );
  add(
    "Fits",
    ["seed", "end", "steps", "validation IIA"],
    cell.intervention.fits
      .filter((f) => f[4] !== null && f[4] !== "holdout")
      .map(([seed, step, , iia, status]) => [seed, status, step, share(iia, 3)]),
  );
  add(
    "Cost",
    ["pairs of the", "rows", "seconds", "near-ties", "on"],
    Object.entries(cell.intervention.cost).map(([split, c]) => [
      split,
      c.rows,
      share(c.seconds, 2),
      c.near_ties,
      [...c.workers, ...c.devices].join(", "),
    ]),
  );
  add(
    "Log",
    ["kind", "message", "block", "attempt"],
    cell.intervention.failures.map(([kind, message, block, attempt]) => [kind, message, block ?? "", attempt ?? ""]),
  );
  const [to, from] = cell.thresholds;
  const every = [to === null ? "" : `accepted up to ${share(to)}`, from === null ? "" : `rejected from ${share(from)}`]
    .filter(Boolean)
    .join(", ");
  found.push(
    el("h3", {}, "Figures"),
    el(
      "dl",
      { class: "figures" },
      [...cell.figures, ...(every ? [["at every threshold", every]] : [])].map(([name, value]) => [
        el("dt", {}, name),
        el("dd", {}, value),
      ]),
    ),
  );
  return found;
}

function plainTable(head, rows) {
  return el(
    "div",
    { class: "wide" },
    el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((name) => el("th", { scope: "col" }, name)),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", {}, row.map(tableValue))),
      ),
    ),
  );
}

function trouble(error) {
  return el("p", { class: "warning", role: "alert" }, `This cannot be shown: ${error.message}`);
}
