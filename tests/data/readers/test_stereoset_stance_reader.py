import json
from collections import Counter
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
    "type": "intersentence",
    "target": "gardener",
    "bias_type": "profession",
    "context": "The gardener comes at noon.",
    "stereotype": "He loves roses.",
    "anti-stereotype": "He can't stand roses.",
    "unrelated": "Tin melts early.",
}


def shipped_task() -> TaskParams:
    settings = yaml.safe_load((ROOT / "conf/task/stereoset_stance.yaml").read_text())
    return check(TaskParams, settings, "conf/task/stereoset_stance.yaml")


def rows_of(tmp_path: Path, *rows: dict[str, object]) -> list[RawExample]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reader = BenchmarkReader(format="stereoset_stance", path=str(path))
    return list(read(shipped_task().model_copy(update={"reader": reader})))


def test_the_benchmark_gives_these_splits_and_no_context_in_two_splits() -> None:
    task = shipped_task()
    examples, summary = assemble(task, read(task))
    assert (summary.rows, summary.examples, summary.merged_duplicates, summary.groups) == (12687, 12669, 18, 4176)
    assert summary.counts == {
        "train": {"stereotype": 2101, "anti-stereotype": 2106, "unrelated": 2108},
        "validation": {"stereotype": 817, "anti-stereotype": 817, "unrelated": 818},
        "test": {"stereotype": 1299, "anti-stereotype": 1300, "unrelated": 1303},
    }
    sides: dict[str, set[str]] = {}
    for example in examples:
        sides.setdefault(example.inputs["context"].casefold(), set()).add(example.split)
    assert Counter(map(len, sides.values())) == {1: len(sides)}


def test_a_row_gives_its_three_sentences_with_what_they_are_and_context_and_target(tmp_path: Path) -> None:
    filled = {"type": "intrasentence", "context": "The gardener is BLANK.", "stereotype": "The gardener is kind."}
    rows = rows_of(tmp_path, ROW, {**ROW, **filled})
    assert [(row.label, row.inputs["sentence"]) for row in rows[:3]] == [
        ("stereotype", "He loves roses."),
        ("anti-stereotype", "He can't stand roses."),
        ("unrelated", "Tin melts early."),
    ]
    assert [row.place for row in rows[2:4]] == ["line 1, unrelated", "line 2, stereotype"]
    assert render_input(shipped_task(), rows[3].inputs) == (
        "Context: The gardener is BLANK.\nTarget: gardener\nSentence: The gardener is kind."
    )


def test_rows_on_one_context_are_one_group_whatever_its_case_and_spaces(tmp_path: Path) -> None:
    respelled = {**ROW, "context": "the gardener  comes at Noon. ", "target": "visitor"}
    rows = rows_of(tmp_path, ROW, respelled, {**ROW, "context": "Another."})
    assert len({row.group for row in rows[:6]}) == 1
    assert len({row.group for row in rows}) == 2


@pytest.mark.parametrize("key", ["context", "target", "stereotype", "anti-stereotype", "unrelated"])
@pytest.mark.parametrize("value", [None, 7, ""])
def test_a_row_of_another_shape_is_one_line(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"expected a StereoSet row with a text '{key}', got .* \(.*rows\.jsonl: line 2\)"
    ) as no:
        rows_of(tmp_path, ROW, {**ROW, key: value})
    assert "\n" not in str(no.value)
