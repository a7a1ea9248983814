"""The extract stage over real files."""

import json
from pathlib import Path

import pytest
import yaml

from pld import artifacts
from pld.errors import ExtractionError, TeacherError
from pld.records import Example, Rejection, Rule
from pld.stages import extract
from support.anthropic_server import answer, error

SAID = {"rationale": "Warm.", "rule": "If it is warm, answer red.", "label": "red"}
OUTPUTS = ("rules.jsonl", "rejected.jsonl", "summary.json")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten examples, all red, and a config that plays back recordings of nine of them, one of them refused."""
    monkeypatch.chdir(tmp_path)
    examples = [
        Example(id=f"e{i}", inputs={"note": f"a warm thing, number {i}"}, label="red", split="train") for i in range(10)
    ]
    artifacts.write_jsonl(Path("artifacts/splits/train.jsonl"), examples)
    lines = [{"example_id": f"e{i}", **SAID} for i in range(9)]
    lines[4]["rule"] = "Say it."
    Path("answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    configure({"_target_": "pld.adapters.teachers.recorded.RecordedTeacher", "path": "answers.jsonl"})
    return tmp_path


def configure(teacher: dict[str, object], **extraction: object) -> None:
    """The sections that the stage reads, in an otherwise complete config."""
    task = {
        "name": "colours",
        "labels": ["red", "blue"],
        "fields": ["note"],
        "input_template": "{{ note }}",
        "base_instruction": "Say which.",
        "reader": {"format": "stereoset_bias", "path": "none"},
    }
    limits = {"max_words": 30, "max_copied_words": 7, "max_rejected_fraction": 0.2, **extraction}
    config = {**rest_of_config(), "task": task, "teacher": teacher, "extraction": limits}
    artifacts.write_text(Path("artifacts/config.yaml"), yaml.safe_dump(config))


def rest_of_config() -> dict[str, object]:
    root = Path(__file__).parents[2]
    config: dict[str, object] = yaml.safe_load((root / "conf/config.yaml").read_text())
    del config["defaults"]
    for role, option in yaml.safe_load((root / "params.yaml").read_text())["groups"].items():
        config[role] = yaml.safe_load((root / f"conf/{role}/{option}.yaml").read_text())
    return config


def paid(**settings: object) -> dict[str, object]:
    target = {"_target_": "pld.adapters.teachers.anthropic.AnthropicTeacher", "model": "claude-test"}
    given = {"max_tokens": 512, "effort": None, "concurrency": 4, "max_retries": 0, "timeout_s": 5}
    return {**target, **given, **settings}


def outputs() -> list[bytes]:
    return [Path("artifacts/rules", name).read_bytes() for name in OUTPUTS]


def test_rules_rejections_and_a_summary_are_written(project, capsys):
    extract.run()
    rules = artifacts.read_jsonl(Path("artifacts/rules/rules.jsonl"), Rule)
    rejected = artifacts.read_jsonl(Path("artifacts/rules/rejected.jsonl"), Rejection)
    assert [rule.example_id for rule in rules] == ["e0", "e1", "e2", "e3", "e5", "e6", "e7", "e8"]
    assert [(item.example_id, item.reason) for item in rejected] == [("e4", "no_label")]
    assert artifacts.read_json(Path("artifacts/rules/summary.json")) == {
        "teacher": "recorded:answers.jsonl",
        "examples": 10,
        "answered": 9,
        "recorded": True,
        "rules": 8,
        "rejected": 1,
        "doubtful": 0,
        "rules_per_label": {"red": 8, "blue": 0},
        "rejected_by_reason": {"no_label": 1},
        "usage": {},
    }
    said = capsys.readouterr()
    assert "9 of 10 training examples have a recorded answer; the other 1 is left out" in said.out
    assert "label 'blue' has no rule" in said.err


def test_keys_of_a_rule_stand_in_the_documented_order(project):
    extract.run()
    first = json.loads(Path("artifacts/rules/rules.jsonl").read_text().splitlines()[0])
    assert list(first) == ["id", "example_id", "label", "rationale", "text", "teacher", "doubtful"]


def test_run_twice_it_writes_the_same_bytes(project):
    extract.run()
    first = outputs()
    extract.run()
    assert outputs() == first


def test_a_paid_run_writes_the_same_bytes_whatever_order_answers_come_in_and_pays_once(project, anthropic_server):
    server = anthropic_server(lambda body, _: answer(SAID, delay_s=hash(str(body)) % 7 / 100))
    configure(paid())
    extract.run()
    first = outputs()
    configure(paid(concurrency=1))
    extract.run()
    assert outputs() == first
    assert len(server.bodies) == 10
    assert artifacts.read_json(Path("artifacts/rules/summary.json"))["usage"] == {
        "input_tokens": 1000,
        "output_tokens": 200,
    }


def test_over_the_limit_of_rejections_it_fails_and_leaves_them_to_be_read(project):
    configure(
        {"_target_": "pld.adapters.teachers.recorded.RecordedTeacher", "path": "answers.jsonl"},
        max_rejected_fraction=0.1,
    )
    with pytest.raises(ExtractionError, match="1 of 9 answers"):
        extract.run()
    assert artifacts.read_jsonl(Path("artifacts/rules/rejected.jsonl"), Rejection)
    assert not Path("artifacts/rules/rules.jsonl").exists()


def test_no_key_fails_before_anything_is_written(project):
    configure(paid())
    with pytest.raises(TeacherError, match="ANTHROPIC_API_KEY"):
        extract.run()
    assert not Path("artifacts/rules").exists()


def test_a_dead_service_fails_and_the_rerun_asks_only_what_is_missing(project, anthropic_server):
    def respond(body: dict, attempt: int):
        dead = "number 7" in body["messages"][0]["content"] and attempt == 1
        return error(529, "overloaded_error", "busy") if dead else answer(SAID)

    server = anthropic_server(respond)
    configure(paid(concurrency=1))
    with pytest.raises(TeacherError, match="529"):
        extract.run()
    assert len(server.bodies) == 8
    extract.run()
    assert len(server.bodies) == 8 + 3
