// The pairs of a cell: texts with the interchanged tokens marked, what was expected and what the model
// said; failures first.

const OUTCOMES = {
  "-": { name: "failures", verb: "failed", kind: "miss" },
  "+": { name: "matches", verb: "matched", kind: "match" },
  x: { name: "keep pairs that changed", verb: "changed, and should stay", kind: "miss" },
  k: { name: "keep pairs that stayed", verb: "stayed, as it should", kind: "match" },
  ".": { name: "after the verdict", verb: "measured after the verdict: does not count", kind: "after" },
};
const OUTCOMES_OF_ABLATION = {
  ...OUTCOMES,
  x: { name: "keep pairs that stayed", verb: "stayed on a keep pair", kind: "miss" },
  k: { name: "keep pairs that changed", verb: "changed on a keep pair", kind: "match" },
};
const AT_ONCE = 12;

function outcomesOf(cell) {
  return cell.ablation ? OUTCOMES_OF_ABLATION : OUTCOMES;
}

// `link` returns the attributes of a link that changes keys of the query.
function pairsOf(run, h, cell, query, link) {
  const place = el("section", { class: "pairs" }, el("h3", {}, "Pairs"));
  const splits = Object.keys(cell.intervention.pairs).sort().reverse();
  if (!splits.length || !Object.keys(cell.outcomes).length) {
    place.append(el("p", { class: "soft" }, "None is measured yet."));
    return place;
  }
  const split = splits.includes(query.get("split")) ? query.get("split") : splits.includes("test") ? "test" : splits[0];
  const outcomes = cell.outcomes[split] ?? "";
  const known = outcomesOf(cell);
  const present = Object.keys(known).filter((o) => outcomes.includes(o));
  const show = present.includes(query.get("show")) ? query.get("show") : present[0];
  const seen = [...outcomes].map((outcome, i) => ({
    outcome,
    pair: cell.intervention.pairs[split][i],
    said: cell.intervention.said[split][i],
    scores: scoresOf(cell.intervention.scores?.[split], run.variable(h), i),
  }));
  const chosen = seen.filter((one) => one.outcome === show);
  fill(
    place,
    splits.length > 1
      ? chips(
          "pairs of the",
          splits.map((s) => ({ text: s, on: s === split, link: link({ split: s, show: "", set: "" }) })),
        )
      : null,
    chips(
      "show",
      present.map((o) => ({
        text: `${seen.filter((one) => one.outcome === o).length} ${known[o].name}`,
        on: o === show,
        link: link({ show: o, set: "" }),
        kind: known[o].kind,
      })),
    ),
  );
  const list = el("ol", { class: "pair-list" });
  place.append(list);
  fillPairs(list, run, h, cell, chosen, query.get("set"), link).catch((error) => list.replaceChildren(trouble(error)));
  return place;
}

// The numbers of a pair, where the job declares scores: "logit difference 3.2".
function scoresOf(scores, variable, i) {
  return Object.entries(scores ?? {})
    .filter(([, of]) => of[variable]?.[i] !== undefined)
    .map(([name, of]) => `${name} ${of[variable][i]}`);
}

function chips(label, all) {
  return el(
    "p",
    { class: "chips" },
    el("span", { class: "soft" }, label),
    all.map(({ text, on, href, link, kind }) =>
      el("a", { href, ...link, class: `chip ${kind ?? ""}`, "aria-current": on ? "true" : null }, text),
    ),
  );
}

async function fillPairs(list, run, h, cell, chosen, set, link) {
  if (new Set(cell.sets.map((s) => s[0])).size > 1 || set) {
    const sets = [...new Set(cell.sets.map((s) => s[0]))];
    list.before(
      chips("set", [
        { text: "all", on: !set, link: link({ set: "" }) },
        ...sets.map((s) => ({ text: s, on: s === set, link: link({ set: s }) })),
      ]),
    );
  }
  let at = 0;
  const more = el("button", { type: "button", class: "more" });
  const next = async () => {
    more.remove();
    let shown = 0;
    while (shown < AT_ONCE && at < chosen.length) {
      const some = chosen.slice(at, at + AT_ONCE - shown);
      const pairs = await Promise.all(some.map((one) => run.pair(one.pair)));
      pairs.forEach((pair, i) => {
        if (set && pair.set !== set) return;
        list.append(pairItem(run, h, cell, some[i], pair));
        shown += 1;
      });
      at += some.length;
    }
    if (at < chosen.length) {
      more.textContent = `${many(chosen.length - at, "more pair")}`;
      list.after(more);
    } else if (!list.children.length) list.append(el("li", { class: "soft" }, "No such pair in this set."));
  };
  more.addEventListener("click", next);
  await next();
}

function pairItem(run, h, cell, one, pair) {
  const said = run.index.outputs[one.said];
  const expected = pair.expected[run.h.variable[h]];
  const marks = (names) => new Set(names.map((name) => run.index.positions.indexOf(name)));
  const outcome = outcomesOf(cell)[one.outcome];
  return el(
    "li",
    { class: `pair ${outcome.kind}` },
    el(
      "dl",
      {},
      line("base", marked(pair.base, marks(cell.base)), "was run"),
      pair.sources.map((s) =>
        line(
          s.name,
          cell.ablation ? marked(s.text, new Set()) : marked(s.text, marks(cell.source)),
          "lent the marked activation",
        ),
      ),
    ),
    el(
      "p",
      { class: "answers" },
      answer("expected", cell.ablation ? `not ${pair.answer}` : expected, "wanted", said),
      answer(
        "said",
        said ?? `token ${run.index.ids[one.said].join(", ")}`,
        outcome.kind,
        expected,
        said === null ? null : whose(said, pair, expected),
      ),
      answer("the base alone", pair.output ?? pair.answer, "own"),
    ),
    el(
      "p",
      { class: "soft small" },
      [`pair ${one.pair}`, pair.set, outcome.verb, ...one.scores].filter(Boolean).join(" · "),
    ),
  );
}

function line(name, text, title) {
  return [el("dt", { title }, name), el("dd", {}, text)];
}

// Spaces around an answer are only shown where they are all that it differs in from `other`.
function answer(name, text, kind, other, note) {
  const spaces = other && text !== other && text?.trim() === other.trim();
  return el(
    "span",
    { class: "answer" },
    el("small", {}, name),
    el("b", { class: kind }, (spaces ? text.replaceAll(" ", "␣") : text?.trim() || text) ?? "–"),
    note ? el("small", { class: "note" }, note) : null,
  );
}

function whose(said, pair, expected) {
  const same = (other) => other !== null && other !== undefined && said.trim() === other.trim();
  if (same(expected)) return null;
  if (same(pair.answer)) return "the base's answer: it stayed";
  if (pair.sources.some((s) => same(s.answer))) return "the source's own answer";
  return null;
}

// A text in pieces; those of the chosen positions are marked.
function marked(pieces, chosen) {
  if (pieces === null) return el("span", { class: "soft" }, "(a tensor)");
  return pieces.map((piece) => {
    if (typeof piece === "string") return piece;
    const [text, ...positions] = piece;
    return positions.some((p) => chosen.has(p)) ? el("mark", {}, text) : text;
  });
}
