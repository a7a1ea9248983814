"""A registered version as stored in MLflow: its number, tags and aliases."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pld.registry.promotion_gates import Verdict

CANDIDATE, PRODUCTION, PREVIOUS = "candidate", "production", "previous"
ALIASES = (CANDIDATE, PRODUCTION, PREVIOUS)
EVALUATION = "evaluation"  # folder among a run's artifacts
VERSION_KEY = "pld.version_key"
PROMPT_SHA = "pld.prompt_sha256"
PROMPT_VERSION = "pld.prompt_version"
SYSTEM = "pld.system"
INSTRUCTIONS = "pld.instructions"
EVIDENCE = "pld.evidence_run"
MEASURED = "pld.measured_run"  # and "/" and a folder, if it is not EVALUATION
TEST_DIGEST = "pld.test_digest"
MACRO_F1 = "pld.macro_f1"
TOKENS = "pld.prompt_tokens"
DECISION = "pld.decision"
GATE = "pld.gate."
REVIEW_ENTRIES = "pld.review_entries"
REVIEW_HEAD = "pld.review_head"


@dataclass(frozen=True)
class Version:
    """One version of the registered model, with the aliases that point to it."""

    number: int
    tags: Mapping[str, str]
    aliases: frozenset[str]

    @property
    def prompt_sha256(self) -> str:
        return self.tags[PROMPT_SHA]

    @property
    def prompt_version(self) -> int:
        """The version of the registered prompt."""
        return int(self.tags[PROMPT_VERSION])

    @property
    def instruction_ids(self) -> tuple[str, ...]:
        return tuple(json.loads(self.tags.get(INSTRUCTIONS, "[]")))

    @property
    def evidence_run(self) -> str:
        """The id of the pipeline run that produced it."""
        return self.tags[EVIDENCE]

    @property
    def measured_in(self) -> tuple[str, str]:
        """Its last measurement: the id of a run, and the folder among that run's artifacts."""
        run, _, folder = self.tags.get(MEASURED, self.evidence_run).partition("/")
        return run, folder or EVALUATION

    @property
    def test_digest(self) -> str:
        """md5 of the test set of its last measurement."""
        return self.tags[TEST_DIGEST]

    @property
    def macro_f1(self) -> str:
        """Macro-F1 on that test set with its interval, as text."""
        return self.tags[MACRO_F1]

    @property
    def prompt_tokens(self) -> int:
        return int(self.tags[TOKENS])

    @property
    def decision(self) -> str | None:
        """The last manual decision about it (forced, rolled back); None if only the gates decided."""
        return self.tags.get(DECISION)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The gates' latest verdicts."""
        return tuple(
            Verdict.model_validate_json(value) for key, value in sorted(self.tags.items()) if key.startswith(GATE)
        )

    @property
    def review_anchor(self) -> tuple[int, str] | None:
        """Length and last hash of the review log when it was promoted; None: there was no log."""
        entries, head = self.tags.get(REVIEW_ENTRIES), self.tags.get(REVIEW_HEAD)
        return (int(entries), head) if entries and head else None


def read_model(client: Any, name: str) -> Any:
    """MLflow's registered model `name`, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def read_versions(client: Any, name: str) -> list[Version]:
    """All versions of the registered model `name` that pld registered, the newest first."""
    model = read_model(client, name)
    if model is None:
        return []
    found = [
        Version(
            int(item.version),
            dict(item.tags),
            frozenset(alias for alias, number in model.aliases.items() if int(number) == int(item.version)),
        )
        for item in pages(client.search_model_versions, f"name = '{name}'")
        if VERSION_KEY in item.tags
    ]
    return sorted(found, key=lambda version: -version.number)


def pages(search: Any, query: str) -> Iterable[Any]:
    """All results of an MLflow `search` function, across pages."""
    page: Sequence[Any] = search(query)
    yield from page
    while token := getattr(page, "token", None):
        page = search(query, page_token=token)
        yield from page


def create_once(create: Callable[..., object], name: str, **settings: object) -> None:
    """Call MLflow's `create` function for `name`, unless that exists already."""
    from mlflow.exceptions import MlflowException

    try:
        create(name, **settings)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
