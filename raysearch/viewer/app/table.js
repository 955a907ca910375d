// All hypotheses as a table: filtered and sorted by the address.

const ROWS = 200;
const ORDERS = {
  best: (run) => (a, b) =>
    ("a" === run.h.verdict[b]) - ("a" === run.h.verdict[a]) || (run.h.iia[b] ?? -1) - (run.h.iia[a] ?? -1),
  worst: (run) => (a, b) => (run.h.iia[a] ?? 2) - (run.h.iia[b] ?? 2),
  pairs: (run) => (a, b) => (run.h.n[b] ?? -1) - (run.h.n[a] ?? -1),
  proposed: () => (a, b) => a - b,
};

function tableView(place, run, query) {
  const order = ORDERS[query.get("sort")] ? query.get("sort") : "best";
  const chosen = hypothesesOf(run, query).sort(ORDERS[order](run));
  const shown = chosen.slice(0, Number(query.get("rows")) || ROWS);
  const pick = (name, options) =>
    el(
      "label",
      {},
      el("span", { class: "soft" }, name),
      " ",
      el(
        "select",
        {
          change: (event) => {
            location.hash = changed({ [name]: event.target.value });
          },
        },
        options.map(([value, text]) =>
          el(
            "option",
            { value, selected: (query.get(name) ?? "") === value || (name === "sort" && order === value) },
            text,
          ),
        ),
      ),
    );
  place.replaceChildren(
    el(
      "p",
      { class: "filters" },
      pick("variable", [["", "all"], ...run.index.variables.map((v) => [v, v])]),
      pick("verdict", [["", "all"], ...Object.entries(VERDICTS)]),
      pick(
        "sort",
        Object.keys(ORDERS).map((name) => [name, name]),
      ),
      el(
        "label",
        {},
        el("span", { class: "soft" }, "text"),
        " ",
        el("input", {
          type: "search",
          value: query.get("text") ?? "",
          change: (event) => {
            location.hash = changed({ text: event.target.value });
          },
        }),
      ),
    ),
    el("p", { class: "soft" }, many(chosen.length, "hypothesis", "hypotheses")),
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "all" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ["variable", "where", "verdict", run.index.run.score, "95 % interval", "n"].map((name) =>
              el("th", { scope: "col" }, name),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          shown.map((h) => hypothesisRow(run, h)),
        ),
      ),
    ),
    shown.length < chosen.length
      ? el(
          "p",
          {},
          el(
            "a",
            { href: changed({ rows: String(shown.length + 5 * ROWS) }) },
            `${many(chosen.length - shown.length, "more row")}`,
          ),
        )
      : "",
  );
}

function hypothesesOf(run, query) {
  const variable = run.index.variables.indexOf(query.get("variable")),
    verdict = query.get("verdict");
  const text = (query.get("text") ?? "").toLowerCase();
  const all = Array.from({ length: run.size }, (_, h) => h);
  return all.filter(
    (h) =>
      (variable < 0 || run.h.variable[h] === variable) &&
      (!verdict || run.h.verdict[h] === verdict) &&
      (!text || `${run.variable(h)} ${run.where(h)} ${run.h.id[h]}`.toLowerCase().includes(text)),
  );
}

function hypothesisRow(run, h) {
  const { iia, low, high, n, verdict, id } = run.h;
  return el(
    "tr",
    { class: verdict[h] === "a" ? "accept" : "" },
    el("td", {}, run.variable(h)),
    el("td", {}, el("a", { href: address("cell", id[h]) }, run.where(h))),
    el("td", {}, VERDICTS[verdict[h]]),
    el("td", {}, share(iia[h], 3)),
    el("td", {}, low[h] === null ? "–" : `${share(low[h], 3)} – ${share(high[h], 3)}`),
    el("td", {}, String(n[h] ?? "–")),
  );
}
