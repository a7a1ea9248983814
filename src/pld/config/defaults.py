"""Settings without a project: the shipped conf/ composed by Hydra, for the Python API and the integrations."""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pld.config.composition import compose_groups
from pld.config.settings import check
from pld.errors import ConfigError
from pld.params import Config
from pld.task_params import RecordsReader, TaskParams

CONF = Path(__file__).parents[1] / "conf"
"""The options. A wheel holds them as files; in a checkout this is a link to conf/."""

SELECTIONS = {
    "teacher": "recorded",
    "embedder": "minilm",
    "clusterer": "umap_hdbscan",
    "consolidator": "teacher",
    "student": "qwen2.5-coder-1.5b",
    "sweep": "race",
    "resolver": "search",
    "tracking": "local",
    "promotion": "default",
}
"""Role → option where none is chosen, as in params.yaml (tested)."""

_ANTHROPIC = "anthropic:/"
_GIVEN = "given"

Choice = str | Path | Mapping[str, Any]
"""An option of conf/<role>/, a YAML file or a mapping like one, or for the Teacher `anthropic:/MODEL`."""


def default_config(
    task: TaskParams, choices: Mapping[str, Choice], overrides: Sequence[str] = (), where: str = "pld"
) -> Config:
    """All settings, checked as those of params.yaml are: `choices` by role over SELECTIONS, then `overrides` in Hydra's
    grammar (`clusterer=dbscan`, `clusterer.eps=0.3`). `where` is for messages.

    Raises ConfigError for an unknown role, option, key or target, and for a value of a wrong type.
    """
    roles = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    groups, settings = dict(SELECTIONS), []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in roles:
            groups[key] = value
        else:
            settings.append(override)
    with tempfile.TemporaryDirectory(prefix="pld-") as temporary:
        conf = Path(temporary) / "conf"
        shutil.copytree(CONF, conf)
        sections = {role: _section(role, choice, where) for role, choice in choices.items()}
        for role, section in {**sections, "task": _escaped(task.model_dump(mode="json"))}.items():
            if isinstance(section, str):
                groups[role] = section
                continue
            groups[role] = _GIVEN
            file = conf / role / f"{_GIVEN}.yaml"
            file.write_text(yaml.safe_dump(section, allow_unicode=True), encoding="utf-8")
        return compose_groups(conf, groups, settings, where)


def records_task(
    name: str,
    labels: Sequence[str],
    fields: Mapping[str, str],
    template: str,
    instruction: str,
    *,
    path: str,
    label: str,
    id: str | None = None,
    group: str | None = None,
    split: str | None = None,
) -> TaskParams:
    """A task whose examples are the rows of `path`; `fields` maps input fields to columns, the keywords name columns.

    Raises ConfigError.
    """
    reader = RecordsReader(
        format="records", path=path, fields=dict(fields), label=label, options=None, id=id, group=group, split=split
    )
    task = {
        "name": name,
        "labels": tuple(labels),
        "fields": tuple(fields),
        "input_template": template,
        "base_instruction": instruction,
        "reader": reader.model_dump(),
    }
    return check(TaskParams, task, f"task {name}")


def _section(role: str, choice: Choice, where: str) -> str | dict[str, Any]:
    """The name of an option, or the content of one."""
    if isinstance(choice, Mapping):
        return dict(choice)
    text = str(choice)
    options = sorted(file.stem for file in (CONF / role).glob("*.yaml"))
    if text in options:
        return text
    if role == "teacher" and text.startswith(_ANTHROPIC):
        return {"defaults": ["anthropic"], "model": text.removeprefix(_ANTHROPIC).lstrip("/")}
    try:
        value = yaml.safe_load(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        value = None
    if not isinstance(value, Mapping):
        model = f", {_ANTHROPIC}MODEL" if role == "teacher" else ""
        raise ConfigError(
            f"expected an option ({', '.join(options)}){model}, or a YAML file like those of conf/{role}/, got "
            f"{text!r} ({where}: {role})"
        )
    return dict(value)


def _escaped(value: Any) -> Any:
    """`value` with its texts taken literally by OmegaConf, which would fill in ${...}."""
    if isinstance(value, Mapping):
        return {key: _escaped(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(held) for held in value]
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value) if isinstance(value, str) else value
