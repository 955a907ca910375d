"""How fast a page and its cells open in Chromium, at many hypotheses and observations.

    python benchmarks/viewer_speed.py [--hypotheses 100000] [--observations 1000000] [--cells 60]
        [--store FOLDER]

Writes a run by the store's own writers, and its page (to FOLDER, if it is given and empty: a run that
is there already is measured again), and opens both from a disk, as cold as a new
profile of the browser is: the page until its maps are drawn, and for each of some cells that hold
failures, a new page at the cell's address until its failed pairs are drawn, minus that of the index
(what a click costs in a page that has loaded nothing else). Needs chromium and chromedriver.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from raysearch.core.events import Encoded, Measured
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Counted, Decided, Proposed, Record
from raysearch.store.ledger import RunLedger
from raysearch.store.pairs_table import write_pairs
from raysearch.store.run_folder import RunFolder
from raysearch.viewer.page import FILE, write_page
from tests.browser import browser
from tests.store.books import ENCODED, PAIRS, new_run

LAYERS, IN_A_BLOCK, AT_ONCE = 32, 2, 1000
PAIRS_AT_ALL = 512


def records(hypotheses: int, blocks: int) -> Iterator[list[Record]]:
    """Two variables at each site; each is measured on `blocks` blocks, and some pairs fail."""
    rng = random.Random(1)
    for i in range(hypotheses // 2):
        site = Site(i % LAYERS, "residual", f"p{i // LAYERS}")
        intervention = Intervention((Unit(site, Subspace()),))
        both = [Hypothesis(variable, intervention) for variable in ("country", "relation")]
        found: list[Record] = [Proposed(h, "exhaustive", 0) for h in both]
        matches = 0
        for block in range(blocks):
            pairs = tuple(range(block * IN_A_BLOCK, (block + 1) * IN_A_BLOCK))
            hit = [rng.random() < 0.7 for _ in pairs]
            matches += sum(hit)
            said = tuple(
                (8 + p,) if h else (rng.randrange(9999),) for p, h in zip(pairs, hit, strict=True)
            )
            seen = Measured(
                i, intervention.id, "test", block, pairs, said, 0, 2, 0.01, "cpu", "w", 0
            )
            found.append(Counted(seen, 0))
        n = blocks * IN_A_BLOCK
        share = matches / n
        for h in both:
            low, high = max(share - 0.2, 0), min(share + 0.2, 1)
            found.append(Decided(h, "reject", n, matches, low, high, 0, 0, 2, None, 3.5, "sampler"))
        yield found


def encoded(i: int) -> Encoded:
    """Returns the pair `i` as the model sees it: the source's answer is the country's."""
    answers = {"base": (7 + i,), "source": (8 + i,)}
    counterfactual = {"country": (8 + i,), "relation": (7 + i,)}
    return replace(ENCODED[0], index=i, answers=answers, counterfactual=counterfactual)


def big_run(store: Path, hypotheses: int, observations: int) -> RunFolder:
    """Writes the run."""
    run = new_run(store, name="big")
    many = [(replace(PAIRS[0], index=i), encoded(i)) for i in range(PAIRS_AT_ALL)]
    write_pairs(run.folder, [p for p, _ in many], [e for _, e in many])
    ledger = RunLedger(run)
    blocks = max(observations // (hypotheses // 2), 1)
    batch: list[Record] = []
    for some in records(hypotheses, blocks):
        batch += some
        if len(batch) > AT_ONCE:
            ledger.write_records(batch)
            batch = []
    ledger.write_records(batch)
    ledger.close("done")
    return run


def opened(address: str, ready: str) -> float:
    """Returns the seconds from the navigation to `ready`, in a new browser."""
    with browser(1280, 1000) as chromium:
        chromium.get(address)
        while not (at := chromium.execute_script(ready)):
            time.sleep(0.01)
        return float(at) / 1000


def clicked(address: str, cells: list[str]) -> list[float]:
    """Returns the seconds of each cell from the change of the address to its pairs, each in a page
    that was opened anew, so that no bundle is there yet."""
    found = []
    with browser(1280, 1000) as chromium:
        for cell in cells:
            chromium.get("about:blank")
            chromium.get(address)
            while not chromium.execute_script("return document.body.dataset.ready"):
                time.sleep(0.02)
            found.append(
                float(
                    chromium.execute_async_script(
                        """const [cell, done] = arguments, began = performance.now();
                        location.hash = `#/cell/${cell}`;
                        const look = () => document.querySelector("#cell .pair.miss")
                            ? done(performance.now() - began) : setTimeout(look, 2);
                        look();""",
                        cell,
                    )
                )
                / 1000
            )
    return found


def measure(run: RunFolder, ids: list[str], pages: int) -> dict[str, Any]:
    """Returns what was measured."""
    address = (run.path / FILE).as_uri()
    drawn = "return document.querySelector('canvas, td[data-h]') ? performance.now() : 0"
    page = sorted(opened(address, drawn) for _ in range(pages))
    cells = sorted(clicked(address, ids))
    return {
        "page": statistics.median(page),
        "cell": statistics.median(cells),
        "cell_95": cells[max(int(0.95 * len(cells)) - 1, 0)],
    }


def write(store: Path, hypotheses: int, observations: int) -> RunFolder:
    """Writes a run and its page, and prints how long that took."""
    began = time.monotonic()
    run = big_run(store, hypotheses, observations)
    written = time.monotonic()
    write_page(run.folder)
    print(f"tables: {written - began:.0f} s; page: {time.monotonic() - written:.1f} s")
    return run


def main() -> None:
    """Writes, opens, prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hypotheses", type=int, default=100_000)
    parser.add_argument("--observations", type=int, default=1_000_000)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--pages", type=int, default=5)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or Path(folder)
        there = [RunFolder.open(path) for path in store.glob("big-*")]
        run = there[0] if there else write(store, given.hypotheses, given.observations)
        data = list((run.path / "view").glob("*")) or [run.path / FILE]
        print(f"{len(data)} files, {sum(path.stat().st_size for path in data) / 1e6:.1f} MB")
        hypotheses = [
            h for some in records(given.hypotheses, 1) for h in some if isinstance(h, Proposed)
        ]
        ids = [h.hypothesis.id for h in random.Random(2).sample(hypotheses, given.cells)]
        found = measure(run, ids, given.pages)
    print(f"page, median of {given.pages}: {found['page']:.2f} s")
    print(f"cell, median of {given.cells}: {1000 * found['cell']:.0f} ms")
    print(f"cell, 95th percentile: {1000 * found['cell_95']:.0f} ms; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
