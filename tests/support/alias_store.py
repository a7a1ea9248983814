"""The calls of MLflow's client that a move of `production` consists of, in memory; each is one atomic step.

`before` gets the name of every call, so that a test can kill the process there, or let another one run.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pld.registry.promotion import Aliases, Kind
from pld.registry.store import Store
from pld.registry.versions import read_versions

MODEL, PROMPT = "m", "p"


class AliasStore:
    """A model with versions 1 to `versions`, version n with version n of the prompt."""

    def __init__(self, versions: int) -> None:
        self.aliases: dict[str, dict[str, int]] = {MODEL: {}, PROMPT: {}}
        self.tags: dict[str, str] = {}
        self.version_tags = {
            n: {"pld.version_key": str(n), "pld.prompt_version": str(n), "pld.prompt_sha256": str(n) * 64}
            for n in range(1, versions + 1)
        }

    def command(self, kind: Kind, to: int, before: Callable[[str], None] = lambda _: None) -> None:
        """Do in a process of its own what a command does: repair, then move."""
        aliases, client = self.opened(before)
        aliases.repair()
        versions = read_versions(client, MODEL)
        target = next(version for version in versions if version.number == to)
        aliases.move(kind, target, versions, "a reason", "c0ffee")

    def opened(self, before: Callable[[str], None] = lambda _: None) -> "tuple[Aliases, Client]":
        client = Client(self, before)
        return Aliases(Store("sqlite:///none", Path(), client, None, None), MODEL, PROMPT), client


class Client:
    def __init__(self, kept: AliasStore, before: Callable[[str], None]) -> None:
        self._kept = kept
        self._before = before

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name.startswith("_"):
            return found

        def noticed(*arguments: Any, **named: Any) -> Any:
            self._before(name)
            return found(*arguments, **named)

        return noticed

    def get_registered_model(self, name: str) -> Any:
        return SimpleNamespace(aliases=dict(self._kept.aliases[name]), tags=dict(self._kept.tags))

    def search_registered_models(self, query: str) -> list[Any]:
        assert f"'{PROMPT}'" in query
        return [SimpleNamespace(aliases=dict(self._kept.aliases[PROMPT]))]

    def search_model_versions(self, _: str) -> list[Any]:
        return [SimpleNamespace(version=n, tags=dict(tags)) for n, tags in self._kept.version_tags.items()]

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._kept.aliases[name][alias] = int(version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._kept.aliases[name].pop(alias, None)

    set_prompt_alias = set_registered_model_alias
    delete_prompt_alias = delete_registered_model_alias

    def set_registered_model_tag(self, _: str, key: str, value: str) -> None:
        self._kept.tags[key] = value

    def delete_registered_model_tag(self, _: str, key: str) -> None:
        self._kept.tags.pop(key, None)

    def set_model_version_tag(self, _: str, version: str, key: str, value: str) -> None:
        self._kept.version_tags[int(version)][key] = value

    def delete_model_version_tag(self, _: str, version: str, key: str) -> None:
        self._kept.version_tags[int(version)].pop(key, None)
