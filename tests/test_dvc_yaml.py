"""What dvc.yaml lets a stage see."""

import ast
import re
from functools import cache
from pathlib import Path

import grimp
import pytest
import yaml

from pld.params import Config
from pld.stages.__main__ import STAGES

PIPELINE = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
IMPORTS = grimp.build_graph("pld", cache_dir=None)
SPLITS = ("train", "validation", "test")
SEEN = {
    "extract": {"train"},
    "sweep": {"train", "validation"},
    "resolve": {"train", "validation"},
    "review": {"train", "validation"},
    "track": {"train", "test"},  # the examples that the prompt shows; test to measure production again on new examples
    "evaluate": {"train", "validation", "test"},  # test alone is measured; the others make and calibrate the baselines
}


def splits_of(stage):
    paths = [str(dependency) for dependency in stage.get("deps", [])]
    whole = any(path.rstrip("/") in ("artifacts", "artifacts/splits") for path in paths)
    return {split for split in SPLITS if whole or f"artifacts/splits/{split}.jsonl" in paths}


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_a_stage_depends_on_its_splits_and_on_no_other(name):
    assert splits_of(PIPELINE[name]) == SEEN.get(name, set())


@pytest.mark.parametrize("name", sorted(set(PIPELINE) - {"prepare"}))
def test_no_code_of_a_stage_names_a_split_that_the_stage_does_not_depend_on(name):
    source = "".join(Path(file).read_text() for file in code_of(name) if file.endswith(".py"))
    named = {split for split in SPLITS if f"splits/{split}.jsonl" in source}
    assert named == SEEN.get(name, set())


def test_no_plot_lies_inside_a_folder_that_dvc_stores():
    """DVC loads such a folder for any experiment, and fails in a clone whose cache lacks it."""
    plots = yaml.safe_load(Path("dvc.yaml").read_text())["plots"]
    paths = [Path(plot if isinstance(plot, str) else next(iter(plot))) for plot in plots]
    outputs = {Path(out) for stage in PIPELINE.values() for out in stage.get("outs", [])}
    assert not [path for path in paths if outputs & set(path.parents)]


def test_dvc_runs_every_stage_module():
    assert re.findall(r"pld\.stages (\w+)", Path("dvc.yaml").read_text()) == list(STAGES)


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_every_section_that_a_stage_depends_on_is_one_of_the_settings(name):
    for entry in PIPELINE[name].get("params", []):
        for section in entry.get("artifacts/config.yaml", []) if isinstance(entry, dict) else []:
            assert section.partition(".")[0] in Config.model_fields


@cache
def code_of(name: str) -> set[str]:
    """Files under src/ that the commands of stage `name` run: the transitive imports of its modules, lazy ones too, and
    the adapters of the roles that these modules build from the settings, with their imports."""
    commands = PIPELINE[name]["cmd"]
    text = " ".join(commands if isinstance(commands, list) else [commands])
    modules = {f"pld.stages.{stage}" for stage in re.findall(r"pld\.stages (\w+)", text)}
    modules |= {f"pld.cli.{command}" for command in re.findall(r"pld\.cli\.main (\w+)", text)}
    modules = with_imports(modules)
    built = re.compile(r'\bbuild\([^()]*?, "(student|teacher|embedder|clusterer)"')
    for role in {role for module in modules for role in built.findall(Path(file_of(module)).read_text())}:
        modules |= with_imports(IMPORTS.find_descendants(f"pld.adapters.{role}s"))
    packages = {".".join(module.split(".")[:depth]) for module in modules for depth in (2, 3, 4)}
    return {file for file in map(file_of, modules | packages) if not only_a_docstring(Path(file))}


def only_a_docstring(file: Path) -> bool:
    return file.name == "__init__.py" and len(ast.parse(file.read_text()).body) <= 1


def with_imports(modules: set[str]) -> set[str]:
    return modules.union(*(IMPORTS.find_upstream_modules(module) for module in modules)) - {"pld"}


def file_of(module: str) -> str:
    path = Path("src", *module.split("."))
    return str(path / "__init__.py") if path.is_dir() else f"{path}.py"


def covered(path: str, deps: list[str]) -> bool:
    return any(path == dep or path.startswith(f"{dep}/") for dep in deps)


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_every_module_that_a_stage_runs_is_among_its_deps(name):
    deps = PIPELINE[name]["deps"]
    missing = {path for path in code_of(name) if not covered(path, deps)}
    assert not missing, f"add to the deps of {name} in dvc.yaml (folders where they fit): {sorted(missing)}"


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_every_dependency_on_code_exists_and_is_run(name):
    for dep in PIPELINE[name].get("deps", []):
        if dep.startswith("src/"):
            assert Path(dep).exists(), dep
            assert any(covered(path, [dep]) for path in code_of(name)), f"{name} runs nothing of {dep}"


def test_only_tracking_is_never_restored_from_the_cache():
    assert [name for name, stage in PIPELINE.items() if stage.get("always_changed")] == ["track"]


def test_no_measured_time_is_an_output_whose_hash_must_repeat():
    outs = [str(out) for stage in PIPELINE.values() for out in stage.get("outs", [])]
    assert not [out for out in outs if "latency" in out or "timing" in out or out.startswith("artifacts/report")]
