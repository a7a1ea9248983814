"""The registry of one task: its versions, the gates, and what moves them.

Aliases move by the log of moves (`pld.registry.promotion`), under the store's lock, which is that of one checkout;
the log itself orders those that can't see each other's lock.
"""

import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pld.artifacts import read_record, read_text
from pld.errors import ArtifactError, RegistryError, ReviewError
from pld.params import Config
from pld.records import canonical_json, sha256
from pld.registry.packaging import log_model, spec_of
from pld.registry.promotion import Moves
from pld.registry.promotion_gates import REVIEWED, Evidence, Missing, Production, Verdict, judge
from pld.registry.promotion_log import Turn, was_rolled_back
from pld.registry.reevaluate import Measurements, Present, find_present, present_of
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
    pages,
    read_versions,
    unless_there,
)
from pld.review.decisions import ReviewStanding
from pld.review.log import standing_of
from pld.serving.model import PROMPT_FILE, SPEC_FILE, ServedSpec

_ATTEMPTS = 5  # at a promotion before which another process moved production


@dataclass(frozen=True)
class Standing:
    """Where a version stands after it was asked to be promoted; `verdicts` is empty where no gate was asked."""

    model: str
    version: int
    alias: str
    verdicts: tuple[Verdict, ...] = field(default=())
    note: str = ""

    def __str__(self) -> str:
        if self.alias == PRODUCTION:
            why = self.note or f"all gates hold ({_figures(self.verdicts)})"
            return f"{self.model} version {self.version} is production: {why}"
        failed = "; ".join(str(verdict) for verdict in self.verdicts if not verdict.holds)
        return f"{self.model} version {self.version} stays candidate: {failed or self.note}"


