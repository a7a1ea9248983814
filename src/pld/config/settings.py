"""Read YAML files strictly, and settings as typed models; a fault is one line that names file, line and key."""

import difflib
import json
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
        told = "; ".join(_explain(item, value, where) for item in error.errors()[:3])
        raise ConfigError(" ".join(told.splitlines())) from None


def load_config(path: Path = CONFIG_PATH) -> Config:
    """Read and check the composed settings."""
    try:
        value = read_yaml(path)
    except FileNotFoundError:
        raise ConfigError(f"expected the composed settings, got no such file ({path}); run `make params`") from None
    return check(Config, value, str(path))


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep=deep)


# dates stay text, as OmegaConf reads them
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> dict[Any, Any]:
    """The mapping in `path`. Raises OSError, and ConfigError for what is not UTF-8, not YAML, a key given twice, an
    alias that contains itself, and anything but a mapping."""
    held = path.read_bytes()
    try:
        value = yaml.load(held.decode(), _Loader)
        json.dumps(value, default=str, skipkeys=True)  # notices an alias of itself
    except UnicodeDecodeError as error:
        line = held.count(b"\n", 0, error.start) + 1
        byte = held[error.start]
        raise ConfigError(f"expected UTF-8, got the byte 0x{byte:02x} ({path}:{line}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"expected YAML, got {_one_line(error.problem or error.context)} ({where})") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"expected YAML, got: {_one_line(error)} ({path})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"expected keys with values, got {value!r:.40} ({path})")
    return value


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:200]


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
