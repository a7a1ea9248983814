"""Every kind of broken or unusual data file is read exactly, or refused with one line that says what to do, and nothing
is left behind."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld.artifacts import read_jsonl
from pld.cli.main import main as pld
from pld.config.settings import CONFIG_PATH
from pld.data.readers import read
from pld.data.splits import assemble
from pld.errors import DataError, PldError
from pld.records import SPLITS, Example
from pld.stages.__main__ import main
from pld.task_params import TaskParams
from support.artifact_tree import composed
from support.data_files import FILLER, File, filled_csv, filled_jsonl, filled_table
from support.malformed import MESSAGES, REFUSED, UNREADABLE, Refused
from support.unusual import FINE, Fine

ROOT = Path(__file__).parents[2]
RECORDS = Path("data/records")
SPLITS_FOLDER = Path("artifacts/splits")
EARLIER = {"train.jsonl": b"of an earlier run\n", "summary.json": b"{}\n"}
NAMED = {case.what: case for case in REFUSED}
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _project(project: Path) -> None:
    """Splits of an earlier run, and a place for data."""
    RECORDS.mkdir(parents=True)
    SPLITS_FOLDER.mkdir(parents=True)
    for name, content in EARLIER.items():
        (SPLITS_FOLDER / name).write_bytes(content)


def task(case: File) -> dict[str, Any]:
    columns = {"fields": {"body": "text"}, "label": "label", "options": None, "id": None, "group": None, "split": None}
    plain = {} if "format" in case.reader else {"format": "records", **columns}
    return {
        "name": "own",
        "labels": list(case.labels),
        "fields": list(case.fields),
        "input_template": "?",
        "base_instruction": "?",
        "reader": {"path": f"{RECORDS}/{case.name}", **plain, **case.reader},
    }


@pytest.fixture(scope="module")
def other_sections() -> str:
    plain = composed().model_dump(mode="json")
    del plain["task"]
    return yaml.safe_dump(plain)


def put(case: File, other_sections: str) -> None:
    case.put(RECORDS)
    section = json.dumps({"task": task(case)})
    CONFIG_PATH.write_text(f"{other_sections}{section[1:-1]}\n")


def files() -> list[str]:
    return sorted(str(path) for path in Path.cwd().rglob("*"))


def is_the_message(case: Refused, printed: str, who: str = "prepare") -> bool:
    """Whether `printed` is the one line of the case; "…" in it stands for anything."""
    parts = case.message.replace("{file}", f"{RECORDS}/{case.name}").split("…")
    return re.fullmatch(f"{who}: {'.*'.join(map(re.escape, parts))}\n", printed) is not None


def splits_as_before() -> bool:
    return {path.name: path.read_bytes() for path in SPLITS_FOLDER.iterdir()} == EARLIER


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.what)
def test_a_malformed_file_is_refused_with_one_line_and_nothing_is_left_behind(
    case: Refused, other_sections: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(case, other_sections)
    before = files()
    assert main(["prepare"]) == 1
    printed = capsys.readouterr()
    assert is_the_message(case, printed.err), printed.err
    assert printed.out == ""
    assert files() == before
    assert splits_as_before()


def test_each_message_says_what_was_expected_what_was_got_where_and_what_to_do() -> None:
    assert len(REFUSED) == len(NAMED) == len(MESSAGES) >= 100
    for line in MESSAGES.values():
        assert re.fullmatch(r"expected .+, got .+ \(.+\); .+", line), line
        assert line.isprintable()


@pytest.mark.parametrize("case", FINE, ids=lambda case: case.what)
def test_an_unusual_file_is_read_exactly(case: Fine, other_sections: str) -> None:
    put(case, other_sections)
    assert main(["prepare"]) == 0
    found = [example for split in SPLITS for example in read_jsonl(SPLITS_FOLDER / f"{split}.jsonl", Example)]
    filler = [(text, case.labels["ab".index(label)]) for text, label in FILLER]
    assert sorted((item.inputs["body"], item.label) for item in found) == sorted([*case.reads, *filler])
    assert list(Path.cwd().rglob(".*")) == []


def _process() -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "pld.stages", "prepare"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("what", ["a named pipe", "Latin-1", "a quote that is never closed", "a damaged page"])
def test_the_stage_as_a_process_prints_the_same_line(what: str, other_sections: str) -> None:
    put(NAMED[what], other_sections)
    before = files()
    done = _process()
    assert (done.returncode, done.stdout) == (1, "")
    assert is_the_message(NAMED[what], done.stderr), done.stderr
    assert files() == before
    assert splits_as_before()


def new_task(case: File) -> int:
    """Exit status of `pld new-task` on the case, in a project without the task."""
    shutil.copytree(ROOT / "conf", "conf")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    case.put(RECORDS)
    named = [f"--{option}={case.reader[option]}" for option in ("id", "group", "split") if option in case.reader]
    with pytest.raises(SystemExit) as ended:
        pld(["new-task", "own", f"--data={RECORDS}/{case.name}", "--text=text", "--label=label", *named])
    return int(ended.value.code or 0)


def written() -> set[str]:
    """What `pld new-task` left in the project."""
    found = {str(path) for folder in ("conf", "assets") for path in Path(folder).rglob("*")}
    return found - {str(path.relative_to(ROOT)) for path in (ROOT / "conf").rglob("*")}


def is_new_tasks_message(case: Refused, line: str) -> bool:
    """The message of `prepare`, except that the remedy names options."""
    before_remedy = case.message.replace("{file}", f"{RECORDS}/{case.name}").split("; ")[0].split("…")
    parts = ".*".join(map(re.escape, before_remedy))
    return re.fullmatch(f"pld: {parts}; .*\n", line) is not None and "conf/task" not in line


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda case: case.what)
def test_new_task_refuses_it_too_and_writes_nothing(case: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_task(case) == 1
    line = capsys.readouterr().err
    assert is_new_tasks_message(case, line), line
    assert written() == set()


@pytest.mark.parametrize("what", ["an id twice", "the same text with two labels", "a text of invisible characters"])
def test_new_task_refuses_rows_as_prepare_does(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_task(NAMED[what]) == 1
    *_, line = capsys.readouterr().err.splitlines(keepends=True)
    assert is_new_tasks_message(NAMED[what], line), line
    assert written() == set()


@pytest.mark.parametrize("what", ["line ends, commas and quotes in quotes", "words of YAML for labels"])
def test_new_task_accepts_unusual_but_valid_files(what: str) -> None:
    (case,) = [case for case in FINE if case.what == what]
    assert new_task(case) == 0
    assert written() == {"conf/task/own.yaml", "assets/corpus", "assets/corpus/records", "assets/corpus/records/d.csv"}


def rows(name: str) -> Iterator[object]:
    return read(TaskParams.model_validate(task(File("", name, ""))))


WRITTEN = {
    "d.csv": filled_csv(*[f"row {number},a" for number in range(3000)]).encode,
    "d.jsonl": filled_jsonl(*[json.dumps({"text": f"row {number}", "label": "a"}) for number in range(3000)]).encode,
}


@pytest.mark.parametrize("name", [*WRITTEN, "d.parquet"])
@pytest.mark.parametrize("change", ["cut", "more", "replaced"])
def test_a_file_that_changes_while_it_is_read_is_refused(name: str, change: str) -> None:
    path = RECORDS / name
    if name in WRITTEN:
        path.write_bytes(WRITTEN[name]())
    else:
        filled_table([(f"row {number}", "a") for number in range(3000)])(path)
    reading = rows(name)
    next(reading)
    if change == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif change == "more":
        with path.open("ab") as file:
            file.write(b"\xff")
    else:
        path.write_bytes(path.read_bytes().replace(b"row", b"ROW"))
        os.utime(path, (1, 1))
    with pytest.raises(
        DataError, match=r"expected a complete file, got one that changed while it was read \(.*d\.\w+\)"
    ):
        list(reading)


def test_a_file_that_may_not_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = RECORDS / "d.csv"
    path.write_text(filled_csv())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def refuse(*_: object, **__: object) -> object:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError) as caught:
        list(rows("d.csv"))
    assert str(caught.value) == (
        f"expected a readable file, got permission denied ({path}); correct the file or its permissions"
    )


def test_a_path_with_invisible_characters_is_refused() -> None:
    for name in ("d\0.csv", "d\n.csv"):
        with pytest.raises(DataError) as caught:
            list(rows(name))
        assert str(caught.value).isprintable()
        assert str(caught.value).startswith("expected a path without invisible characters, got ")


def _parquet() -> bytes:
    path = Path("valid.parquet")
    filled_table([("ünï", "a")], compression="none", row_group_size=20)(path)
    return path.read_bytes()


CUTS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def _mutated(content: bytes, cuts: list[tuple[str, float, bytes]]) -> bytes:
    found = bytearray(content)
    for kind, share, noise in cuts:
        at = int(share * len(found))
        if kind == "flip":
            found[at : at + len(noise)] = noise
        elif kind == "cut":
            del found[at : at + 50 * noise[0]]
        elif kind == "insert":
            found[at:at] = noise
        else:
            found[at:at] = found[at : at + 40]
    return bytes(found)


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
@settings(
    max_examples=150, deadline=2000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=CUTS)
def test_a_damaged_file_is_read_or_refused_with_one_line(name: str, cuts: list[tuple[str, float, bytes]]) -> None:
    valid = {
        "d.csv": lambda: filled_csv('"ü, ""nï"\n",a').encode(),
        "d.jsonl": lambda: filled_jsonl('{"text": "\\u00fc ☃", "label": "a"}').encode(),
        "d.parquet": _parquet,
    }
    (RECORDS / name).write_bytes(_mutated(valid[name](), cuts))
    settled = TaskParams.model_validate(task(File("", name, "")))
    try:
        assemble(settled, read(settled))
    except PldError as error:
        line = str(error)
        assert re.match(rf"expected .*, got .*\({RECORDS}/{name}", line)
        assert line.isprintable()
