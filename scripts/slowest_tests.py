"""The slowest test files and tests of the last `make test`, `make test-rest` and `make test-ci`,
from the JUnit files in build/: processor seconds, then seconds on the clock. Of a test that is in
several files the newest one counts."""

import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

BUILD = Path(__file__).parents[1] / "build"
CPU = "cpu_seconds"  # tests/timing.py writes it


def main(*paths: str) -> None:
    newest_last = sorted(BUILD.glob("junit*.xml"), key=lambda path: path.stat().st_mtime)
    kept = paths or tuple(map(str, newest_last))
    if not kept:
        sys.exit(f"no junit*.xml in {BUILD}: make test writes it")
    found = [case for path in kept for case in ElementTree.parse(path).getroot().iter("testcase")]
    cases = {(case.get("classname"), case.get("name")): case for case in found}.values()
    files: dict[str, list[tuple[float, float]]] = defaultdict(list)
    tests: list[tuple[float, float, str]] = []
    for case in cases:
        cpu = sum(float(p.get("value", 0)) for p in case.iter("property") if p.get("name") == CPU)
        clock = float(case.get("time", 0))
        files[case.get("classname", "?")].append((cpu, clock))
        tests.append((cpu, clock, f"{case.get('classname')}::{case.get('name')}"))
    print(
        f"{sum(t[0] for t in tests):8.1f} {sum(t[1] for t in tests):8.1f}  all {len(tests)} tests\n"
    )
    for name, seconds in sorted(files.items(), key=lambda f: -sum(s[0] for s in f[1])):
        print(
            f"{sum(s[0] for s in seconds):8.1f} {sum(s[1] for s in seconds):8.1f}  {name} "
            f"({len(seconds)} tests)"
        )
    print()
    for cpu, clock, name in sorted(tests, reverse=True)[:60]:
        print(f"{cpu:8.1f} {clock:8.1f}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
