import fcntl
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pld.errors import ConfigError, DataError
from pld.records import ServedAnswer, inputs_id
from pld.serving import log as serving_log
from pld.serving.log import INPUTS_VARIABLE, LOG_VARIABLE, ServingLog, append, read

RECORDS = [{"text": "Where is it?"}, {"text": "a" * 40}]


def answer(text: str = "x", **changes: object) -> ServedAnswer:
    held = {
        "at": "2026-01-02T03:04:05.678+00:00", "id": inputs_id({"text": text}), "prompt_sha256": "f" * 64,
        "prompt_version": "3", "label": "a", "scores": (-0.1, -2.5),
    }  # fmt: skip
    return ServedAnswer.model_validate(held | changes)


def add(log: ServingLog | None) -> None:
    assert log is not None
    log.add(RECORDS, ["a", None], [[-0.1, -2.5], [float("nan")] * 2], "f" * 64, "3")


def test_nothing_is_logged_unless_the_operator_names_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServingLog.from_environment() is None
    monkeypatch.setenv(INPUTS_VARIABLE, "true")
    assert ServingLog.from_environment() is None


@pytest.mark.parametrize(("said", "shown"), [(None, False), ("false", False), ("true", True), ("True", True)])
def test_an_answer_is_a_line_with_its_time_in_utc_and_its_text_only_where_asked_for(
    said: str | None, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_VARIABLE, str(tmp_path / "served.jsonl"))
    if said is not None:
        monkeypatch.setenv(INPUTS_VARIABLE, said)
    add(ServingLog.from_environment())
    first, second = read([tmp_path / "served.jsonl"])
    assert (first.id, first.label, first.scores) == (inputs_id(RECORDS[0]), "a", (-0.1, -2.5))
    assert (second.label, second.scores) == (None, ())
    assert [found.inputs for found in (first, second)] == (RECORDS if shown else [None, None])
    assert ("Where is it?" in (tmp_path / "served.jsonl").read_text()) == shown
    at = datetime.fromisoformat(first.at)
    assert at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)


def test_a_misspelt_switch_for_texts_stops_the_server_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "served.jsonl")
    monkeypatch.setenv(INPUTS_VARIABLE, "yes")
    with pytest.raises(ConfigError, match="expected true or false, got 'yes'"):
        ServingLog.from_environment()


def test_a_log_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "served.jsonl"
    append(path, [answer("one")])
    path.rename(tmp_path / "served.jsonl.1")
    append(path, [answer("two"), answer("three")])
    assert [len(read([file])) for file in (tmp_path / "served.jsonl.1", path)] == [1, 2]
    assert len(read([tmp_path / "served.jsonl.1", path])) == 3


def test_an_unwritable_log_is_reported_once_and_again_when_it_is_writable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ServingLog(tmp_path / "missing/served.jsonl", with_inputs=False)
    for _ in range(3):
        add(log)
    assert log.lost == 6
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No such file or directory (" in said
    (tmp_path / "missing").mkdir()
    add(log)
    assert "answers are logged again; 6 were lost" in capsys.readouterr().err
    assert len(read([tmp_path / "missing/served.jsonl"])) == 2


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "served.jsonl"
    append(path, [answer("one")])
    whole, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:30]))
    with pytest.raises(OSError, match="room for 30 of"):
        append(path, [answer("two")])
    assert path.read_bytes() == whole


def test_a_log_that_another_process_holds_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_log, "_PATIENCE_S", 0.02)
    path = tmp_path / "served.jsonl"
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="a lock that another process held"):
            append(path, [answer()])
    append(path, [answer()])
    assert len(read([path])) == 1


@pytest.mark.parametrize("kind", ["fifo", "folder", "stranger"])
def test_what_is_no_log_is_left_alone_and_never_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "served.jsonl"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("line\nnotes of mine, without an end")
    with pytest.raises(OSError, match=r"not a serving log|directory|not a file|No such device"):
        append(path, [answer()])
    assert kind != "stranger" or path.read_text() == "line\nnotes of mine, without an end"


def test_a_half_last_line_is_passed_over_and_cut_off_by_whoever_writes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "served.jsonl"
    append(path, [answer("one"), answer("two", inputs={"text": "ü" * 100_000})])
    whole = path.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 70_000, whole.index(b"\n") + 3):
        path.write_bytes(whole[:cut])
        assert [found.id for found in read([path])] == [answer("one").id]
        assert "skipped an incomplete last line" in capsys.readouterr().err
        append(path, [answer("three")])
        assert [found.id for found in read([path])] == [answer("one").id, answer("three").id]
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("garbage\n", r"expected a line of a serving log, got .*\(.*served\.jsonl, line 2\)"),
        ('{"at": "x"}\n', r"expected a line of a serving log, got id: .*\(.*served\.jsonl, line 2\)"),
    ],
)
def test_any_other_broken_line_is_named_by_its_file_and_number(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "served.jsonl"
    append(path, [answer()])
    with path.open("a") as file:
        file.write(line)
    append(path, [answer()])
    with pytest.raises(DataError, match=message):
        read([path])
    with pytest.raises(DataError, match=r"expected a serving log, got No such file .*none\.jsonl"):
        read([tmp_path / "none.jsonl"])


@pytest.mark.slow
def test_processes_that_write_at_once_and_are_killed_mix_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "served.jsonl"
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            for n in range(10_000):
                append(path, [answer(f"{number} {n} {one}", inputs={"text": "x" * 3000}) for one in range(3)])
            os._exit(0)
        children.append(child)
    time.sleep(0.5)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    append(path, [answer("last")])
    found = read([path])
    assert len(found) > 100
    assert len({one.id for one in found}) == len(found), "no answer twice"
    assert all(json.loads(line) for line in path.read_text().splitlines())
