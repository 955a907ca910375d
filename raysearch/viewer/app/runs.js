// The runs of a store.

const COLUMNS = [
  ["name", "run"],
  ["model", "model"],
  ["state", "state"],
  ["accepted", "accepted"],
  ["alive", "alive"],
  ["level", "error level"],
  ["created", "when"],
];

function runsView(place, { runs, of }, query) {
  const text = (query.get("text") ?? "").toLowerCase(),
    sort = query.get("sort") ?? "created",
    up = query.get("up") === "1";
  const shown = runs.filter((run) => !text || `${run.id} ${run.model ?? ""} ${run.state}`.toLowerCase().includes(text));
  const value = (run) => run[sort] ?? "";
  shown.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (up ? 1 : -1));
  const input = el("input", {
    type: "search",
    placeholder: "name, model, state",
    "aria-label": "Filter",
    value: query.get("text") ?? "",
    input: (event) => history.replaceState(null, "", changed({ text: event.target.value })),
  });
  input.addEventListener("input", () => {
    input.defaultValue = input.value; // it is in the address, so nothing is half typed
    $("tbody", place).replaceChildren(...rowsOf({ runs, of }, route().query));
  });
  place.replaceChildren(
    el("p", { class: "filters" }, input, el("span", { class: "soft" }, many(runs.length, "run"))),
    firstOf(of, runs.length),
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "runs" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            COLUMNS.map(([key, name]) =>
              el(
                "th",
                { scope: "col", "aria-sort": key === sort ? (up ? "ascending" : "descending") : null },
                el("a", { href: changed({ sort: key, up: key === sort && !up ? "1" : "" }) }, name),
              ),
            ),
          ),
        ),
        el("tbody", {}, shown.map(runRow)),
      ),
    ),
  );
}

function rowsOf(list, query) {
  const holder = el("div");
  runsView(holder, list, query);
  return [...$("tbody", holder).rows];
}

function runRow(run) {
  const cells = [
    el(
      "td",
      {},
      run.error ? run.id : el("a", { href: `runs/${encodeURIComponent(run.id)}/` }, run.name),
      el("small", { class: "soft" }, run.id),
    ),
    el("td", {}, run.model ?? "–"),
    el(
      "td",
      {},
      el("b", { class: `badge ${run.state}` }, run.state),
      run.state === "running" && run.stage ? ` ${run.stage}` : null,
    ),
    el("td", {}, run.accepted?.toLocaleString("en") ?? "–"),
    el("td", {}, run.alive?.toLocaleString("en") ?? "–"),
    el("td", {}, run.level === undefined || run.level === null ? "–" : `${Number((100 * run.level).toPrecision(6))} %`),
    el("td", {}, dateWords(run.created)),
  ];
  return el("tr", { title: run.error }, cells);
}
