import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pld.adapters.teachers.answer_store import AnswerStore
from pld.artifacts import read_jsonl
from pld.cli.main import pld
from pld.config.composition import compose
from pld.distill.extract import extraction_requests
from pld.errors import ArtifactError
from pld.records import Example
from pld.stages import extract
from support.anthropic_server import answer, anthropic_server
from support.small_projects import configure, write_asked_project

__all__ = ["anthropic_server"]
SAID = {"rationale": "Warm.", "rule": "If it is warm, answer red.", "label": "red"}


@pytest.fixture
def asked(project, monkeypatch):
    """A project with a paid Teacher, no key, and an empty answer store."""
    monkeypatch.setenv("PLD_CACHE", str(project / "cache"))
    write_asked_project()
    return project


@pytest.fixture
def service(anthropic_server):
    """Counts a word as a token, and answers each request with 100 tokens in and 20 out."""
    return anthropic_server(lambda *_: answer(SAID))


def shown(*arguments):
    return CliRunner().invoke(pld, ["estimate", *arguments], catch_exceptions=False).output


def found():
    whole = json.loads(shown("--json"))
    return whole | {stage["stage"]: stage for stage in whole["stages"]}


def test_without_a_key_it_says_what_it_assumes_and_asks_nobody(asked):
    output = " ".join(shown().split())
    assert "10 training examples; tokens in: characters / 3.5, out: assumed" in output
    assert "│ messages │ batches" in output.replace("┃", "│")
    assert "prices as of 2026-11-22 (https://platform.claude.com" in output
    assert "task colours: spent so far: $0.00 (no cap), 0 calls" in output
    assert max(map(len, shown().splitlines())) <= 120


def test_with_a_key_the_provider_counts_a_few_requests_and_nothing_is_paid(asked, service):
    estimate = found()["extract"]
    config = compose(Path("conf"), Path("params.yaml"))
    examples = read_jsonl(Path("artifacts/splits/train.jsonl"), Example)
    requests = extraction_requests(config.task, examples, config.extraction)
    words = sum(len(f"{request.system} {request.prompt}".split()) for request in requests)
    assert estimate["input_tokens"] == pytest.approx(words, abs=5)
    assert "the provider's count of a few requests" in estimate["basis"]
    assert service.bodies == []


def test_a_provider_that_does_not_count_is_no_reason_to_fail(asked, service):
    configure(asked, "teacher.max_retries=0")
    service.die()
    assert "tokens in: characters / 3.5" in found()["extract"]["basis"]


def test_stored_answers_are_subtracted_and_an_edit_of_the_question_is_asked_anew(asked, service):
    configure(asked)
    extract.run()
    assert len(service.bodies) == 10
    estimate = found()
    assert (estimate["extract"]["stored"], estimate["extract"]["to_ask"]) == (10, 0)
    assert estimate["extract"]["usd"] == {"messages": 0, "batches": 0}
    configure(asked, "extraction.draws=2")
    more = found()["extract"]
    assert (more["stored"], more["to_ask"]) == (10, 10)
    configure(asked, "extraction.max_words=40")  # of the system prompt
    edited = found()["extract"]
    assert (edited["stored"], edited["to_ask"]) == (0, 10)
    assert edited["output_tokens"] == 200
    assert "out: the mean of 10 past answers" in edited["basis"]
    assert edited["usd"]["batches"] == pytest.approx(edited["usd"]["messages"] / 2)
    assert len(service.bodies) == 10


def test_it_counts_only_the_examples_that_the_teacher_would_be_asked_about_and_says_of_how_many(asked, service):
    configure(asked, "extraction.examples=4")
    row = found()["extract"]
    assert (row["calls"], row["basis"].split(";")[0]) == (4, "4 of 10 training examples")
    extract.run()
    assert len(service.bodies) == 4
    configure(asked, "extraction.examples=7", consolidator="teacher_clusters", clusterer="dbscan")
    more = found()
    assert (more["extract"]["stored"], more["extract"]["to_ask"]) == (4, 3)  # those of before are kept
    assert more["sweep"]["calls"] == 4 * 3  # of eps; pairs of seven rules


def test_edits_of_params_that_were_not_run_count(asked):
    configure(asked, "extraction.draws=3")
    (asked / "artifacts/config.yaml").unlink()
    assert found()["extract"]["calls"] == 30


