// Charts as SVG: the evidence over pairs, the course of training, an interval.

const WIDE = 520;

function chart(title, height, parts, note) {
  return el(
    "figure",
    { class: "chart" },
    el("h3", {}, title),
    svg("svg", { viewBox: `0 0 ${WIDE} ${height}`, role: "img", "aria-label": title }, parts),
    note ? el("figcaption", {}, note) : null,
  );
}

function drawn(tag, kind, attributes, words) {
  return svg(tag, { class: kind, ...attributes }, words ? svg("title", {}, words) : null);
}

function label(x, y, text, anchor = "start") {
  return svg("text", { x, y, "text-anchor": anchor }, text);
}

function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

// The axis of a share, 0 to 1 upward.
function shareAxis(left, top, tall, right) {
  return [0, 0.5, 1].map((tick) => {
    const y = top + tall * (1 - tick);
    return [drawn("line", "grid", { x1: left, x2: right, y1: y, y2: y }), label(left - 6, y + 4, String(tick), "end")];
  });
}

function evidence(run, h, outcomes) {
  const counted = [...outcomes].filter((o) => o === "+" || o === "-");
  if (!counted.length) return null;
  const left = 34,
    right = WIDE - 8,
    top = 8,
    tall = 110;
  const x = (i) => left + ((right - left) * i) / counted.length,
    y = (iia) => top + tall * (1 - iia);
  let matches = 0;
  const course = counted.map((o, i) => [x(i + 1), y((matches += o === "+") / (i + 1))]);
  const { low, high } = run.h,
    threshold = run.index.run.threshold;
  const misses = counted.flatMap((o, i) =>
    o === "-"
      ? [
          drawn(
            "line",
            "miss",
            { x1: x(i + 0.5), x2: x(i + 0.5), y1: top + tall + 3, y2: top + tall + 11 },
            `pair ${i + 1} failed`,
          ),
        ]
      : [],
  );
  const bar = low[h] === null ? "" : " Bar on the right: the 95 % interval at the verdict.";
  const note = `Mean so far; ticks below: pairs that failed.${bar} Dotted: the threshold.`;
  return chart(
    `Evidence over ${many(counted.length, "pair")}`,
    145,
    [
      shareAxis(left, top, tall, right),
      threshold === null
        ? null
        : drawn(
            "line",
            "threshold",
            { x1: left, x2: right, y1: y(threshold), y2: y(threshold) },
            `threshold ${threshold}`,
          ),
      drawn("path", "course", { d: path(course) }),
      low[h] === null
        ? null
        : drawn(
            "line",
            "interval",
            { x1: right - 2, x2: right - 2, y1: y(low[h]), y2: y(high[h]) },
            `${share(low[h], 3)} to ${share(high[h], 3)}`,
          ),
      misses,
      label(left, 142, "first pair"),
      label(right, 142, `pair ${counted.length}`, "end"),
    ],
    run.index.run.counted ? note : `${note} The test is on the ${run.index.run.score}, and this course on matches.`,
  );
}

function training(fits, title = "Training") {
  const courses = new Map();
  for (const [seed, step, , iia, status] of fits)
    if (status === null && iia !== null) courses.set(seed, [...(courses.get(seed) ?? []), [step, iia]]);
  if (!courses.size) return null;
  const left = 34,
    right = WIDE - 70,
    top = 8,
    tall = 90;
  const last = Math.max(1, ...[...courses.values()].flat().map(([step]) => step));
  const parts = [...courses].map(([seed, course]) => {
    const points = course
      .sort((a, b) => a[0] - b[0])
      .map(([step, iia]) => [left + ((right - left) * step) / last, top + tall * (1 - iia)]);
    const [x, y] = points.at(-1);
    return [drawn("path", "course", { d: path(points) }, `seed ${seed}`), label(x + 5, y + 4, `seed ${seed}`)];
  });
  return chart(
    title,
    122,
    [shareAxis(left, top, tall, right), parts, label(left, 118, "step 0"), label(right, 118, `step ${last}`, "end")],
    "Validation IIA over steps, for each seed.",
  );
}

// An interval on the scale from 0 to 1, with its threshold, as one line of a page.
function intervalBar(iia, low, high, threshold) {
  const at = (value) => 4 + 192 * value;
  return svg(
    "svg",
    {
      viewBox: "0 0 200 18",
      class: "bar",
      role: "img",
      "aria-label": `${share(iia, 3)}, ${share(low, 3)} to ${share(high, 3)}`,
    },
    drawn("line", "grid", { x1: 4, x2: 196, y1: 9, y2: 9 }),
    threshold === null ? null : drawn("line", "threshold", { x1: at(threshold), x2: at(threshold), y1: 1, y2: 17 }),
    low === null ? null : drawn("line", "interval", { x1: at(low), x2: at(high), y1: 9, y2: 9 }),
    iia === null ? null : drawn("circle", "dot", { cx: at(iia), cy: 9, r: 4 }),
  );
}

