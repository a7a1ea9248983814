"""AnswerStore on disk: what is kept, in which file, what it cost, and how it moves to another store."""

import contextlib
import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.adapters.teachers.answer_store import (
    AnswerStore,
    Entry,
    Question,
    Spent,
    SpentBy,
    StoredAnswer,
    request_key,
)
from pld.errors import TeacherError
from support.answer_store import ANSWER, about, claim, record_batch

# what is kept


def test_an_answer_is_found_again_by_another_store_on_the_same_file(tmp_path):
    path = tmp_path / "a new folder" / "answers.sqlite"
    AnswerStore(path).put(about("k"), ANSWER)
    assert AnswerStore(path).get("k") == ANSWER
    assert AnswerStore(path).get("other") is None


def test_an_error_is_kept_with_what_it_cost(store):
    failed = StoredAnswer(None, "refusal: declined", {"input_tokens": 9}, 0.5)
    store.put(about("k"), failed)
    assert store.get("k") == failed
    assert store.spent("task").usd == 0.5


def test_the_first_answer_stands(store):
    store.put(about("k"), ANSWER)
    assert store.put(about("k"), StoredAnswer(None, "late", {})) == ANSWER
    assert store.get("k") == ANSWER


def test_thousands_of_answers_are_looked_up_at_once(store):
    store.add_unpaid(Entry(about(f"k{i}"), replace(ANSWER, content={"i": i})) for i in range(1200))
    found = store.get_many([f"k{i}" for i in range(0, 2400, 2)] * 2)
    assert {key: answer.content["i"] for key, answer in found.items()} == {f"k{i}": i for i in range(0, 1200, 2)}


def test_the_store_uses_wal_mode(store):
    store.put(about("k"), ANSWER)
    connection = sqlite3.connect(store.path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_many_threads_write_at_once(store):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: store.put(about(f"k{i}"), StoredAnswer({"i": i}, None, {}, 0.5)), range(100)))
    assert [store.get(f"k{i}").content["i"] for i in range(100)] == list(range(100))
    assert store.spent("task") == Spent(calls=100, usd=50.0)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), min_size=1), st.data())
def test_the_key_does_not_depend_on_order_and_changes_with_every_value(values, data):
    assert request_key(dict(reversed(values.items()))) == request_key(values)
    name = data.draw(st.sampled_from(sorted(values)))
    assert request_key({**values, name: "something else " + str(values[name])}) != request_key(values)


# the file


