"""Hydra's composition of conf/ with the selections of params.yaml, checked before anything is spent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pld.config.build import check_target
from pld.errors import ConfigError
from pld.params import Config, check
from pld.params import unknown_key as unknown
from pld.redaction import redacted

ROLES_WITH_TARGET = ("teacher", "embedder", "clusterer", "student")


def compose(conf: Path, params: Path) -> Config:
    """`params` (params.yaml) selects options of `conf` and overrides values → all settings, every one checked.

    Raises ConfigError, in one line, for an unknown group, option, key or target, and for a value of a wrong type
    (also among the values that the sweep would try).
    """
    groups, overrides = _selections(conf, params)
    config = check(Config, _composed(conf, groups, overrides), "conf/config.yaml")
    _refuse_secrets(config.model_dump(mode="json"), ())
    for role in ROLES_WITH_TARGET:
        check_target(getattr(config, role), role)
    for section, settings in config.sweep.space.items():
        for key, values in settings.items():
            for value in values:
                with_settings(config, {f"{section}.{key}": value})
    return config


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """`config` with dotted `settings` (a trial's) in place, checked like the composed one."""
    plain = config.model_dump(mode="python")
    for dotted, value in settings.items():
        section, _, key = dotted.partition(".")
        if key not in plain[section]:
            known = [name for name in plain[section] if name != "_target_"]
            raise ConfigError(unknown(dotted, known, f"conf/sweep/ (space.{section})"))
        plain[section] = {**plain[section], key: value}
    changed = check(Config, plain, "conf/sweep/ (space)")
    check_target(changed.clusterer, "clusterer")
    return changed


def _refuse_secrets(value: Any, path: tuple[str, ...]) -> None:
    """What is composed is written to artifacts/ and logged."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            _refuse_secrets(held, (*path, str(key)))
    elif isinstance(value, list):
        for held in value:
            _refuse_secrets(held, path)
    elif isinstance(value, str) and redacted(value) != value:
        raise ConfigError(
            f"conf/ or params.yaml: {'.'.join(path)}: wanted no secret, found what looks like a key or a password; "
            "take it out, and set it in the environment (docs/teacher.md)"
        )


def _selections(conf: Path, params: Path) -> tuple[dict[str, str], list[str]]:
    try:
        value = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{params}: wanted the selections, found no such file; run in the project's folder") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{params}: wanted YAML, found {' '.join(str(error).split())}") from None
    if not isinstance(value, Mapping) or set(value) != {"groups", "overrides"}:
        found = ", ".join(map(str, value)) if isinstance(value, Mapping) else repr(value)
        raise ConfigError(f"{params}: wanted the keys groups and overrides, found {found}")
    groups, overrides = value["groups"], value["overrides"] or []
    menu = {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in conf.iterdir() if folder.is_dir()
    }
    for role, option in groups.items():
        if role not in menu:
            raise ConfigError(unknown(f"groups.{role}", sorted(menu), str(params)))
        if option not in menu[role]:
            raise ConfigError(
                f"{params}: groups.{role}: wanted one of {', '.join(menu[role])} (conf/{role}/), found {option!r}"
            )
    for role in sorted(set(menu) - set(groups)):
        raise ConfigError(f"{params}: groups.{role}: wanted one of {', '.join(menu[role])} (conf/{role}/), found none")
    if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
        raise ConfigError(f"{params}: overrides: wanted a list of strings like clusterer.eps=0.3, found {overrides!r}")
    return groups, overrides


def _composed(conf: Path, groups: Mapping[str, str], overrides: list[str]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    selected = [f"{role}={option}" for role, option in groups.items()]
    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            plain = OmegaConf.to_container(hydra_compose("config", overrides=selected + overrides), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_unknown_override(conf, groups, overrides) or _one_line(error)) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _unknown_override(conf: Path, groups: Mapping[str, str], overrides: list[str]) -> str | None:
    """Hydra's own message for a misspelt key does not say what there is; this one does."""
    plain = _composed(conf, groups, [])
    for override in overrides:
        if override.startswith("+"):  # it adds a key
            continue
        key = override.lstrip("~").partition("=")[0].strip()
        node: Any = plain
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                known = [str(name) for name in node if name != "_target_"] if isinstance(node, Mapping) else []
                section = key.partition(".")[0]
                file = f"conf/{section}/{groups[section]}.yaml" if section in groups else "conf/config.yaml"
                return unknown(key, known, f"params.yaml overrides ({file})")
            node = node[part]
    return None


def _one_line(error: Exception) -> str:
    return "conf/: " + " ".join(str(error).split("\n\t")[0].split())
