"""RecordedTeacher: what the conformance suite leaves open."""

import json

import pytest

from pld.adapters.teachers.recorded import RecordedTeacher
from pld.errors import TeacherError
from pld.ports import TeacherRequest

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
        ("{", "wanted a JSON object"),
        ("[]", "wanted a JSON object"),
        (json.dumps({**LINE, "example_id": 7}), "at example_id"),
        (json.dumps({key: LINE[key] for key in ("example_id", "label", "rule")}), "at rationale"),
        (json.dumps({**LINE, "rules": "x"}), "at rules"),
        (json.dumps(LINE), r"'e1' again \(first in line 1\)"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, second, words):
    path = written(tmp_path, json.dumps(LINE), second)
    with pytest.raises(TeacherError, match=rf"answers\.jsonl:2: .*{words}") as caught:
        ask(path, "e1")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(TeacherError, match=r"none\.jsonl: .*groups\.teacher=anthropic"):
        ask(tmp_path / "none.jsonl", "e1")


def test_a_folder_and_a_file_that_is_no_text_are_one_line(tmp_path):
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe{")
    for path in (tmp_path, tmp_path / "binary.jsonl"):
        with pytest.raises(TeacherError, match="wanted recorded answers"):
            ask(path, "e1")


def test_merging_is_refused_with_the_two_ways_out(tmp_path):
    with pytest.raises(TeacherError, match=r"groups\.teacher=anthropic or groups\.consolidator=medoid"):
        ask(written(tmp_path, json.dumps(LINE)), "e1", role="consolidate")


def test_another_role_is_refused(tmp_path):
    with pytest.raises(TeacherError, match="'resolve'"):
        ask(written(tmp_path, json.dumps(LINE)), "e1", role="resolve")
