"""What MLflow has no room for: names, texts and prompts at its limits."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pydantic import ValidationError

from pld.config.settings import load_config
from pld.errors import RegistryError
from pld.records import LONGEST_PROMPT, Message, registered_length
from pld.registry import packaging
from pld.registry.limits import LONGEST_NAME, names
from pld.registry.registry import Registry
from pld.registry.result import read_result
from pld.registry.runs import log_result
from pld.registry.store import Store, translated
from pld.task_params import TaskParams
from support.artifact_tree import write_artifacts
from support.mails import TASK
from support.shelf import register
from support.stories import MAIL, Story


def test_names_that_do_not_collide_stay_as_existing_runs_have_them() -> None:
    keys = ["macro_f1", "per_label_f1.refund", "per_label_f1.Über/uns", "per_label_f1.C++", "per_label_f1.返品"]
    assert list(names(keys).values()) == [
        "macro_f1", "per_label_f1.refund", "per_label_f1.Über_uns", "per_label_f1.C__", "per_label_f1.返品"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["👍", "👎"], [":thumbs up sign:", ":thumbs down sign:"]),
        (["C (", "C ["], ["C :left parenthesis:", "C :left square bracket:"]),
        (["कि", "की"], ["क:devanagari vowel sign i:", "क:devanagari vowel sign ii:"]),
    ],
)  # fmt: skip
def test_labels_that_would_share_a_name_are_spelled_out(labels: list[str], wanted: list[str]) -> None:
    assert list(names(labels).values()) == wanted


@pytest.mark.parametrize(
    "labels",
    [
        ["x" * 300 + "a", "x" * 300 + "b"],
        ["👍" * 90, "👎" * 90],
        ["Spam", "spam"],
        ["👍", "👎", "：", ":thumbs up sign:"],
    ],
)
def test_labels_that_cannot_be_spelled_out_are_told_apart_by_a_hash(labels: list[str]) -> None:
    found = names(labels)
    assert len({name.casefold() for name in found.values()}) == len(labels) == len(found)
    assert max(map(len, found.values())) <= LONGEST_NAME


def labelled(labels: tuple[str, ...]) -> Story:
    """The story of the mails with `labels` besides its own."""
    return dataclasses.replace(MAIL, labels=(*MAIL.labels, *labels))


@pytest.mark.slow
def test_labels_in_emoji_become_metrics_of_their_own(store: Store, project: Path) -> None:
    write_artifacts(project / "artifacts", story=labelled(("👍", "👎")))
    result = read_result(load_config())
    run = store.client.get_run(log_result(store, result).run_id)
    assert {"per_label_f1.:thumbs up sign:", "per_label_f1.:thumbs down sign:"} <= set(run.data.metrics)


@pytest.mark.slow
def test_two_hundred_labels_of_sixty_characters_get_through_track(store: Store, project: Path) -> None:
    labels = tuple(f"{n:03d} " + "long label, " * 4 + "and more" for n in range(200))
    assert {len(label) for label in labels} == {60}
    write_artifacts(project / "artifacts")
    result = read_result(load_config())  # its figures for 200 labels would take minutes to bootstrap
    score = next(iter(result.report.systems["distilled"].per_label.values()))
    figures = {"per_label": dict.fromkeys(labels, score)}
    systems = {name: report.model_copy(update=figures) for name, report in result.report.systems.items()}
    task = result.config.task.model_copy(update={"labels": labels})
    result = dataclasses.replace(
        result,
        config=result.config.model_copy(update={"task": task}),
        report=result.report.model_copy(update={"systems": systems}),
    )
    run = log_result(store, result)
    metrics = store.client.get_run(run.run_id).data.metrics
    assert sum(name.startswith("per_label_f1.") for name in metrics) == 200
    with mock.patch.object(packaging, "_PACKAGE", project / "artifacts/splits"):
        Registry(store, "mail").register_and_promote(result, run.run_id)
    description = store.client.get_registered_model("pld-mail").description
    assert len(description) <= 5000
    assert description.endswith("… (200 labels) by a distilled system prompt.")


def long_turns(characters: str) -> tuple[Message, ...]:
    return (Message(role="user", content=characters), Message(role="assistant", content="refund"))


def test_the_length_of_a_prompt_is_counted_as_mlflow_stores_it(store: Store, project: Path) -> None:
    assert registered_length([Message(role="system", content="é" * 10)]) == 10
    turns = [Message(role="system", content="x"), *long_turns("é" * 10)]
    assert registered_length(turns) - registered_length([turns[0], *long_turns("e" * 10)]) == 50
    register(store, prompt="x" * LONGEST_PROMPT)


@pytest.mark.parametrize(
    "changes", [{"prompt": "x" * (LONGEST_PROMPT + 1)}, {"turns": long_turns("é" * 16_700)}], ids=["text", "chat"]
)
def test_a_prompt_that_mlflow_has_no_room_for_is_named_as_the_cause(
    store: Store, project: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(
        RegistryError, match=r"at most 100,000 characters, which MLflow's registry takes, got 100,"
    ) as caught:
        register(store, **changes)
    assert "answers" not in str(caught.value)


def test_what_mlflow_refuses_is_not_taken_for_a_store_that_does_not_answer(store: Store) -> None:
    store.client.create_prompt("p")
    refused = pytest.raises(RegistryError, match=r"expected values that MLflow takes, got: .*exceeds max")
    with refused, translated(store.uri):
        store.client.create_prompt_version("p", "x" * (LONGEST_PROMPT + 1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_instruction": "x" * 122_188}, "base_instruction of at most 100,000 characters, .* got 122,188"),
        ({"name": "mail/in"}, "can name a registered model, got 'mail/in'"),
        ({"name": "m" * 300}, "at most 200 letters"),
    ],
)
def test_a_task_that_the_registry_can_not_take_is_refused_with_its_settings(
    changed: dict[str, str], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TaskParams.model_validate(TASK.model_dump() | changed)
