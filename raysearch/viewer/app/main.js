// Shows what the address says, and looks again while a run is going.

const LOOK_AGAIN = 3000,
  SELDOM = 5,
  RELOAD = 30000,
  MOST_ELSEWHERE = 500;
let current = null;

async function show() {
  const place = $("#main"),
    drawer = $("#cell");
  try {
    if (MODE.kind === "runs") return runsView(place, await load("runs"), route().query);
    current ??= new Run(await load("index"));
    await showRun(place, drawer, current);
  } catch (error) {
    place.replaceChildren(trouble(error));
  } finally {
    document.body.dataset.ready = location.hash || "#";
  }
}

let drawnFor = null;

async function showRun(place, drawer, run) {
  const { view, argument, query } = route();
  const isCell = view === "cell";
  head(run, view);
  drawer.hidden = !isCell;
  document.body.classList.toggle("with-cell", isCell);
  const shown = isCell || view === "maps" ? `maps of ${query.get("variable") ?? ""}` : location.hash;
  if (drawnFor?.run !== run || drawnFor.shown !== shown) {
    const wait = setTimeout(() => place.replaceChildren(el("p", { class: "soft" }, "Reading …")), 300);
    try {
      await drawView(place, run);
    } finally {
      clearTimeout(wait);
    }
    drawnFor = { run, shown };
  }
  $$("td.open").forEach((cell) => cell.classList.remove("open"));
  if (!isCell) return;
  const late = setTimeout(() => drawer.replaceChildren(closeButton(), el("p", { class: "soft" }, "Reading …")), 300);
  await openCell(drawer, run, argument, query).catch((error) => drawer.replaceChildren(closeButton(), trouble(error)));
  clearTimeout(late);
  reveal(run.number(argument));
}

async function drawView(place, run) {
  const { view, argument, query } = route();
  if (view === "report") reportView(place, await load("report"), argument);
  else if (view === "table") tableView(place, run, query);
  else if (view === "compare" && argument) await compareView(place, run, await otherRun(argument), query);
  else if (view === "compare") compareStart(place, run);
  else mapsView(place, run, query);
}

async function otherRun(id) {
  const folder = `../${encodeURIComponent(id)}/`;
  return new Run(await load("index", folder), folder);
}

function head(run, view) {
  const about = run.index.run;
  document.title = `${about.id} · raysearch`;
  const counts = [
    ["a", "accepted"],
    ["r", "rejected"],
    ["u", "undecided"],
    ["f", "failed"],
    [".", "alive"],
  ];
  $("#head").replaceChildren(
    el(
      "p",
      { class: "crumbs" },
      MODE.served ? el("a", { href: "../../" }, "All runs") : null,
      el("span", { class: "soft" }, about.id),
    ),
    el("h1", {}, about.question),
    el(
      "p",
      { class: "facts" },
      el("b", { class: `badge ${about.state}` }, about.state),
      about.state === "running" && about.at ? el("span", { class: "soft" }, `at ${dateWords(about.at)} UTC`) : null,
      counts
        .filter(([v]) => run.count(v))
        .map(([v, name]) =>
          el(
            "a",
            { href: address("table", "", { verdict: v }), class: `count ${name}` },
            el("b", {}, run.count(v).toLocaleString("en")),
            ` ${name}`,
          ),
        ),
    ),
    el(
      "nav",
      {},
      [
        ["maps", "Maps"],
        ["table", "Table"],
        ["report", "Report"],
        ["compare", "Compare"],
      ].map(([name, text]) =>
        el(
          "a",
          {
            href: address(name),
            "aria-current": name === view || (name === "maps" && view === "cell") ? "page" : null,
          },
          text,
        ),
      ),
    ),
  );
}

// Says how cells look that the run has.
function legend(run) {
  const { threshold } = run.index.run;
  const above = typeof threshold === "number" ? ` (above τ = ${threshold})` : "";
  const looks = [
    ["a", `Outlined (in a large map underlined): accepted${above}.`],
    ["r", "Plain: rejected."],
    ["u", "Italic: undecided."],
    ["f", "Grey: failed."],
    [".", "Hollow and dashed: not decided yet."],
  ];
  return looks.filter(([verdict]) => run.count(verdict)).map(([, words]) => ` ${words}`).join("");
}

