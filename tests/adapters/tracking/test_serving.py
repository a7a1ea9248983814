import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pld.adapters.build import build
from pld.adapters.tracking.registry import Registry
from pld.adapters.tracking.result import read_result
from pld.adapters.tracking.runs import log_result
from pld.adapters.tracking.serving import PromptClassifier, ServedSpec, read_records, requirements, spec_of, write_files
from pld.adapters.tracking.store import Store
from pld.errors import DataError, RegistryError
from pld.method.evaluation import calibrate, choose
from pld.method.system_prompt import prompt_messages
from pld.params import load_config
from pld.ports import Student
from pld.records import Calibration, Task, sha256
from support.artifact_tree import LABELS, PROMPT, TASK, composed, write_artifacts

ONE = Task(name="t", labels=("a", "b"), fields=("text",), input_template="{{ text }}", base_instruction="b")
TWO = ONE.model_copy(update={"fields": ("premise", "claim"), "input_template": "{{ premise }} / {{ claim }}"})
TEXTS = ["Where is my parcel?", "I want my money back, all of it.", "Lovely, thank you!"]


class FixedStudent:
    """Answers with the scores that it is given; the input is looked up by its text."""

    def __init__(self, scores: dict[str, tuple[float, float]]) -> None:
        self._scores = scores

    def score(self, messages: object, inputs: Sequence[str], labels: object, on_progress: object = None) -> Any:
        return np.array([self._scores[text] for text in inputs])


def spec(task: Task = ONE, calibration: Calibration | None = None, **changes: Any) -> ServedSpec:
    return ServedSpec(
        task=task, student={"name": "s"}, calibration=calibration, prompt_sha256=sha256("be brief"), **changes
    )


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame({"text": ["x", "y"]}),
        pd.DataFrame({"id": ["1", "2"], "text": ["x", "y"]}),
        pd.DataFrame({"whatever": ["x", "y"]}),
        pd.DataFrame([["x"], ["y"]]),
        pd.Series(["x", "y"]),
        np.array(["x", "y"]),
        ["x", "y"],
        [{"text": "x"}, {"text": "y", "more": 1}],
        {"text": ["x", "y"]},
        {"text": np.array(["x", "y"], dtype=object)},
    ],
)
def test_a_task_of_one_field_takes_records_or_a_column_of_texts(given: object) -> None:
    assert read_records(ONE, given) == [{"text": "x"}, {"text": "y"}]


@pytest.mark.parametrize("given", ["x", {"text": "x"}, ["x"]])
def test_a_single_input_is_a_list_of_one(given: object) -> None:
    assert read_records(ONE, given) == [{"text": "x"}]


