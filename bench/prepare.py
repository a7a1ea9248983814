"""Time and peak memory of the stage prepare: `python bench/prepare.py` (100,000 examples of 200 made-up words).

Writes a CSV, a JSONL and a Parquet file of seeded words into a temporary folder and runs the stage on each in a process
of its own, imports and all. Prints a table in Markdown.
"""

import argparse
import csv
import datetime
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FORMATS = ("csv", "jsonl", "parquet")
LABELS = ("low", "middle", "high", "none")
COLUMNS = ("number", "text", "outcome", "thread")
PARTS = ("read", "check", "write")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/prepare.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--examples", type=int, nargs="+", default=[100_000], help="default: 100000")
    parser.add_argument("--words", type=int, default=200, help="of each text (default: %(default)s)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--wide", action="store_true", help="a character of four bytes in each text, as in chats")
    parser.add_argument("--stage", metavar="RESULT", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage:
        _stage(Path(options.stage))
        return 0
    rows = []
    for examples in options.examples:
        for form in options.formats:
            with tempfile.TemporaryDirectory(prefix="pld-bench-") as folder:
                texts = _texts(examples, options.words, " 👍" if options.wide else "")
                rows.append(_measured(Path(folder), form, texts, examples))
    print(f"{datetime.date.today().isoformat()}, `{' '.join(['python bench/prepare.py', *arguments])}`:\n")
    columns = ["examples", "file", "MB", "s in all", *(f"{part}, s" for part in PARTS), "rest, s", "peak memory, MiB"]
    for cells in [columns, ["---"] * len(columns), *rows]:
        print("| " + " | ".join(cells) + " |")
    return 0


def _measured(folder: Path, form: str, texts: Iterator[tuple[str, ...]], examples: int) -> list[str]:
    """One row of the table."""
    data = folder / f"rows.{form}"
    WRITERS[form](data, texts)
    _write_settings(folder, data.name)
    command = [sys.executable, str(Path(__file__).resolve()), "--stage", "result.json"]
    started = time.perf_counter()
    subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=True, capture_output=True
    )
    taken = time.perf_counter() - started
    found = json.loads((folder / "result.json").read_text())
    parts = [found[part] for part in PARTS]
    times = [f"{seconds:.1f}" for seconds in (taken, *parts, taken - sum(parts))]
    return [f"{examples:,}", form, f"{data.stat().st_size / 1e6:.0f}", *times, f"{found['peak_mib']:,.0f}"]


def _stage(result: Path) -> None:
    """The stage in this process, its parts timed from outside."""
    from pld.stages import prepare

    taken = dict.fromkeys(PARTS, 0.0)

    def reading(task: Any, read: Callable[[Any], Iterator[Any]] = prepare.read) -> Iterator[Any]:
        rows = read(task)
        while True:
            started = time.perf_counter()
            row = next(rows, None)
            taken["read"] += time.perf_counter() - started
            if row is None:
                return
            yield row

    def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*given)
            finally:
                taken[part] += time.perf_counter() - started

        return call

    prepare.read = reading
    prepare.assemble = timed("check", prepare.assemble)
    for name in ("write_jsonl", "write_json", "_md5"):
        setattr(prepare, name, timed("write", getattr(prepare, name)))
    prepare.run()
    taken["check"] -= taken["read"]  # the rows are read while they are checked
    result.write_text(json.dumps(taken | {"peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    """Of this process alone (ru_maxrss begins, on Linux, with that of the process that started it)."""
    status = Path("/proc/self/status")
    if status.exists():
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")) / 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def _write_settings(folder: Path, data: str) -> None:
    import yaml

    from pld.config.composition import compose

    plain = compose(ROOT / "conf", ROOT / "params.yaml").model_dump(mode="json")
    plain["task"] = {
        "name": "bench",
        "labels": list(LABELS),
        "fields": ["text"],
        "input_template": "{{ text }}",
        "base_instruction": "Which?",
        "reader": {
            "format": "records",
            "path": data,
            "fields": {"text": "text"},
            "label": "outcome",
            "options": None,
            "id": "number",
            "group": "thread",
            "split": None,
        },
    }
    (folder / "artifacts").mkdir()
    (folder / "artifacts/config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")


def _texts(examples: int, words: int, end: str, seed: int = 0) -> Iterator[tuple[str, ...]]:
    """Rows of COLUMNS; about five rows a thread. A word has 2 to 9 letters, some of them not ASCII."""
    draw = random.Random(seed)
    known = ["".join(draw.choices("abcdefghiklmnoprstuvwyüé", k=draw.randint(2, 9))) for _ in range(20_000)]
    for number in range(examples):
        text = " ".join(draw.choices(known, k=words)) + end
        yield f"N-{number:07}", text, draw.choice(LABELS), f"T-{draw.randrange(max(1, examples // 5))}"


def _write_csv(path: Path, rows: Iterator[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _write_jsonl(path: Path, rows: Iterator[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(path: Path, rows: Iterator[tuple[str, ...]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))), path)


WRITERS = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
