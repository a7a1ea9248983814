"""AnswerStore on disk: what is kept, who may ask, and what a task has spent."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pld.adapters.teachers.answer_store import (
    RUN,
    AnswerStore,
    Entry,
    Question,
    Spent,
    SpentBy,
    StoredAnswer,
    request_key,
)
from pld.errors import TeacherError
from pld.params import BudgetParams

ANSWER = StoredAnswer({"rule": "ünï → \u2028", "nested": {"a": [1, None, True]}}, None, {"output_tokens": 3}, 0.25)
FREE = BudgetParams(usd=None, calls=None)


def about(key: str, **values: object) -> Question:
    plain = Question(key, "hash", "task", "anthropic", "claude-test", "extract", f"example {key}", 0, "messages")
    return replace(plain, **values)


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore(tmp_path / "answers.sqlite")


def claim(store: AnswerStore, keys: str, budget: BudgetParams = FREE, most: float = 1.0, owner: str = RUN) -> str:
    """Those of the one-letter `keys` that could be claimed."""
    return keys[: store.claim([(key, most) for key in keys], "task", budget, owner)]


def record_batch(store: AnswerStore, owner: str) -> None:
    with store.transaction() as connection:
        connection.execute("INSERT INTO batches VALUES (?, NULL, 'https://here', 'open', 0, '{}')", (owner,))


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


# several processes

WORKERS = """
import multiprocessing, sys
from pathlib import Path
from pld.adapters.teachers.answer_store import AnswerStore, Question, StoredAnswer
from pld.params import BudgetParams

BUDGET = BudgetParams(usd=None, calls=15)

def question(key, task="task"):
    return Question(key, "", task, "p", "m", "extract", key, 0, "messages")

def work(path, number, together):
    together.wait()
    store = AnswerStore(path)
    store.put(question(f"own-{number}", "other"), StoredAnswer({"i": number}, None, {}))
    with store.asking("task"):
        for i in range(20):
            if store.get(f"shared-{i}") is None and store.claim([(f"shared-{i}", 1.0)], "task", BUDGET):
                store.put(question(f"shared-{i}"), StoredAnswer({"i": number}, None, {}, 0.5))

fork = multiprocessing.get_context("fork")
together = fork.Barrier(6)
path = Path(sys.argv[1]) / "answers.sqlite"
children = [fork.Process(target=work, args=(path, number, together)) for number in range(6)]
for child in children:
    child.start()
for child in children:
    child.join()
assert all(child.exitcode == 0 for child in children)
store = AnswerStore(path)
assert all(store.get(f"own-{number}") for number in range(6))
assert sum(store.get(f"shared-{i}") is not None for i in range(20)) == 15
spent = store.spent("task")
assert (spent.calls, spent.lost, spent.open_calls, spent.usd) == (15, 0, 0, 7.5), spent
"""


def test_processes_that_create_claim_and_fill_it_together_lose_nothing_and_ask_nothing_twice(tmp_path):
    ran = subprocess.run([sys.executable, "-c", WORKERS, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


CLAIMER = """
import sys
from pathlib import Path
from pld.adapters.teachers.answer_store import AnswerStore
from pld.params import BudgetParams