def test_fields_are_found_by_name_and_never_by_place() -> None:
    frame = pd.DataFrame({"claim": ["c"], "other": ["o"], "premise": ["p"]})
    assert read_records(TWO, frame) == [{"premise": "p", "claim": "c"}]


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (TWO, ["x"], "row 1: wanted records with the fields premise, claim, found str"),
        (TWO, [{"premise": "p"}], "row 1: wanted the field 'claim', found premise"),
        (ONE, [{"text": "x"}, {"txt": "y"}], "row 2: wanted the field 'text', found txt"),
        (ONE, pd.DataFrame({"a": ["x"], "b": ["y"]}), "row 1: wanted the field 'text', found a, b"),
        (ONE, ["x", None], "row 2: wanted records with the field"),
        (ONE, [{"text": None}], "row 1: wanted text in 'text', found None"),
        (ONE, pd.DataFrame({"text": ["x", np.nan]}), "row 2: wanted text in 'text', found nan"),
        (ONE, [{"text": "  "}], "row 1: wanted text in 'text', found '  '"),
        (ONE, [{"text": 3}], "row 1: wanted text in 'text', found 3"),
        (ONE, 3, "wanted records with the fields text or a column of texts, found int"),
        (TWO, {"premise": ["p", "q"], "claim": ["c"]}, "wanted columns of one length, found premise 2, claim 1"),
    ],
)
def test_wrong_input_is_refused_with_its_row_and_what_was_wanted(task: Task, given: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_records(task, given)
    assert message in str(caught.value)


def test_the_best_label_is_chosen_after_calibration_and_ties_go_to_the_label_declared_first() -> None:
    student = FixedStudent({"x": (-1.0, -2.0), "y": (-1.0, -3.0), "z": (np.nan, -1.0)})
    calibration = Calibration(labels=("a", "b"), mean_log_scores=(0.0, -1.5), examples=4)
    plain = PromptClassifier(spec(), "be brief", student).answer(["x", "y", "z"])  # type: ignore[arg-type]
    assert [None if pd.isna(label) else label for label in plain["label"]] == ["a", "a", None]
    served = spec(calibration=calibration, prompt_version="7")
    answer = PromptClassifier(served, "be brief", student).answer(["x", "y"])  # type: ignore[arg-type]
    assert list(answer.columns) == ["label", "score_a", "score_b", "prompt_sha256", "prompt_version"]
    assert list(answer["label"]) == ["b", "a"]
    assert list(answer["score_b"]) == [-0.5, -1.5]
    assert set(answer["prompt_sha256"]) == {sha256("be brief")}
    assert set(answer["prompt_version"]) == {"7"}
    tied = FixedStudent({"x": (-1.0, -1.0)})
    assert list(PromptClassifier(spec(), "be brief", tied).answer("x")["label"]) == ["a"]  # type: ignore[arg-type]


def test_no_rows_are_no_answers_with_the_same_columns() -> None:
    answer = PromptClassifier(spec(), "be brief", FixedStudent({})).answer([])  # type: ignore[arg-type]
    assert len(answer) == 0
    assert "score_b" in answer


def test_a_prompt_that_is_not_the_registered_one_is_not_served(tmp_path: Path) -> None:
    write_files(tmp_path, spec(), "be verbose")
    with pytest.raises(RegistryError, match="wanted the text with sha256"):
        PromptClassifier.load(tmp_path)


def test_a_version_is_known_by_prompt_calibration_student_and_task_and_not_by_the_prompts_number() -> None:
    assert spec(prompt_version="1").key == spec(prompt_version="2").key
    calibration = Calibration(labels=("a", "b"), mean_log_scores=(0.0, 0.0), examples=1)
    others = {spec(TWO).key, spec(calibration=calibration).key, spec().model_copy(update={"student": {}}).key}
    assert len(others | {spec().key}) == 4


def test_requirements_are_pinned_and_name_no_local_build() -> None:
    found = requirements(spec())
    assert all(name.count("==") == 1 and "+" not in name for name in found)
    assert not any(name.startswith(("pld", "bitsandbytes")) for name in found)
    quantised = spec().model_copy(update={"student": {"quantization": "nf4"}})
    assert any(name.startswith("bitsandbytes==") for name in requirements(quantised))


@pytest.fixture(scope="session")
def student() -> Student:
    found: Student = build(composed().student, "student")
    return found


@pytest.fixture
def registered(store: Store, project: Path) -> Callable[..., str]:
    """Register the artifacts of a project; the URI of the production version."""

    def run(method: str) -> str:
        config = composed()
        calibration = config.calibration.model_copy(update={"method": method})
        write_artifacts(project / "artifacts", config.model_copy(update={"calibration": calibration}))
        result = read_result(load_config())
        Registry(store, "mail").settle(result, log_result(store, result).run_id)
        return "models:/pld-mail@production"

    return run


@pytest.mark.parametrize("method", ["none", "batch"])
def test_the_registered_model_answers_as_the_student_was_measured(
    registered: Callable[..., str], student: Student, method: str
) -> None:
    import mlflow

    answer = mlflow.pyfunc.load_model(registered(method)).predict(pd.DataFrame({"text": TEXTS}))
    served = spec_of(read_result(load_config()))
    scores = student.score(prompt_messages(PROMPT), TEXTS, LABELS)
    wanted = calibrate(scores, served.calibration) if served.calibration else scores
    assert (served.calibration is not None) == (method == "batch")
    assert list(answer["label"]) == [LABELS[best] for best in choose(wanted)]
    assert np.abs(answer[[f"score_{label}" for label in LABELS]].to_numpy() - wanted).max() < 1e-4
    assert set(answer["prompt_sha256"]) == {sha256(PROMPT)}
    assert set(answer["prompt_version"]) == {"1"}


def test_the_registered_model_refuses_wrong_input_in_one_line(registered: Callable[..., str]) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    model = mlflow.pyfunc.load_model(registered("none"))
    with pytest.raises(MlflowException, match="row 1: wanted the field 'text', found subject, body"):
        model.predict(pd.DataFrame({"subject": ["x"], "body": ["y"]}))


def test_a_registered_model_holds_no_weights_and_loads_by_itself(
    registered: Callable[..., str], project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A fresh process, in another folder, imports the copy of pld that travels with the model."""
    import mlflow

    place = tmp_path_factory.mktemp("served")
    folder = mlflow.artifacts.download_artifacts(registered("none"), dst_path=str(place))
    assert sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) < 2_000_000
    code = (
        "import json, sys, mlflow; model = mlflow.pyfunc.load_model(sys.argv[1]);"
        "import pld; print(json.dumps([pld.__file__, model.predict(['Where is my parcel?'])['label'].tolist()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder], cwd=place, capture_output=True, text=True, check=True, timeout=120
    )
    file, labels = json.loads(done.stdout.splitlines()[-1])
    assert Path(file).is_relative_to(folder)
    assert labels[0] in TASK.labels
