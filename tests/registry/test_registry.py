import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from pld.artifacts import read_prompt, read_record
from pld.config.settings import load_config
from pld.distill.render import prompt_messages
from pld.errors import RegistryError, ReviewError
from pld.records import Message, prompt_sha256, sha256
from pld.registry.registry import Outcome, Registry, review_anchors
from pld.registry.release import fetch_release
from pld.registry.store import Store
from pld.reports import EvaluationReport
from pld.review.decisions import ReviewStanding
from support.artifact_tree import write_artifacts
from support.shelf import AS_FILLED, BETTER, WORSE, aliases, any_gates, of, raw_aliases, register, with_gates
from support.stories import ADDED, CLUSTERED, KEPT, PROMPT

Register = Callable[..., Outcome]


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store, "mail")


@pytest.fixture
def registered(store: Store) -> Register:
    return lambda **changes: register(store, **changes)


def test_the_first_version_whose_gates_hold_is_production_and_no_longer_a_candidate(
    registered: Register, registry: Registry, project: Path
) -> None:
    outcome = registered()
    assert str(outcome).startswith("pld-mail version 1 is production: all gates hold (better_than_zero_shot macro-F1")
    assert aliases(registry) == {"production": 1}
    verdicts = {verdict.gate: verdict for verdict in of(registry, 1).verdicts}
    assert set(verdicts) == {
        "better_than_zero_shot",
        "not_worse_than_few_shot",
        "not_worse_than_production",
        "max_unparsable_rate",
    }
    assert verdicts["better_than_zero_shot"] in outcome.verdicts, "with the figures it was judged on"
    # what ships is the loop's list, not what came into the loop
    final = (project / "artifacts/review/final/system_prompt.md").read_bytes()
    assert final != (project / "artifacts/best/system_prompt.md").read_bytes() == CLUSTERED.encode()
    assert registry.store.client.get_prompt_version_by_alias("pld-mail-prompt", "production").template == final.decode()
    served = mlflow.artifacts.download_artifacts(
        "models:/pld-mail/1/artifacts/system_prompt.md", tracking_uri=registry.store.uri
    )
    assert Path(served).read_bytes() == final
    assert of(registry, 1).prompt_sha256 == sha256(final.decode())


def test_the_registered_prompt_is_the_measured_one_byte_for_byte(registered: Register, registry: Registry) -> None:
    text = 'Über {{ name }}, {{undefined}} {% raw %} "quoted" \\ \r\n\ttabs, no newline at the end  '
    registered(prompt=text)
    assert registry.store.client.get_prompt_version_by_alias("pld-mail-prompt", "production").template == text
    assert of(registry, 1).prompt_sha256 == sha256(text)


def test_a_prompt_with_example_turns_is_a_chat_prompt_measured_registered_and_served_under_one_hash(
    registered: Register, registry: Registry, project: Path
) -> None:
    turns = (
        Message(role="user", content='Über {{ name }} {% raw %} "quoted" \r\n\ttabs '),
        Message(role="assistant", content="refund"),
    )
    registered(turns=turns)
    version = of(registry, 1)
    messages = read_prompt(project / "artifacts/review/final")
    assert messages[1:] == turns
    measured = read_record(project / "artifacts/evaluation/report.json", EvaluationReport).prompt_sha256
    assert prompt_sha256(messages) == measured == version.prompt_sha256
    registered_prompt = registry.store.client.get_prompt_version_by_alias("pld-mail-prompt", "production")
    assert registered_prompt.template == [message.model_dump() for message in messages]
    assert fetch_release(load_config(), "production").messages == messages
    registered(turns=turns, p95_ms=33.0)
    registered(turns=turns[::-1])
    assert [found.prompt_version for found in registry.versions()] == [2, 1], "other turns, another prompt"


def test_a_version_registered_before_prompts_had_messages_is_still_read(
    registered: Register, registry: Registry, project: Path
) -> None:
    registered()
    (served,) = project.rglob("artifacts/messages.json")
    served.unlink()
    assert fetch_release(load_config(), "production").messages == prompt_messages(PROMPT)


def test_the_same_content_is_the_same_version(shelf: Registry) -> None:
    again = register(shelf.store, prompt=BETTER, p95_ms=33.0)
    assert str(again) == "pld-mail version 2 is production: the same prompt as before"
    assert [version.number for version in shelf.versions()] == [3, 2, 1]
    assert aliases(shelf) == AS_FILLED


def test_a_candidate_that_fails_a_gate_stays_candidate_and_its_figures_are_kept(shelf: Registry) -> None:
    line = str(register(shelf.store, prompt=WORSE, right=0.4))
    assert line.startswith("pld-mail version 3 stays candidate: better_than_zero_shot failed: macro-F1 ")
    assert "not_worse_than_production failed: macro-F1 -0." in line
    assert aliases(shelf) == AS_FILLED
    assert {verdict.gate: verdict.holds for verdict in of(shelf, 3).verdicts} == {
        "better_than_zero_shot": False,
        "not_worse_than_few_shot": False,
        "not_worse_than_production": False,
        "max_unparsable_rate": True,
    }