store = AnswerStore(Path(sys.argv[1]))
with store.asking("task"):
    print(store.claim([(key, 2.0) for key in "abc"], "task", BudgetParams(usd=None, calls=None)), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def claimer(store: AnswerStore) -> Iterator["subprocess.Popen[str]"]:
    """A process that asks for the task, and holds claims on a, b and c, until a line comes."""
    child = subprocess.Popen(
        [sys.executable, "-c", CLAIMER, str(store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    yield child
    child.kill()
    child.communicate()


def test_a_run_waits_for_another_that_asks_for_the_same_task_and_says_so(store, claimer, capsys):
    assert store.spent("task") == Spent(open_calls=3, open_usd=6.0)
    with store.asking("another task"):
        pass
    threading.Timer(0.3, lambda: print("done", file=claimer.stdin, flush=True)).start()
    began = time.monotonic()
    with store.asking("task"):
        assert time.monotonic() - began > 0.25
        assert store.spent("task") == Spent()
    assert capsys.readouterr().err == "another run is asking the Teacher for task 'task': waiting for it\n"


def test_what_a_killed_process_was_asking_is_counted_as_lost_and_may_be_asked_again(store, claimer):
    claimer.send_signal(signal.SIGKILL)
    claimer.wait()
    for _ in range(2):
        with store.asking("task"):
            assert store.spent("task") == Spent(lost=3, lost_usd=6.0)
            assert claim(store, "ab") == "ab"


def test_the_claims_of_a_batch_outlive_the_process_that_made_them(store):
    record_batch(store, "batch:1")
    claim(store, "a", owner="batch:1")
    with store.asking("task"):
        assert store.spent("task") == Spent(open_calls=1, open_usd=1.0)
    assert store.spent("task").open_calls == 1
    store.lose("batch:1")
    assert store.spent("task") == Spent(lost=1, lost_usd=1.0)


# claims and the budget


def test_a_question_that_another_task_is_asking_is_not_asked_twice(store):
    store.claim([("a", 1.0)], "other", FREE)
    with pytest.raises(TeacherError, match=r"got one that is in flight for task 'other' .*; wait for its run to end"):
        claim(store, "ba")
    assert store.spent("task") == Spent()


def test_what_is_released_or_still_claimed_at_the_end_has_cost_nothing(store):
    with store.asking("task"):
        claim(store, "abc")
        store.release(["b"])
        assert store.spent("task") == Spent(open_calls=2, open_usd=2.0)
    assert store.spent("task") == Spent()


def test_calls_and_dollars_that_are_spent_lost_or_in_flight_count_towards_the_budget(store):
    claim(store, "ab", owner="killed")
    with store.asking("task"):
        claim(store, "c")
        store.put(about("c"), ANSWER)
        assert claim(store, "d") == "d"
        assert claim(store, "ef", BudgetParams(usd=None, calls=5)) == "e"
        assert store.spent("task") == Spent(1, 0.25, 0, 2, 2.0, 2, 2.0)
        assert claim(store, "g", BudgetParams(usd=5.24, calls=None)) == ""
        assert claim(store, "g", BudgetParams(usd=5.25, calls=None)) == "g"


def test_every_task_has_a_budget_of_its_own(store):
    store.put(about("a", task="other"), ANSWER)
    assert claim(store, "b", BudgetParams(usd=None, calls=1)) == "b"
    assert store.spent("other") == Spent(calls=1, usd=0.25)


def test_a_result_that_is_put_twice_is_spent_once(store):
    claim(store, "a", owner="batch:1")
    for _ in range(2):
        store.put(about("a"), ANSWER)
    assert store.spent("task") == Spent(calls=1, usd=0.25)


def test_an_answer_that_was_imported_meanwhile_is_spent_all_the_same(store):
    claim(store, "a")
    store.add_unpaid([Entry(about("a"), ANSWER)])
    store.put(about("a"), replace(ANSWER, usd=0.75))
    assert store.get("a") == ANSWER
    assert store.spent("task") == Spent(calls=1, usd=0.75)


class Spending(RuleBasedStateMachine):
    """Whatever the order of claims, answers, releases and deaths, what is spent, lost and in flight stays within the
    budget; and what the store says of it is what happened."""

    BUDGET = BudgetParams(usd=10.0, calls=12)
    keys = st.integers(0, 15).map("k{}".format)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = AnswerStore(Path(self.folder.name) / "answers.sqlite")
        record_batch(self.store, "batch:1")
        self.claims: dict[str, tuple[str, int]] = {}  # key → owner, quarters of a dollar at most
        self.answers: dict[str, int] = {}
        self.calls = self.quarters = self.lost = self.lost_quarters = 0

    @rule(wanted=st.dictionaries(keys, st.integers(0, 12), max_size=4), owner=st.sampled_from([RUN, "batch:1"]))
    def claim(self, wanted: dict[str, int], owner: str) -> None:
        free = {key: most for key, most in wanted.items() if key not in self.answers and key not in self.claims}
        count = self.store.claim([(key, most / 4) for key, most in free.items()], "task", self.BUDGET, owner)
        for number, (key, most) in enumerate(free.items()):
            calls, quarters = self.total()
            fits = calls < 12 and quarters + most <= 40
            assert fits == (number < count)
            if not fits:
                return
            self.claims[key] = owner, most

    @rule(key=keys, share=st.fractions(0, 1))
    def put(self, key: str, share: float) -> None:
        """Of what is claimed, for no more than was reserved; or once more, of what is answered."""
        if key in self.claims or key in self.answers:
            paid = int(self.claims.pop(key)[1] * share) if key in self.claims else 99
            first = self.answers.setdefault(key, paid)
            if paid != 99:
                self.calls, self.quarters = self.calls + 1, self.quarters + paid
            stored = self.store.put(about(key), StoredAnswer({"paid": paid}, None, {}, paid / 4))
            assert (stored.content, stored.usd) == ({"paid": first}, first / 4)

    @rule(wanted=st.lists(keys, max_size=4))
    def release(self, wanted: list[str]) -> None:
        self.store.release(wanted)
        self.claims = {key: claim for key, claim in self.claims.items() if key not in wanted}

    @rule()
    def die(self) -> None:
        with self.store.asking("task"):
            pass
        lost = [most for owner, most in self.claims.values() if owner == RUN]
        self.lost, self.lost_quarters = self.lost + len(lost), self.lost_quarters + sum(lost)
        self.claims = {key: claim for key, claim in self.claims.items() if claim[0] != RUN}

    def total(self) -> tuple[int, int]:
        in_flight = sum(most for _, most in self.claims.values())
        return self.calls + self.lost + len(self.claims), self.quarters + self.lost_quarters + in_flight

    @invariant()
    def the_budget_holds(self) -> None:
        spent = self.store.spent("task")
        assert (spent.all_calls, spent.all_usd * 4) == self.total()
        assert (spent.calls, spent.lost, spent.open_calls) == (self.calls, self.lost, len(self.claims))
        assert spent.all_calls <= 12
        assert spent.all_usd <= 10.0

    def teardown(self) -> None:
        self.folder.cleanup()


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


RANDOM = """
import os, random, signal, sys
from pathlib import Path
from pld.adapters.teachers.answer_store import AnswerStore, Question, StoredAnswer
from pld.params import BudgetParams

draw = random.Random(int(sys.argv[2]))
store = AnswerStore(Path(sys.argv[1]))
for _ in range(60):
    with store.asking("task"):
        for key in draw.sample(range(400), 3):
            most = draw.randrange(8) / 4
            if store.get(f"k{key}") or not store.claim([(f"k{key}", most)], "task", BudgetParams(usd=40.0, calls=60)):
                continue
            if draw.random() < 0.05:
                os.kill(os.getpid(), signal.SIGKILL)
            if draw.random() < 0.7:
                question = Question(f"k{key}", "", "task", "p", "m", "extract", "", 0, "messages")
                store.put(question, StoredAnswer({}, None, {}, most * draw.choice([0, 0.5, 1])))
"""


@pytest.mark.slow
def test_processes_that_are_killed_at_random_never_go_over_the_budget(store):
    seen = []
    for wave in range(3):
        command = [sys.executable, "-c", RANDOM, str(store.path)]
        children = [subprocess.Popen([*command, str(3 * wave + i)]) for i in range(3)]
        try:
            while any(child.poll() is None for child in children):
                seen.append(store.spent("task"))
                time.sleep(0.01)
        finally:
            for child in children:
                child.kill()
                child.wait()
    with store.asking("task"):
        seen.append(store.spent("task"))
    assert all(spent.all_calls <= 60 and spent.all_usd <= 40.0 for spent in seen)
    assert seen[-1].lost > 0
    assert seen[-1].open_calls == 0
    assert seen[-1].calls == len(list(store.export()))


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
