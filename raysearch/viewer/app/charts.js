// Charts as SVG: the evidence over pairs, the course of training, an interval.

const WIDE = 520;

function chart(title, height, parts, note) {
  return el("figure", { class: "chart" }, el("h3", {}, title),
    svg("svg", { viewBox: `0 0 ${WIDE} ${height}`, role: "img", "aria-label": title }, parts), note ? el("figcaption", {}, note) : null);
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
  const left = 34, right = WIDE - 8, top = 8, tall = 110;
  const x = (i) => left + ((right - left) * i) / counted.length, y = (iia) => top + tall * (1 - iia);
  let matches = 0;
  const course = counted.map((o, i) => [x(i + 1), y((matches += o === "+") / (i + 1))]);
  const { low, high } = run.h, threshold = run.index.run.threshold;
  const misses = counted.flatMap((o, i) => (o === "-" ? [drawn("line", "miss", { x1: x(i + 0.5), x2: x(i + 0.5), y1: top + tall + 3, y2: top + tall + 11 }, `pair ${i + 1} failed`)] : []));
  const note = `Mean so far; ticks below: pairs that failed.${low[h] === null ? "" : " Bar on the right: the 95 % interval at the verdict."} Dotted: the threshold.`;
  return chart(`Evidence over ${many(counted.length, "pair")}`, 145, [
    shareAxis(left, top, tall, right),
    threshold === null ? null : drawn("line", "threshold", { x1: left, x2: right, y1: y(threshold), y2: y(threshold) }, `threshold ${threshold}`),
    drawn("path", "course", { d: path(course) }),
    low[h] === null ? null : drawn("line", "interval", { x1: right - 2, x2: right - 2, y1: y(low[h]), y2: y(high[h]) }, `${share(low[h], 3)} to ${share(high[h], 3)}`),
    misses,
    label(left, 142, "first pair"), label(right, 142, `pair ${counted.length}`, "end"),
  ], run.index.run.counted ? note : `${note} The test is on the ${run.index.run.score}, and this course on matches.`);
}

function training(fits) {
  const courses = new Map();
  for (const [seed, step, , iia, status] of fits)
    if (status === null && iia !== null) courses.set(seed, [...(courses.get(seed) ?? []), [step, iia]]);
  if (!courses.size) return null;
  const left = 34, right = WIDE - 70, top = 8, tall = 90;
  const last = Math.max(1, ...[...courses.values()].flat().map(([step]) => step));
  const parts = [...courses].map(([seed, course]) => {
    const points = course.sort((a, b) => a[0] - b[0]).map(([step, iia]) => [left + ((right - left) * step) / last, top + tall * (1 - iia)]);
    const [x, y] = points.at(-1);
    return [drawn("path", "course", { d: path(points) }, `seed ${seed}`), label(x + 5, y + 4, `seed ${seed}`)];
  });
  return chart("Training", 122, [shareAxis(left, top, tall, right), parts, label(left, 118, "step 0"), label(right, 118, `step ${last}`, "end")], "Validation IIA over steps, for each seed.");
}

// An interval on the scale from 0 to 1, with its threshold, as one line of a page.
function intervalBar(iia, low, high, threshold) {
  const at = (value) => 4 + 192 * value;
  return svg("svg", { viewBox: "0 0 200 18", class: "bar", role: "img", "aria-label": `${share(iia, 3)}, ${share(low, 3)} to ${share(high, 3)}` },
    drawn("line", "grid", { x1: 4, x2: 196, y1: 9, y2: 9 }),
    threshold === null ? null : drawn("line", "threshold", { x1: at(threshold), x2: at(threshold), y1: 1, y2: 17 }),
    low === null ? null : drawn("line", "interval", { x1: at(low), x2: at(high), y1: 9, y2: 9 }),
    iia === null ? null : drawn("circle", "dot", { cx: at(iia), cy: 9, r: 4 }));
}
