"""What dvc.yaml lets a stage see."""

import importlib
from pathlib import Path

import pytest
import yaml

from pld.params import Config
from pld.stages.__main__ import STAGES

PIPELINE = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
SPLITS = ("train", "validation", "test")
SEEN = {
    "extract": {"train"},
    "sweep": {"train", "validation"},
    "resolve": {"train", "validation"},
    "review": {"train", "validation"},
    "track": {"test"},  # to measure production again, where it was measured on other examples
    "evaluate": {"train", "validation", "test"},  # test alone is measured; the others make and calibrate the baselines
}
READS_THROUGH = {
    "resolve": ("pld.resolve.inputs",),
    "review": ("pld.resolve.inputs",),
    "track": ("pld.registry.reevaluate",),
}  # where not the stage itself opens the files


def splits_of(stage):
    paths = [str(dependency) for dependency in stage.get("deps", [])]
    whole = any(path.rstrip("/") in ("artifacts", "artifacts/splits") for path in paths)
    return {split for split in SPLITS if whole or f"artifacts/splits/{split}.jsonl" in paths}


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_a_stage_depends_on_its_splits_and_on_no_other(name):
    assert splits_of(PIPELINE[name]) == SEEN.get(name, set())


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_a_stage_reads_no_split_that_dvc_does_not_know_it_reads(name):
    if name == "prepare":
        return
    modules = [f"pld.stages.{name}", *READS_THROUGH.get(name, ())]
    source = "".join(Path(importlib.import_module(module).__file__ or "").read_text() for module in modules)
    for split in SPLITS:
        assert (f"splits/{split}.jsonl" in source) == (split in SEEN.get(name, set())), split


def test_the_stages_that_dvc_starts_are_those_that_there_are():
    assert tuple(PIPELINE) == STAGES


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_every_section_that_a_stage_depends_on_is_one_of_the_settings(name):
    for entry in PIPELINE[name].get("params", []):
        for section in entry.get("artifacts/config.yaml", []) if isinstance(entry, dict) else []:
            assert section.partition(".")[0] in Config.model_fields


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_every_dependency_on_code_exists(name):
    for path in PIPELINE[name].get("deps", []):
        if path.startswith("src/"):
            assert Path(path).exists(), path


def test_only_tracking_is_never_restored_from_the_cache():
    assert [name for name, stage in PIPELINE.items() if stage.get("always_changed")] == ["track"]
