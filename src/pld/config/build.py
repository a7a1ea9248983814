"""Build the adapter that a section of conf/ names by `_target_`; nothing outside `pld.adapters` is built."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from pld.config.settings import unknown_key
from pld.errors import ConfigError

TARGETS = "pld.adapters."


def build(section: Mapping[str, Any], role: str, **extra: Any) -> Any:
    """Construct the adapter that `section` names, its keys checked against the constructor's signature.

    `extra` are arguments that the stage supplies (keyword parameters of the constructor that conf/ can't set).
    Raises ConfigError for a target outside `pld.adapters`, an unknown key, a missing key or a value of a wrong type.
    """
    constructor, settings = _checked(section, role, tuple(extra))
    return constructor(**settings, **extra)


def check_target(section: Mapping[str, Any], role: str) -> None:
    """Check everything that `build` checks, without building."""
    _checked(section, role, None)


def target_of(section: Mapping[str, Any], role: str) -> type:
    """The class that `section` names. Raises ConfigError for a target outside `pld.adapters`."""
    target = str(section.get("_target_"))
    where = _where(section, role)
    module_name, _, name = target.rpartition(".")
    if not target.startswith(TARGETS):
        raise ConfigError(f"expected a _target_ inside {TARGETS.rstrip('.')}, got {target!r} ({where})")
    try:
        constructor: type = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"expected a class that exists, got {error} ({where})") from None
    if not isinstance(constructor, type) or not constructor.__module__.startswith(TARGETS):
        raise ConfigError(f"expected a class of {TARGETS.rstrip('.')}, got {constructor!r} ({where})")
    return constructor


def _where(section: Mapping[str, Any], role: str) -> str:
    return f"conf/{role}/ ({section.get('_target_')})"


def _checked(section: Mapping[str, Any], role: str, extra: tuple[str, ...] | None) -> tuple[type, dict[str, Any]]:
    constructor, where = target_of(section, role), _where(section, role)
    name = constructor.__name__
    hints = get_type_hints(constructor.__init__, include_extras=True)  # type: ignore[misc]
    parameters = {
        key: parameter for key, parameter in inspect.signature(constructor).parameters.items() if key != "self"
    }
    supplied = {key for key, parameter in parameters.items() if parameter.default is not inspect.Parameter.empty}
    known = [key for key in parameters if key not in supplied]
    settings = {key: value for key, value in section.items() if key != "_target_"}
    for key in settings:
        if key not in known:
            raise ConfigError(unknown_key(f"{role}.{key}", known, where))
    if extra and not set(extra) <= supplied:
        raise ConfigError(f"expected a constructor that takes {sorted(set(extra) - supplied)}, got {name} ({where})")
    model = create_model(name, __config__=ConfigDict(extra="forbid"), **{key: (hints[key], ...) for key in known})  # type: ignore[call-overload]
    try:
        checked = model.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        found = "none" if first["type"] == "missing" else repr(first["input"])
        expected = "a value" if first["type"] == "missing" else first["msg"].removeprefix("Input should be ")
        raise ConfigError(f"expected {expected}, got {found} ({where}: {role}.{key})") from None
    return constructor, {key: getattr(checked, key) for key in known}
