"""Compose conf/ with the selections of params.yaml by Hydra, and check every value before anything is spent."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pld.config.build import check_target
from pld.config.settings import check, read_yaml, unknown_key
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
    config = check(Config, _composed(conf, groups, overrides, where), "conf/config.yaml")
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
            _refuse_secrets(str(key), path)
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
        value = read_yaml(params)
    except FileNotFoundError:
        raise ConfigError(
            f"expected the selections, got no such file ({params}); run in the project's folder"
        ) from None
    if set(value) != {"groups", "overrides"}:
        found = ", ".join(map(repr, value)) or "none"
        raise ConfigError(f"expected the keys groups and overrides, got {found} ({params})")
    groups, overrides = value["groups"], value["overrides"] or []
    if not isinstance(groups, dict):
        raise ConfigError(f"expected an option for each role, got {groups!r:.80} ({params}: groups)")
    for role, option in groups.items():
        if not isinstance(role, str) or not isinstance(option, str):
            raise ConfigError(
                f"expected the name of an option, got {option!r:.80} ({params}: groups.{role!s:.80}); if that is its "
                "name, put it in quotes"
            )
    if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
        raise ConfigError(f"expected a list of strings like clusterer.eps=0.3, got {overrides!r} ({params}: overrides)")
    return groups, overrides


def _check_groups(conf: Path, groups: Mapping[str, str], where: str) -> None:
    if not conf.is_dir():
        raise ConfigError(f"expected the folder of the options, got none ({conf}); run in the project's folder")
    menu = {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in conf.iterdir() if folder.is_dir()
    }
    for role, option in groups.items():
        if role not in menu:
            raise ConfigError(unknown_key(f"groups.{role}", sorted(menu), where))
        if option not in menu[role]:
            raise ConfigError(
                f"expected one of {', '.join(menu[role])} (conf/{role}/), got {option!r} ({where}: groups.{role})"
                + _left_out_by_git(conf / role / f"{option}.yaml")
            )
    for role in sorted(set(menu) - set(groups)):
        raise ConfigError(f"expected one of {', '.join(menu[role])} (conf/{role}/), got none ({where}: groups.{role})")


def _left_out_by_git(file: Path) -> str:
    """The remedy where `file` is in the main repository but not in this workspace of `dvc exp run --queue/--temp`."""
    main = Path(os.environ.get("DVC_ROOT") or ".")
    if file.is_absolute() or main.resolve() == Path.cwd() or not (main / file).is_file():
        return ""
    return f"; run `git add {file}` and queue again: a queued experiment gets only files that git knows"


def _composed(conf: Path, groups: Mapping[str, str], overrides: list[str], where: str) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    selected = [f"{role}={option}" for role, option in groups.items()]
    found: Any = None
    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"), _closed_resolvers():
            found = hydra_compose("config", overrides=selected + overrides)
            plain = OmegaConf.to_container(found, resolve=True, throw_on_missing=True)
    except Exception as error:  # Hydra, OmegaConf and PyYAML raise of all kinds: ValueError, TypeError, RecursionError
        raise ConfigError(
            _wrong_file(error, conf, groups)
            or _wrong_override(error, conf, groups, overrides, where)
            or _wrong_value(
                error, OmegaConf.to_container(found) if found else {}, _files(conf, groups), overrides, where
            )
        ) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@contextlib.contextmanager
def _closed_resolvers() -> Iterator[None]:
    """Settings are written to artifacts/, logged and sent to the Teacher, so what reads the environment, the clock or
    the machine is refused. `only_pld` is a guard in conf/config.yaml: DVC can't compose it."""
    from omegaconf import OmegaConf
    from omegaconf.basecontainer import BaseContainer

    def refuse(*_: Any) -> None:
        raise PermissionError("only other settings can be used")

    kept = dict(BaseContainer._resolvers)
    for name in ("oc.env", "hydra", "now", "python_version"):
        OmegaConf.register_new_resolver(name, refuse, replace=True)
    OmegaConf.register_new_resolver("only_pld", lambda _: "none", replace=True)
    try:
        yield
    finally:
        BaseContainer._resolvers = kept