def test_another_calibration_is_another_version_of_the_same_prompt(registered: Register, registry: Registry) -> None:
    config = write_artifacts(Path("artifacts"))
    registered()
    calibrated = config.calibration.model_copy(update={"method": "batch"})
    registered(config=config.model_copy(update={"calibration": calibrated}))
    assert [version.number for version in registry.versions()] == [2, 1]
    assert len(list(registry.store.client.search_prompt_versions("pld-mail-prompt"))) == 1


def test_the_limits_of_the_settings_are_gates(shelf: Registry) -> None:
    failed = str(shelf.promote(with_gates(better_than_zero_shot=False, max_p95_ms=10, max_prompt_tokens=10)))
    assert "max_p95_ms failed: p95 20.0 ms on a test, limit 10 ms" in failed
    assert "max_prompt_tokens failed: 60 tokens, limit 10" in failed
    assert shelf.promote(any_gates()).alias == "production"
    gates = {verdict.gate for verdict in of(shelf, 3).verdicts}
    assert gates == {"max_unparsable_rate"}, "verdicts of gates that are no longer asked for are gone"


def test_a_rolled_back_version_comes_back_only_by_hand(shelf: Registry) -> None:
    assert shelf.rollback() == (1, 2)
    assert aliases(shelf) == {"production": 1, "previous": 2, "candidate": 3}
    told = str(register(shelf.store, prompt=BETTER))
    assert "pld promote --version 2` takes that back" in told, "the next repro must not undo it"
    assert aliases(shelf) == {"production": 1, "previous": 2, "candidate": 2}
    assert "rolled back" in of(shelf, 2).tags["pld.decision"], "for whoever looks at it in MLflow"
    assert shelf.promote(load_config(), 2).alias == "production"
    assert aliases(shelf) == {"production": 2, "previous": 1}
    assert "pld.decision" not in of(shelf, 2).tags


def test_rolling_back_twice_is_where_it_began(shelf: Registry) -> None:
    shelf.rollback()
    assert shelf.rollback() == (2, 1)
    assert aliases(shelf) == AS_FILLED


def test_without_a_previous_version_there_is_nothing_to_roll_back_to(registered: Register, registry: Registry) -> None:
    with pytest.raises(RegistryError, match="expected version 'candidate', got no version; run `make repro`"):
        registry.promote(write_artifacts(Path("artifacts")))
    registered()
    with pytest.raises(RegistryError, match="expected a previous version to roll back to, got none"):
        registry.rollback()
    with pytest.raises(RegistryError, match="expected version '7', got 1 production"):
        registry.promote(load_config(), 7)


def test_force_ignores_failed_gates_and_keeps_the_reason(shelf: Registry) -> None:
    outcome = shelf.promote(load_config(), force="the demo is today")
    assert "is production: forced (the demo is today) although better_than_zero_shot failed" in str(outcome)
    assert aliases(shelf) == {"production": 3, "previous": 2}
    kept = (
        "forced: the demo is today (failed: better_than_zero_shot, not_worse_than_few_shot, not_worse_than_production)"
    )
    assert of(shelf, 3).tags["pld.decision"] == kept


