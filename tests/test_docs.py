"""The pages of docs/ build without a warning, and a link that leads nowhere is one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def _build(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-b",
        "html",
        "-W",
        "--keep-going",
        "-c",
        str(source / "docs"),
    ]
    return subprocess.run(
        [*command, str(source), str(to)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    done = _build(ROOT, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    index = (tmp_path / "docs" / "README.html").read_text()
    for page in ("five-minutes", "your-own-model", "comparison", "mlflow", "problems/add_three"):
        assert f'href="{page}.html"' in index
        assert (tmp_path / "docs" / f"{page}.html").is_file()


@pytest.mark.parametrize(
    "link", ["nowhere.md", "../jobs/nowhere.yaml", "README.md#nowhere", "nowhere.png"]
)
def test_a_link_that_leads_nowhere_fails(link: str, tmp_path: Path) -> None:
    (tmp_path / "source" / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path / "source" / "docs")
    picture = "!" if link.endswith(".png") else ""
    (tmp_path / "source" / "docs" / "README.md").write_text(f"# Title\n\n{picture}[here]({link})\n")
    done = _build(tmp_path / "source", tmp_path / "built")
    assert done.returncode != 0
    assert "nowhere" in done.stderr


def test_pictures_are_small() -> None:
    pictures = sorted((ROOT / "docs").glob("*.png"))
    assert {"mlflow-metrics.png", "mlflow-artifacts.png"} <= {p.name for p in pictures}
    for picture in pictures:
        assert picture.stat().st_size < 300_000, picture
        with Image.open(picture) as opened:
            opened.verify()
