"""Read artifacts/config.yaml as typed settings; a wrong key or value is one line that names it."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pld.errors import ConfigError
from pld.params import Config

CONFIG_PATH = Path("artifacts/config.yaml")
S = TypeVar("S", bound=BaseModel)


def check(kind: type[S], value: Mapping[str, Any], where: str) -> S:
    """Validate `value` as `kind`. Raises ConfigError that names the wrong key, the keys beside it, and `where`."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item, value, where) for item in error.errors()[:3])) from None


def load_config(path: Path = CONFIG_PATH) -> Config:
    """Read and check the composed settings."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"expected the composed settings, got no such file ({path}); run `make params`") from None
    return check(Config, value, str(path))


def unknown_key(key: str, known: list[str], where: str) -> str:
    """The message for a key that does not exist: the keys beside it, and the nearest of them."""
    near = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected a known key ({', '.join(known)}), got {key!r} ({where}){hint}"


def _explain(item: Any, value: Mapping[str, Any], where: str) -> str:
    # pydantic puts the tag of a discriminated union into the location, which is not a key of the file
    path: list[str] = []
    node: Any = value
    for part in item["loc"]:
        if isinstance(node, Mapping) and part in node:
            node = node[part]
            path.append(str(part))
        elif isinstance(node, list | tuple) and isinstance(part, int):
            node = node[part] if part < len(node) else None
            path.append(str(part))
        elif item["type"] in ("missing", "extra_forbidden") and part == item["loc"][-1]:
            path.append(str(part))
    dotted = ".".join(path)
    if path and where.endswith("config.yaml"):
        where = f"{where} (conf/{path[0]}/ or conf/config.yaml)"
    if item["type"] == "missing":
        return f"expected a value, got none ({where}: {dotted})"
    if item["type"] == "extra_forbidden":
        parent: Any = value
        for part in path[:-1]:
            parent = parent[part]
        beside = sorted(str(key) for key in parent if key != path[-1])
        return unknown_key(dotted, beside, where)
    if item["type"] == "value_error":  # a validator of pld.params, which says what it got
        return f"{item['ctx']['error']} ({where}: {dotted or 'settings'})"
    expected = item["msg"].removeprefix("Input should be ")
    return f"expected {expected}, got {item['input']!r:.80} ({where}: {dotted or 'settings'})"
