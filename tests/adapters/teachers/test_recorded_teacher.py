"""RecordedTeacher: what the conformance suite leaves open."""

import json
from dataclasses import replace

import pytest

from pld.adapters.teachers.answer_export import write_answers
from pld.adapters.teachers.recorded import RecordedTeacher, check_can_be_asked
from pld.errors import ConfigError, TeacherError
from pld.ports import TeacherRequest
from support.kept_answers import SAID, kept

LINE = {"example_id": "e1", "label": "red", "rationale": "Warm.", "rule": "If it is warm, answer red."}


def ask(path, *keys: str, role: str = "extract"):
    return list(RecordedTeacher(path=str(path)).ask([TeacherRequest(key, role, "s", "p", {}) for key in keys]))


def written(tmp_path, *lines: str):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_examples_without_a_recording_are_left_out(tmp_path):
    (found,) = ask(written(tmp_path, json.dumps(LINE)), "e0", "e1", "e2")
    assert (found.key, found.recorded, found.usage) == ("e1", True, {})


def test_unusual_line_separators_inside_a_rule_do_not_end_its_line(tmp_path):
    text = json.dumps({**LINE, "rule": "If\u2028warm, answer red."}, ensure_ascii=False)
    assert ask(written(tmp_path, text), "e1")[0].content["rule"] == "If\u2028warm, answer red."


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("{", r"expected a JSON object .*answers\.jsonl:2"),
        ("[]", r"expected a JSON object .*answers\.jsonl:2"),
        (json.dumps({**LINE, "example_id": 7}), r"answers\.jsonl:2, example_id\)"),
        (json.dumps({key: LINE[key] for key in ("example_id", "label", "rule")}), r"answers\.jsonl:2, rationale\)"),
        (json.dumps({**LINE, "rules": "x"}), r"answers\.jsonl:2, rules\)"),
        (json.dumps(LINE), r"'e1' again \(first in line 1\)"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, second, words):
    path = written(tmp_path, json.dumps(LINE), second)
    with pytest.raises(TeacherError, match=words) as caught:
        ask(path, "e1")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(TeacherError, match=r"none\.jsonl\); .*groups\.teacher=anthropic"):
        ask(tmp_path / "none.jsonl", "e1")


