"""Artifacts as `write_artifacts` makes them, with the messages that `evaluate` asked with."""

from pathlib import Path

from pld.artifacts import write_json
from pld.distill.render import prompt_messages
from support.artifact_tree import PROMPT, write_artifacts
from support.resolve_tree import CLUSTERED


def write_evaluated(folder: Path, **options) -> None:
    write_artifacts(folder, **options)
    prompts = {"clustered": CLUSTERED, "distilled": options.get("prompt", PROMPT)}
    asked = {name: [own.model_dump() for own in prompt_messages(text)] for name, text in prompts.items()}
    write_json(folder / "evaluation/prompts.json", asked)
