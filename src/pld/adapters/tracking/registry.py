"""The registry of one task: its versions, their aliases, and what moves them.

The registered model's aliases are the authority; the prompt's follow them. Aliases are moved under the store's lock,
and in an order in which an interruption never leaves a task without `production`.
"""

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pld.adapters.tracking.result import PipelineResult
from pld.adapters.tracking.runs import EVALUATION
from pld.adapters.tracking.serving import PROMPT_FILE, ServedSpec, log_model, spec_of
from pld.adapters.tracking.store import Store, dvc_experiment, experiment_id, translated
from pld.artifacts import read_json, read_jsonl, read_record, read_text
from pld.errors import ArtifactError, RegistryError
from pld.method.acceptance import Evidence, Missing, Verdict, judge
from pld.params import Config
from pld.records import EvaluationReport, LatencyReport, Prediction, sha256

CANDIDATE, PRODUCTION, PREVIOUS = "candidate", "production", "previous"
ROLLED_BACK = "pld.rolled_back"
FORCED = "pld.forced"
_VERSION_KEY = "pld.version_key"
_PROMPT_SHA = "pld.prompt_sha256"
_PROMPT_VERSION = "pld.prompt_version"
_EVIDENCE = "pld.evidence_run"
_TEST_DIGEST = "pld.test_digest"
_MACRO_F1 = "pld.macro_f1"
_TOKENS = "pld.prompt_tokens"
_GATE = "pld.gate."


@dataclass(frozen=True)
class Version:
    """One version of the registered model, with the aliases that point to it."""

    number: int
    tags: Mapping[str, str]
    aliases: frozenset[str]

    @property
    def prompt_sha256(self) -> str:
        return self.tags[_PROMPT_SHA]

    @property
    def macro_f1(self) -> str:
        """On test, with its interval, in words."""
        return self.tags[_MACRO_F1]

    @property
    def prompt_tokens(self) -> int:
        return int(self.tags[_TOKENS])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person decided about it."""
        words = {FORCED: "forced", ROLLED_BACK: "rolled back"}
        return tuple(f"{word}: {self.tags[key]}" for key, word in words.items() if key in self.tags)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the gates said when they were last asked."""
        return tuple(
            Verdict.model_validate_json(value) for key, value in sorted(self.tags.items()) if key.startswith(_GATE)
        )


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
            held = "; ".join(f"{verdict.gate} {verdict.figures}" for verdict in self.verdicts)
            why = self.note or f"all gates hold ({held or 'none is asked for'})"
            return f"{self.model} version {self.version} is production: {why}"
        failed = "; ".join(str(verdict) for verdict in self.verdicts if not verdict.holds)
        return f"{self.model} version {self.version} stays candidate: {failed or self.note}"