def test_a_folder_and_a_file_that_is_no_text_are_one_line(tmp_path):
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe{")
    for path in (tmp_path, tmp_path / "binary.jsonl"):
        with pytest.raises(TeacherError, match="expected recorded answers"):
            ask(path, "e1")


def test_consolidation_without_a_recorded_answer_is_left_out_and_counted_with_the_ways_out(tmp_path):
    teacher = RecordedTeacher(path=str(written(tmp_path, json.dumps(LINE))))
    assert list(teacher.ask([wanted("consolidate", key="red"), wanted("consolidate", key="blue")])) == []
    assert list(teacher.ask([wanted("consolidate", key="red")])) == []  # in another trial
    assert teacher.warning() == (
        "2 of 2 questions of consolidation have no recorded answer (recorded:answers.jsonl): "
        "medoids stand in for them; "
        "answer them with groups.teacher=offline or anthropic, or set groups.consolidator=medoid"
    )


def test_answers_by_question_beside_recordings_by_example_say_whose_they_are_and_when_they_were_given(tmp_path):
    teacher = RecordedTeacher(path=str(written(tmp_path, json.dumps(LINE))))
    entry = kept("b", request=wanted("consolidate", "merge"), content={"instruction": "If warm, answer red."})
    dated = replace(entry, answer=replace(entry.answer, date="2026-11-29"))
    write_answers(tmp_path / "answers.answers.jsonl", [dated])
    example, merged = teacher.ask([wanted(), wanted("consolidate", "merge")])
    assert (example.content["rule"], example.source) == (LINE["rule"], "")
    assert (merged.recorded, merged.source) == (True, "recorded: claude-test, 2026-11-29")
    again = wanted("consolidate", "merge, and this is why your answer was refused")
    assert list(teacher.ask([again])) == []
    assert teacher.warning() is None  # a refused answer is asked for again, which is no question of its own


def test_another_role_is_refused(tmp_path):
    with pytest.raises(TeacherError, match="a question of resolve"):
        ask(written(tmp_path, json.dumps(LINE)), "e1", role="resolve")


def wanted(role: str = "extract", prompt: str = "question 1", key: str = "e1") -> TeacherRequest:
    return TeacherRequest(key, role, "the task", prompt, {"type": "object"})


def exported(tmp_path, *answers) -> RecordedTeacher:
    write_answers(tmp_path / "exported.jsonl", answers)
    return RecordedTeacher(path=str(tmp_path / "exported.jsonl"))


def test_exported_answers_are_found_by_what_was_asked_in_any_role_with_what_they_cost(tmp_path):
    merge = wanted("consolidate", "merge these")
    teacher = exported(
        tmp_path,
        kept("a", request=wanted()),
        kept("b", request=merge, content={"instruction": "If warm, answer red."}),
        kept("c", request=wanted(prompt="question 2"), content=None, error="refusal: declined"),
    )
    (found,) = teacher.ask([wanted(key="another name")])
    assert (found.key, found.content, found.recorded) == ("another name", SAID, True)
    assert found.usage == {"input_tokens": 100, "output_tokens": 20}
    assert [answer.content for answer in teacher.ask([merge])] == [{"instruction": "If warm, answer red."}]
    (refused,) = teacher.ask([wanted(prompt="question 2")])
    assert (refused.content, refused.error, refused.recorded) == (None, "refusal: declined", True)


def test_an_example_that_is_not_among_exported_answers_is_left_out_and_another_question_is_a_fault(tmp_path):
    teacher = exported(tmp_path, kept("a", request=wanted()), kept("b", request=wanted("resolve", "edit these")))
    assert list(teacher.ask([wanted(prompt="reworded")])) == []
    with pytest.raises(TeacherError, match=r"question of resolve, .*\(1 of extract, 1 of resolve\)") as caught:
        list(teacher.ask([wanted("resolve", "edit those")]))
    assert "\n" not in str(caught.value)


def test_two_models_answers_to_one_question_are_refused_with_the_way_out(tmp_path):
    other = kept("a", request=wanted(), content={**SAID, "rule": "Another."}, model="claude-other")
    teacher = exported(tmp_path, kept("a", request=wanted()), other)
    with pytest.raises(TeacherError, match=r"claude-other .*claude-test in line 1 \(.*exported\.jsonl:2\); .*--model"):
        list(teacher.ask([wanted()]))


def test_two_answers_to_one_question_that_say_the_same_or_of_which_one_failed_are_one(tmp_path):
    failed = kept("a", request=wanted(), content=None, error="truncated: stopped", model="a-small-limit")
    for answers in ((failed, kept("a", request=wanted())), (kept("a", request=wanted()), failed)):
        (found,) = exported(tmp_path, *answers, kept("a", request=wanted(), model="the-same")).ask([wanted()])
        assert found.content == SAID


def test_a_recording_by_example_answers_one_question_about_it(tmp_path):
    teacher = RecordedTeacher(path=str(written(tmp_path, json.dumps(LINE))))
    assert len(list(teacher.ask([wanted()]))) == 1
    assert list(teacher.ask([wanted(prompt="question 1, and what was wrong with the answer")])) == []
    assert len(list(teacher.ask([wanted()]))) == 1


def test_a_role_that_is_not_recorded_is_refused_before_anything_is_computed(tmp_path):
    by_example = RecordedTeacher(path=str(written(tmp_path, json.dumps(LINE))))
    by_question = exported(tmp_path, kept("a", request=wanted("resolve")))
    check_can_be_asked(by_question, "groups.resolver=teacher", "groups.resolver=search", "resolve")
    for teacher, role in ((by_example, "resolve"), (by_question, "optimise"), (by_example, None)):
        with pytest.raises(ConfigError, match=r"groups\.teacher=anthropic or groups\.resolver=search"):
            check_can_be_asked(teacher, "groups.resolver=teacher", "groups.resolver=search", role)


def test_a_line_of_the_other_kind_is_named(tmp_path):
    path = tmp_path / "mixed.jsonl"
    write_answers(path, [kept("a", request=wanted())])
    path.write_text(path.read_text() + json.dumps(LINE) + "\n")
    with pytest.raises(TeacherError, match=r"expected an answer as `pld teacher export`.*mixed\.jsonl:2"):
        list(RecordedTeacher(path=str(path)).ask([wanted()]))
