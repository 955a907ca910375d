"""Known vulnerabilities of the pinned packages (constraints.txt), by pip-audit: `make audit`, a
part of `make check`.

It fails where one is known. Where the index has no such data, or cannot be reached, it says how
much was not audited, and does not fail: a build must not depend on the day's network.
"""

import json
import subprocess
import sys
from pathlib import Path

MOST_SECONDS = 120
PINS = Path(__file__).resolve().parent.parent / "constraints.txt"


def main() -> int:
    """The exit code: 1 where a pinned package has a known vulnerability."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "-r",
        str(PINS),
        "--no-deps",
        "--disable-pip",
        "-f",
        "json",
    ]
    command += ["--progress-spinner", "off", "--timeout", "5"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"audit: not one package was audited (no answer in {MOST_SECONDS} s)")
        return 0
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"audit: not one package was audited ({last[:200]})")
        return 0
    skipped = [d["name"] for d in found if "skip_reason" in d]
    known = [(d["name"], d["version"], v) for d in found for v in d.get("vulns", ())]
    for name, version, vulnerability in known:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"audit: {name} {version}: {vulnerability['id']}; mended in {fixed}")
    note = f"; of {len(skipped)} the index knows nothing" if skipped else ""
    print(
        f"audit: {len(found) - len(skipped)} packages audited, {len(known)} known "
        f"vulnerabilities{note}"
    )
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
