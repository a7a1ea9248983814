"""Compose conf/ and params.yaml into artifacts/config.yaml, on which the other stages depend by section."""

from pathlib import Path

import yaml

from pld.artifacts import write_text
from pld.config.composition import compose
from pld.config.settings import CONFIG_PATH


def run() -> None:
    config = compose(Path("conf"), Path("params.yaml"))
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(CONFIG_PATH, text)