def test_every_stage_that_would_ask_has_a_row_with_what_its_calls_rest_on(asked):
    configure(asked, "baselines.gepa={max_metric_calls: 900, max_teacher_calls: null, seed: 0}",
              consolidator="teacher_clusters", resolver="teacher", clusterer="dbscan")  # fmt: skip
    rows = found()
    assert list(rows)[-4:] == ["extract", "sweep", "resolve", "evaluate"]
    assert (rows["sweep"]["calls"], rows["sweep"]["at_most"]) == (4 * 5, True)  # of eps; pairs of ten rules
    assert rows["resolve"]["calls"] == 3
    assert rows["evaluate"]["calls"] == 10 + 20 + 3
    assert all(row["input_tokens"] > 100 and row["usd"]["messages"] > 0 for row in (rows[s] for s in list(rows)[-4:]))
    configure(asked, "consolidator.max_calls=2", consolidator="teacher_clusters", clusterer="dbscan")
    assert found()["sweep"]["calls"] == 8


def test_consolidation_by_label_counts_labels_and_checklists_at_each_length_and_merges_where_rules_do_not_fit(asked):
    def sweeps():
        rows = [row for row in json.loads(shown("--json"))["stages"] if row["stage"] == "sweep"]
        return [(row["role"], row["calls"], row["basis"].split(";")[0]) for row in rows]

    configure(asked, consolidator="teacher")
    by_label = [
        ("consolidate", 2 * 4, "2 labels at each of 4 settings of consolidation"),
        ("consolidate", 4, "a checklist at each of 4 settings of consolidation"),
    ]
    assert sweeps() == by_label
    configure(asked, "consolidator.max_rules=4", consolidator="teacher")
    merges = ("consolidate", 4 * 5, "at most 5 groups of several rules in each of 4 clusterings")
    assert sweeps() == [merges, *by_label]


def test_a_budget_that_is_too_small_is_reported_and_is_no_error(asked):
    configure(asked, "budget.usd=0.001", "budget.calls=4")
    result = CliRunner().invoke(pld, ["estimate"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "over budget.usd by about $0.1" in result.output
    assert "over budget.calls by 18" in result.output


def test_a_model_without_a_price_says_how_to_add_it(asked):
    configure(asked, "teacher.model=claude-next", "budget.usd=5")
    output = " ".join(shown().split())
    assert "unknown" in output
    assert "no price for claude-next (or for requests as long as these): with budget.usd set the run stops" in output
    assert "add under models of conf/prices.yaml `claude-next: {input: ...," in output


def test_recorded_answers_cost_nothing(asked):
    lines = [json.dumps({"example_id": f"e{i}", **SAID}) for i in range(7)]
    (asked / "answers.jsonl").write_text("\n".join(lines))
    (asked / "conf/teacher/mine.yaml").write_text(
        yaml.safe_dump({"_target_": "pld.adapters.teachers.recorded.RecordedTeacher", "path": "answers.jsonl"})
    )
    configure(asked, teacher="mine", consolidator="teacher", clusterer="dbscan")
    output = " ".join(shown().split())
    assert "recorded answers are played back: nothing to pay" in output
    assert "messages" not in output
    assert (found()["extract"]["calls"], found()["extract"]["stored"]) == (10, 7)


def test_without_a_train_split_or_with_another_tasks_it_says_what_to_run(asked):
    (asked / "artifacts/splits/train.jsonl").rename(asked / "elsewhere")
    with pytest.raises(ArtifactError, match=r"train\.jsonl.*run `dvc repro`"):
        shown()
    (asked / "elsewhere").rename(asked / "artifacts/splits/train.jsonl")
    configure(asked, task="tickets")
    with pytest.raises(ArtifactError, match=r"expected examples of task tickets, got others .*dvc repro prepare"):
        shown()


def test_an_estimate_leaves_the_store_as_it_was(asked, service):
    configure(asked)
    extract.run()
    store = AnswerStore(asked / "cache/answers.sqlite")
    before = list(store.export())
    configure(asked, "extraction.max_words=40")
    shown()
    assert list(store.export()) == before
    assert store.spent("colours").open_calls == 0
