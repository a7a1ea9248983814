"""The calls of MLflow's client that moves are made of, in memory: each is one atomic step, as it is in MLflow.

`before` is told of every call, so that a test can decide who is next, or who dies.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from pld.registry.promotion import Moves
from pld.registry.store import Store

MODEL, PROMPT, HISTORY = "m", "p", "h"


class AliasStore:
    """A model with versions 1 to `versions`, version n with version n of the prompt."""

    def __init__(self, versions: int) -> None:
        self.aliases: dict[str, dict[str, int]] = {MODEL: {}, PROMPT: {}}
        self.tags: dict[str, str] = {}
        self.version_tags = {
            n: {"pld.version_key": str(n), "pld.prompt_version": str(n), "pld.prompt_sha256": str(n) * 64}
            for n in range(1, versions + 1)
        }
        self.lines: list[str] = []

    def client(self, before: Callable[[str], None] = lambda _: None) -> "Client":
        return Client(self, before)

    def moves(self, before: Callable[[str], None] = lambda _: None) -> Moves:
        """As another process would open them."""
        store = Store("sqlite:///none", Path(), self.client(before), None, None)
        return Moves(store, MODEL, PROMPT, HISTORY, lambda: "1")


class Client:
    def __init__(self, kept: AliasStore, before: Callable[[str], None]) -> None:
        self._kept = kept
        self._before = before

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name.startswith("_"):
            return found

        def told(*arguments: Any, **named: Any) -> Any:
            self._before(name)
            return found(*arguments, **named)

        return told

    def get_registered_model(self, name: str) -> Any:
        return SimpleNamespace(aliases=dict(self._kept.aliases[name]), tags=dict(self._kept.tags))

    def search_registered_models(self, query: str) -> list[Any]:
        assert f"'{PROMPT}'" in query
        return [SimpleNamespace(aliases=dict(self._kept.aliases[PROMPT]))]

    def search_model_versions(self, _: str) -> list[Any]:
        return [SimpleNamespace(version=n, tags=dict(tags)) for n, tags in self._kept.version_tags.items()]

    def search_prompt_versions(self, _: str) -> list[Any]:
        if not self._kept.lines:
            raise MlflowException("no such prompt", RESOURCE_DOES_NOT_EXIST)
        return [SimpleNamespace(version=n, template=text) for n, text in enumerate(self._kept.lines, 1)]

    def create_prompt(self, _: str, **__: object) -> None:
        if self._kept.lines:
            raise MlflowException("it is there", RESOURCE_ALREADY_EXISTS)

    def create_prompt_version(self, _: str, text: str, **__: object) -> Any:
        self._kept.lines.append(text)
        return SimpleNamespace(version=len(self._kept.lines))

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._kept.aliases[name][alias] = int(version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._kept.aliases[name].pop(alias, None)

    def set_prompt_alias(self, name: str, alias: str, version: int) -> None:
        self._kept.aliases[name][alias] = version

    delete_prompt_alias = delete_registered_model_alias

    def set_registered_model_tag(self, _: str, key: str, value: str) -> None:
        self._kept.tags[key] = value

    def set_model_version_tag(self, _: str, version: str, key: str, value: str) -> None:
        self._kept.version_tags[int(version)][key] = value

    def delete_model_version_tag(self, _: str, version: str, key: str) -> None:
        self._kept.version_tags[int(version)].pop(key, None)
