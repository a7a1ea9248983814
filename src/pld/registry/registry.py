"""The versions of one task: registering what a pipeline result ships, and promoting it by the gates.

Everything that moves an alias runs under the store's file lock; see `pld.registry.promotion`.
"""

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pld.artifacts import read_record
from pld.distill.render import prompt_messages
from pld.errors import ArtifactError, RegistryError, ReviewError
from pld.params import Config
from pld.records import LONGEST_PROMPT, Message, Messages, canonical_json, prompt_sha256, registered_length
from pld.registry.limits import LONGEST_DESCRIPTION, cut, described
from pld.registry.packaging import log_model, spec_of
from pld.registry.promotion import Aliases, Move, history, was_rolled_back
from pld.registry.promotion_gates import REVIEWED, Evidence, Production, Verdict, judge
from pld.registry.reevaluate import Conditions, Measurements, current_conditions
from pld.registry.result import PipelineResult
from pld.registry.runs import interval_words, sentence
from pld.registry.store import (
    Store,
    connect,
    dvc_experiment,
    experiment_id,
    first_line,
    store_is_there,
    translated,
)
from pld.registry.versions import (
    CANDIDATE,
    EVIDENCE,
    GATE,
    INSTRUCTIONS,
    MACRO_F1,
    MEASURED,
    PREVIOUS,
    PRODUCTION,
    PROMPT_SHA,
    PROMPT_VERSION,
    REVIEW_ENTRIES,
    REVIEW_HEAD,
    SYSTEM,
    TEST_DIGEST,
    TOKENS,
    VERSION_KEY,
    Version,
    create_once,
    pages,
    read_versions,
)
from pld.review.decisions import ReviewStanding
from pld.review.log import standing_of
from pld.serving.model import SPEC_FILE, ServedSpec, read_served_prompt

if TYPE_CHECKING:
    from mlflow.entities.model_registry import PromptVersion

_ATTEMPTS = 5  # if other processes move production while a promotion measures


@dataclass(frozen=True)
class Outcome:
    """The alias that a version has after a promotion attempt; `verdicts` is empty if no gate was judged."""

    model: str
    version: int
    alias: str
    verdicts: tuple[Verdict, ...] = field(default=())
    note: str = ""

    def __str__(self) -> str:
        if self.alias == PRODUCTION:
            figures = "; ".join(f"{verdict.gate} {verdict.figures}" for verdict in self.verdicts) or "none is asked for"
            why = self.note or f"all gates hold ({figures})"
            return f"{self.model} version {self.version} is production: {why}"
        failed = "; ".join(str(verdict) for verdict in self.verdicts if not verdict.holds)
        return f"{self.model} version {self.version} stays candidate: {failed or self.note}"


