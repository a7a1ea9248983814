import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pld.config.settings import check
from pld.data.readers import read
from pld.data.splits import assemble
from pld.errors import DataError
from pld.task_params import BenchmarkReader, TaskParams

ROOT = Path(__file__).parents[3]


def shipped_task() -> TaskParams:
    settings = yaml.safe_load((ROOT / "conf/task/stereoset_bias.yaml").read_text())
    return check(TaskParams, settings, "conf/task/stereoset_bias.yaml")


def test_the_benchmark_gives_its_published_counts_and_the_documented_splits() -> None:
    task = shipped_task()
    examples, summary = assemble(task, read(task))
    assert (summary.rows, summary.examples, summary.merged_duplicates) == (2106, 2094, 12)
    assert Counter(example.split for example in examples) == {"train": 1059, "validation": 399, "test": 636}
    assert all(list(example.inputs) == ["sentence"] for example in examples)


def test_every_recorded_answer_belongs_to_a_training_sentence_with_the_same_label() -> None:
    task = shipped_task()
    train = {example.id: example.label for example in assemble(task, read(task))[0] if example.split == "train"}
    lines = (ROOT / "assets/corpus/teacher/stereoset_bias.jsonl").read_text().splitlines()
    recordings = [json.loads(line) for line in lines]
    assert all(train[recording["example_id"]] == recording["label"] for recording in recordings)


@pytest.mark.parametrize("row", [{"type": "intrasentence", "bias_type": "race"}, {"type": 1}, {}])
def test_a_row_of_another_shape_is_refused(row: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(json.dumps(row))
    reader = BenchmarkReader(format="stereoset_bias", path=str(path))
    with pytest.raises(DataError, match="expected a StereoSet row with a text"):
        list(read(shipped_task().model_copy(update={"reader": reader})))
