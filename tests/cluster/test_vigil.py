"""The watch over a Ray: a death is said, with the way to go on; a call that does not come back is
ended."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from raysearch.cluster.ray_watch import AddressWatch, RayWatch, watch_processes
from raysearch.errors import ClusterError


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as sleeper:
        yield sleeper
        sleeper.kill()


def test_a_call_to_a_ray_that_lives_is_let_through_and_one_to_a_dead_one_is_refused(
    process: "subprocess.Popen[bytes]",
) -> None:
    watch = RayWatch(watch_processes({"raylet": process}))
    with watch.guard():
        pass
    process.kill()
    process.wait()
    with (
        pytest.raises(
            ClusterError, match=rf"raylet .*process {process.pid}\) was killed by signal 9"
        ) as e,
        watch.guard(),
    ):
        pytest.fail("it was let through")
    assert "\n" not in str(e.value)
    assert "`raysearch resume` goes on with the run" in str(e.value)
    assert str(e.value).endswith(
        "where none had begun, give the command again"
    )  # it may die while models are loaded
    watch.close()


def test_a_death_in_the_middle_of_a_call_is_said_when_it_comes_back(
    process: "subprocess.Popen[bytes]",
) -> None:
    watch = RayWatch(watch_processes({"gcs_server": process}))

    def call() -> None:
        with watch.guard():
            process.kill()
            process.wait()

    with pytest.raises(ClusterError, match="gcs_server"):
        call()
    watch.close()


def test_a_call_that_is_stuck_in_a_dead_ray_is_ended_with_its_last_words(
    process: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    watch = RayWatch(watch_processes({"gcs_server": process}), stuck=0.2, end=end)
    watch.before_exit(lambda: print("go on with: x", file=sys.stderr))

    def call() -> None:
        with watch.guard():
            process.kill()
            assert ended.wait(60)

    with pytest.raises(ClusterError):
        call()
    said = capsys.readouterr().err
    assert re.match(r"raysearch: gcs_server .*\ngo on with: x\n$", said)
    assert codes == [ClusterError.exit_code]


def test_a_driver_that_is_busy_elsewhere_is_not_ended(process: "subprocess.Popen[bytes]") -> None:
    codes: list[int] = []
    watch = RayWatch(watch_processes({"gcs_server": process}), stuck=0.0, end=codes.append)
    process.kill()
    process.wait()
    time.sleep(2)  # some looks
    watch.close()
    assert codes == []


def test_a_head_counts_as_dead_only_after_it_was_silent_for_long() -> None:
    now = [0.0]

    def seen(at: float) -> str | None:
        now[0] = at
        return looked()

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        looked = AddressWatch(address, seconds=40, every=5, clock=lambda: now[0])
        assert [seen(at) for at in (0.0, 6.0, 12.0)] == [None] * 3
    assert [seen(at) for at in (18.0, 24.0, 57.0)] == [None] * 3
    assert seen(58.0) == f"Ray's head at {address} has taken no connection for 40 s"
