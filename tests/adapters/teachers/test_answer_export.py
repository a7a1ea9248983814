import json

import pytest

from pld.adapters.teachers.answer_export import read_answers, write_answers
from pld.adapters.teachers.answer_store import AnswerStore, Entry, Question, StoredAnswer
from pld.errors import TeacherError
from support.kept_answers import kept

FAILED = kept("b", content=None, error="refusal: declined", usd=None)


def test_what_is_written_is_read_as_it_was_one_line_each_with_keys_in_a_fixed_order(tmp_path):
    path = tmp_path / "answers.jsonl"
    odd = kept("a", content={"rule": "ünï → \u2028\n\u0000", "nested": {"a": [1, None, True]}})
    assert write_answers(path, [odd, FAILED]) == 2
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) == 3
    assert list(json.loads(lines[0])) == [
        "key", "asked", "task", "provider", "model", "role", "request", "draw", "way",
        "content", "error", "usage", "usd",
    ]  # fmt: skip
    assert [(number, line.entry) for number, line in read_answers(path)] == [(1, odd), (2, FAILED)]


def test_an_export_of_a_store_is_the_store_again_elsewhere(tmp_path):
    store, other = AnswerStore(tmp_path / "here/answers.sqlite"), AnswerStore(tmp_path / "there/answers.sqlite")
    for item in (kept("a"), FAILED):
        store.put(item.question, item.answer)
    path = tmp_path / "answers.jsonl"
    write_answers(path, store.export())
    assert other.add_unpaid(line.entry for _, line in read_answers(path)) == 2
    assert list(other.export()) == list(store.export())
    assert other.add_unpaid(line.entry for _, line in read_answers(path)) == 0
    assert other.spent("colours").all_calls == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "short"}, r"answers\.jsonl:3, key\)"),
        ({"asked": None}, r":3, asked\)"),
        ({"content": None}, "either content or error"),
        ({"usage": {"input_tokens": -1}}, r":3, usage\.input_tokens\)"),
        ({"usd": -0.1}, r":3, usd\)"),
        ({"usd": float("nan")}, r":3, usd\)"),
        ({"draw": "one"}, r":3, draw\)"),
        ({"api_key": "x"}, r":3, api_key\)"),
        (None, r":3, the line\)"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line_and_nothing_is_taken_in(tmp_path, changes, words):
    path = tmp_path / "answers.jsonl"
    write_answers(path, [kept("a"), kept("b")])
    first, second, _ = path.read_text().split("\n")
    bad = "{" if changes is None else json.dumps({**json.loads(second), **changes})
    path.write_text(f"{first}\n\n{bad}\n")
    store = AnswerStore(tmp_path / "answers.sqlite")
    with pytest.raises(TeacherError, match=rf"expected an answer .*{words}") as caught:
        store.add_unpaid(line.entry for _, line in read_answers(path))
    assert "\n" not in str(caught.value)
    assert list(store.export()) == []


def test_two_answers_under_one_key_are_refused_and_the_same_one_twice_is_not(tmp_path):
    path = tmp_path / "answers.jsonl"
    write_answers(path, [kept("a"), kept("a")])
    assert len(list(read_answers(path))) == 2
    write_answers(path, [kept("a"), kept("b"), kept("a", content={"rule": "another"})])
    with pytest.raises(TeacherError, match=r"another than in line 1 .*answers\.jsonl:3"):
        list(read_answers(path))


def test_a_file_that_can_not_be_written_is_one_line_and_leaves_what_was_there(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(TeacherError, match="expected a file to write answers to"):
        write_answers(tmp_path / "file/answers.jsonl", [kept("a")])

    def broken():
        yield kept("a")
        raise TeacherError("the store broke")

    with pytest.raises(TeacherError, match="the store broke"):
        write_answers(tmp_path / "file", broken())
    assert (tmp_path / "file").read_text() == "old"


def test_an_answer_without_the_fields_of_an_old_store_can_be_moved(tmp_path):
    question = Question("0" * 64, "", "", "anthropic", "m", "extract", "e1", 0, "messages")
    old = Entry(question, StoredAnswer({}, None, {}))
    write_answers(tmp_path / "answers.jsonl", [old])
    assert [line.entry for _, line in read_answers(tmp_path / "answers.jsonl")] == [old]