def a_store_of_version_1(path: Path, count: int) -> None:
    """As the first released version made it."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE answers (key TEXT PRIMARY KEY, about TEXT NOT NULL, answer TEXT NOT NULL) WITHOUT ROWID"
        )
        origin = {"provider": "anthropic", "model": "m", "role": "extract", "request": "e1"}
        answer = {"content": {"rule": "ü"}, "error": None, "usage": {"output_tokens": 2}}
        rows = [(f"k{i}", json.dumps(origin if i else {}), json.dumps(answer)) for i in range(count)]
        connection.executemany("INSERT INTO answers VALUES (?, ?, ?)", rows)
        connection.execute("PRAGMA user_version = 1")


def test_a_store_of_version_1_keeps_every_answer(store):
    a_store_of_version_1(store.path, 300)
    found = store.get_many(f"k{i}" for i in range(300))
    assert len(found) == 300
    assert set(map(str, found.values())) == {str(StoredAnswer({"rule": "ü"}, None, {"output_tokens": 2}))}
    kept = {item.question.key: item.question for item in store.export(model="m")}
    assert kept["k1"] == Question("k1", "", "", "anthropic", "m", "extract", "e1", 0, "messages")
    assert store.spent("") == Spent()
    store.put(about("new"), ANSWER)
    assert store.get("new") == ANSWER


def test_a_store_of_version_2_keeps_its_answers_its_spending_and_its_open_batches(store):
    store.put(about("k"), ANSWER)
    for owner in ("batch:1", "batch:2"):
        record_batch(store, owner)
    claim(store, "a", owner="batch:1")
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("ALTER TABLE batches ADD COLUMN keeper TEXT NOT NULL DEFAULT 'gone'")
        connection.execute("ALTER TABLE batches ADD COLUMN foreign_ids TEXT NOT NULL DEFAULT '[]'")
        connection.execute("UPDATE batches SET state = 'sure', id = 'msgbatch_1' WHERE owner = 'batch:1'")
        connection.execute("UPDATE batches SET state = 'found', id = 'a guess' WHERE owner = 'batch:2'")
        connection.execute("PRAGMA user_version = 2")
    later = AnswerStore(store.path)
    with later.asking("task"):
        assert later.spent("task") == Spent(calls=1, usd=0.25, open_calls=1, open_usd=1.0)
    with later.transaction() as connection:
        rows = connection.execute("SELECT owner, id, state FROM batches ORDER BY owner").fetchall()
    assert rows == [("batch:1", "msgbatch_1", "open"), ("batch:2", None, "open")]


def test_a_process_that_dies_while_it_brings_a_store_up_to_date_leaves_it_as_it_was(store, monkeypatch):
    a_store_of_version_1(store.path, 3)
    with monkeypatch.context() as patched:
        patched.setattr("pld.adapters.teachers.answer_tables._FROM_1", "SELECT no_such_function()")
        with pytest.raises(TeacherError, match="no_such_function"):
            store.get("k1")
    assert store.get("k1").content == {"rule": "ü"}


def test_a_file_that_is_no_store_is_one_line_with_a_way_out(store):
    store.path.write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(TeacherError, match=r"got: .* \(.*answers\.sqlite\); .*PLD_CACHE"):
        store.get("k")


def test_a_store_of_a_later_version_is_left_alone(store):
    store.put(about("k"), ANSWER)
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(TeacherError, match=r"got version 99 \(.*\); update pld"):
        AnswerStore(store.path).put(about("new"), ANSWER)
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT key FROM answers").fetchall() == [("k",)]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TeacherError, match="PLD_CACHE"):
        AnswerStore(tmp_path / "file" / "answers.sqlite").get("k")


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root may write everywhere."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


@pytest.mark.parametrize(
    "act",
    [
        lambda store: contextlib.ExitStack().enter_context(store.asking("t")),
        lambda store: store.get("k"),
        lambda store: store.put(about("k"), ANSWER),
    ],
)
def test_a_folder_that_is_read_only_is_one_line(act: Callable[[AnswerStore], object]):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        there, empty = Path(folder, "there"), Path(folder, "empty")
        AnswerStore(there / "answers.sqlite").put(about("other"), ANSWER)
        empty.mkdir()
        for place in (there, empty, Path(folder)):
            place.chmod(0o555)
        with nobody():
            for place in (there, empty):
                with pytest.raises(TeacherError, match=r"denied \(.*answers\.sqlite\); .*PLD_CACHE") as caught:
                    act(AnswerStore(place / "answers.sqlite"))
                assert "\n" not in str(caught.value)


def test_a_group_that_shares_the_folder_may_write(tmp_path):
    before = os.umask(0o002)
    try:
        AnswerStore(tmp_path / "answers.sqlite").put(about("k"), ANSWER)
    finally:
        os.umask(before)
    assert all(path.stat().st_mode & 0o060 == 0o060 for path in tmp_path.iterdir())


# prices, sums, moving


def test_answers_that_were_paid_for_without_a_price_get_one_when_it_is_known(store):
    store.put(about("a"), replace(ANSWER, usd=None))
    store.put(about("b", model="other"), replace(ANSWER, usd=None))
    store.put(about("c", task="elsewhere"), replace(ANSWER, usd=None))
    store.add_unpaid([Entry(about("d"), replace(ANSWER, usd=None))])

    def usd_of(model: str, way: str, usage: dict[str, int]) -> float | None:
        return usage["output_tokens"] * 0.5 if (model, way) == ("claude-test", "messages") else None

    assert store.spent("task") == Spent(calls=2, unpriced=2)
    assert store.price("task", usd_of) == ("other",)
    assert store.spent("task") == Spent(calls=2, usd=1.5, unpriced=1)
    assert (store.get("a").usd, store.get("b").usd, store.get("c").usd, store.get("d").usd) == (1.5, None, None, None)


def test_what_was_paid_for_is_summed_by_task_role_model_and_way(store):
    store.put(about("a"), StoredAnswer({}, None, {"input_tokens": 5, "output_tokens": 2}, 0.5))
    store.put(about("b"), StoredAnswer(None, "refusal: no", {"input_tokens": 7}, None))
    store.put(about("c", role="resolve", model="m", way="batches"), ANSWER)
    store.add_unpaid([Entry(about("d"), ANSWER)])
    assert store.spent_by() == [
        SpentBy("task", "extract", "claude-test", "messages", 2, {"input_tokens": 12, "output_tokens": 2}, 0.5, 1),
        SpentBy("task", "resolve", "m", "batches", 1, {"output_tokens": 3}, 0.25, 0),
    ]


def test_the_length_of_past_answers_is_that_of_the_model_in_the_role(store):
    assert store.mean_output_tokens("extract", "claude-test") is None
    store.put(about("a"), StoredAnswer({}, None, {"input_tokens": 1, "output_tokens": 4}))
    store.put(about("b", draw=1), StoredAnswer(None, "refusal: no", {"output_tokens": 2}))
    store.put(about("c", model="m"), ANSWER)
    assert store.mean_output_tokens("extract", "claude-test") == (2, 3.0)


def test_answers_move_to_another_store_as_they_are_and_cost_nothing_there(store, tmp_path):
    store.put(about("b", asked="h", draw=2, way="batches"), ANSWER)
    store.put(about("a", model="m"), StoredAnswer(None, "refusal: no", {}))
    store.put(about("c", task="other"), ANSWER)
    other = AnswerStore(tmp_path / "other" / "answers.sqlite")
    other.put(about("a", model="m"), ANSWER)
    assert [other.add_unpaid(store.export()) for _ in range(2)] == [2, 0]
    assert [item for item in other.export() if item.question.key != "a"] == list(store.export())[1:]
    assert other.get("a") == ANSWER
    assert other.spent("task") == Spent(calls=1, usd=0.25)
    assert [item.question.key for item in store.export(task="task", model="claude-test")] == ["b"]


def test_an_import_that_fails_midway_adds_nothing(store):
    def lines() -> Iterator[Entry]:
        yield Entry(about("a"), ANSWER)
        raise TeacherError("got no answer (line 2)")

    with pytest.raises(TeacherError, match="line 2"):
        store.add_unpaid(lines())
    assert store.get("a") is None
    store.put(about("a"), ANSWER)


def test_a_long_export_does_not_block_writers(store):
    store.add_unpaid(Entry(about(f"k{i}"), ANSWER) for i in range(50))
    exported = store.export()
    next(exported)
    done = threading.Thread(target=lambda: store.put(about("new"), ANSWER))
    done.start()
    done.join(5)
    assert store.get("new") == ANSWER
    assert len(list(exported)) == 49


def test_an_error_of_the_caller_is_not_reported_as_one_of_the_store(store):
    with pytest.raises(BrokenPipeError), store.asking("task"):
        raise BrokenPipeError("standard error is closed")
