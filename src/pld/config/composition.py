"""Compose conf/ with the selections of params.yaml by Hydra, and check every value before anything is spent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pld.config.build import check_target
from pld.config.settings import check, unknown_key
from pld.errors import ConfigError
from pld.params import Config
from pld.redaction import redacted

ROLES_WITH_TARGET = ("teacher", "embedder", "clusterer", "student")


def compose(conf: Path, params: Path) -> Config:
    """All settings: the options of `conf` that `params` (params.yaml) selects, with its overrides, each value checked.

    Raises ConfigError for an unknown group, option, key or target, and for a value of a wrong type, also among the
    values that the sweep would try.
    """
    groups, overrides = _selections(params)
    return compose_groups(conf, groups, overrides, str(params))


def compose_groups(conf: Path, groups: Mapping[str, str], overrides: list[str], where: str) -> Config:
    """`compose` with the selections of `where`: `groups` maps each role to an option of `conf`."""
    _check_groups(conf, groups, where)
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
    """`config` with a trial's dotted `settings` applied, checked like the composed one."""
    plain = config.model_dump(mode="python")
    for dotted, value in settings.items():
        section, _, key = dotted.partition(".")
        if key not in plain[section]:
            known = [name for name in plain[section] if name != "_target_"]
            raise ConfigError(unknown_key(dotted, known, f"conf/sweep/ (space.{section})"))
        plain[section] = {**plain[section], key: value}
    changed = check(Config, plain, "conf/sweep/ (space)")
    check_target(changed.clusterer, "clusterer")
    return changed


def _refuse_secrets(value: Any, path: tuple[str, ...]) -> None:
    """The composed settings are written to artifacts/ and logged, so they must hold no secret."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            _refuse_secrets(held, (*path, str(key)))
    elif isinstance(value, list):
        for held in value:
            _refuse_secrets(held, path)
    elif isinstance(value, str) and redacted(value) != value:
        raise ConfigError(
            f"expected no secret, got what looks like a key or a password (conf/ or params.yaml: {'.'.join(path)}); "
            "take it out, and set it in the environment (docs/how-to/teacher.md)"
        )


def _selections(params: Path) -> tuple[dict[str, str], list[str]]:
    try:
        value = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"expected the selections, got no such file ({params}); run in the project's folder"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"expected YAML, got {' '.join(str(error).split())} ({params})") from None
    if not isinstance(value, Mapping) or set(value) != {"groups", "overrides"}:
        found = ", ".join(map(str, value)) if isinstance(value, Mapping) else repr(value)
        raise ConfigError(f"expected the keys groups and overrides, got {found} ({params})")
    groups, overrides = value["groups"], value["overrides"] or []
    if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
        raise ConfigError(f"expected a list of strings like clusterer.eps=0.3, got {overrides!r} ({params}: overrides)")
    return groups, overrides


def _check_groups(conf: Path, groups: Mapping[str, str], where: str) -> None:
    menu = {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in conf.iterdir() if folder.is_dir()
    }
    for role, option in groups.items():
        if role not in menu:
            raise ConfigError(unknown_key(f"groups.{role}", sorted(menu), where))
        if option not in menu[role]:
            raise ConfigError(
                f"expected one of {', '.join(menu[role])} (conf/{role}/), got {option!r} ({where}: groups.{role})"
            )
    for role in sorted(set(menu) - set(groups)):
        raise ConfigError(f"expected one of {', '.join(menu[role])} (conf/{role}/), got none ({where}: groups.{role})")


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
    """A message for a misspelt key that lists the known ones, which Hydra's own does not."""
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
                return unknown_key(key, known, f"params.yaml overrides ({file})")
            node = node[part]
    return None


def _one_line(error: Exception) -> str:
    return "conf/: " + " ".join(str(error).split("\n\t")[0].split())
