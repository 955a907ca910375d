"""Derives what continuations of a run give: further pairs for the parts of its test pairs, and how far
each hypothesis may go. It is of journal.py, and written from docs/reference/journal.md alone.
"""

from itertools import pairwise


def extend(run, new, first):  # the parts that each continuation gives further pairs
    run.horizons, run.later = [[len(blocks)] for *_, blocks in run.parts], [[]]
    rows = {row["hypothesis"]: row for row in run.table("tables/hypotheses/*.parquet")}
    order = sorted({row["generation"] for row in rows.values() if row["control"] is None})
    for n, names in run.more:
        at = {part_of(run, rows[h], order) for h in names if h in rows}
        tested = [*run.later[-1]]
        for part in [len(run.parts)] if run.exact else sorted(at):
            while part >= len(run.parts):
                run.parts.append(([], [], []))
                run.horizons.append([0] * len(run.later))
            pairs, numbers, blocks = run.parts[part]
            used = sum(map(len, blocks))
            taken = max(0, n - len(pairs) + used)
            pairs, new = pairs + new[:taken], new[taken:]
            ends, most = [2], min(used + n, len(pairs))
            if not run.once:
                while ends[-1] < most:
                    ends.append(max(ends[-1] + 1, ends[-1] * 21 // 20))
            ends = range(used + 32, most, 32) if run.once else ends
            ends = [used, *(e for e in ends if used < e < most), *[most] * (most > used)]
            blocks = blocks + [pairs[a:b] for a, b in pairwise(ends)]
            numbers = [*numbers, *range(first, first + len(ends) - 1)]
            first, run.parts[part] = first + len(ends) - 1, (pairs, numbers, blocks)
            tested += [run.pairs[p]["content"] for p in pairs[used:most]]
        run.later.append(tested)
        for of, (*_, blocks) in zip(run.horizons, run.parts, strict=True):
            of.append(len(blocks))


def part_of(run, row, order):  # on which a hypothesis was tested, before all continuations
    if run.ours:
        return 0
    key = run.tested.get(row["intervention"], row["intervention"])
    seen = [n for n, p in enumerate(run.parts) if p[1] and p[1][0] in run.seen["test", key]]
    return (seen or [0])[-1] if run.info["k"] else order.index(row["generation"])


class Course:  # how far a hypothesis may go: to the last block, or by a continuation that names it
    def __init__(self, run, given, part):
        self.horizons = run.horizons[part] if part < len(run.parts) else [0] * (1 + len(run.more))
        self.later = [k for k, (_, names) in enumerate(run.more, 1) if given["hypothesis"] in names]
        self.phase = self.later[-1] if self.later and run.exact else 0

    def end(self, event):  # the number of its blocks at the time of an event
        self.phase = max(self.phase, event["phase"] if event else 0)
        return self.horizons[self.phase]

    def goes_on(self, seen):  # whether a continuation has further blocks for it, after so many
        for phase in (k for k in self.later if k > self.phase):
            self.phase = phase
            if max(seen, self.horizons[phase - 1]) < self.horizons[phase]:
                return True
        return False