def _wrong_file(error: Exception, conf: Path, groups: Mapping[str, str]) -> str | None:
    """A message for a file that can't be read, or holds what OmegaConf doesn't allow."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # where Hydra could read the files, those that aren't selected don't matter
    readable = isinstance(error, HydraException | OmegaConfBaseException)
    for file in _files(conf, groups)[: len(groups) + 1 if readable else None]:
        held = read_yaml(file)
        try:
            OmegaConf.create(held)
        except Exception as fault:
            return _wrong_value(fault, held, [file], [], str(file))
    return None


def _wrong_value(error: Exception, held: Any, files: list[Path], overrides: list[str], where: str) -> str:
    """A message that names the value of `held` that OmegaConf can't use, its key and its place."""
    parts: Sequence[str] = re.findall(r"[^.\[\]]+", str(getattr(error, "full_key", None) or ""))
    value, reason = held, _first_line(error)
    with contextlib.suppress(LookupError, TypeError, ValueError):
        for part in parts:
            value = value[int(part) if isinstance(value, list) else part]
    if not isinstance(value, str):
        file = re.search(r"[Ii]n '([\w/.-]+)'", reason)
        place = f"conf/{file[1]}.yaml" if file else str(files[0]) if len(files) == 1 else "conf/"
        return f"expected settings that compose, got: {reason} ({place})"
    interpolation = re.search(r"(?<!\\)\$\{(?:[^{}]|\{[^{}]*\})*\}?", value)
    wrong = interpolation[0] if interpolation else value
    place = f"{_place(wrong, parts[-1], files, overrides, where)}: {'.'.join(parts)}"
    if not interpolation:
        return f"expected a value, got {wrong} ({place})"
    as_text, in_quotes = wrong.replace("${", "\\${"), wrong.replace("${", "\\\\${")
    reason = reason.partition(" raised while resolving interpolation: ")[2] or reason
    return (
        f"expected a setting to fill in, got {wrong}: {reason} ({place}); to keep it as text write {as_text}, in "
        f"double quotes {in_quotes}"
    )


def _place(wrong: str, key: str, files: list[Path], overrides: list[str], where: str) -> str:
    """Where `wrong` is written: in `overrides`, or file and line, if possible the line with its key."""
    if any(wrong in override for override in overrides):
        return f"{where}: overrides"
    found = [
        (key not in line, order, f"{file}:{number}")
        for order, file in enumerate(files)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if wrong in line
    ]
    return min(found)[2] if found else where


def _files(conf: Path, groups: Mapping[str, str]) -> list[Path]:
    """The files of `conf`, the selected ones first."""
    selected = [conf / "config.yaml", *(conf / role / f"{option}.yaml" for role, option in groups.items())]
    return [*selected, *sorted(set(conf.rglob("*.yaml")) - set(selected))]


def _wrong_override(
    error: Exception, conf: Path, groups: Mapping[str, str], overrides: list[str], where: str
) -> str | None:
    """A message for an override that Hydra can't parse, whose key does not exist (it lists the known keys), or that
    doesn't fit the rest."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not overrides:
        return None
    plain = _composed(conf, groups, [], where)
    for override in overrides:
        try:
            parsed = OverridesParser.create().parse_override(override)
        except Exception:
            parsed = None
        if parsed is None or not parsed.key_or_group or parsed.is_sweep_override():
            return f"expected an override like clusterer.eps=0.3, got {override!r} ({where}: overrides)"
        if parsed.is_add() or parsed.is_force_add():
            continue
        key = parsed.key_or_group
        node: Any = plain
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                known = [str(name) for name in node if name != "_target_"] if isinstance(node, Mapping) else []
                section = key.partition(".")[0]
                file = f"conf/{section}/{groups[section]}.yaml" if section in groups else "conf/config.yaml"
                return unknown_key(key, known, f"{where}: overrides ({file})")
            node = node[part]
    if isinstance(error, HydraException | TypeError | ValueError) and not hasattr(error, "full_key"):
        return f"expected overrides that compose, got: {_first_line(error)} ({where}: overrides)"
    return None


def _first_line(error: BaseException | None) -> str:
    """The first line of the message, of the cause where there is none (Hydra's is empty for a value it can't merge)."""
    if error is None or isinstance(error, RecursionError):
        return "files or values that contain themselves"
    return next((line for line in str(error).splitlines() if line.strip()), "") or _first_line(error.__context__)