function mapsView(place, run, query) {
  const wanted = query.get("variable"),
    about = run.index.run;
  place.replaceChildren(
    el(
      "p",
      { class: "soft" },
      `Layers upward. In a cell: ${about.score}, the bluer the nearer to 1, paler where the `,
      `interval is wide.${legend(run)}`,
    ),
    el(
      "p",
      { class: "soft hint" },
      "A cell opens its pairs: click it, or walk with the arrow keys and press Enter. ? lists the keys.",
    ),
    run.index.variables.length > 1
      ? chips("variable", [
          { text: "all", on: !wanted, href: address("maps") },
          ...run.index.variables.map((v) => ({
            text: v,
            on: v === wanted,
            href: address("maps", "", { variable: v }),
          })),
        ])
      : "",
    nothingAccepted(run, wanted),
    el("div", { class: "maps" }),
  );
  drawMaps($(".maps", place), run, mapsOf(run, wanted), runLook(run));
  if (run.elsewhere.size)
    place.append(
      el("h3", {}, "Over several layers"),
      el(
        "ul",
        { class: "elsewhere" },
        [...run.elsewhere]
          .slice(0, MOST_ELSEWHERE)
          .map(([h, where]) =>
            el(
              "li",
              {},
              el("a", { href: address("cell", run.h.id[h]) }, `${run.variable(h)} ~ ${where}`),
              ` ${share(run.h.iia[h])} ${VERDICTS[run.h.verdict[h]]}`,
            ),
          ),
      ),
      firstOf(run.elsewhere.size, MOST_ELSEWHERE),
    );
  if (!run.size) place.append(el("p", {}, "Nothing is proposed yet."));
}

// Says what came closest where nothing was accepted, and why it was not.
function nothingAccepted(run, variable) {
  const best = run.best(variable);
  if (best === undefined || run.h.verdict[best] === "a") return "";
  const { iia, n, verdict } = run.h;
  const alive = run.index.run.state === "running" || verdict[best] === ".";
  const why =
    verdict[best] === "." ? "it has no verdict yet" : run.index.reasons?.[best] || VERDICTS[verdict[best]];
  return el(
    "p",
    { class: "warning" },
    `Nothing ${variable ? `of ${variable} ` : ""}is accepted${alive ? " so far" : ""}. The best is `,
    el(
      "a",
      { href: address("cell", run.h.id[best], { variable }) },
      `${run.variable(best)} at ${run.where(best)}`,
    ),
    `, ${run.index.run.score} ${share(iia[best], 3)} on ${many(n[best] ?? 0, "pair")}: ${why}.`,
  );
}

// Looks for another state, seldom where none is to come; a field with half a text is left alone.
async function lookAgain() {
  const name = MODE.kind === "runs" ? "runs" : "index";
  lookAgain.turn = (lookAgain.turn ?? 0) + 1;
  if (name === "index" && current?.index.run.state !== "running" && lookAgain.turn % SELDOM) return;
  if (isHalfTyped()) return;
  const before = await load(name),
    now = await fetched(`view/${name}.js`);
  const same =
    name === "index" ? stamps.get(now) === stamps.get(before) : JSON.stringify(now) === JSON.stringify(before);
  if (!same) await showAnew(name, now);
}

async function showAnew(name, values) {
  known.clear();
  known.set(name, Promise.resolve(values));
  if (name === "index") current = new Run(values);
  const scroll = [scrollX, scrollY],
    focusAgain = focusNow();
  await show();
  scrollTo(...scroll);
  focusAgain();
}

function isHalfTyped() {
  const field = document.activeElement;
  return field.matches("input[type=search]") && field.value !== field.defaultValue;
}

// Returns a function that gives the focus, and its caret, back to what has it now.
function focusNow() {
  const fields = () => $$("input, select, canvas, #cell h2"),
    now = document.activeElement;
  const cell = now.dataset?.h,
    at = fields().indexOf(now),
    caret = now.selectionStart;
  return () => {
    const found = cell === undefined ? fields()[at] : $(`td[data-h="${cell}"]`);
    found?.focus({ preventScroll: true });
    if (caret !== undefined && caret !== null) found?.setSelectionRange(caret, caret);
  };
}

// Reads index and bundles anew, a few times: whoever writes them may be at it just now.
const REREADS = 5;
let rereads = 0,
  rereading = null,
  rereadOf = null;

function readAgain() {
  const stamp = stamps.get(current.index);
  if (stamp !== rereadOf) rereads = 0;
  rereadOf = stamp;
  if (rereading || rereads >= REREADS) return;
  rereads += 1;
  rereading = setTimeout(async () => {
    rereading = null;
    known.clear();
    await showAnew("index", await load("index")).catch((error) => console.warn(error.message));
  }, 300 * rereads);
}

window.addEventListener("hashchange", async () => {
  await show();
  if (route().view === "cell") $("#cell h2")?.focus({ preventScroll: true });
});
show().then(() => {
  if (MODE.served) setInterval(() => lookAgain().catch((error) => console.warn(error.message)), LOOK_AGAIN);
  else if (current?.index.run.state === "running") setInterval(() => isHalfTyped() || location.reload(), RELOAD);
});