class Registry:
    """Versions of `pld-<task>` and of its prompt `pld-<task>-prompt`."""

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

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        with translated(self.store.uri):
            return self._versions()

    def settle(self, result: PipelineResult, run_id: str) -> Standing:
        """Register what `result` ships (the same content: the same version) and promote it if the gates hold.

        What is in production already, or was rolled back by hand, is not moved.
        """
        _refuse_in_experiment()
        with translated(self.store.uri), self.store.lock:
            version = self._registered(result, run_id)
            if PRODUCTION in version.aliases:
                self._follow(version, PRODUCTION)
                return Standing(self.model, version.number, PRODUCTION, note="the same prompt as before")
            self._point(CANDIDATE, version)
            if when := version.tags.get(ROLLED_BACK):
                note = f"it was rolled back ({when}); `pld promote --version {version.number}` takes that back"
                return Standing(self.model, version.number, CANDIDATE, note=note)
            return self._promote(version, result.config, force=None)

    def promote(self, config: Config, number: int | None = None, force: str | None = None) -> Standing:
        """Ask the gates for version `number` (None: the candidate) and move `production` if they hold.

        `force`: the reason for which failed gates are passed over; it is kept as a tag. Raises RegistryError where
        there is no such version, or its prompt is not the one that was evaluated.
        """
        _refuse_in_experiment()
        with translated(self.store.uri), self.store.lock:
            version = self._wanted(number)
            if PRODUCTION in version.aliases:
                self._follow(version, PRODUCTION)
                return Standing(self.model, version.number, PRODUCTION, note="it was already")
            return self._promote(version, config, force)

    def rollback(self) -> tuple[int, int]:
        """Swap `production` and `previous`; the version that leaves is not promoted again but by hand.

        Returns the numbers of the new production and the one that left it.
        """
        _refuse_in_experiment()
        with translated(self.store.uri), self.store.lock:
            present, former = self._aliased(PRODUCTION), self._aliased(PREVIOUS)
            if present is None or former is None or present.number == former.number:
                raise RegistryError(
                    f"{self.model}: wanted a previous version to roll back to, found none; `pld status` lists versions"
                )
            self._check_text(former)
            self._tag(present, {ROLLED_BACK: f"from production to version {former.number}"})
            self._untag(former, ROLLED_BACK)
            self._point(PRODUCTION, former)
            self._point(PREVIOUS, present)
            return former.number, present.number

    def _promote(self, version: Version, config: Config, force: str | None) -> Standing:
        evidence = self._evidence(version)
        self._check_text(version, evidence.report)
        present = self._aliased(PRODUCTION)
        held = self._production_evidence(present) if present else None
        verdicts = judge(config.promotion, config.evaluation, evidence, held)
        for stale in version.tags:
            if stale.startswith(_GATE) and stale.removeprefix(_GATE) not in {item.gate for item in verdicts}:
                self._untag(version, stale)
        self._tag(version, {_GATE + item.gate: item.model_dump_json() for item in verdicts})
        failed = [item for item in verdicts if not item.holds]
        if failed and force is None:
            return Standing(self.model, version.number, CANDIDATE, verdicts)
        if failed and force is not None:
            self._tag(version, {FORCED: force})
        else:
            self._untag(version, FORCED)
        self._untag(version, ROLLED_BACK)
        if present is not None:
            self._point(PREVIOUS, present)
        self._point(PRODUCTION, version)
        self._release(CANDIDATE, version)
        note = f"forced ({force}) although {'; '.join(map(str, failed))}" if failed else ""
        return Standing(self.model, version.number, PRODUCTION, verdicts, note)

    def _registered(self, result: PipelineResult, run_id: str) -> Version:
        spec = spec_of(result)
        measured = result.report.systems[result.report.shipped]
        score = measured.macro_f1
        tags = {
            _VERSION_KEY: spec.key,
            _PROMPT_SHA: spec.prompt_sha256,
            _EVIDENCE: run_id,
            _TEST_DIGEST: result.test_digest,
            "pld.system": result.report.shipped,
            _MACRO_F1: f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]",
            _TOKENS: str(measured.prompt_tokens),
        }
        found = next((version for version in self._versions() if version.tags.get(_VERSION_KEY) == spec.key), None)
        number = found.number if found else self._new(result, run_id, spec, tags)
        if found:
            self._tag(found, {key: value for key, value in tags.items() if found.tags.get(key) != value})
        return self._wanted(number)

    def _new(self, result: PipelineResult, run_id: str, spec: ServedSpec, tags: Mapping[str, str]) -> int:
        from mlflow.exceptions import MlflowException

        prompt_version = self._prompt_version(spec.prompt_sha256, result.prompt)
        spec = spec.model_copy(update={"prompt_version": str(prompt_version)})
        experiment = experiment_id(self.store, self._task)
        logged = log_model(self.store, experiment, run_id, self.model, spec, result.prompt)
        try:
            self._client.create_registered_model(
                self.model,
                description=f"Classifies {self._task} into {', '.join(spec.task.labels)} by a distilled system prompt.",
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = self._client.create_model_version(
            self.model,
            source=f"models:/{logged.model_id}",
            run_id=run_id,
            model_id=logged.model_id,
            tags={**tags, _PROMPT_VERSION: str(prompt_version)},
        )
        return int(made.version)

    def _prompt_version(self, digest: str, text: str) -> int:
        """The version of the registered prompt with exactly `text`, which is made where it is missing.

        MLflow takes `{{name}}` in a prompt for a variable of `format()`; the stored template is the text itself.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_prompt(
                self.prompt,
                description=f"System prompt of {self.model}.",
                # the UI lists a prompt in the experiments of this tag
                tags={"_mlflow_experiment_ids": f",{experiment_id(self.store, self._task)},"},
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for found in self._pages(self._client.search_prompt_versions, self.prompt):
            if sha256(found.template) == digest:
                return int(found.version)
        made = self._client.create_prompt_version(self.prompt, text, tags={_PROMPT_SHA: digest})
        return int(made.version)

    def _evidence(self, version: Version) -> Evidence:
        from mlflow.exceptions import MlflowException

        run_id = version.tags[_EVIDENCE]
        with tempfile.TemporaryDirectory() as temporary:
            try:
                folder = Path(self._client.download_artifacts(run_id, EVALUATION, temporary))
                report = read_record(folder / "report.json", EvaluationReport)
                rows = read_jsonl(folder / "predictions.jsonl", Prediction)
                latency = read_record(folder / "latency.json", LatencyReport)
                groups = read_json(folder / "groups.json")
            except (MlflowException, ArtifactError, OSError):
                raise RegistryError(
                    f"{self.model} version {version.number}: wanted its measurement in run {run_id}, found it deleted "
                    "or incomplete; run `dvc repro` on the commit that made it"
                ) from None
            return Evidence(
                report=report,
                latency=latency,
                predictions=[row for row in rows if row.system == report.shipped],
                test_digest=version.tags[_TEST_DIGEST],
                groups=groups,
            )

    def _production_evidence(self, present: Version) -> Evidence | Missing:
        try:
            return self._evidence(present)
        except RegistryError as error:
            return Missing(str(error))

    def _check_text(self, version: Version, report: EvaluationReport | None = None) -> None:
        """The registered prompt and the one inside the model are, byte for byte, what was evaluated."""
        import mlflow

        wanted = report.prompt_sha256 if report else version.prompt_sha256
        registered = self._client.get_prompt_version(self.prompt, version.tags[_PROMPT_VERSION])
        with tempfile.TemporaryDirectory() as temporary:
            source = f"models:/{self.model}/{version.number}/artifacts/{PROMPT_FILE}"
            path = mlflow.artifacts.download_artifacts(source, dst_path=temporary, tracking_uri=self.store.uri)
            served = read_text(Path(path))
        texts = {f"prompt {self.prompt}": registered.template if registered else "", f"model {self.model}": served}
        for where, text in texts.items():
            if sha256(text) != wanted:
                raise RegistryError(
                    f"{where}, for version {version.number}: wanted the evaluated prompt (sha256 {wanted[:12]}), found "
                    f"{sha256(text)[:12]}; no alias was moved; delete that version in MLflow and run `dvc repro`"
                )

    def _versions(self) -> list[Version]:
        from mlflow.exceptions import MlflowException

        try:
            aliases = self._client.get_registered_model(self.model).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise
        found = [
            Version(
                int(item.version),
                dict(item.tags),
                frozenset(alias for alias, number in aliases.items() if int(number) == int(item.version)),
            )
            for item in self._pages(self._client.search_model_versions, f"name = '{self.model}'")
            if _VERSION_KEY in item.tags
        ]
        return sorted(found, key=lambda version: -version.number)

    def _wanted(self, number: int | None) -> Version:
        versions = self._versions()
        for version in versions:
            if version.number == number or (number is None and CANDIDATE in version.aliases):
                return version
        wanted = "a candidate" if number is None else f"version {number}"
        known = ", ".join(str(version.number) for version in versions) or "no version; run `make repro`"
        raise RegistryError(f"{self.model}: wanted {wanted}, found {known}")

    def _aliased(self, alias: str) -> Version | None:
        return next((version for version in self._versions() if alias in version.aliases), None)

    def _point(self, alias: str, version: Version) -> None:
        self._client.set_registered_model_alias(self.model, alias, str(version.number))
        self._follow(version, alias)

    def _follow(self, version: Version, alias: str) -> None:
        self._client.set_prompt_alias(self.prompt, alias, int(version.tags[_PROMPT_VERSION]))

    def _release(self, alias: str, version: Version) -> None:
        now = self._aliased(alias)
        if now is not None and now.number == version.number:
            self._client.delete_registered_model_alias(self.model, alias)
            self._client.delete_prompt_alias(self.prompt, alias)

    def _tag(self, version: Version, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(self.model, str(version.number), key, value)

    def _untag(self, version: Version, key: str) -> None:
        if key in version.tags:
            self._client.delete_model_version_tag(self.model, str(version.number), key)

    @staticmethod
    def _pages(search: Any, what: str) -> Iterable[Any]:
        page: Sequence[Any] = search(what)
        yield from page
        while token := getattr(page, "token", None):
            page = search(what, page_token=token)
            yield from page


def _refuse_in_experiment() -> None:
    if name := dvc_experiment():
        raise RegistryError(
            f"registry: wanted to be outside `dvc exp run`, found DVC experiment {name!r}, which must not move "
            f"production; run `dvc exp apply {name}`, then `dvc repro`"
        )
