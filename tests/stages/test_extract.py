"""The extract stage over real files."""

import json
from pathlib import Path

import pytest
import yaml

from pld import artifacts
from pld.errors import ConfigError, ExtractionError, TeacherError
from pld.records import Example, Rejection, Rule
from pld.stages import extract
from support.anthropic_server import answer, error
from support.artifact_tree import composed

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
    rest = composed().model_dump(mode="json")
    rest["extraction"] |= limits
    config = {**rest, "task": task, "teacher": teacher}
    artifacts.write_text(Path("artifacts/config.yaml"), yaml.safe_dump(config))


def paid(**settings: object) -> dict[str, object]:
    target = {"_target_": "pld.adapters.teachers.anthropic.AnthropicTeacher", "model": "claude-test"}
    given = {"way": "messages", "max_tokens": 512, "effort": None, "temperature": None, "roles": {}}
    transport = {"max_concurrency": 4, "max_retries": 0, "timeout_s": 5, "poll_s": 0.05}
    return {**target, **given, **transport, **settings}


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
    configure(paid(max_concurrency=1))
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
    configure(paid(max_concurrency=1))
    with pytest.raises(TeacherError, match="529"):
        extract.run()
    assert len(server.bodies) == 8
    extract.run()
    assert len(server.bodies) == 8 + 3


def wrong_at_first(body: dict, _: int):
    """Number 1 is declined, 2 cut off, 3 leads elsewhere, until the request says so; number 4 never fits."""
    prompt = body["messages"][0]["content"]
    told = "refused" in prompt
    if "number 1" in prompt and not told:
        return answer("", "refusal")
    if "number 2" in prompt and not told:
        return answer('{"rationale": "Wa', "max_tokens")
    if "number 3" in prompt and not told:
        return answer({**SAID, "rule": "If it is warm, answer blue."})
    return answer({"rationale": "Warm."} if "number 4" in prompt else SAID)


def test_refused_answers_are_asked_for_again_and_a_rerun_takes_the_same_course_for_nothing(
    project, anthropic_server, capsys
):
    server = anthropic_server(wrong_at_first)
    configure(paid(), max_rejected_fraction=0.1)
    extract.run()
    (rejected,) = artifacts.read_jsonl(Path("artifacts/rules/rejected.jsonl"), Rejection)
    assert (rejected.example_id, rejected.reason) == ("e4", "invalid")
    assert rejected.detail.endswith("(after 3 attempts)")
    summary = artifacts.read_json(Path("artifacts/rules/summary.json"))
    assert (summary["rules"], summary["retries"], summary["usage"]["output_tokens"]) == (9, 5, 15 * 20)
    assert "9 rules, 1 refused, 0 doubtful; 5 answers were asked for again" in capsys.readouterr().out
    first, paid_for = outputs(), len(server.bodies)
    extract.run()
    assert (outputs(), len(server.bodies), paid_for) == (first, 15, 15)


def test_killed_between_two_attempts_it_goes_on_where_it_stopped(project, anthropic_server):
    def respond(body: dict, attempt: int):
        told = "refused" in body["messages"][0]["content"]
        return error(529, "overloaded_error", "busy") if told and attempt == 1 else wrong_at_first(body, attempt)

    server = anthropic_server(respond)
    configure(paid(max_concurrency=1))
    with pytest.raises(TeacherError, match="529"):
        extract.run()
    interrupted = len(server.bodies)
    assert interrupted == 10 + 1
    server.respond = wrong_at_first
    extract.run()
    assert len(server.bodies) == interrupted + 5
    assert artifacts.read_json(Path("artifacts/rules/summary.json"))["usage"]["output_tokens"] == 15 * 20


def test_every_draw_is_paid_for_and_printed(project, anthropic_server, capsys):
    server = anthropic_server(lambda *_: answer({**SAID, "rule": f"If it is warm ({len(server.bodies)}), answer red."}))
    configure(paid(max_concurrency=1), draws=2)
    extract.run()
    rules = artifacts.read_jsonl(Path("artifacts/rules/rules.jsonl"), Rule)
    assert [(rule.example_id, rule.draw) for rule in rules[:3]] == [("e0", 0), ("e0", 1), ("e1", 0)]
    assert (len(server.bodies), len({rule.text for rule in rules}), len({rule.id for rule in rules})) == (20, 20, 20)
    assert "draw 1: 10 rules, 0 refused, 0 doubtful" in capsys.readouterr().out
    assert [item["rules"] for item in artifacts.read_json(Path("artifacts/rules/summary.json"))["draws"]] == [10, 10]
    first = outputs()
    extract.run()
    assert (outputs(), len(server.bodies)) == (first, 20)
    configure(paid(max_concurrency=1))  # of these, one draw is at hand already
    extract.run()
    assert len(server.bodies) == 20


def test_only_as_many_examples_as_asked_for_are_paid_for_and_more_of_them_cost_the_difference(
    project, anthropic_server, capsys
):
    server = anthropic_server(lambda *_: answer(SAID))
    configure(paid(), examples=3)
    extract.run()
    told = capsys.readouterr().out
    assert "3 calls of anthropic:claude-test, 0 answered already: 3 to ask" in told
    assert "asked about 3 of 10 training examples (extraction.examples), of which 3 have an answer\n" in told
    summary = artifacts.read_json(Path("artifacts/rules/summary.json"))
    assert (summary["examples"], summary["answered"], summary["not_asked"]) == (3, 3, 7)
    first = {rule.id for rule in artifacts.read_jsonl(Path("artifacts/rules/rules.jsonl"), Rule)}
    configure(paid(), examples=5)
    extract.run()
    rules = artifacts.read_jsonl(Path("artifacts/rules/rules.jsonl"), Rule)
    assert (len(server.bodies), len(rules)) == (5, 5)
    assert first < {rule.id for rule in rules}


def test_a_recording_of_one_draw_does_not_pass_for_two(project):
    configure({"_target_": "pld.adapters.teachers.recorded.RecordedTeacher", "path": "answers.jsonl"}, draws=2)
    with pytest.raises(ConfigError, match=r"in 2 draws, got none for draw 1 .*extraction\.draws=1"):
        extract.run()
    assert not Path("artifacts/rules/rules.jsonl").exists()


def test_recorded_answers_for_unknown_ids_are_counted(project, capsys):
    extract.run()
    assert "are ignored" not in capsys.readouterr().err
    with Path("answers.jsonl").open("a") as file:
        file.writelines(json.dumps({"example_id": f"other-{n}", **SAID}) + "\n" for n in range(3))
    extract.run()
    said = capsys.readouterr().err
    assert "3 recorded answers are ignored, because their example_id is no training example" in said
    assert "'other-0' first" in said
