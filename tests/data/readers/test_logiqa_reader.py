import json
from pathlib import Path

import pytest
import yaml

from pld.config.settings import check
from pld.data.readers import read
from pld.data.splits import RawExample, assemble
from pld.distill.render import render_input
from pld.errors import DataError
from pld.task_params import BenchmarkReader, TaskParams

ROOT = Path(__file__).parents[3]
ROW = {
    "passage": "All of the drawers are locked. The red drawer is a drawer.",
    "question": "What follows?\n",
    "options": "A. The red drawer is open.\nB. The red drawer is locked.\nC. It is red.\nD. Nothing.",
    "answer": "B. The red drawer is locked.",
}


def shipped_task() -> TaskParams:
    return check(TaskParams, yaml.safe_load((ROOT / "conf/task/logiqa.yaml").read_text()), "conf/task/logiqa.yaml")


def rows_of(tmp_path: Path, *rows: dict[str, object]) -> list[RawExample]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read(shipped_task().model_copy(update={"reader": BenchmarkReader(format="logiqa", path=str(path))})))


def refusal(tmp_path: Path, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path, ROW, {**ROW, **changes})
    assert "\n" not in str(caught.value)
    assert "rows.jsonl: line 2" in str(caught.value)
    return str(caught.value)


def test_the_benchmark_gives_these_splits_and_no_passage_in_two_splits() -> None:
    task = shipped_task()
    examples, summary = assemble(task, read(task))
    assert (summary.rows, summary.examples, summary.groups) == (1000, 1000, 906)
    assert summary.counts == {
        "train": {"A": 104, "B": 124, "C": 138, "D": 153},
        "validation": {"A": 30, "B": 49, "C": 53, "D": 50},
        "test": {"A": 67, "B": 68, "C": 89, "D": 75},
    }
    sides: dict[str, set[str]] = {}
    for example in examples:
        sides.setdefault(example.inputs["passage"], set()).add(example.split)
    assert all(len(splits) == 1 for splits in sides.values())


def test_the_answers_text_becomes_its_letter_and_the_input_reads_as_a_question_with_its_options(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, ROW)
    assert row.label == "B"
    assert render_input(shipped_task(), row.inputs).splitlines() == [
        "All of the drawers are locked. The red drawer is a drawer.",
        "",
        "What follows?",
        *str(ROW["options"]).split("\n"),
    ]


def test_of_two_options_with_the_same_text_the_letter_in_the_answer_decides(tmp_path: Path) -> None:
    options = "A. Two.\nB. One.\nC. One.\nD. Three."
    rows = rows_of(
        tmp_path, {**ROW, "options": options, "answer": "C. One."}, {**ROW, "options": options, "answer": "B. One."}
    )
    assert [row.label for row in rows] == ["C", "B"]


def test_questions_on_one_passage_are_one_group(tmp_path: Path) -> None:
    one, same, other = rows_of(
        tmp_path, ROW, {**ROW, "question": "What does not?"}, {**ROW, "passage": "Something else."}
    )
    assert one.group == same.group != other.group


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "B. The red drawer is locked"}, "got 4 lines and 'B. The red drawer is locked'"),
        (
            {"answer": "The red drawer is locked."},
            "one of these lines as the answer, got 4 lines and 'The red drawer",
        ),
        ({"answer": "B"}, "got 4 lines and 'B' ("),
        (
            {"options": "A. x\nB. y\nC. z"},
            "as the answer, got 3 lines and",
        ),
        ({"options": "A. x\nB. y\nD. z\nC. w"}, "expected options of four lines"),
        ({"options": ["x", "y", "z", "w"]}, "expected a LogiQA row with a text 'options', got no text in it"),
        ({"passage": " "}, "a text 'passage', got no text in it"),
        ({"question": "x\x00"}, "got a NUL character"),
    ],
)
def test_a_row_of_another_shape_is_one_line(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, **changes)
