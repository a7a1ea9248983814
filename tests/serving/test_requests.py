"""What the code of a registered version makes of its input, in process with scripted Students."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from pld.distill.render import prompt_messages
from pld.errors import DataError, RegistryError, StudentError
from pld.records import Calibration, Task, inputs_id, sha256
from pld.registry.packaging import requirements
from pld.serving.log import read
from pld.serving.model import PromptClassifier, ServedSpec, write_files
from pld.serving.pyfunc import ServedPrompt
from pld.serving.requests import read_records
from support.mails import LABELS, TASK

BRIEF = prompt_messages("be brief")
ONE = Task(name="t", labels=("a", "b"), fields=("text",), input_template="{{ text }}", base_instruction="b")
TWO = ONE.model_copy(update={"fields": ("premise", "claim"), "input_template": "{{ premise }} / {{ claim }}"})


def answer(classifier: PromptClassifier, given: object) -> pd.DataFrame:
    frame: pd.DataFrame = classifier.frame(classifier.classify(read_records(classifier.spec.task, given)))
    return frame


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
        pd.DataFrame({"id": [1, 2], "text": ["x", "y"]}),
        pd.DataFrame([["x"], ["y"]]),
        pd.Series(["x", "y"]),
        np.array(["x", "y"]),
        ["x", "y"],
        [{"text": "x"}, {"text": np.array("y"), "more": 1}],
        {"text": ["x", "y"]},
        {"text": np.array(["x", "y"], dtype=object)},
    ],
)
def test_a_task_of_one_field_takes_records_or_a_column_of_texts(given: object) -> None:
    assert read_records(ONE, given) == [{"text": "x"}, {"text": "y"}]


@pytest.mark.parametrize("given", ["x", {"text": "x"}, ["x"], np.array("x"), {"text": np.array("x")}])
def test_a_single_input_is_a_list_of_one(given: object) -> None:
    assert read_records(ONE, given) == [{"text": "x"}]


NESTED = ONE.model_copy(update={"fields": ("input_utterance",), "input_template": "{{ input_utterance }}"})


@pytest.mark.parametrize(
    "given",
    [
        [{"input": {"utterance": "x", "lang": "en"}, "id": 3}],
        {"input": {"utterance": "x"}},
        {"input": {"utterance": ["x"]}},
        [{"input.utterance": "x"}],
        [{"input_utterance": "x", "input": {"utterance": "y"}}],
        pd.DataFrame({"input.utterance": ["x"]}),
    ],
)
def test_a_field_named_after_a_dotted_path_is_found_in_nested_records(given: object) -> None:
    assert read_records(NESTED, given) == [{"input_utterance": "x"}]


def test_fields_are_found_by_name_and_never_by_place() -> None:
    frame = pd.DataFrame({"claim": ["c"], "other": ["o"], "premise": ["p"]})
    assert read_records(TWO, frame) == [{"premise": "p", "claim": "c"}]


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (TWO, ["x"], "expected records with the fields premise, claim, got 'x' (input, row 1)"),
        (TWO, [{"premise": "p"}], "expected the field 'claim', got premise (input, row 1)"),
        (ONE, [{"text": "x"}, {"txt": "y"}], "expected the field 'text', got txt (input, row 2)"),
        (ONE, pd.DataFrame({"a": ["x"], "b": ["y"]}), "expected one column 'text', got a, b"),
        (ONE, pd.DataFrame({"txt": ["x"]}), "expected one column 'text', got txt"),
        (TWO, pd.DataFrame([["x", "y"]]), "expected columns with names, premise, claim among them, got none"),
        (ONE, ["x", None], "expected texts or records with the field text, got null (input, row 2)"),
        (ONE, [{"text": None}], "expected text in 'text', got null (input, row 1)"),
        (ONE, pd.DataFrame({"text": ["x", np.nan]}), "expected text in 'text', got null (input, row 2)"),
        (ONE, [{"text": "  "}], "expected text in 'text', got '  ' (input, row 1)"),
        (ONE, [{"text": 3}], "expected text in 'text', got 3 (input, row 1)"),
        (ONE, ["x", 3], "expected texts or records with the field text, got 3 (input, row 2)"),
        (ONE, 3, "expected texts or records with the field text, got 3"),
        (ONE, ["a\x00"], "expected Unicode text, got a NUL character or half"),
        (ONE, ["\ud800"], "expected Unicode text, got a NUL character or half"),
        (TWO, {"premise": ["p", "q"], "claim": ["c"]}, "expected columns of one length, got premise 2, claim 1"),
    ],
)
def test_wrong_input_is_refused_with_its_row_and_what_was_expected(task: Task, given: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_records(task, given)
    assert message in str(caught.value)


def test_the_best_label_is_chosen_after_calibration_and_ties_go_to_the_label_declared_first() -> None:
    student = FixedStudent({"x": (-1.0, -2.0), "y": (-1.0, -3.0), "z": (np.nan, -1.0)})
    calibration = Calibration(method="batch", labels=("a", "b"), scale=1.0, bias=(0.0, 1.5), examples=4)
    plain = answer(PromptClassifier(spec(), BRIEF, student), ["x", "y", "z"])  # type: ignore[arg-type]
    assert plain["label"].tolist() == ["a", "a", None]
    assert plain["score_a"].tolist() == [-1.0, -1.0, None], "JSON knows no NaN"
    served = spec(calibration=calibration, prompt_version="7")
    found = answer(PromptClassifier(served, BRIEF, student), ["x", "y"])  # type: ignore[arg-type]
    assert list(found.columns) == ["label", "score_a", "score_b", "prompt_sha256", "prompt_version"]
    assert list(found["label"]) == ["b", "a"]
    assert found["score_b"].dtype == np.float64
    assert list(found["score_b"]) == [-0.5, -1.5]
    assert set(found["prompt_sha256"]) == {sha256("be brief")}
    assert set(found["prompt_version"]) == {"7"}
    tied = FixedStudent({"x": (-1.0, -1.0)})
    assert list(answer(PromptClassifier(spec(), BRIEF, tied), "x")["label"]) == ["a"]  # type: ignore[arg-type]


def test_no_rows_are_no_answers_with_the_same_columns() -> None:
    found = answer(PromptClassifier(spec(), BRIEF, FixedStudent({})), [])  # type: ignore[arg-type]
    assert len(found) == 0
    assert found["score_b"].dtype == np.float64


def test_a_prompt_that_is_not_the_registered_one_is_not_served(tmp_path: Path) -> None:
    write_files(tmp_path, spec(), prompt_messages("be verbose"))
    with pytest.raises(RegistryError, match="expected the prompt with sha256"):
        PromptClassifier.load(tmp_path)


def test_a_version_is_known_by_prompt_calibration_student_and_task_and_not_by_the_prompts_number() -> None:
    assert spec(prompt_version="1").key == spec(prompt_version="2").key
    calibration = Calibration(method="batch", labels=("a", "b"), scale=1.0, bias=(0.0, 0.0), examples=1)
    others = {spec(TWO).key, spec(calibration=calibration).key, spec().model_copy(update={"student": {}}).key}
    assert len(others | {spec().key}) == 4


def test_requirements_are_pinned_and_those_of_the_student_that_is_served() -> None:
    def named(**student: object) -> set[str]:
        found = requirements(spec().model_copy(update={"student": student}))
        assert all(name.count("==") == 1 and "+" not in name for name in found)
        return {name.partition("==")[0] for name in found}

    plain = named(model="/models/small")
    assert "torch" in plain
    assert not plain & {"pld", "mlflow", "accelerate", "gguf", "bitsandbytes", "openai", "scipy", "scikit-learn"}
    assert named(model="asset:smollm2-135m") - plain == {"accelerate", "gguf"}
    assert named(model="some/model-GGUF", gguf_file="model.gguf") - plain == {"accelerate", "gguf"}
    assert named(model="/models/small", quantization="nf4") - plain == {"accelerate", "bitsandbytes"}
    target = "pld.adapters.students.openai_compatible.OpenAICompatibleStudent"
    assert named(_target_=target, model="m") == plain - {"torch", "transformers"} | {"openai"}


class MailStudent:
    """Goes by one word; as the real one does, it has no scores for a text that is too long."""

    def score(self, messages: object, inputs: Sequence[str], labels: Sequence[str], on_progress: object = None) -> Any:
        rows = [[-0.1, -2.0, -3.0] if "money" in text else [-3.0, -0.5, -1.5] for text in inputs]
        return np.array([[np.nan] * 3 if len(text) > 1000 else row for text, row in zip(inputs, rows, strict=True)])

    def prefill(self, messages: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedPrompt:
    """The model code as MLflow loads it, with a scripted Student."""
    monkeypatch.setattr("pld.serving.model.build", lambda *_: MailStudent())
    monkeypatch.setenv("PLD_SERVING_LOG", str(tmp_path / "served.jsonl"))
    mail = ServedSpec(
        task=TASK.bare, student={}, calibration=None, prompt_sha256=sha256("be brief"), prompt_version="1"
    )
    loaded = ServedPrompt()
    loaded.load_context(SimpleNamespace(artifacts=write_files(tmp_path, mail, BRIEF)))
    return loaded


def ask(served: ServedPrompt, body: object, kind: str | None = "application/json") -> Any:
    """As a client of /invocations sees it: status and JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    try:
        return 200, json.loads(served.respond(text.encode() if isinstance(text, str) else text, kind))
    except MlflowException as error:
        return error.get_http_status_code(), json.loads(error.serialize_as_json())


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
JSON = "application/json"
A, B = "Where is it?", 'My money, "all" of it,\nback.'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"inputs": [A, B]}, JSON),
        ({"instances": [A, B]}, JSON),
        ({"inputs": [{"text": A, "more": 1}, {"text": B}]}, JSON),
        ({"instances": [{"text": A}, {"text": B, "more": [1]}]}, JSON),
        ({"inputs": {"text": [A, B]}}, JSON),
        ({"dataframe_records": {"text": [A, B]}}, JSON),
        ({"dataframe_records": [{"text": A, "id": 1}, {"text": B, "id": None}], "params": {"x": 1}}, JSON),
        ({"dataframe_split": {"columns": ["id", "text"], "index": [7, 9], "data": [[1, A], [2, B]]}}, JSON),
        ({"dataframe_split": {"data": [[A], [B]]}}, "Application/JSON; charset=UTF-8; version=1"),
        ('id,text\r\n1,Where is it?\r\n2,"My money, ""all"" of it,\nback."\r\n', CSV),
        (parquet(id=[1, 2], text=[A, B]), PARQUET),
    ],
)
def test_every_scoring_format_of_mlflow_is_understood(served: ServedPrompt, body: object, kind: str) -> None:
    status, found = ask(served, body, kind)
    assert status == 200, found
    assert found == ask(served, {"inputs": [A, B]})[1]
    assert list(found["predictions"][0]) == [
        "label", "score_refund", "score_delivery", "score_praise", "prompt_sha256", "prompt_version",
    ]  # fmt: skip


