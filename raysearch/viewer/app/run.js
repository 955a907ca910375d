// The index of a run, and what follows from it.

const VERDICTS = { a: "accepted", r: "rejected", u: "undecided", f: "failed", ".": "not decided yet" };
const LEVELS = 20;
const FULL = 0.15,
  FAINT = 0.8,
  FAINTEST = 0.08; // as heatmap_colours.py

class Run {
  // `folder`: of its files, null where they have no address; `read` finds a file by its name.
  constructor(index, folder = "", read = (name) => load(name, folder)) {
    this.index = index;
    this.folder = folder;
    this.read = read;
    this.h = index.hypotheses;
    this.at = new Map(this.h.id.map((id, i) => [id, i]));
    this.places = new Array(this.h.id.length);
    index.maps.forEach((map, m) =>
      map.cells.forEach((h, at) => {
        if (h >= 0) this.places[h] = [m, at];
      }),
    );
    this.elsewhere = new Map(index.elsewhere);
    this.counts = new Map();
    for (let i = 0; i < this.size; i++)
      this.counts.set(this.h.verdict[i], (this.counts.get(this.h.verdict[i]) ?? 0) + 1);
  }

  get size() {
    return this.h.id.length - this.index.run.controls;
  }

  count(verdict) {
    return this.counts.get(verdict) ?? 0;
  }

  // The best hypothesis that was measured, of a variable or of all: accepted ones first.
  best(variable) {
    const { iia, verdict } = this.h;
    let found;
    for (let h = 0; h < this.size; h++) {
      if (iia[h] === null || verdict[h] === "f" || (variable && this.variable(h) !== variable)) continue;
      const better = (verdict[h] === "a") - (verdict[found] === "a") || iia[h] - iia[found];
      if (found === undefined || better > 0) found = h;
    }
    return found;
  }

  number(id) {
    if (this.at.has(id)) return this.at.get(id);
    const found = this.h.id.findIndex((own) => own.startsWith(id));
    return id && found >= 0 ? found : undefined;
  }

  variable(h) {
    return this.index.variables[this.h.variable[h]];
  }

  where(h) {
    if (!this.places[h]) return this.elsewhere.get(h) ?? "";
    const [m, at] = this.places[h];
    const map = this.index.maps[m],
      width = map.labels.length;
    const label = map.labels[at % width].join(" ");
    const layer = map.layers[Math.floor(at / width)];
    return `layer ${layer}, ${[...map.shared, map.axis === "head" ? `head ${label}` : label].join(", ")}`;
  }

  // The steps of colour, 0 to LEVELS: paler as the interval widens, so that few pairs look like few.
  level(h) {
    const iia = this.h.iia[h];
    if (iia === null || this.h.verdict[h] === "f") return null;
    const low = this.h.low[h],
      high = this.h.high[h];
    const width = low === null || high === null ? 1 : high - low;
    return Math.round(LEVELS * iia * Math.min(Math.max((FAINT - width) / (FAINT - FULL), FAINTEST), 1));
  }

  words(h) {
    const { iia, low, high, n, verdict } = this.h;
    const score = this.index.run.score;
    const figures = iia[h] === null ? "" : `${score} ${share(iia[h], 3)} on ${many(n[h] ?? 0, "pair")}`;
    const interval = low[h] === null ? "" : `95 % interval ${share(low[h], 3)} to ${share(high[h], 3)}`;
    return [`${this.variable(h)} ~ ${this.where(h)}`, VERDICTS[verdict[h]], figures, interval].filter(Boolean);
  }

  async cell(h) {
    const intervention = this.h.intervention[h];
    const bundle = await this.bundle("cells", intervention);
    return { ...bundle.hypotheses[h], intervention: bundle.interventions[intervention] };
  }

  async pair(number) {
    return (await this.bundle("pairs", number))[number];
  }

  // A bundle of another state than the index: the numbers in both have moved.
  async bundle(kind, number) {
    const bundle = await this.read(`${kind}-${Math.floor(number / this.index.bundle)}`);
    if (stamps.get(bundle) === stamps.get(this.index)) return bundle;
    readAgain();
    throw new Error("the run has changed meanwhile; its page is read again");
  }
}

// The maps of a variable by its name; all where none is given.
function mapsOf(run, variable) {
  return run.index.maps.filter((map) => !variable || run.index.variables[map.variable] === variable);
}
