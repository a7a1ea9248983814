"""What is on disk about batches, as several processes see it."""

import pytest

from pld.adapters.teachers.answer_store import AnswerStore, Question, Spent, StoredAnswer
from pld.adapters.teachers.batch_log import BatchLog, Item
from pld.params import BudgetParams

HERE = "https://here"
NO_LIMIT = BudgetParams(usd=None, calls=None)
SCHEMAS = ({"type": "object"}, {"type": "object", "title": "ü"})


def question(key: str) -> Question:
    return Question(key, "asked", "t", "anthropic", "m", "extract", f"request {key}", 0, "batches")


@pytest.fixture
def store(tmp_path):
    return AnswerStore(tmp_path / "answers.sqlite")


def handed_in(log: BatchLog, store: AnswerStore, *keys: str) -> str:
    owner = log.begin()
    store.claim([(key, 0.5) for key in keys], owner, "t", NO_LIMIT)
    log.sent(owner, [Item(question(key), SCHEMAS[number % 2], number) for number, key in enumerate(keys)])
    return owner


def test_what_a_batch_asks_is_read_again_by_its_keys(store):
    log = BatchLog(store, HERE, "me")
    owner = handed_in(log, store, "a", "b", "c")
    assert log.keys(owner) == {"a", "b", "c"}
    assert log.items(owner, ["c", "b", "stranger"]) == {
        "b": Item(question("b"), SCHEMAS[1], 1),
        "c": Item(question("c"), SCHEMAS[0], 2),
    }


def test_a_batch_is_taken_over_when_its_process_is_gone_and_not_before(store):
    with store.owner() as alive:
        theirs = BatchLog(store, HERE, alive)
        owner = handed_in(theirs, store, "a", "b")
        theirs.known_as(owner, "msgbatch_1", sure=True)
        assert BatchLog(store, HERE, "me").take_over("t", {"a"}) == []
    (taken,) = BatchLog(store, HERE, "me").take_over("t", {"a"})
    assert (taken.owner, taken.id, taken.size, taken.sure) == (owner, "msgbatch_1", 2, True)
    assert store.spent("t").open_calls == 2
    assert BatchLog(store, HERE, "me").take_over("t", {"a"}) == []


@pytest.mark.parametrize(
    ("task", "wanted", "concerns"), [("t", (), True), ("other", {"b"}, True), ("other", {"c"}, False)]
)
def test_a_batch_concerns_who_wants_its_answers_and_who_shares_its_budget(store, task, wanted, concerns):
    handed_in(BatchLog(store, HERE, "gone"), store, "a", "b")
    assert bool(BatchLog(store, HERE, "me").take_over(task, wanted)) == concerns


def test_a_batch_at_another_endpoint_or_left_before_is_not_taken_over(store):
    owner = handed_in(BatchLog(store, HERE, "gone"), store, "a")
    assert BatchLog(store, "https://there", "me").take_over("t", {"a"}) == []
    log = BatchLog(store, HERE, "me")
    assert log.take_over("t", {"a"}, {owner}) == []
    assert len(log.take_over("t", {"a"})) == 1
    log.leave(owner)
    assert len(BatchLog(store, HERE, "another").take_over("t", {"a"})) == 1


def test_what_was_claimed_and_never_sent_is_free_again_when_its_process_is_gone(store):
    with store.owner() as alive:
        owner = BatchLog(store, HERE, alive).begin()
        store.claim([("a", 0.5)], owner, "t", NO_LIMIT)
        BatchLog(store, HERE, "me").take_over("other", ())
        assert store.spent("t").open_calls == 1
    BatchLog(store, "https://there", "me").take_over("other", ())
    assert store.spent("t") == Spent()


def test_an_ended_batch_claims_nothing_and_its_id_stays_known(store):
    log = BatchLog(store, HERE, "me")
    ended, guessed, dropped = (handed_in(log, store, key) for key in "abc")
    log.known_as(ended, "msgbatch_1", sure=True)
    log.known_as(guessed, "msgbatch_2", sure=False)
    store.put(question("a"), StoredAnswer({}, None, {}, 0.1))
    log.end(ended)
    log.end(dropped)
    assert log.sure_ids() == {"msgbatch_1"}
    assert log.keys(ended) == log.keys(dropped) == set()
    assert (store.spent("t").calls, store.spent("t").open_calls) == (1, 1)
    assert [batch.owner for batch in BatchLog(store, HERE, "other").take_over("t", ())] == [guessed]


def test_an_id_that_was_guessed_wrong_is_not_guessed_again(store):
    log = BatchLog(store, HERE, "gone")
    owner = handed_in(log, store, "a")
    for guess in ("msgbatch_1", "msgbatch_2"):
        log.known_as(owner, guess, sure=False)
        (found,) = BatchLog(store, HERE, f"keeper of {guess}").take_over("t", ())
        assert (found.id, found.sure) == (guess, False)
        log.not_it(found)
    (found,) = BatchLog(store, HERE, "me").take_over("t", ())
    assert (found.id, found.foreign_ids) == (None, ("msgbatch_1", "msgbatch_2"))


def test_money_under_way_is_stranded_when_nobody_looks_after_its_batch(store):
    with store.owner() as alive:
        handed_in(BatchLog(store, HERE, alive), store, "a", "b")
        store.claim([("c", 0.5)], alive, "t", NO_LIMIT)
        handed_in(BatchLog(store, HERE, "gone"), store, "d")
        assert store.stranded("t") == 1
    assert store.stranded("t") == 3
    assert store.stranded("other") == 0


def test_the_same_results_put_twice_are_counted_once(store):
    owner = handed_in(BatchLog(store, HERE, "me"), store, "a")
    for _ in range(2):
        store.put(question("a"), StoredAnswer({"rule": "x"}, None, {}, 0.1))
    assert store.spent("t") == Spent(calls=1, usd=0.1)
    store.lose(owner)
    assert store.spent("t").lost == 0
