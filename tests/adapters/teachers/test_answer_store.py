"""AnswerStore on disk: what is kept, who may ask, and what a task has spent."""

import contextlib
import itertools
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
    AnswerStore,
    Kept,
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


def claimed(store: AnswerStore, keys: str, owner: str, budget: BudgetParams = FREE, most: float = 1.0) -> str:
    """The first letters of the verdicts on one-letter `keys`."""
    verdicts, _ = store.claim([(key, most) for key in keys], owner, "task", budget)
    return "".join(verdicts[key][0] for key in keys)


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
    store.take_in(Kept(about(f"k{i}"), replace(ANSWER, content={"i": i})) for i in range(1200))
    found = store.get_many([f"k{i}" for i in range(0, 2400, 2)] * 2)
    assert {key: answer.content["i"] for key, answer in found.items()} == {f"k{i}": i for i in range(0, 1200, 2)}


def test_it_is_in_wal_mode(store):
    store.put(about("k"), ANSWER)
    connection = sqlite3.connect(store.path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_many_threads_write_at_once(store):
    with store.owner(), ThreadPoolExecutor(16) as pool:
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


def test_a_process_that_dies_while_it_brings_a_store_up_to_date_leaves_it_as_it_was(store, monkeypatch):
    a_store_of_version_1(store.path, 3)
    with monkeypatch.context() as patched:
        patched.setattr("pld.adapters.teachers.answer_store._FROM_1", "SELECT no_such_function()")
        with pytest.raises(TeacherError, match="no_such_function"):
            store.get("k1")
    assert store.get("k1").content == {"rule": "ü"}


def test_a_file_that_is_no_store_is_one_line_with_a_way_out(store):
    store.path.write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(TeacherError, match=r"answers\.sqlite: .*PLD_CACHE"):
        store.get("k")


def test_a_store_of_a_later_version_is_left_alone(store):
    store.put(about("k"), ANSWER)
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(TeacherError, match=r"found version 99; update pld"):
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
        lambda store: contextlib.ExitStack().enter_context(store.owner()),
        lambda store: store.get("k"),
        lambda store: store.put(about("k"), ANSWER),
    ],
)
def test_a_folder_that_is_read_only_is_one_line(act: Callable[[AnswerStore], object]):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        there, empty = Path(folder, "there"), Path(folder, "empty")
        AnswerStore(there / "answers.sqlite").put(about("other"), ANSWER)
        empty.mkdir()
        for place in (there, there / "owners", empty, Path(folder)):
            place.chmod(0o555)
        with nobody():
            for place in (there, empty):
                with pytest.raises(TeacherError, match=r"answers\.sqlite: .*denied; .*PLD_CACHE") as caught:
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
    with store.owner() as owner:
        store.end_claims_of_the_dead()
        for i in range(20):
            verdicts, _ = store.claim([(f"shared-{i}", 1.0)], owner, "task", BUDGET)
            if verdicts[f"shared-{i}"] == "claimed":
                store.put(question(f"shared-{i}"), StoredAnswer({"i": number}, None, {}, 0.5))