class Registry:
    """Versions of `pld-<task>` and of its prompt `pld-<task>-prompt`, and the log of their moves."""

    def __init__(self, store: Store, task: str) -> None:
        if not re.fullmatch(r"[\w\-.]+", task, re.ASCII):
            raise RegistryError(
                f"task.name: wanted letters, digits, hyphens, dots or underscores, from which the registered model is "
                f"named, found {task!r}; rename the task in conf/task/"
            )
        self.store = store
        self._client = store.client
        self._task = task
        self.model = f"pld-{task}"
        self.prompt = f"pld-{task}-prompt"
        self.history = f"pld-{task}-history"
        self._moves = Moves(store, self.model, self.prompt, self.history, lambda: experiment_id(store, task))
        self._measurements = Measurements(store, task, self.model, self.read)

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        with translated(self.store.uri), self.store.lock:
            return self._open()

    def turns(self) -> list[Turn]:
        """Every move, the oldest first."""
        with translated(self.store.uri), self.store.lock:
            self._open()
            return self._moves.turns()

    def find(self, wanted: str) -> Version:
        """The version with the alias or the number `wanted`. Raises RegistryError that names those that there are."""
        versions = self.versions()
        for version in versions:
            if wanted in version.aliases or wanted == str(version.number):
                return version
        known = ", ".join(" ".join([str(item.number), *sorted(item.aliases)]) for item in versions)
        raise RegistryError(f"{self.model}: wanted version {wanted!r}, found {known or 'no version; run `make repro`'}")

    def read(self, version: Version) -> tuple[ServedSpec, str]:
        """What `version` answers with. Raises RegistryError unless all of it is there, and the registered prompt and
        the one inside the model are, byte for byte, what was evaluated."""
        import mlflow
        from mlflow.exceptions import MlflowException

        source = f"models:/{self.model}/{version.number}/artifacts"
        with tempfile.TemporaryDirectory() as temporary:
            try:
                registered = self._client.get_prompt_version(self.prompt, version.prompt_version)
                spec_file, prompt_file = (
                    mlflow.artifacts.download_artifacts(f"{source}/{name}", None, None, temporary, self.store.uri)
                    for name in (SPEC_FILE, PROMPT_FILE)
                )
                spec, served = read_record(Path(spec_file), ServedSpec), read_text(Path(prompt_file))
            except (MlflowException, ArtifactError, OSError) as error:
                self.store.must_answer()
                raise RegistryError(
                    f"{self.model} version {version.number}: wanted the files and the registered prompt that it answers"
                    f" with, found them gone or damaged ({first_line(error):.200}); delete that version in MLflow and "
                    "run `dvc repro` on its commit"
                ) from None
        texts = {f"prompt {self.prompt}": registered.template if registered else "", f"model {self.model}": served}
        for where, text in texts.items():
            if not sha256(text) == version.prompt_sha256 == spec.prompt_sha256:
                raise RegistryError(
                    f"{where}, for version {version.number}: wanted the evaluated prompt (sha256 "
                    f"{version.prompt_sha256[:12]}), found {sha256(text)[:12]}; delete that version in MLflow and run "
                    "`dvc repro`"
                )
        return spec, served

    def review_of(self, version: Version) -> ReviewStanding:
        """What the log of reviews in this checkout says of its prompt; a log that can't be trusted approves nothing."""
        try:
            return standing_of(self._task, version.prompt_sha256, version.instruction_ids)
        except ReviewError as error:
            return ReviewStanding(approved=False, words=str(error), entries=0, head="")

    def settle(self, result: PipelineResult, run_id: str) -> Standing:
        """Register what `result` ships (the same content: the same version) and promote it if the gates hold.

        What is in production already, or was rolled back by hand, is not moved.
        """
        _refuse_in_experiment()
        with translated(self.store.uri):
            with self.store.lock:
                self._open()
                version = self._registered(result, run_id)
                if PRODUCTION in version.aliases:
                    return Standing(self.model, version.number, PRODUCTION, note="the same prompt as before")
                self._client.set_registered_model_alias(self.model, CANDIDATE, str(version.number))
                self._open()  # the prompt's alias follows
                if was_rolled_back(self._moves.turns(), version.number):
                    note = f"it was rolled back; `pld promote --version {version.number}` takes that back"
                    return Standing(self.model, version.number, CANDIDATE, note=note)
            return self._promote(version.number, result.config, present_of(result), force=None)

    def promote(self, config: Config, number: int | None = None, force: str | None = None) -> Standing:
        """Ask the gates for version `number` (None: the candidate) and move `production` if they hold.

        `force`: the reason for which failed gates but `reviewed` are passed over; kept in the history. Raises
        RegistryError where there is no such version, or its prompt is not the one that was evaluated.
        """
        _refuse_in_experiment()
        with translated(self.store.uri):
            return self._promote(number, config, find_present(config), force)

    def rollback(self, reason: str = "", *, require_review: bool = False) -> tuple[int, int]:
        """Swap `production` and `previous`; the version that leaves is not promoted again but by hand.

        Returns the numbers of the new production and the one that left it. Raises RegistryError where there is none to
        go back to, or a review is required that it does not have.
        """
        _refuse_in_experiment()
        with translated(self.store.uri), self.store.lock:
            versions = self._open()
            present, former = _aliased(versions, PRODUCTION), _aliased(versions, PREVIOUS)
            if present is None or former is None or present.number == former.number:
                raise RegistryError(
                    f"{self.model}: wanted a previous version to roll back to, found none; `pld status` lists versions"
                )
            self.read(former)
            if require_review and not (review := self.review_of(former)).approved:
                raise RegistryError(
                    f"{self.model} version {former.number}: wanted a sheet that approves its prompt "
                    f"(promotion.require_review), found: {review.words}"
                )
            if not self._moves.make("rollback", present, former, reason or "by hand", self._commit(former)):
                raise RegistryError(
                    f"{self.model}: wanted to roll back from version {present.number}, found that somebody else moved "
                    "production at the same time; look at `pld status`"
                )
            return former.number, present.number

    def _promote(self, number: int | None, config: Config, present: Present | None, force: str | None) -> Standing:
        """Measures without the lock, which may take minutes; so production may move meanwhile, and it begins anew."""
        for _ in range(_ATTEMPTS):
            with self.store.lock:
                versions = self._open()
                version, held = self._wanted(versions, number), _aliased(versions, PRODUCTION)
                if PRODUCTION in version.aliases:
                    return Standing(self.model, version.number, PRODUCTION, note="it was already")
                self.read(version)
            evidence = self._measurements.evidence(version, config, present)
            rival = self._rival(held, config, present)
            with self.store.lock:
                now = _aliased(self._open(), PRODUCTION)
                if (now and now.number) != (held and held.number):
                    continue
                standing = self._judged(version, held, evidence, rival, config, force)
                if standing is not None:
                    return standing
        raise RegistryError(f"{self.model}: wanted production to hold still, found others moving it; try again")

    def _judged(
        self,
        version: Version,
        held: Version | None,
        evidence: Evidence,
        rival: Production,
        config: Config,
        force: str | None,
    ) -> Standing | None:
        """None: it was to be promoted, but another machine moved production first."""
        review = self.review_of(version)
        verdicts = judge(config.promotion, config.evaluation, evidence, rival, review)
        tags = {GATE + item.gate: item.model_dump_json() for item in verdicts}
        for stale in version.tags:
            if stale.startswith(GATE) and stale not in tags:
                self._client.delete_model_version_tag(self.model, str(version.number), stale)
        self._tag(version, tags)
        failed = [item for item in verdicts if not item.holds]
        if failed and (force is None or any(item.gate == REVIEWED for item in failed)):
            return Standing(self.model, version.number, CANDIDATE, verdicts)
        if review.entries:
            self._tag(version, {REVIEW_ENTRIES: str(review.entries), REVIEW_HEAD: review.head})
        note = f"forced ({force}) although {'; '.join(map(str, failed))}" if failed else ""
        reason = f"{force} (failed: {', '.join(item.gate for item in failed)})" if failed else "all gates hold"
        if not self._moves.make("force" if failed else "promote", held, version, reason, self._commit(version)):
            return None
        return Standing(self.model, version.number, PRODUCTION, verdicts, note)

    def _rival(self, held: Version | None, config: Config, present: Present | None) -> Production:
        if held is None or not config.promotion.not_worse_than_production:
            return None
        try:
            return self._measurements.evidence(held, config, present)
        except RegistryError as error:
            return Missing(str(error))

    def _open(self) -> list[Version]:
        """The versions, after whatever somebody left half done is finished; a person is told of that."""
        if not dvc_experiment():
            for line in self._moves.mend(self._unreadable):
                print(line, file=sys.stderr)
        return read_versions(self._client, self.model)

    def _unreadable(self, number: int, digest: str) -> str | None:
        version = next((item for item in read_versions(self._client, self.model) if item.number == number), None)
        if version is None or version.prompt_sha256 != digest:
            return f"version {number} was deleted"
        try:
            self.read(version)
        except RegistryError as error:
            return str(error)
        return None

    def _registered(self, result: PipelineResult, run_id: str) -> Version:
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
        return self._wanted(read_versions(self._client, self.model), number)

    def _new(self, result: PipelineResult, run_id: str, spec: ServedSpec, tags: Mapping[str, str]) -> int:
        prompt_version = self._prompt_version(spec.prompt_sha256, result.prompt)
        self._client.link_prompt_version_to_run(run_id, f"prompts:/{self.prompt}/{prompt_version}")
        spec = spec.model_copy(update={"prompt_version": str(prompt_version)})
        experiment = experiment_id(self.store, self._task)
        logged = log_model(self.store, experiment, run_id, self.model, spec, result.prompt)
        unless_there(
            self._client.create_registered_model,
            self.model,
            description=f"Classifies {self._task} into {', '.join(spec.task.labels)} by a distilled system prompt.",
        )
        made = self._client.create_model_version(
            self.model,
            source=f"models:/{logged.model_id}",
            run_id=run_id,
            model_id=logged.model_id,
            tags={**tags, PROMPT_VERSION: str(prompt_version)},
            description=sentence(result),
        )
        return int(made.version)

    def _prompt_version(self, digest: str, text: str) -> int:
        """The version of the registered prompt with exactly `text`, which is made where it is missing.

        MLflow takes `{{name}}` in a prompt for a variable of `format()`; the stored template is the text itself.
        """
        unless_there(
            self._client.create_prompt,
            self.prompt,
            description=f"System prompt of {self.model}.",
            # the UI lists a prompt in the experiments of this tag
            tags={"_mlflow_experiment_ids": f",{experiment_id(self.store, self._task)},"},
        )
        for found in pages(self._client.search_prompt_versions, self.prompt):
            if sha256(found.template) == digest:
                return int(found.version)
        made = self._client.create_prompt_version(self.prompt, text, tags={PROMPT_SHA: digest})
        return int(made.version)

    def _wanted(self, versions: list[Version], number: int | None) -> Version:
        for version in versions:
            if version.number == number or (number is None and CANDIDATE in version.aliases):
                return version
        wanted = "a candidate" if number is None else f"version {number}"
        known = ", ".join(str(version.number) for version in versions) or "no version; run `make repro`"
        raise RegistryError(f"{self.model}: wanted {wanted}, found {known}")

    def _tag(self, version: Version, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(self.model, str(version.number), key, value)

    def _commit(self, version: Version) -> str:
        """The git commit at which it was measured first; empty where that is not known any more."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.get_run(version.evidence_run).data.tags.get("mlflow.source.git.commit", ""))
        except MlflowException:
            self.store.must_answer()
            return ""


def open_registry(config: Config) -> Registry:
    """That of the task, in the store that is configured."""
    return Registry(connect(config.tracking.uri), config.task.name)


def review_anchors(config: Config) -> list[tuple[int, int, str]]:
    """Of each version that was promoted when there was a log of reviews: its number, and the log's length and last hash
    then. Nothing where there is no store yet; none is made."""
    if not store_is_there(config.tracking.uri):
        return []
    registry = open_registry(config)
    with translated(registry.store.uri):
        versions = read_versions(registry.store.client, registry.model)
    return [(version.number, *anchor) for version in versions if (anchor := version.review_anchor)]


def _aliased(versions: list[Version], alias: str) -> Version | None:
    return next((version for version in versions if alias in version.aliases), None)


def _figures(verdicts: tuple[Verdict, ...]) -> str:
    return "; ".join(f"{verdict.gate} {verdict.figures}" for verdict in verdicts) or "none is asked for"


def _refuse_in_experiment() -> None:
    if name := dvc_experiment():
        raise RegistryError(
            f"registry: wanted to be outside `dvc exp run`, found DVC experiment {name!r}, which must not move "
            f"production; run `dvc exp apply {name}`, then `dvc repro`"
        )