def test_every_move_is_in_the_history_with_who_what_and_why(shelf: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pld.registry.promotion.user_name", lambda: "ada")
    monkeypatch.setattr(Registry, "_commit", lambda *_: "c0ffee")
    shelf.promote(load_config(), force="the demo is today")
    shelf.rollback("it answers refund to everything")
    moves = shelf.history()
    assert [(move.kind, move.was, move.to) for move in moves] == [
        ("promote", None, 1), ("promote", 1, 2), ("force", 2, 3), ("rollback", 3, 2),
    ]  # fmt: skip
    assert [move.reason for move in moves[1:]] == [
        "all gates hold",
        "the demo is today (failed: better_than_zero_shot, not_worse_than_few_shot, not_worse_than_production)",
        "it answers refund to everything",
    ]
    assert [(move.by, move.prompt_sha256, move.commit) for move in moves[2:]] == [
        ("ada", sha256(WORSE), "c0ffee"),
        ("ada", sha256(BETTER), "c0ffee"),
    ]
    assert all(earlier.at <= later.at for earlier, later in itertools.pairwise(moves))
    tags = shelf.store.client.get_model_version("pld-mail", "2").tags
    assert [key for key in sorted(tags) if key.startswith("pld.move.")] == ["pld.move.0002", "pld.move.0004"]


@pytest.mark.parametrize("force", [None, "because"])
def test_a_prompt_that_is_not_the_evaluated_one_is_never_promoted(shelf: Registry, force: str | None) -> None:
    shelf.store.client.set_prompt_version_tag("pld-mail-prompt", "3", "mlflow.prompt.text", "tampered with")
    with pytest.raises(RegistryError, match="expected the evaluated prompt"):
        shelf.promote(load_config(), force=force)
    assert raw_aliases(shelf) == AS_FILLED


@pytest.mark.parametrize("gone", ["system_prompt.md", "served.json", "registered prompt"])
def test_a_version_whose_artifact_is_gone_is_refused_and_no_alias_moves(shelf: Registry, gone: str) -> None:
    def lose(number: int) -> None:
        if gone == "registered prompt":
            shelf.store.client.delete_prompt_version("pld-mail-prompt", str(number))
        for path in Path("mlartifacts").rglob(gone):
            if sha256((path.parent / "system_prompt.md").read_text()) == of(shelf, number).prompt_sha256:
                path.unlink()

    lose(3)
    message = r"expected the files and the registered prompt of a version, got .* \(pld-mail version {}\)"
    with pytest.raises(RegistryError, match=message.format(3)) as caught:
        shelf.promote(load_config(), force="because")
    assert "\n" not in str(caught.value)
    lose(1)
    with pytest.raises(RegistryError, match=message.format(1)):
        shelf.rollback()
    with pytest.raises(RegistryError, match=message.format(1)):
        fetch_release(load_config(), "previous")
    assert raw_aliases(shelf) == AS_FILLED
    assert len(shelf.history()) == 2


@pytest.mark.parametrize("variable", ["DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"])
def test_inside_a_dvc_experiment_no_alias_moves(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "brave-newt")
    moves = (lambda: register(shelf.store), lambda: shelf.promote(load_config(), 1), shelf.rollback)
    for move in moves:
        with pytest.raises(RegistryError, match="brave-newt"):
            move()
    shelf.store.client.set_registered_model_alias("pld-mail", "production", "3")
    shelf.versions()
    assert len(shelf.history()) == 2, "nor is anything recorded"


def review(approved: bool, words: str = "3 of 3 approved", entries: int = 2) -> Callable[..., ReviewStanding]:
    return lambda *_: ReviewStanding(approved=approved, words=words, entries=entries, head="f" * 64)


def test_where_a_review_is_required_only_an_approved_prompt_is_promoted_and_where_the_log_stood_is_kept(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = any_gates()
    asked = config.model_copy(update={"promotion": config.promotion.model_copy(update={"require_review": True})})
    monkeypatch.setattr("pld.registry.registry.standing_of", review(False, "2 of 3 approved"))
    assert str(shelf.promote(asked)) == "pld-mail version 3 stays candidate: reviewed failed: 2 of 3 approved"
    assert shelf.promote(asked, force="in a hurry").alias == "candidate"
    with pytest.raises(RegistryError, match=r"expected a sheet that approves its prompt .* got 2 of 3 approved"):
        shelf.rollback(require_review=True)
    assert review_anchors(load_config()) == []
    seen = []
    monkeypatch.setattr(
        "pld.registry.registry.standing_of",
        lambda *arguments: (seen.append(arguments), review(True)())[1],
    )
    assert shelf.promote(asked).alias == "production"
    assert seen[0] == ("mail", sha256(WORSE), (KEPT.id, ADDED.id))
    assert review_anchors(load_config()) == [(3, 2, "f" * 64)]


def test_a_log_of_reviews_that_can_not_be_trusted_approves_nothing(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ReviewError("reviews/mail.jsonl:2: the chain is broken")

    monkeypatch.setattr("pld.registry.registry.standing_of", broken)
    asked = with_gates(better_than_zero_shot=False, not_worse_than_production=False, require_review=True)
    assert "reviewed failed: reviews/mail.jsonl:2: the chain is broken" in str(shelf.promote(asked))


def test_asking_for_anchors_makes_no_store(project: Path) -> None:
    config = write_artifacts(project / "artifacts")
    before = set(project.iterdir())
    assert review_anchors(config) == []
    assert set(project.iterdir()) == before


def test_a_task_name_that_can_not_name_a_model_is_refused(store: Store) -> None:
    with pytest.raises(RegistryError, match=r"expected letters.* got 'a/b' \(task.name\)"):
        Registry(store, "a/b")


def test_a_fetched_release_is_what_was_registered(shelf: Registry) -> None:
    release = fetch_release(load_config(), "production")
    assert (release.model, release.number, release.aliases) == ("pld-mail", 2, {"production"})
    assert release.prompt == BETTER
    assert (len(release.instructions), len(release.predictions)) == (2, 60)
    assert {row.system for row in release.predictions} == {"distilled"}
    assert fetch_release(load_config(), "1").prompt == PROMPT
    with pytest.raises(RegistryError, match=r"expected version 'best', got 3 candidate, 2 production, 1 previous"):
        fetch_release(load_config(), "best")
    for folder in Path("mlartifacts").rglob("evaluation"):
        shutil.rmtree(folder)
    assert fetch_release(load_config(), "1").predictions == ()