fork = multiprocessing.get_context("fork")
for round in range(3):
    together = fork.Barrier(8)
    path = Path(sys.argv[1]) / str(round) / "answers.sqlite"
    children = [fork.Process(target=work, args=(path, number, together)) for number in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert all(child.exitcode == 0 for child in children)
    store = AnswerStore(path)
    assert all(store.get(f"own-{number}") for number in range(8))
    assert sum(store.get(f"shared-{i}") is not None for i in range(20)) == 15
    spent = store.spent("task")
    assert (spent.calls, spent.lost, spent.open_calls, spent.usd) == (15, 0, 0, 7.5), spent
    assert not list(path.with_name("owners").iterdir())
"""


def test_processes_that_create_claim_and_fill_it_together_lose_nothing_and_ask_nothing_twice(tmp_path):
    ran = subprocess.run([sys.executable, "-c", WORKERS, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


CLAIMER = """
import sys, time
from pathlib import Path
from pld.adapters.teachers.answer_store import AnswerStore
from pld.params import BudgetParams

store = AnswerStore(Path(sys.argv[1]))
with store.owner() as owner:
    print(store.claim([(key, 2.0) for key in "abc"], owner, "task", BudgetParams(usd=None, calls=None))[0], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def claimer(store: AnswerStore) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds claims on a, b and c until a line comes."""
    child = subprocess.Popen(
        [sys.executable, "-c", CLAIMER, str(store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    yield child
    child.kill()
    child.communicate()


def test_what_a_living_process_is_asking_is_left_to_it(store, claimer):
    with store.owner() as owner:
        for _ in range(3):
            store.end_claims_of_the_dead()
        assert claimed(store, "abcd", owner) == "hhhc"
        assert store.spent("task") == Spent(open_calls=4, open_usd=7.0)
        claimer.communicate("done\n")
        assert claimed(store, "abc", owner) == "ccc"
    assert store.spent("task") == Spent()


def test_what_a_killed_process_was_asking_is_counted_as_lost_and_may_be_asked_again(store, claimer):
    claimer.send_signal(signal.SIGKILL)
    claimer.wait()
    with store.owner() as owner:
        assert claimed(store, "a", owner) == "h"
        store.end_claims_of_the_dead()
        store.end_claims_of_the_dead()
        assert store.spent("task") == Spent(lost=3, lost_usd=6.0)
        assert claimed(store, "ab", owner) == "cc"
        assert [path.stem for path in store.path.with_name("owners").iterdir()] == [owner]


def test_a_process_that_is_killed_before_it_claims_leaves_nothing_behind(store):
    ended = CLAIMER.replace('"abc"', '""')
    child = subprocess.Popen(
        [sys.executable, "-c", ended, str(store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    child.kill()
    child.communicate()
    store.end_claims_of_the_dead()
    assert not list(store.path.with_name("owners").iterdir())


def test_the_claims_of_a_batch_outlive_the_process_that_made_them(store):
    assert claimed(store, "a", "batch:1") == "c"
    store.end_claims_of_the_dead()
    with store.owner() as owner:
        assert claimed(store, "a", owner) == "h"


# claims and the budget


def test_a_claim_is_refused_while_somebody_is_asking_and_once_there_is_an_answer(store):
    with store.owner() as first, store.owner() as second:
        assert claimed(store, "ab", first) == "cc"
        assert claimed(store, "abc", second) == "hhc"
        assert claimed(store, "a", first) == "h"
        store.put(about("a"), ANSWER)
        assert claimed(store, "ab", second) == "ah"


def test_what_is_released_or_still_claimed_at_the_end_has_cost_nothing(store):
    with store.owner() as owner:
        claimed(store, "abc", owner)
        store.release(["a"], "somebody else")
        store.release(["b"], owner)
        assert store.spent("task") == Spent(open_calls=2, open_usd=2.0)
    assert store.spent("task") == Spent()


def test_calls_and_dollars_that_are_spent_lost_or_under_way_count_towards_the_budget(store):
    with store.owner() as owner:
        assert claimed(store, "ab", "dead") == "cc"
        store.end_claims_of_the_dead()
        claimed(store, "c", owner)
        store.put(about("c"), ANSWER)
        assert claimed(store, "d", owner) == "c"
        assert claimed(store, "ef", owner, BudgetParams(usd=None, calls=5)) == "cf"
        assert store.spent("task") == Spent(1, 0.25, 0, 2, 2.0, 2, 2.0)
        assert claimed(store, "g", owner, BudgetParams(usd=5.24, calls=None)) == "f"
        assert claimed(store, "g", owner, BudgetParams(usd=5.25, calls=None)) == "c"


def test_every_task_has_a_budget_of_its_own(store):
    store.put(about("a", task="other"), ANSWER)
    assert claimed(store, "ab", "me", BudgetParams(usd=None, calls=1)) == "ac"
    assert store.spent("other") == Spent(calls=1, usd=0.25)


def test_a_result_that_is_put_twice_is_spent_once(store):
    claimed(store, "a", "batch:1")
    for _ in range(2):
        store.put(about("a"), ANSWER)
    assert store.spent("task") == Spent(calls=1, usd=0.25)


def test_an_answer_that_came_too_late_to_stand_is_spent_all_the_same(store):
    claimed(store, "a", "me")
    store.take_in([Kept(about("a"), ANSWER)])
    store.put(about("a"), replace(ANSWER, usd=0.75))
    assert store.get("a") == ANSWER
    assert store.spent("task") == Spent(calls=1, usd=0.75)


class Spending(RuleBasedStateMachine):
    """The law: whatever the order of claims, answers, releases and deaths, what is spent, lost and under way stays
    within the budget; and what the store says of it is what happened."""

    BUDGET = BudgetParams(usd=10.0, calls=12)
    keys = st.integers(0, 15).map("k{}".format)
    owners = st.sampled_from(["living 0", "living 1", "dying", "batch:1"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = AnswerStore(Path(self.folder.name) / "answers.sqlite")
        self.open = contextlib.ExitStack()
        self.names = {f"living {i}": self.open.enter_context(self.store.owner()) for i in range(2)}
        self.claims: dict[str, tuple[str, int]] = {}  # key → owner, quarters of a dollar at most
        self.answers: dict[str, int] = {}
        self.calls = self.quarters = self.lost = self.lost_quarters = 0

    @rule(wanted=st.dictionaries(keys, st.integers(0, 12), max_size=4), owner=owners)
    def claim(self, wanted: dict[str, int], owner: str) -> None:
        pairs = [(key, most / 4) for key, most in wanted.items()]
        verdicts, before = self.store.claim(pairs, self.names.get(owner, owner), "task", self.BUDGET)
        assert before.open_calls == len(self.claims)
        for key, most in wanted.items():
            calls, quarters = self.total()
            if key in self.answers:
                assert verdicts[key] == "answered"
            elif key in self.claims:
                assert verdicts[key] == "held"
            elif calls == 12 or quarters + most > 40:
                assert verdicts[key] == "full"
            else:
                assert verdicts[key] == "claimed"
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

    @rule(wanted=st.lists(keys, max_size=4), owner=owners)
    def release(self, wanted: list[str], owner: str) -> None:
        self.store.release(wanted, self.names.get(owner, owner))
        self.claims = {key: claim for key, claim in self.claims.items() if key not in wanted or claim[0] != owner}

    @rule()
    def die(self) -> None:
        self.store.end_claims_of_the_dead()
        lost = [most for owner, most in self.claims.values() if owner == "dying"]
        self.lost, self.lost_quarters = self.lost + len(lost), self.lost_quarters + sum(lost)
        self.claims = {key: claim for key, claim in self.claims.items() if claim[0] != "dying"}

    def total(self) -> tuple[int, int]:
        under_way = sum(most for _, most in self.claims.values())
        return self.calls + self.lost + len(self.claims), self.quarters + self.lost_quarters + under_way

    @invariant()
    def the_budget_holds(self) -> None:
        spent = self.store.spent("task")
        assert (spent.all_calls, spent.all_usd * 4) == self.total()
        assert (spent.calls, spent.lost, spent.open_calls) == (self.calls, self.lost, len(self.claims))
        assert spent.all_calls <= 12
        assert spent.all_usd <= 10.0

    def teardown(self) -> None:
        self.open.close()
        self.folder.cleanup()


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_threads_that_claim_answer_and_release_at_random_never_go_over_the_budget(store):
    budget = BudgetParams(usd=20.0, calls=45)
    numbers = itertools.count()
    seen = []

    def work(worker: int) -> None:
        with AnswerStore(store.path).owner() as owner:
            for turn in range(12):
                key, most = f"k{next(numbers)}", 0.25 * (1 + (turn + worker) % 5)
                verdicts, _ = store.claim([(key, most)], owner, "task", budget)
                if verdicts[key] == "claimed" and turn % 4:
                    store.put(about(key), replace(ANSWER, usd=most * (turn % 3) / 2))
                elif verdicts[key] == "claimed" and turn % 8:
                    store.release([key], owner)
                seen.append(store.spent("task"))

    with store.owner(), ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(seen) == 96
    assert all(spent.all_calls <= 45 and spent.all_usd <= 20.0 for spent in seen)
    assert max(spent.all_calls for spent in seen) > 30 or max(spent.all_usd for spent in seen) > 18.0


RANDOM = """
import os, random, signal, sys
from pathlib import Path
from pld.adapters.teachers.answer_store import AnswerStore, Question, StoredAnswer
from pld.params import BudgetParams

draw = random.Random(int(sys.argv[2]))
store = AnswerStore(Path(sys.argv[1]))
with store.owner() as owner:
    while True:
        key, most = f"k{draw.randrange(400)}", draw.randrange(8) / 4
        verdicts, _ = store.claim([(key, most)], owner, "task", BudgetParams(usd=40.0, calls=60))
        if verdicts[key] == "claimed" and draw.random() < 0.7:
            question = Question(key, "", "task", "p", "m", "extract", key, 0, "messages")
            store.put(question, StoredAnswer({}, None, {}, most * draw.choice([0, 0.5, 1])))
        if draw.random() < 0.1 and store.spent("task").all_calls > 10 * int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        store.end_claims_of_the_dead()
"""


def test_processes_that_are_killed_at_random_never_go_over_the_budget(store):
    seen = []
    for wave in range(2):
        command = [sys.executable, "-c", RANDOM, str(store.path)]
        children = [subprocess.Popen([*command, str(3 * wave + i), str(2 * wave)]) for i in range(3)]
        try:
            while any(child.poll() is None for child in children):
                seen.append(store.spent("task"))
                time.sleep(0.01)
        finally:
            for child in children:
                child.kill()
                child.wait()
        store.end_claims_of_the_dead()
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
    store.take_in([Kept(about("d"), replace(ANSWER, usd=None))])

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
    store.take_in([Kept(about("d"), ANSWER)])
    assert store.spent_by() == [
        SpentBy("task", "extract", "claude-test", "messages", 2, {"input_tokens": 12, "output_tokens": 2}, 0.5, 1),
        SpentBy("task", "resolve", "m", "batches", 1, {"output_tokens": 3}, 0.25, 0),
    ]


def test_past_answers_tell_what_the_next_ones_are_like(store):
    assert store.mean_usage("extract", "claude-test") is None
    assert store.refused_share("extract", "claude-test") == 0.0
    cached = {"input_tokens": 1, "cache_read_input_tokens": 6, "cache_creation_input_tokens": 3, "output_tokens": 4}
    store.put(about("a"), StoredAnswer({}, None, cached))
    store.put(about("b", draw=1), StoredAnswer(None, "refusal: no", {"input_tokens": 20, "output_tokens": 2}))
    store.put(about("c", model="m"), ANSWER)
    assert store.mean_usage("extract", "claude-test") == (2, 15.0, 3.0)
    assert store.refused_share("extract", "claude-test") == 0.5


def test_it_knows_which_requests_were_answered_under_another_wording(store):
    store.put(about("a"), ANSWER)
    store.put(about("b", role="resolve"), ANSWER)
    store.put(about("c", task="other"), ANSWER)
    assert store.earlier("task", "extract", ["example a", "example a", "example b", "example c"]) == 1


def test_answers_move_to_another_store_as_they_are_and_cost_nothing_there(store, tmp_path):
    store.put(about("b", asked="h", draw=2, way="batches"), ANSWER)
    store.put(about("a", model="m"), StoredAnswer(None, "refusal: no", {}))
    store.put(about("c", task="other"), ANSWER)
    other = AnswerStore(tmp_path / "other" / "answers.sqlite")
    other.put(about("a", model="m"), ANSWER)
    assert [other.take_in(store.export()) for _ in range(2)] == [2, 0]
    assert [item for item in other.export() if item.question.key != "a"] == list(store.export())[1:]
    assert other.get("a") == ANSWER
    assert other.spent("task") == Spent(calls=1, usd=0.25)
    assert [item.question.key for item in store.export(task="task", model="claude-test")] == ["b"]


def test_of_a_list_that_breaks_off_nothing_is_taken_in_and_others_go_on(store):
    def lines() -> Iterator[Kept]:
        yield Kept(about("a"), ANSWER)
        raise TeacherError("line 2: no answer")

    with pytest.raises(TeacherError, match="line 2"):
        store.take_in(lines())
    assert store.get("a") is None
    store.put(about("a"), ANSWER)


def test_a_long_export_stands_in_nobodys_way(store):
    store.take_in(Kept(about(f"k{i}"), ANSWER) for i in range(50))
    exported = store.export()
    next(exported)
    done = threading.Thread(target=lambda: store.put(about("new"), ANSWER))
    done.start()
    done.join(5)
    assert store.get("new") == ANSWER
    assert len(list(exported)) == 49


def test_a_fault_of_whoever_asks_is_not_taken_for_one_of_the_store(store):
    with pytest.raises(BrokenPipeError), store.owner():
        raise BrokenPipeError("standard error is closed")
