"""`docs/reference.md`, made from the code: commands, stages, the menu of conf/ (`make docs`; checked by a test)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from pld.cli.main import pld


def reference() -> str:
    """The whole page as Markdown. Reads conf/ and dvc.yaml of the current folder."""
    parts = ["# Reference", "Made by `make docs` from the code; do not edit.", "## Commands", *_commands()]
    parts += ["## Stages", _stages(), "## The menu of conf/", *_menu(), "## Settings without options", _settings()]
    return "\n\n".join(parts) + "\n"


def _commands() -> list[str]:
    root = click.Context(pld, info_name="pld", max_content_width=100, **pld.context_settings)
    return [f"```\n{text}\n```" for text in _helps(pld, root)]


def _helps(command: click.Command, context: click.Context) -> Iterator[str]:
    """Of a command, and of those below it."""
    yield command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _helps(below, click.Context(below, info_name=name, parent=context, max_content_width=100))


def _stages() -> str:
    stages: dict[str, Any] = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    rows = ["| stage | settings | reads | writes |", "|---|---|---|---|"]
    for name, stage in stages.items():
        settings = [
            section
            for entry in stage.get("params", [])
            for section in (entry["artifacts/config.yaml"] if isinstance(entry, dict) else [entry])
        ]
        reads = [path for path in stage.get("deps", []) if not path.startswith("src/")]
        writes = stage.get("outs", []) + stage.get("metrics", [])
        rows.append(f"| {name} | {', '.join(settings)} | {_paths(reads)} | {_paths(writes)} |")
    return "\n".join(rows)


def _paths(paths: list[str]) -> str:
    return "<br>".join(f"`{path}`" for path in paths) or "–"


def _menu() -> list[str]:
    parts = []
    for folder in sorted(path for path in Path("conf").iterdir() if path.is_dir()):
        lines = [f"- `{file.stem}`: {_first_comment(file)}" for file in sorted(folder.glob("*.yaml"))]
        parts.append(f"**{folder.name}**\n\n" + "\n".join(lines))
    return parts


def _first_comment(file: Path) -> str:
    return file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _settings() -> str:
    text = Path("conf/config.yaml").read_text(encoding="utf-8")
    return f"```yaml\n{text[text.index('asking:') :].rstrip()}\n```"


if __name__ == "__main__":
    sys.stdout.write(reference())
