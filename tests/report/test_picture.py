"""Figures while another thread is in the middle of an import."""

import subprocess
import sys
from pathlib import Path

SLOW = """
import __main__, time
__main__.about_to_draw.wait()
time.sleep(1.0)
version_info = (9, 0)
get_ipython = lambda: None
"""

DRAW = """
import sys, threading, time
from raysearch.report.figure import Picture
assert "IPython" not in sys.modules
about_to_draw = threading.Event()
threading.Thread(target=__import__, args=("IPython",)).start()
while "IPython" not in sys.modules:
    time.sleep(0.001)
assert not hasattr(sys.modules["IPython"], "version_info")
about_to_draw.set()
print(len(Picture().png()) > 0)
"""


def test_a_picture_is_drawn_while_a_thread_is_in_the_middle_of_importing_ipython(
    tmp_path: Path,
) -> None:
    (tmp_path / "IPython.py").write_text(SLOW)
    (tmp_path / "draw.py").write_text(DRAW)  # its folder comes first on the path
    done = subprocess.run(
        [sys.executable, "draw.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
