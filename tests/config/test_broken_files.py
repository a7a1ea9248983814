"""Whatever is wrong with conf/ or params.yaml, the stage says it in one line; what it writes reads nothing from the
environment."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld.stages.__main__ import main
from support.project import copy_project

ROOT = Path(__file__).parents[2]
TASK = Path("conf/task/tickets.yaml")
FILES = [Path("params.yaml"), Path("conf/config.yaml"), TASK, Path("conf/teacher/recorded.yaml")]
FILES += [Path("conf/sweep/race.yaml"), Path("conf/prices.yaml"), Path("conf/student/smollm2-135m.yaml")]
SNIPPETS = [
    "${amount}",
    "${oc.env:HOME}",
    "${",
    "???",
    "null",
    "[a]",
    "{a: b}",
    "&x [*x]",
    "*x",
    "!!set {a}",
    "'",
    '"',
    "\t",
]
SNIPPETS += [
    "defaults: [nope]\n",
    "groups: [a]\n",
    "overrides: ['=3']\n",
    "overrides: ['~task']\n",
    "# @package _global_\n",
]
SNIPPETS += ["\x00", "\x85", "- ", ": ", "2020-13-40", "9" * 5000, "[" * 2000, "1e999", ".nan", "~", "no", "<<: 3\n"]


@pytest.fixture
def conf(project, capfd):
    """A copy of conf/ and params.yaml with the task tickets; what `python -m pld.stages config` returns and prints."""
    shutil.copytree(ROOT / "conf", "conf")
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    value["groups"] |= {"task": "tickets", "student": "smollm2-135m", "teacher": "recorded"}
    Path("params.yaml").write_text(yaml.safe_dump(value, sort_keys=False))

    def run():
        status = main(["config"])
        return status, capfd.readouterr().err

    return run


def instruct(text):
    before = TASK.read_text()
    TASK.write_text(re.sub(r"base_instruction:.*?(?=\n\w)", lambda _: f"base_instruction: {text}", before, flags=re.S))


def line_of(text):
    return next(number for number, line in enumerate(TASK.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    "text", ["${amount}", "${amount", "${a b}", "${task.base_instruction}", "${nope:x}", "${oc.select:a,${b}}"]
)
def test_an_interpolation_of_nothing_names_file_line_and_key_and_how_to_write_it_as_text(conf, text):
    escaped = text.replace("${", "\\${")
    instruct(f"Decide {text}")
    status, said = conf()
    assert (status, said.count("\n")) == (1, 1)
    assert f"(conf/task/tickets.yaml:{line_of(text)}: " in said
    assert "base_instruction); to keep it as text write " + escaped in said
    instruct(f"Decide {escaped}")
    assert conf() == (0, "")
    assert yaml.safe_load(Path("artifacts/config.yaml").read_text())["task"]["base_instruction"] == f"Decide {text}"


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:PLD_PIN}",
        "${oc.env:NOT_SET,${oc.env:PLD_PIN}}",
        "${oc.select:nope,${oc.env:PLD_PIN}}",
        r"${oc.decode:'\${oc.env:PLD_PIN}'}",
        "${oc.create:{a:${oc.env:PLD_PIN}}}",
        "${hydra:runtime.cwd}",
        "${now:%Y}",
        "${python_version:}",
    ],
)
def test_no_setting_reads_the_environment_the_clock_or_the_machine(conf, text, monkeypatch):
    monkeypatch.setenv("PLD_PIN", "2718")
    places = [lambda: instruct(text), lambda: Path("params.yaml").write_text(overridden)]
    before, params = TASK.read_text(), yaml.safe_load(Path("params.yaml").read_text())
    overridden = yaml.safe_dump(params | {"overrides": [f"task.base_instruction={text}"]})
    for change in places:
        change()
        status, said = conf()
        assert (status, said.count("\n"), "2718" in said) == (1, 1, False)
        assert "only other settings can be used" in said or "overrides" in said
        assert not Path("artifacts/config.yaml").exists()
        TASK.write_text(before)


@pytest.mark.parametrize(
    ("file", "held", "words"),
    [
        (TASK, "defaults: [nope]\n{}", ["Could not load 'task/nope'", "conf/task/tickets.yaml"]),
        (TASK, "defaults: [tickets]\n{}", ["contain themselves"]),
        (TASK, "{}name: x\n", ["the key name twice", "conf/task/tickets.yaml:"]),
        (TASK, "{}x: [\n", ["expected YAML", "conf/task/tickets.yaml:"]),
        (TASK, "a: &a [*a]\n{}", ["Circular", "conf/task/tickets.yaml"]),
        (TASK, "- a\n", ["expected keys with values, got ['a']", "conf/task/tickets.yaml"]),
        (TASK, "", ["expected keys with values, got None", "conf/task/tickets.yaml"]),
        (TASK, "{}null: x\n", ["Incompatible key", "conf/task/tickets.yaml"]),
        (FILES[0], "{}groups: {{}}\n", ["the key groups twice", "params.yaml:"]),
        (FILES[0], "groups: [a]\noverrides: []\n", ["['a']", "params.yaml: groups"]),
        (FILES[0], "groups: {{task: no}}\noverrides: []\n", ["got False", "groups.task", "quotes"]),
        (FILES[0], "groups: [\n", ["expected YAML", "params.yaml:2"]),
    ],
)
def test_a_broken_file_is_named(conf, file, held, words):
    file.write_text(held.format(file.read_text()))
    status, said = conf()
    assert (status, said.count("\n")) == (1, 1)
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("override", ["=3", "@=1", "x=[", "", "task.name", "a=1,2", "task=3", "~task", "teacher=nope"])
def test_an_override_that_hydra_refuses_is_named(conf, override):
    value = yaml.safe_load(Path("params.yaml").read_text()) | {"overrides": [override]}
    Path("params.yaml").write_text(yaml.safe_dump(value))
    status, said = conf()
    assert (status, said.count("\n")) == (1, 1)
    assert "(params.yaml: overrides)" in said


@pytest.mark.parametrize("file", FILES[:3], ids=str)
def test_a_file_in_another_encoding_names_the_line(conf, file):
    file.write_bytes(b"# x\n# caf\xe9\n" + file.read_bytes())
    status, said = conf()
    assert (status, f"expected UTF-8, got the byte 0xe9 ({file}:2)" in said) == (1, True)


@pytest.mark.parametrize("target", ["recorded.Path", "recorded.json", "recorded.", ".", "recorded..x"])
def test_a_target_that_is_no_adapter_is_refused(conf, target):
    file = Path("conf/teacher/recorded.yaml")
    file.write_text(re.sub("_target_: .*", f"_target_: pld.adapters.teachers.{target}", file.read_text()))
    status, said = conf()
    assert (status, said.count("\n"), "expected a class" in said) == (1, 1, True)


def test_an_option_that_git_leaves_out_of_a_queued_experiment_says_git_add(conf, monkeypatch, tmp_path):
    queued = tmp_path / "queued"
    queued.mkdir()
    shutil.copytree("conf", queued / "conf")
    TASK.rename("conf/task/mine.yaml")
    params = Path("params.yaml").read_text().replace("task: tickets", "task: mine")
    (queued / "params.yaml").write_text(params)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(queued)
    status, said = conf()
    assert (status, said.count("\n")) == (1, 1)
    assert "got 'mine' (params.yaml: groups.task); run `git add conf/task/mine.yaml`" in said


def _changed(data, held):
    """`held` with a few lines dropped, repeated, moved or cut, and snippets put in."""
    lines = held.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        place = data.draw(st.integers(0, len(line)))
        snippet = data.draw(st.sampled_from(SNIPPETS) | st.text(max_size=6)).encode(errors="ignore")
        changes = [b"", line * 2, line[:place], b"  " + line, line.lstrip(), snippet, b"\xe9\n", snippet + line]
        changes += [line[:place] + snippet + line[place:], line.partition(b":")[0] + b": " + snippet + b"\n"]
        lines[at] = data.draw(st.sampled_from(changes))
    return b"".join(lines)


def _survives(conf, data):
    file = data.draw(st.sampled_from(FILES))
    before = file.read_bytes()
    file.write_bytes(_changed(data, before))
    try:
        status, said = conf()
    finally:
        file.write_bytes(before)
    if status:
        assert status == 1
        assert said.startswith("config: ")
        assert len(said.splitlines()) == 1, said
    else:
        assert said == ""


_FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=15, **_FUZZ)
@given(st.data())
def test_any_change_of_conf_or_params_composes_or_is_told_in_one_line(conf, data):
    _survives(conf, data)


@pytest.mark.slow
@settings(max_examples=600, **_FUZZ)
@given(st.data())
def test_many_changes_of_conf_or_params_compose_or_are_told_in_one_line(conf, data):
    _survives(conf, data)


@pytest.mark.slow
@pytest.mark.parametrize("complete", [False, True])
def test_dvc_that_would_compose_by_itself_says_what_to_unset_and_writes_nothing(complete, tmp_path):
    project = copy_project(tmp_path / "project")
    project.run("dvc", "config", "hydra.enabled", "true")
    params = project.folder / "params.yaml"
    before = params.read_text()
    groups = yaml.safe_load(before)["groups"] if complete else {"task": "tickets"}
    settings = [argument for role, option in groups.items() for argument in ("-S", f"{role}={option}")]
    done = project.run("dvc", "exp", "run", *settings, "config", check=False)
    assert done.returncode != 0
    assert "dvc config --unset hydra.enabled" in done.stderr
    assert params.read_text() == before
    project.run("dvc", "config", "--unset", "hydra.enabled")
    project.run("dvc", "exp", "run", "-S", "groups.task=tickets", "config")


@pytest.mark.slow
def test_a_task_that_git_does_not_know_is_queued_once_it_is_added(tmp_path):
    project = copy_project(tmp_path / "project")
    shutil.copy(project.folder / TASK, project.folder / "conf/task/mine.yaml")
    run = ("dvc", "exp", "run", "--temp", "-S", "groups.task=mine", "config")
    done = project.run(*run, check=False)
    assert "run `git add conf/task/mine.yaml`" in done.stdout + done.stderr
    project.run("git", "add", "conf/task/mine.yaml")
    project.run(*run)
