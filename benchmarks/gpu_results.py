"""What came of the workloads of gpu.py, and the lines that say it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sweep:
    """What came of interchanges.

    Args:
        tasks: that were run, of `of_tasks`.
        opening: seconds of opening, most of it self-check.
        captures: seconds of making the runs that rows start from, where they were made first;
            else (c) they are among `seconds`.
        seconds: of the tasks, until their outputs are here and decided.
        again: rows that were too close to call, and so were decided again by the plain path, in
            `deciding` of these seconds.
        held, equal: rows held against the plain path, and those with its answer.
        operations: of the tasks' waves: two for each multiply-add that these rows need.
        host, device: seconds of the fullest wave until the host is free, and until the device is.
        share_of_wave: of the matrix rate, in that wave.
    """

    name: str
    dtype: str
    path: str
    tasks: int
    of_tasks: int
    rows: int
    opening: float
    captures: float
    seconds: float
    waves: int
    again: int
    deciding: float
    captures_per_input: float
    held: int
    equal: int
    operations: float
    matrix_rate: float
    wave_rows: int
    host: float
    device: float
    share_of_wave: float
    counts: str = ""

    @property
    def rate(self) -> float:
        """Rows a second, captures included."""
        return self.rows / (self.captures + self.seconds)

    @property
    def share(self) -> float:
        """Of the matrix rate, over the seconds of all tasks."""
        return self.operations / self.seconds / self.matrix_rate

    def __str__(self) -> str:
        sampled = "" if self.tasks == self.of_tasks else f" (a sample, of {self.of_tasks} tasks)"
        return (
            f"{self.name}, {self.dtype}: path {self.path}, argmax as plain {self.equal}/{self.held}"
            f"; {self.rows} rows in {self.tasks} tasks{sampled}, {self.waves} waves, "
            f"{self.again / max(self.waves, 1):.2f} rows decided again a wave; opening "
            f"{self.opening:.1f} s, captures {self.captures:.2f} s ({self.captures_per_input:.2f} "
            f"an input), tasks {self.seconds:.2f} s ({self.deciding:.2f} of these deciding again); "
            f"a wave of {self.wave_rows} rows: host {1e3 * self.host:.1f} ms, "
            f"device {1e3 * self.device:.1f} ms, {self.share_of_wave:.3f} of the matrix rate; "
            f"share of the matrix rate {self.share:.3f}; {self.rate:,.0f} rows/s{self.counts}"
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of training. `seconds`: of the fits, captures and looks at validation pairs
    included; `with_controls`: also of as many fits to arbitrary labels. `steps` of `of_steps`;
    `host`, `device`: seconds of a step until the host is free, and of the whole over its steps."""

    name: str
    dtype: str
    path: str
    fits: int
    opening: float
    steps: int
    of_steps: int
    seconds: float
    with_controls: float
    host: float
    device: float
    captures_per_input: float
    held: int
    equal: int
    share: float
    loss: tuple[float, float]
    counts: str = ""

    @property
    def whole(self) -> float:
        """Seconds of all steps of the fits, by those that were taken."""
        return self.seconds * self.of_steps / self.steps

    def __str__(self) -> str:
        part = "" if self.steps == self.of_steps else f" (a sample, of {self.of_steps})"
        return (
            f"{self.name}, {self.dtype}: path {self.path}, argmax as plain {self.equal}/{self.held}"
            f"; {self.fits} fits, {self.steps} steps{part}; opening {self.opening:.1f} s, fits "
            f"{self.seconds:.2f} s, with as many controls {self.with_controls:.2f} s, captures "
            f"{self.captures_per_input:.2f} an input; a step: host {1e3 * self.host:.1f} ms, all "
            f"{1e3 * self.device:.1f} ms; loss {self.loss[0]:.2f} in the first stretch, "
            f"{self.loss[1]:.2f} in the last"
            f"; share of the matrix rate {self.share:.3f}; "
            f"{self.fits * self.of_steps / self.whole:,.0f} steps of a fit/s{self.counts}"
        )


@dataclass(frozen=True, slots=True)
class AgainstOld:
    """The same tasks by both ways, in seconds; of which so many deciding near-ties again, which
    waves have no part in."""

    name: str
    dtype: str
    tasks: int
    of_tasks: int
    rows: int
    equal: int
    new: float
    old: float
    new_deciding: float
    old_deciding: float

    @property
    def ratio(self) -> float:
        return self.old / self.new

    @property
    def ratio_of_waves(self) -> float:
        return (self.old - self.old_deciding) / (self.new - self.new_deciding)

    def __str__(self) -> str:
        sampled = "" if self.tasks == self.of_tasks else f" (a sample, of {self.of_tasks} tasks)"
        return (
            f"{self.name}, {self.dtype}: {self.rows} rows in {self.tasks} tasks{sampled}; now "
            f"{self.rows / self.new:,.0f} rows/s, as old waves {self.rows / self.old:,.0f} rows/s; "
            f"outputs equal {self.equal}/{self.rows}; without near-ties that are decided "
            f"again, which both do alike, ratio {self.ratio_of_waves:.2f}; ratio {self.ratio:.2f}"
        )
