"""AnswerStore between processes: who may ask, what a task has spent, and that no budget is exceeded."""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pld.adapters.teachers.answer_store import (
    RUN,
    AnswerStore,
    Entry,
    Spent,
    StoredAnswer,
)
from pld.errors import TeacherError
from pld.params import BudgetParams
from support.answer_store import ANSWER, FREE, about, claim, record_batch

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
