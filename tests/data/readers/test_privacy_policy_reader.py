import json
from pathlib import Path

import pytest
import yaml

from pld.config.settings import check
from pld.data.readers import read
from pld.data.splits import RawExample, assemble
from pld.errors import DataError
from pld.task_params import BenchmarkReader, TaskParams

ROOT = Path(__file__).parents[3]
ROW = {"context": "  We keep letters for a week.", "question": "how long do you keep my letters?  ", "answer": "True"}


def shipped_task() -> TaskParams:
    settings = yaml.safe_load((ROOT / "conf/task/privacy_policy.yaml").read_text())
    return check(TaskParams, settings, "conf/task/privacy_policy.yaml")


def rows_of(tmp_path: Path, *rows: dict[str, object]) -> list[RawExample]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reader = BenchmarkReader(format="privacy_policy", path=str(path))
    return list(read(shipped_task().model_copy(update={"reader": reader})))


def test_the_benchmark_gives_these_splits_and_no_clause_in_two_splits() -> None:
    task = shipped_task()
    examples, summary = assemble(task, read(task))
    assert (summary.rows, summary.examples, summary.groups) == (10923, 10923, 1025)
    assert summary.counts == {
        "train": {"relevant": 2751, "irrelevant": 2691},
        "validation": {"relevant": 1029, "irrelevant": 1170},
        "test": {"relevant": 1669, "irrelevant": 1613},
    }
    clauses = {split: {x.inputs["clause"] for x in examples if x.split == split} for split in summary.counts}
    assert not clauses["train"] & clauses["test"] | clauses["train"] & clauses["validation"]
    assert not clauses["validation"] & clauses["test"]


def test_a_clause_that_answers_is_relevant_and_blanks_around_a_text_are_no_part_of_it(tmp_path: Path) -> None:
    yes, no = rows_of(tmp_path, ROW, {**ROW, "question": "who reads them?", "answer": "False"})
    assert (yes.label, no.label, yes.group == no.group) == ("relevant", "irrelevant", True)
    assert yes.inputs == {"clause": "We keep letters for a week.", "question": "how long do you keep my letters?"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "true"}, "expected the answer 'True' or 'False', got 'true'"),
        ({"answer": True}, "expected a Privacy-Policy row with a text 'answer', got no text in it"),
        ({"context": ""}, "with a text 'context'"),
        ({"question": None}, "with a text 'question'"),
    ],
)
def test_a_row_of_another_shape_is_one_line(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path, ROW, {**ROW, **changes})
    assert message in str(caught.value)
    assert "rows.jsonl: line 2" in str(caught.value)
    assert "\n" not in str(caught.value)