const SYMBOLS = "×+*△□☆⬡▽";

// Accepted hypotheses with interval, holdout and controls, one a line.
function intervalsChart(it) {
  const row = 22,
    left = 250,
    wide = 900,
    right = wide - 20,
    bottom = row * it.rows.length + 8;
  const x = (value) => left + (right - left) * value;
  const names = Object.keys(it.names),
    symbol = (name) => SYMBOLS[names.indexOf(name) % SYMBOLS.length];
  const sign = (value, y, text, words) =>
    value === null || value === undefined
      ? null
      : svg("text", { x: x(value), y, "text-anchor": "middle", class: "sign" }, text, svg("title", {}, words));
  const lines = it.rows.map((r, i) => {
    const y = row * i + 16;
    return [
      svg(
        "text",
        { x: left - 10, y: y + 4, "text-anchor": "end" },
        r.name.length > 40 ? `${r.name.slice(0, 15)}…${r.name.slice(-24)}` : r.name,
        svg("title", {}, r.name),
      ),
      drawn("line", "interval", { x1: x(r.low), x2: x(r.high), y1: y, y2: y }),
      sign(r.iia, y + 4, "●", `${r.name}: ${it.score} ${share(r.iia, 3)}`),
      sign(r.holdout_iia, y + 9, "◇", `${r.name}: holdout ${it.score} ${share(r.holdout_iia, 3)}`),
      names.map((name) =>
        sign(
          r.controls[name],
          y + 4,
          symbol(name),
          `${r.name}: control ${it.names[name]} ${share(r.controls[name], 3)}`,
        ),
      ),
    ];
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((tick) => [
    drawn("line", "grid", { x1: x(tick), x2: x(tick), y1: 0, y2: bottom }),
    label(x(tick), bottom + 15, String(tick), "middle"),
  ]);
  const threshold =
    it.threshold === null
      ? null
      : drawn("line", "threshold", { x1: x(it.threshold), x2: x(it.threshold), y1: 0, y2: bottom });
  const first = it.of > it.rows.length ? ` The first ${it.rows.length} of ${it.of}.` : "";
  const note = [
    `● ${it.score}, line: 95 % interval`,
    `◇ holdout ${it.score}`,
    "dotted: threshold",
    ...names.map((name) => `${symbol(name)} ${it.names[name]}`),
  ].join(" · ");
  return el(
    "figure",
    { class: "chart" },
    el("h3", {}, "Intervals, holdout and controls"),
    svg(
      "svg",
      { viewBox: `0 0 ${wide} ${bottom + 40}`, class: "broad", role: "img" },
      ticks,
      threshold,
      lines,
      label(x(0.5), bottom + 34, it.description, "middle"),
    ),
    el("figcaption", {}, `${note}.${first}`),
  );
}

// How many hypotheses reached each verdict after how many pairs.
function stopsChart(it) {
  const last = Math.max(0, ...it.bins.map(([bin]) => bin)),
    total = (bin) => it.bins.filter(([b]) => b === bin).reduce((sum, [, , n]) => sum + n, 0);
  const bins = Array.from({ length: last + 1 }, (_, bin) => bin),
    most = Math.max(1, ...bins.map(total));
  const parts = bins.map((bin) => {
    const y = 22 * bin + 4,
      bounds = bin > 1 ? `${2 ** (bin - 1) + 1}–${2 ** bin}` : String(bin + 1);
    let x = 110;
    const own = it.bins.filter(([b]) => b === bin).sort((a, b) => b[1].localeCompare(a[1]));
    const bars = own.map(([, verdict, n]) => {
      const width = (230 * n) / most,
        words = `${n} ${VERDICTS[verdict[0]]}`;
      x += width;
      return [
        drawn("rect", VERDICTS[verdict[0]], { x: x - width, y, width, height: 16 }, `${words} after ${bounds} pairs`),
        words,
      ];
    });
    return [
      label(100, y + 13, `${bounds} pairs`, "end"),
      bars.map(([bar]) => bar),
      label(x + 8, y + 13, bars.map(([, words]) => words).join(", ")),
    ];
  });
  return chart(
    "Pairs to a verdict",
    22 * (last + 1) + 8,
    parts,
    "Pairs that counted, at the verdict; bars: hypotheses.",
  );
}
