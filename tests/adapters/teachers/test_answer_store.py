"""AnswerStore on disk."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.adapters.teachers.answer_store import AnswerStore, StoredAnswer, request_key
from pld.errors import TeacherError

ANSWER = StoredAnswer({"rule": "ünï → \u2028", "nested": {"a": [1, None, True]}}, None, {"output_tokens": 3})


def test_an_answer_is_found_again_by_another_store_on_the_same_file(tmp_path):
    path = tmp_path / "new" / "answers.sqlite"
    AnswerStore(path).put("k", ANSWER, {"model": "m"})
    assert AnswerStore(path).get("k") == ANSWER
    assert AnswerStore(path).get("other") is None


def test_an_error_is_kept_with_what_it_cost(tmp_path):
    failed = StoredAnswer(None, "refusal: declined", {"input_tokens": 9})
    store = AnswerStore(tmp_path / "answers.sqlite")
    store.put("k", failed, {})
    assert store.get("k") == failed


def test_the_first_answer_stands(tmp_path):
    store = AnswerStore(tmp_path / "answers.sqlite")
    store.put("k", ANSWER, {})
    assert store.put("k", StoredAnswer(None, "late", {}), {}) == ANSWER


def test_it_is_in_wal_mode(tmp_path):
    AnswerStore(tmp_path / "answers.sqlite").put("k", ANSWER, {})
    connection = sqlite3.connect(tmp_path / "answers.sqlite")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_many_threads_write_at_once(tmp_path):
    store = AnswerStore(tmp_path / "answers.sqlite")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: store.put(f"k{i}", StoredAnswer({"i": i}, None, {}), {}), range(100)))
    assert [store.get(f"k{i}").content["i"] for i in range(100)] == list(range(100))


WRITERS = """
import multiprocessing, sys
from pathlib import Path
from pld.adapters.teachers.answer_store import AnswerStore, StoredAnswer

def write(path, number, together):
    together.wait()
    store = AnswerStore(path)
    for i in range(2):
        store.put(f"{number}-{i}", StoredAnswer({"i": i}, None, {}), {})

fork = multiprocessing.get_context("fork")
for round in range(8):
    together = fork.Barrier(8)
    path = Path(sys.argv[1]) / str(round) / "answers.sqlite"
    children = [fork.Process(target=write, args=(path, number, together)) for number in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert all(child.exitcode == 0 for child in children)
    assert all(AnswerStore(path).get(f"{number}-{i}") for number in range(8) for i in range(2))
"""


def test_processes_that_create_and_fill_it_together_lose_nothing(tmp_path):
    ran = subprocess.run([sys.executable, "-c", WRITERS, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_a_file_that_is_no_store_is_one_line_with_a_way_out(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(TeacherError, match=r"answers\.sqlite: .*PLD_CACHE"):
        AnswerStore(path).get("k")


def test_a_store_of_a_later_version_is_left_alone(tmp_path):
    path = tmp_path / "answers.sqlite"
    AnswerStore(path).put("k", ANSWER, {})
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(TeacherError, match="table version 99"):
        AnswerStore(path).get("k")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TeacherError, match="PLD_CACHE"):
        AnswerStore(tmp_path / "file" / "answers.sqlite").get("k")


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), min_size=1), st.data())
def test_the_key_does_not_depend_on_order_and_changes_with_every_value(values, data):
    assert request_key(dict(reversed(values.items()))) == request_key(values)
    name = data.draw(st.sampled_from(sorted(values)))
    assert request_key({**values, name: "something else " + str(values[name])}) != request_key(values)
