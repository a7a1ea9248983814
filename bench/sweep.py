"""Measure the Student's time in the sweep, by kind of work: `python bench/sweep.py`, after `make repro`.

Runs the stage itself on the artifacts that are there, writes its outputs into a temporary folder, and puts the shares
into bench/results.md.
"""

import argparse
import contextlib
import datetime
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines import ROOT, milliseconds
from report import grid, put
from worker import BenchError

INPUTS = ("config.yaml", "splits", "rules", "embeddings")
DOCUMENT = ROOT / "bench/results.md"
# kinds of work that the Student times itself; the rest of its calls is bookkeeping
KINDS = ("load", "render", "prefill", "score")
SHARE_BAR = 80


class Watched:
    """A Student whose calls are timed from outside."""

    def __init__(self, student: Any, watch: "Watch") -> None:
        self._student, self._watch = student, watch

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._student, name)
        if not callable(found):
            return found

        def timed(*arguments: Any, **named: Any) -> Any:
            taken, answer = milliseconds(lambda: found(*arguments, **named))
            self._watch.seconds += taken / 1000
            return answer

        return timed

    def for_search(self) -> "Watched":
        return self._watch.over(self._student.for_search())


class Watch:
    """`seconds` spent inside the watched Students."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._students: dict[int, Any] = {}

    def over(self, student: Any) -> Watched:
        self._students[id(student)] = student
        return Watched(student, self)

    def timings(self) -> dict[str, float]:
        """Seconds by kind, as the Students time them, and the rest as bookkeeping."""
        counted = [student.timings() for student in self._students.values()]
        found = {kind: sum(timings.get(kind, 0.0) for timings in counted) for kind in KINDS}
        return found | {"bookkeeping": self.seconds - sum(found.values())}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/sweep.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--print", action="store_true", help="print the table, write nothing")
    options = parser.parse_args(arguments)
    from pld.errors import PldError

    try:
        text = _text(*measure_sweep(ROOT / "artifacts"))
        if options.print:
            print(text)
        else:
            put(DOCUMENT, "sweep", text)
    except (BenchError, PldError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def measure_sweep(artifacts: Path) -> tuple[float, Watch]:
    """Seconds of the whole stage, and the Student's watch. Raises BenchError."""
    if absent := [name for name in INPUTS if not (artifacts / name).exists()]:
        raise BenchError(
            f"expected the sweep's inputs, got none ({artifacts.name}/{absent[0]}); run `make repro` first"
        )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from pld.stages import sweep

    build, watch = sweep.build, Watch()

    def watched(section: Mapping[str, Any], role: str, **extra: Any) -> Any:
        built = build(section, role, **extra)
        return watch.over(built) if role == "student" else built

    with _project(artifacts), contextlib.redirect_stdout(sys.stderr):
        sweep.build = watched
        started = time.perf_counter()
        try:
            sweep.run()
        finally:
            sweep.build = build
        return time.perf_counter() - started, watch


@contextlib.contextmanager
def _project(artifacts: Path) -> Iterator[None]:
    """Change into a temporary folder with links to the stage's inputs."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "artifacts").mkdir()
        for name in INPUTS:
            (Path(folder) / "artifacts" / name).symlink_to((artifacts / name).resolve())
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _text(stage: float, watch: Watch) -> str:
    from pld.evaluate.latency import machine

    rows = [
        [kind, f"{seconds:,.1f}", f"{100 * seconds / watch.seconds:.0f} %"] for kind, seconds in watch.timings().items()
    ]
    share = 100 * watch.timings()["score"] / watch.seconds
    return (
        f"{datetime.date.today().isoformat()}, `python bench/sweep.py`: {machine()}. The stage took {stage:,.0f} s, "
        f"of which {watch.seconds:,.0f} s inside the Student; {share:.0f} % of those are scoring (target: at "
        f"least {SHARE_BAR} %).\n\n{grid(['the Student', 'seconds', 'share'], rows)}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
