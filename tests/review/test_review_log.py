import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld.errors import ReviewError
from pld.records import sha256
from pld.review.decisions import GENESIS, Decision
from pld.review.log import FOLDER, log_path, read_log, record, standing_of

LOG = Path("reviews/mail.jsonl")


def decided(number: int, note: str = "so “it” is: ünïcode\nand more") -> list[Decision]:
    return [
        Decision(
            instruction_id=f"i{number}",
            text_sha256=sha256("text"),
            verdict="approve",
            text=None,
            note=note,
            reviewer="Ann Ö",
        )
    ]


def write(number: int):
    return record("mail", sha256(f"prompt {number}"), decided(number), sha256(f"prompt {number}"))


@pytest.fixture
def log(project):
    """Three entries; the lines of the file."""
    for number in (1, 2, 3):
        write(number)
    return LOG.read_bytes().splitlines(keepends=True)


def fault() -> str:
    with pytest.raises(ReviewError) as caught:
        read_log("mail")
    told = str(caught.value)
    assert "\n" not in told
    assert "restore the file" in told
    return told


def test_entries_follow_one_another_by_number_and_hash(log):
    entries = read_log("mail")
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert [entry.previous for entry in entries] == [GENESIS, entries[0].hash, entries[1].hash]
    assert entries[0].decisions == tuple(decided(1))
    assert "ünïcode" in log[0].decode()


def test_the_same_sheet_twice_is_one_entry(log):
    before = LOG.read_bytes()
    entry, new = write(3)
    assert (entry.number, new) == (3, False)
    assert LOG.read_bytes() == before
    assert write(4)[1]
    assert LOG.read_bytes().startswith(before)


def test_without_a_log_nothing_is_approved_and_nothing_is_written(project):
    found = standing_of("mail", sha256("prompt 1"), ["i1"])
    assert (found.approved, found.entries, found.head) == (False, 0, GENESIS)
    assert not FOLDER.exists()


def test_what_a_sheet_approves_is_approved_until_the_chain_is_broken(log):
    assert standing_of("mail", sha256("prompt 2"), ["i2"]).approved
    LOG.write_bytes(log[0].replace(b"Ann", b"Bob") + b"".join(log[1:]))
    with pytest.raises(ReviewError, match=r"expected the hash of what the line says.* \(reviews/mail.jsonl:1\)"):
        standing_of("mail", sha256("prompt 2"), ["i2"])


@pytest.mark.parametrize(
    ("lines", "where", "why"),
    [
        ((0, 2), ":2)", "expected entry 2, got entry 3"),
        ((1, 2), ":1)", "expected entry 1, got entry 2"),
        ((1, 0, 2), ":1)", "expected entry 1, got entry 2"),
        ((0, 1, 1, 2), ":3)", "expected entry 3, got entry 2"),
    ],
)
def test_a_line_that_was_removed_moved_or_inserted_is_found_where_it_is(log, lines, where, why):
    LOG.write_bytes(b"".join(log[number] for number in lines))
    told = fault()
    assert f"{LOG}{where}" in told
    assert why in told


def test_an_entry_of_another_log_with_a_fitting_number_is_found(log, tmp_path):
    other = LOG.rename(tmp_path / "other").read_bytes().splitlines(keepends=True)
    record("mail", sha256("else"), decided(9), sha256("else"))
    LOG.write_bytes(LOG.read_bytes() + other[1])
    assert f"inserted ({LOG}:2)" in fault()


def test_an_entry_of_another_task_is_found(log):
    LOG.rename(FOLDER / "post.jsonl")
    with pytest.raises(
        ReviewError, match=r"expected an entry of task post, got one of 'mail' \(reviews/post.jsonl:1\)"
    ):
        read_log("post")


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (
            lambda lines: b"".join(lines)[:-1],
            "expected a complete line, got one without a line end (reviews/mail.jsonl:3)",
        ),
        (
            lambda lines: b"".join(lines)[:-40],
            "expected a complete line, got one without a line end (reviews/mail.jsonl:3)",
        ),
        (
            lambda lines: b"".join(lines).replace(b"\n", b"\r\n"),
            "got other white space or key order (reviews/mail.jsonl:1)",
        ),
        (
            lambda lines: b"".join(lines).replace(b": ", b":", 1),
            "got other white space or key order (reviews/mail.jsonl:1)",
        ),
        (lambda lines: b"\n" + b"".join(lines), "(reviews/mail.jsonl:1)"),
        (lambda lines: lines[0] + b"<<<<<<< HEAD\n" + lines[1], "(reviews/mail.jsonl:2)"),
        (
            lambda lines: lines[0][:-2] + b', "more": 1}\n',
            "expected a review entry, got extra inputs are not permitted (reviews/mail.jsonl:1, more)",
        ),
        (lambda lines: b"\xff\xfe" + lines[0], "(reviews/mail.jsonl:1)"),
    ],
)
def test_a_line_that_is_written_otherwise_is_found(log, held, why):
    LOG.write_bytes(held(log))
    assert why in fault()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_single_change_of_any_byte_is_found(log, data):
    held = b"".join(log)
    at = data.draw(st.integers(0, len(held) - 1))
    new = data.draw(st.integers(0, 255))
    how = data.draw(st.sampled_from(("change", "drop", "insert")))
    after = held[at + (how != "insert") :]
    changed = held[:at] + (b"" if how == "drop" else bytes([new])) + after
    LOG.write_bytes(changed)
    if changed == held:
        read_log("mail")
    else:
        fault()


@pytest.mark.parametrize("task", ["../mail", "a/b", "", ".", ".hidden"])
def test_a_task_that_names_no_file_is_refused(project, task):
    with pytest.raises(ReviewError, match="expected a task name that can be a file name"):
        log_path(task)


def _write_five(first: int) -> None:
    for number in range(first, first + 5):
        write(number)


def test_imports_at_the_same_time_are_all_recorded_and_the_chain_is_whole(project):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write_five, args=(10 * first,)) for first in range(1, 5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(entry.decisions[0].instruction_id for entry in read_log("mail")) == sorted(
        f"i{10 * first + more}" for first in range(1, 5) for more in range(5)
    )


@pytest.mark.slow
def test_killed_at_any_moment_an_import_is_recorded_or_not(project):
    write(0)
    began = time.perf_counter()
    write(1)
    usual = time.perf_counter() - began
    known, outcomes = 2, set()
    for number in range(2, 40):
        child = os.fork()
        if not child:
            write(number)
            os._exit(0)
        if number < 39:  # the last one ends by itself
            time.sleep((number - 2) / 18 * usual)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        count = len(read_log("mail"))
        outcomes.add(count - known)
        assert count in (known, known + 1)
        known = count
    assert outcomes == {0, 1}
    write(99)
    assert sorted(path.name for path in FOLDER.iterdir()) == [".mail.jsonl.lock", "mail.jsonl"]