class Registry:
    """The registered model `pld-<task>` and its registered prompt `pld-<task>-prompt`."""

    def __init__(self, store: Store, task: str) -> None:
        if not re.fullmatch(r"[\w\-.]+", task, re.ASCII):
            raise RegistryError(
                "expected letters, digits, hyphens, dots or underscores, which can name a registered model, "
                f"got {task!r} (task.name); rename the task in conf/task/"
            )
        self.store = store
        self._client = store.client
        self._task = task
        self.model = f"pld-{task}"
        self.prompt = f"pld-{task}-prompt"
        self._aliases = Aliases(store, self.model, self.prompt)
        self._measurements = Measurements(store, self.model, self.read)

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        with translated(self.store.uri), self.store.lock:
            return self._open()

    def history(self) -> list[Move]:
        """Every move of `production`, the oldest first."""
        return history(self.versions())

    def find(self, alias_or_number: str) -> Version:
        """The version with this alias or number. Raises RegistryError that lists the existing ones."""
        return self._pick(self.versions(), alias_or_number)

    def read(self, version: Version) -> tuple[ServedSpec, tuple[Message, ...]]:
        """The spec and the prompt that `version` answers with. Raises RegistryError where a part is gone, or where the
        registered prompt or the one inside the model is not byte for byte the evaluated one."""
        import mlflow
        from mlflow.exceptions import MlflowException

        source = f"models:/{self.model}/{version.number}/artifacts"
        with tempfile.TemporaryDirectory() as temporary:
            try:
                registered = self._client.get_prompt_version(self.prompt, version.prompt_version)
                folder = Path(mlflow.artifacts.download_artifacts(source, None, None, temporary, self.store.uri))
                spec, served = read_record(folder / SPEC_FILE, ServedSpec), read_served_prompt(folder)
            except (MlflowException, ArtifactError, OSError) as error:
                self.store.must_answer()
                raise RegistryError(
                    f"expected the files and the registered prompt of a version, got {first_line(error):.200} "
                    f"({self.model} version {version.number}); delete that version in MLflow and run `dvc repro` on "
                    "its commit"
                ) from None
        found = {f"prompt {self.prompt}": _messages_of(registered), f"model {self.model}": served}
        for where, messages in found.items():
            if not (digest := prompt_sha256(messages)) == version.prompt_sha256 == spec.prompt_sha256:
                raise RegistryError(
                    f"expected the evaluated prompt (sha256 {version.prompt_sha256[:12]}), got {digest[:12]} "
                    f"({where}, for version {version.number}); delete that version in MLflow and run `dvc repro`"
                )
        return spec, served

    def review_of(self, version: Version) -> ReviewStanding:
        """What this checkout's review log says about its prompt; a log that can't be trusted approves nothing."""
        try:
            return standing_of(self._task, version.prompt_sha256, version.instruction_ids)
        except ReviewError as error:
            return ReviewStanding(approved=False, words=str(error), entries=0, head="")

    def register_and_promote(self, result: PipelineResult, run_id: str) -> Outcome:
        """Register what `result` ships (the same content is the same version) and promote it if the gates hold.

        A version that is in production already, or that was rolled back, stays where it is.
        """
        _refuse_in_experiment()
        with translated(self.store.uri):
            with self.store.lock:
                self._open()
                version = self._register(result, run_id)
                if PRODUCTION in version.aliases:
                    return Outcome(self.model, version.number, PRODUCTION, note="the same prompt as before")
                self._client.set_registered_model_alias(self.model, CANDIDATE, str(version.number))
                self._open()  # the prompt's alias follows
                if was_rolled_back(version):
                    note = f"it was rolled back; `pld promote --version {version.number}` takes that back"
                    return Outcome(self.model, version.number, CANDIDATE, note=note)
            conditions = Conditions(result.test_digest, result.report.student, result.folder)
            return self._promote(str(version.number), result.config, conditions, force=None)

    def promote(self, config: Config, number: int | None = None, force: str | None = None) -> Outcome:
        """Move `production` to version `number` (None: the candidate) if the gates hold.

        `force`: the reason why failed gates are ignored, which the history keeps; it can't override `reviewed`. Raises
        RegistryError where there is no such version, or its prompt is not the one that was evaluated.
        """
        _refuse_in_experiment()
        with translated(self.store.uri):
            return self._promote(str(number or CANDIDATE), config, current_conditions(config), force)

    def rollback(self, reason: str = "", *, require_review: bool = False) -> tuple[int, int]:
        """Swap `production` and `previous`; only `pld promote` brings back the version that leaves production.

        Returns the numbers of the new production and of the one that left it. Raises RegistryError where there is no
        previous version, or a review is required that it does not have.
        """
        _refuse_in_experiment()
        with translated(self.store.uri), self.store.lock:
            versions = self._open()
            present, former = _aliased(versions, PRODUCTION), _aliased(versions, PREVIOUS)
            if present is None or former is None or present.number == former.number:
                raise RegistryError(
                    f"expected a previous version to roll back to, got none ({self.model}); `pld status` lists versions"
                )
            self.read(former)
            if require_review and not (review := self.review_of(former)).approved:
                raise RegistryError(
                    f"expected a sheet that approves its prompt (promotion.require_review), got {review.words} "
                    f"({self.model} version {former.number}); review it with `pld review`"
                )
            self._aliases.move("rollback", former, versions, reason or "by hand", self._commit(former))
            return former.number, present.number

    def _promote(
        self, alias_or_number: str, config: Config, conditions: Conditions | None, force: str | None
    ) -> Outcome:
        """Measure without the lock, because it may take minutes; start over if production moved meanwhile."""
        for _ in range(_ATTEMPTS):
            with self.store.lock:
                versions = self._open()
                version, present = self._pick(versions, alias_or_number), _aliased(versions, PRODUCTION)
                if PRODUCTION in version.aliases:
                    return Outcome(self.model, version.number, PRODUCTION, note="it was already")
                self.read(version)
            evidence = self._measurements.evidence(version, config, conditions)
            rival = self._rival(present, config, conditions)
            with self.store.lock:
                versions = self._open()
                now = _aliased(versions, PRODUCTION)
                if (now and now.number) == (present and present.number):
                    version = self._pick(versions, str(version.number))
                    return self._judge_and_move(version, versions, evidence, rival, config, force)
        raise RegistryError(
            f"expected production to stay the same during the measurements, got other commands moving it "
            f"({self.model}); try again"
        )

    def _judge_and_move(
        self,
        version: Version,
        versions: Sequence[Version],
        evidence: Evidence,
        rival: Production,
        config: Config,
        force: str | None,
    ) -> Outcome:
        review = self.review_of(version)
        verdicts = judge(config.promotion, config.evaluation, evidence, rival, review)
        tags = {GATE + item.gate: item.model_dump_json() for item in verdicts}
        for stale in version.tags:
            if stale.startswith(GATE) and stale not in tags:
                self._client.delete_model_version_tag(self.model, str(version.number), stale)
        self._tag(version, tags)
        failed = [item for item in verdicts if not item.holds]
        if failed and (force is None or any(item.gate == REVIEWED for item in failed)):
            return Outcome(self.model, version.number, CANDIDATE, verdicts)
        if review.entries:
            self._tag(version, {REVIEW_ENTRIES: str(review.entries), REVIEW_HEAD: review.head})
        commit = self._commit(version)
        if failed:
            reason = f"{force} (failed: {', '.join(item.gate for item in failed)})"
            self._aliases.move("force", version, versions, reason, commit)
        else:
            self._aliases.move("promote", version, versions, "all gates hold", commit)
        note = f"forced ({force}) although {'; '.join(map(str, failed))}" if failed else ""
        return Outcome(self.model, version.number, PRODUCTION, verdicts, note)

    def _rival(self, present: Version | None, config: Config, conditions: Conditions | None) -> Production:
        if present is None or not config.promotion.not_worse_than_production:
            return None
        try:
            return self._measurements.evidence(present, config, conditions)
        except RegistryError as error:
            return str(error)

    def _open(self) -> list[Version]:
        """Finish or drop an interrupted move, report that on stderr, and return the versions."""
        if not dvc_experiment():
            for line in self._aliases.repair():
                print(line, file=sys.stderr)
        return read_versions(self._client, self.model)

    def _register(self, result: PipelineResult, run_id: str) -> Version:
        spec = spec_of(result)
        measured = result.report.systems[result.report.shipped]
        tags = {
            VERSION_KEY: spec.key,
            PROMPT_SHA: spec.prompt_sha256,
            INSTRUCTIONS: canonical_json([item.id for item in result.instructions]),
            EVIDENCE: run_id,
            MEASURED: run_id,
            TEST_DIGEST: result.test_digest,
            SYSTEM: result.report.shipped,
            MACRO_F1: interval_words(measured.macro_f1),
            TOKENS: str(measured.prompt_tokens),
        }
        versions = read_versions(self._client, self.model)
        found = next((version for version in versions if version.tags.get(VERSION_KEY) == spec.key), None)
        number = found.number if found else self._new(result, run_id, spec, tags)
        if found:
            self._tag(found, {key: value for key, value in tags.items() if found.tags.get(key) != value})
        return self._pick(read_versions(self._client, self.model), str(number))

    def _new(self, result: PipelineResult, run_id: str, spec: ServedSpec, tags: Mapping[str, str]) -> int:
        prompt_version = self._prompt_version(spec.prompt_sha256, result.messages)
        self._client.link_prompt_version_to_run(run_id, f"prompts:/{self.prompt}/{prompt_version}")
        spec = spec.model_copy(update={"prompt_version": str(prompt_version)})
        experiment = experiment_id(self.store, self._task)
        logged = log_model(self.store, experiment, run_id, self.model, spec, result.messages)
        create_once(
            self._client.create_registered_model,
            self.model,
            description=described(self._task, spec.task.labels),
        )
        made = self._client.create_model_version(
            self.model,
            source=f"models:/{logged.model_id}",
            run_id=run_id,
            model_id=logged.model_id,
            tags={**tags, PROMPT_VERSION: str(prompt_version)},
            description=cut(sentence(result), LONGEST_DESCRIPTION),
        )
        return int(made.version)

    def _prompt_version(self, digest: str, messages: Messages) -> int:
        """The version of the registered prompt with exactly `messages`, created if it does not exist: a text prompt, or
        a chat prompt where there are example turns.

        MLflow treats `{{name}}` in a prompt as a variable of `format()`, but stores the text unchanged.
        """
        create_once(
            self._client.create_prompt,
            self.prompt,
            description=f"System prompt of {self.model}.",
            # the UI lists a prompt in the experiments of this tag
            tags={"_mlflow_experiment_ids": f",{experiment_id(self.store, self._task)},"},
        )
        for found in pages(self._client.search_prompt_versions, self.prompt):
            if prompt_sha256(_messages_of(found)) == digest:
                return int(found.version)
        if (length := registered_length(messages)) > LONGEST_PROMPT:  # an edited list
            raise RegistryError(
                f"expected a prompt of at most {LONGEST_PROMPT:,} characters, which MLflow's registry takes, got "
                f"{length:,} as it is stored there ({self.prompt}); shorten its instructions"
            )
        chat = [message.model_dump() for message in messages]
        template = chat if len(chat) > 1 else chat[0]["content"]
        made = self._client.create_prompt_version(self.prompt, template, tags={PROMPT_SHA: digest})
        return int(made.version)

    def _pick(self, versions: Sequence[Version], alias_or_number: str) -> Version:
        for version in versions:
            if alias_or_number in version.aliases or alias_or_number == str(version.number):
                return version
        known = ", ".join(" ".join([str(item.number), *sorted(item.aliases)]) for item in versions)
        raise RegistryError(
            f"expected version {alias_or_number!r}, got {known or 'no version; run `make repro`'} ({self.model})"
        )

    def _tag(self, version: Version, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(self.model, str(version.number), key, value)

    def _commit(self, version: Version) -> str:
        """The git commit of its pipeline run; empty if the run is gone."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.get_run(version.evidence_run).data.tags.get("mlflow.source.git.commit", ""))
        except MlflowException:
            self.store.must_answer()
            return ""


def open_registry(config: Config) -> Registry:
    """The registry of the configured task and store."""
    return Registry(connect(config.tracking.uri), config.task.name)


def review_anchors(config: Config) -> list[tuple[int, int, str]]:
    """Number of each version that was promoted while a review log existed, with the log's length and last hash then.
    Creates no store."""
    if not store_is_there(config.tracking.uri):
        return []
    registry = open_registry(config)
    with translated(registry.store.uri):
        versions = read_versions(registry.store.client, registry.model)
    return [(version.number, *anchor) for version in versions if (anchor := version.review_anchor)]


def _messages_of(registered: "PromptVersion | None") -> tuple[Message, ...]:
    """The messages of a registered text or chat prompt; a lost one has an empty text."""
    template = registered.template if registered else ""
    if isinstance(template, str):
        return prompt_messages(template)
    return tuple(Message(role=message["role"], content=message["content"]) for message in template)


def _aliased(versions: list[Version], alias: str) -> Version | None:
    return next((version for version in versions if alias in version.aliases), None)


def _refuse_in_experiment() -> None:
    if name := dvc_experiment():
        raise RegistryError(
            f"expected to be outside `dvc exp run`, got DVC experiment {name!r}, which must not move production "
            f"(registry); run `dvc exp apply {name}`, then `dvc repro`"
        )
