// Two runs side by side: the same hypotheses, and the difference of their means.

async function compareView(place, run, other, query) {
  const wanted = query.get("variable");
  const names = (one) => one.index.variables;
  const shared = names(run).filter((name) => names(other).includes(name));
  const rows = wanted || !shared.length ? [wanted] : shared;
  const alone = [...new Set([...names(run), ...names(other)])].filter((name) => !shared.includes(name));
  const look = differenceLook(run, other);
  const both = run.h.id.slice(0, run.size).filter((id) => other.at.has(id)).length;
  const moved = turned(run, other);
  place.replaceChildren(
    el("h2", {}, "Two runs"),
    el(
      "dl",
      { class: "figures" },
      [
        ["this", run],
        ["the other", other],
      ].map(([name, one]) => [
        el("dt", {}, name),
        el(
          "dd",
          {},
          `${one.index.run.id} · ${one.index.run.model ?? ""} · ${many(one.count("a"), "accepted", "accepted")}`,
        ),
      ]),
    ),
    shared.length && alone.length && !wanted
      ? el("p", { class: "soft" }, `Of one run alone, and not drawn: ${alone.join(", ")}.`)
      : "",
    ...rows.map(() =>
      el(
        "div",
        { class: "two" },
        ["this", "the other"].map((name) =>
          el("section", {}, el("p", { class: "soft" }, name), el("div", { class: "maps" })),
        ),
      ),
    ),
    el("h3", {}, "Difference"),
    el(
      "p",
      { class: "soft" },
      `${many(both, "hypothesis", "hypotheses")} in both. In a cell: this run's ${run.index.run.score} ` +
        "minus the other's; outlined: both have a verdict, and not the same.",
    ),
    el("div", { class: "maps difference" }),
  );
  const otherLook = { ...runLook(other), open: (h) => openElsewhere(other, h) };
  $$(".two", place).forEach((two, row) => {
    const [own, others] = $$(".maps", two);
    drawMaps(own, run, mapsOf(run, rows[row]), runLook(run));
    drawMaps(others, other, mapsOf(other, rows[row]), otherLook);
  });
  drawMaps($(".difference", place), run, rows.flatMap((name) => mapsOf(run, name)), look);
  if (moved.length)
    place.append(
      el("h3", {}, `Another verdict (${moved.length})`),
      plainTable(
        ["variable", "where", "this", "the other"],
        moved
          .slice(0, ROWS)
          .map(([h, o]) => [
            run.variable(h),
            { cell: run.h.id[h], text: run.where(h) },
            `${VERDICTS[run.h.verdict[h]]} ${share(run.h.iia[h])}`,
            `${VERDICTS[other.h.verdict[o]]} ${share(other.h.iia[o])}`,
          ]),
      ),
      firstOf(moved.length, ROWS),
    );
}

// Opens a cell of the other run: on its page, where that has an address, else beside the maps.
function openElsewhere(run, h) {
  if (h < 0) return;
  if (run.folder) location.href = `${run.folder}${address("cell", run.h.id[h])}`;
  else openBeside(run, h);
}

// A cell of a run that was read from a chosen file: all that stood in the file, without an address.
async function openBeside(run, h) {
  const drawer = $("#cell");
  drawer.hidden = false;
  document.body.classList.add("with-cell");
  try {
    const cell = await run.cell(h);
    const draw = (query) => drawCell(drawer, run, h, cell, query, (keys) => redraw(query, keys));
    const redraw = (query, keys) => ({
      href: "#",
      click: (event) => {
        event.preventDefault();
        draw(new URLSearchParams({ ...Object.fromEntries(query), ...keys }));
      },
    });
    draw(new URLSearchParams());
  } catch (error) {
    const missing = error instanceof Missing;
    const [title, ...words] = run.words(h);
    drawer.replaceChildren(
      closeButton(),
      el("h2", { tabindex: -1 }, title),
      ...words.map((text) => el("p", {}, text)),
      missing
        ? el("p", { class: "soft" }, "Its pairs lie beside the page of that run: open it there.")
        : trouble(error),
    );
  }
  $("h2", drawer).focus({ preventScroll: true });
}

// Both have a verdict, and another one.
function disagree(run, h, other, o) {
  const verdicts = [run.h.verdict[h], other.h.verdict[o]];
  return o !== undefined && !verdicts.includes(".") && verdicts[0] !== verdicts[1];
}

function turned(run, other) {
  return run.h.id
    .slice(0, run.size)
    .map((id, h) => [h, other.at.get(id)])
    .filter(([h, o]) => disagree(run, h, other, o));
}

function differenceLook(run, other) {
  const of = (h) => other.at.get(run.h.id[h]);
  const difference = (h) =>
    of(h) === undefined || run.h.iia[h] === null || other.h.iia[of(h)] === null
      ? null
      : run.h.iia[h] - other.h.iia[of(h)];
  const differs = (h) => disagree(run, h, other, of(h));
  const level = (h) => (difference(h) === null ? null : Math.round(LEVELS * Math.min(Math.abs(difference(h)), 1)));
  return {
    open: (h) => {
      if (h >= 0) go("cell", run.h.id[h]);
    },
    level,
    hollow: (h) => of(h) === undefined,
    accepted: differs,
    cell: (h) => ({
      text: difference(h) === null ? "–" : `${difference(h) > 0 ? "+" : ""}${difference(h).toFixed(2)}`,
      kind: `${differs(h) ? "accept" : ""} ${difference(h) < 0 ? "less" : ""}`,
      level: level(h),
      title:
        of(h) === undefined
          ? [...run.words(h), "not in the other run"]
          : [...run.words(h), `the other: ${other.words(of(h)).slice(1).join(", ")}`],
    }),
  };
}

function compareStart(place, run) {
  const take = async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    const text = await file.text();
    const other = new Run(fromPage(text, "index"), null, (name) => fromPage(text, name));
    compareView(place, run, other, route().query);
  };
  place.replaceChildren(
    el("h2", {}, "Compare with another run"),
    el(
      "p",
      { class: "soft" },
      "Choose the report.html of another run, or its view/index.js. It is read here, and goes nowhere.",
    ),
    el("input", {
      type: "file",
      accept: ".html,.js",
      "aria-label": "report.html of another run",
      change: (event) => take(event).catch((error) => place.append(trouble(error))),
    }),
    el("div", { class: "others" }),
  );
  if (MODE.served)
    load("runs", "../../")
      .then((list) => $(".others", place).replaceChildren(...storedRuns(run, list)))
      .catch((error) => place.append(trouble(error)));
}

function storedRuns(run, { runs, of }) {
  const others = runs.filter((one) => one.id !== run.index.run.id && !one.error);
  const item = (one) =>
    el(
      "li",
      {},
      el("a", { href: address("compare", one.id) }, one.id),
      el("span", { class: "soft" }, ` ${[one.model, one.state].filter(Boolean).join(" · ")}`),
    );
  return [
    el("h3", {}, "In this store"),
    others.length ? el("ul", {}, others.map(item)) : el("p", {}, "There is no other run."),
    firstOf(of, runs.length),
  ];
}
