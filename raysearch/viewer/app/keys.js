// Keys, and the list of them.

const EVERYWHERE = {
  "?": ["show or hide these keys", help],
  f: ["find", () => $("input[type=search]")?.focus()],
};
const OF_A_RUN = {
  m: ["maps", () => go("maps")],
  t: ["table", () => go("table")],
  r: ["report", () => go("report")],
  c: ["compare with another run", () => go("compare")],
  n: ["the next cell", () => nextCell(1)],
  p: ["the cell before", () => nextCell(-1)],
};
// What each key is for, and what it does.
const KEYS = MODE.kind === "runs" ? EVERYWHERE : { ...EVERYWHERE, ...OF_A_RUN };
const IN_MAPS = [
  ["arrows", "walk over the cells"],
  ["Enter", "open a cell"],
  ["Escape", "close it"],
];

function help() {
  const open = $("dialog.keys");
  if (open) return open.remove();
  const own = Object.entries(KEYS).map(([key, [words]]) => [key, words]);
  const rows = MODE.kind === "runs" ? own : [...own, ...IN_MAPS];
  const made = el(
    "dialog",
    { class: "keys", open: true, "aria-label": "Keys" },
    el("h2", { tabindex: -1 }, "Keys"),
    el("dl", {}, rows.map(([key, words]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, words)])),
    el("button", { type: "button", class: "more", click: () => made.remove() }, "Close"),
  );
  document.body.append(made);
  $("h2", made).focus();
}

function escape() {
  const open = $("dialog.keys");
  if (open) open.remove();
  else if (!$("#cell").hidden) closeCell();
}

// Opens the next cell of the maps that are shown, from the one that is open, or the best.
function nextCell(step) {
  if (!current?.size) return;
  const { view, argument, query } = route();
  const order = mapsOf(current, query.get("variable")).flatMap((map) => map.cells.filter((h) => h >= 0));
  const at = view === "cell" ? order.indexOf(current.number(argument)) : -1;
  const next = at < 0 ? current.best(query.get("variable")) : order[at + step];
  if (next !== undefined) go("cell", current.h.id[next], { variable: query.get("variable") });
}

window.addEventListener("keydown", (event) => {
  if (event.key === "Escape") escape();
  else if (!event.target.matches?.("input, select, textarea") && !event.ctrlKey && !event.metaKey && !event.altKey)
    KEYS[event.key]?.[1]();
});