@pytest.mark.parametrize("one", ["inputs", "instances"])
def test_one_text_needs_no_list(served: ServedPrompt, one: str) -> None:
    wanted = ask(served, {"inputs": [A]})
    assert ask(served, {one: A}) == ask(served, {one: {"text": A}}) == wanted
    assert len(wanted[1]["predictions"]) == 1


def test_values_of_csv_are_texts_as_they_stand(served: ServedPrompt) -> None:
    assert ask(served, "text\nNA\n007\n1.50\n", CSV) == ask(served, {"inputs": ["NA", "007", "1.50"]})


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ({"dataframe_records": [{"txt": A}]}, JSON, "expected the field 'text', got txt (input, row 1)"),
        ({"instances": [{"text": A}, {"other": B}]}, JSON, "expected the field 'text', got other (input, row 2)"),
        ({"inputs": [{}]}, JSON, "expected the field 'text', got none (input, row 1)"),
        ({"inputs": ""}, JSON, "expected text in 'text', got '' (input, row 1)"),
        ({"inputs": [A, " \n"]}, JSON, "expected text in 'text', got ' \\n' (input, row 2)"),
        ({"inputs": [A, 3]}, JSON, "expected texts or records with the field text, got 3 (input, row 2)"),
        ({"inputs": 3.5}, JSON, "expected texts or records with the field text, got 3.5"),
        ({"inputs": [None]}, JSON, "expected texts or records with the field text, got null (input, row 1)"),
        ({"inputs": None}, JSON, "expected texts or records with the field text, got null"),
        ({"dataframe_records": [{"text": A}, {"text": None}]}, JSON, "text in 'text', got null (input, row 2)"),
        ({"dataframe_records": [{"text": 1}]}, JSON, "expected text in 'text', got 1 (input, row 1)"),
        ({"dataframe_records": [{"text": True}]}, JSON, "expected text in 'text', got True (input, row 1)"),
        ({"inputs": [{"text": [A]}]}, JSON, "expected text in 'text', got a list (input, row 1)"),
        ({"inputs": [{"text": {"a": A}}]}, JSON, "expected text in 'text', got an object (input, row 1)"),
        ({"inputs": [[A]]}, JSON, "expected texts or records with the field text, got a list (input, row 1)"),
        ({"inputs": ["\ud800"]}, JSON, "expected Unicode text, got a NUL character or half"),
        ({"inputs": ["a\x00"]}, JSON, "expected Unicode text, got a NUL character or half"),
        ({"inputs": {"text": [A, B], "z": [A]}}, JSON, "expected columns of one length, got text 2, z 1"),
        ({"inputs": [A], "instances": [A]}, JSON, ("expected exactly one of dataframe_records, dataframe_split, "
                                                  "inputs")),
        ({"texts": [A]}, JSON, "dataframe_records, dataframe_split, inputs, instances, got texts (request)"),
        ({"messages": [{"role": "user", "content": A}]}, JSON, "instances, got messages (request)"),
        ([A], JSON, "expected a JSON object with one of dataframe_records"),
        ({"dataframe_split": [A]}, JSON, "expected dataframe_split with columns (a list of names) and data"),
        ({"dataframe_split": {"columns": ["text"]}}, JSON, "got data: Field required"),
        ({"dataframe_split": {"columns": "text", "data": [[A]]}}, JSON, "got columns: Input should be a valid list"),
        ({"dataframe_split": {"columns": ["text"], "data": [A]}}, JSON, "got data.0: Input should be a valid list"),
        ({"dataframe_split": {"columns": ["text"], "data": [[A, B]]}}, JSON, "expected 1 cells, one a column, got 2"),
        ({"dataframe_split": {"columns": ["text", "text"], "data": [[A, B]]}}, JSON, "one column 'text', got 2"),
        ("", JSON, "expected JSON, got Expecting value"),
        ('{"inputs": [', JSON, "expected JSON, got Expecting value"),
        (b'{"inputs": ["\xff"]}', JSON, "expected UTF-8, got the byte 0xff"),
        ('{"inputs": ' + "[" * 5000 + "]" * 5000 + "}", JSON, "expected JSON, got maximum recursion depth exceeded"),
        ('{"inputs": [' + "9" * 5000 + "]}", JSON, "expected JSON, got Exceeds the limit (4300 digits)"),
        ('{"inputs": [NaN]}', JSON, "expected texts or records with the field text, got null (input, row 1)"),
        (json.dumps({"inputs": [A]}), None, ("expected the content type application/json, text/csv, "
                                            "application/vnd.apa")),
        (A, "text/plain", "application/vnd.apache.parquet, got text/plain"),
        ("txt\nx\n", CSV, "expected one column 'text', got txt"),
        ("", CSV, "expected one column 'text', got none"),
        ("text,id\nx,1,2\n", CSV, "expected 2 cells, one a column, got 3 (input, row 1)"),
        ('text\n"x\n', CSV, "expected CSV with a header, got broken quotes"),
        (b"abc", PARQUET, "expected Parquet, got "),
        (parquet(txt=[A]), PARQUET, "expected one column 'text', got txt"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_status_400_with_its_reason_in_one_line(
    served: ServedPrompt, body: object, kind: str | None, reason: str
) -> None:
    status, found = ask(served, body, kind)
    assert status == 400, found
    assert reason in found["message"]
    assert "\n" not in found["message"]
    assert len(found["message"]) < 400
    assert not set(found) - {"error_code", "message", "sqlstate", "error_class"}, "no stack trace"


@pytest.mark.parametrize("given", [["Where is it?"], pd.DataFrame({"text": ["Where is it?"]})])
def test_predict_answers_python_objects_with_a_frame(served: ServedPrompt, given: Any) -> None:
    frame = served.predict(None, given)
    assert frame.to_dict("records") == ask(served, {"inputs": ["Where is it?"]})[1]["predictions"]
    with pytest.raises(MlflowException, match="expected the field 'text', got txt"):
        served.predict(None, [{"txt": "x"}])


def test_a_text_longer_than_the_context_gets_no_label_and_others_do(served: ServedPrompt) -> None:
    long, short = ask(served, {"inputs": ["word " * 20_000, A]})[1]["predictions"]
    assert [long[name] for name in ("label", "score_refund", "score_delivery", "score_praise")] == [None] * 4
    assert short["label"] == "delivery"


def test_every_answer_is_logged_without_its_text(served: ServedPrompt, tmp_path: Path) -> None:
    answer = ask(served, {"inputs": [A]})[1]["predictions"][0]
    assert ask(served, {"inputs": [A, 3]})[0] == 400
    (line,) = read([tmp_path / "served.jsonl"])
    assert (line.id, line.label) == (inputs_id({"text": A}), answer["label"])
    assert list(line.scores) == [answer[f"score_{label}"] for label in LABELS]
    assert (line.prompt_sha256, line.prompt_version) == (sha256("be brief"), "1")
    assert A not in (tmp_path / "served.jsonl").read_text()


def test_a_fault_of_the_student_is_status_500_in_one_line(
    served: ServedPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StudentError("the weights are gone")

    monkeypatch.setattr(MailStudent, "score", broken)
    status, found = ask(served, {"inputs": [A]})
    assert (status, found["message"]) == (500, "the weights are gone")
