"""Progress: plain lines where there is no terminal, a bar where there is one, nothing when it is
quiet."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from raysearch.core.records import Snapshot, Training
from raysearch.runner.session.progress_display import ProgressDisplay, stage_of

START = Snapshot("screening", 0, 0, 0, 0, 0, pairs=0, at_most=0, queued=3, out=2)
MIDDLE = replace(
    START, stage="searching", alive=70, accepted=7, rejected=20, undecided=3, pairs=0, at_most=6000
)


def _run(quiet: bool = False, terminal: bool = False) -> str:
    now = 0.0
    out = StringIO()
    with ProgressDisplay(
        quiet, True, lambda: now, Console(file=out, force_terminal=terminal, width=200)
    ) as watch:
        for seconds, snapshot in (
            (1, START),
            (31, START),
            (40, MIDDLE),
            (45, replace(MIDDLE, pairs=500)),
            (62, replace(MIDDLE, pairs=2200, failed=1)),
        ):
            now = float(seconds)
            watch(snapshot)
        watch.stop()
        watch.say("done [and] dusted")
    return out.getvalue()


def test_elsewhere_a_line_every_30_seconds_says_where_it_stands() -> None:
    first, second, last = _run().splitlines()
    assert first == "   31 s  screening: 0 of 5 blocks of pairs run without intervention"
    assert second == (
        "   62 s  testing: 70 alive, 7 accepted, 20 rejected, 3 undecided, 1 failed; 100 "
        "pairs/s, at most 60 s left"
    )
    assert last == "done [and] dusted"


def test_choosing_by_attribution_is_said_and_its_time_is_in_no_rate() -> None:
    now, out = 0.0, StringIO()
    choosing = replace(START, stage="attributing", queued=1, out=1)
    with ProgressDisplay(False, True, lambda: now, Console(file=out, width=200)) as watch:
        for seconds, snapshot in (
            (35.0, choosing),
            (1000.0, MIDDLE),
            (1010.0, replace(MIDDLE, pairs=500)),
        ):
            now = seconds
            watch(snapshot)
        assert watch.rate(replace(MIDDLE, pairs=500)) == 50
    assert (
        out.getvalue().splitlines()[0]
        == "   35 s  attribution: 0 of 2 blocks of fit pairs run to choose hypotheses by"
    )


def test_on_a_terminal_a_bar_shows_it_and_goes_away_before_anything_is_printed() -> None:
    text = _run(terminal=True)
    assert "testing" in text
    assert "7 accepted" in text
    assert text.index("\x1b[?25h") < text.index(
        "done [and] dusted"
    )  # the cursor is back: the bar has let go


def test_quiet_is_quiet() -> None:
    assert _run(quiet=True) == ""
    assert _run(quiet=True, terminal=True) == ""


def test_while_subspaces_train_a_line_says_step_loss_what_is_trained_and_the_time_left() -> None:
    now, out = 0.0, StringIO()
    first = Training(0, 400, None, ("c",), 0, 8000)
    later = Training(100, 400, 0.3125, ("c", "c (control arbitrary_labels)"), 1000, 4000)
    with ProgressDisplay(False, True, lambda: now, Console(file=out, width=200)) as watch:
        for seconds, training in ((31.0, first), (71.0, later), (120.0, None)):
            now = seconds
            watch(replace(MIDDLE, fitting=20, training=training))
    told = [line.partition("; ")[2] for line in out.getvalue().splitlines()]
    assert told == [
        "20 seeds in training: step 0 of 400, of c",
        "20 seeds in training: step 100 of 400, loss 0.312, of c, c (control arbitrary_labels), at "
        "most 3 min left",
        "20 seeds in training",
    ]


def test_a_name_in_a_line_of_progress_is_literal() -> None:
    out = StringIO()
    training = Training(1, 2, 1e-9, ("[red]\x1b[2J", "b", "c", "d"), 1, 1)
    with ProgressDisplay(False, True, lambda: 0.0, Console(file=out, width=200)) as watch:
        words = watch.words(replace(MIDDLE, fitting=1, training=training))
    assert words.endswith(r"step 1 of 2, loss 1e-09, of [red]\x1b[2J, b, c, ...")


STAGES = {
    "screening": START,
    "attribution": replace(START, stage="attributing"),
    "training": replace(MIDDLE, fitting=3, training=Training(7, 60, 0.5, ("c",), 40, 200)),
    "testing": MIDDLE,
    "controls": replace(MIDDLE, stage="estimating", alive=0, controls=4, estimates=1),
    "holdout": replace(MIDDLE, stage="estimating", alive=0, estimates=2),
}


def _screen(width: int, last: str) -> list[str]:
    """The lines of the screen, once each stage up to `last` was shown."""
    now, out = 0.0, StringIO()
    console = Console(file=out, width=width, color_system=None)
    watch = ProgressDisplay(False, True, lambda: now, console)
    for name, snapshot in STAGES.items():
        now += 10
        watch.follow(snapshot)
        if name == last:
            break
    console.print(watch)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_has_a_bar_of_its_own_and_its_words(stage: str) -> None:
    assert stage_of(STAGES[stage]) == stage
    *bars, words = _screen(200, stage)
    assert stage in [bar.split()[0] for bar in bars]
    assert words.lstrip(" 0123456789").startswith(f"s  {stage}: ")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_screen_is_no_wider_than_the_terminal(width: int) -> None:
    lines = _screen(width, "holdout")
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[:6]] == list(STAGES)
    assert lines[3].rstrip().endswith("30 of 30 hypotheses")
    assert lines[4].rstrip().endswith("4 of 4 controls")
    assert lines[5].rstrip().endswith("5 of 7 estimates")
    assert "2 estimated on the holdout now" in " ".join(" ".join(lines[6:]).split())


def test_what_was_prepared_stays_full() -> None:
    assert _screen(200, "testing")[0].rstrip().endswith("5 of 5 blocks")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_no_escapes_gets_lines(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    now = 0.0
    with ProgressDisplay(False, False, lambda: now) as watch:
        watch(MIDDLE)
    assert "\x1b" in terminal.getvalue()
    terminal.truncate(0)
    monkeypatch.setenv(name, value)
    with ProgressDisplay(False, False, lambda: now) as watch:
        now = 31.0
        watch(MIDDLE)
        watch.say("said")
    assert terminal.getvalue().lstrip("\0").startswith("   31 s  testing: 70 alive")
    assert "\x1b" not in terminal.getvalue()


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_of_training_is_full_once_no_seed_trains_though_some_were_dropped() -> None:
    assert _screen(200, "training")[2].rstrip().endswith("40 of 240 steps")
    for stage in ("testing", "controls", "holdout"):
        bar = _screen(200, stage)[2]
        assert bar.split()[0] == "training"
        assert bar.rstrip().endswith("240 of 240 steps")


def test_a_bar_of_training_is_open_again_where_a_later_generation_trains() -> None:
    out = StringIO()
    console = Console(file=out, width=200, color_system=None)
    watch = ProgressDisplay(False, True, lambda: 0.0, console)
    later = replace(STAGES["training"], training=Training(1, 60, 0.5, ("c",), 90, 300))
    for snapshot in (STAGES["training"], STAGES["testing"], later):
        watch.follow(snapshot)
    console.print(watch)
    assert out.getvalue().splitlines()[0].rstrip().endswith("90 of 390 steps")
