import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pld.cli.main import main, pld
from support.small_projects import (
    CORPUS,
    TASK,
    committed,
    git,
    notes,
    prepared,
    select,
    start_project,
    write_notes,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A project of which `prepare` has run and is committed."""
    folder = tmp_path_factory.mktemp("template")
    before = Path.cwd()
    os.chdir(folder)
    start_project()
    prepared("first")
    os.chdir(before)
    return folder


@pytest.fixture
def made(template, tmp_path, monkeypatch):
    folder = tmp_path / "made"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


def diff(*arguments):
    return CliRunner().invoke(pld, ["data", "diff", *arguments], catch_exceptions=False).output


def diff_json(*arguments):
    return json.loads(diff("--json", *arguments))


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["data", "diff", *arguments])
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return message


def change(**by_id):
    """Rows by id get other values; None: the row goes."""
    rows = []
    for row in notes():
        new = by_id.get(row["no"], {})
        if new is not None:
            rows.append(row | new)
    write_notes(rows)


NEW = {"no": "n12", "note": "a secret of the test set", "verdict": "bin", "folder": "", "part": "test"}


def changed():
    """One of each kind."""
    change(n0={"verdict": "bin"}, n1=None, n2={"part": "test"}, n3={"note": "a text that is new"}, n4={"folder": "f"})
    with CORPUS.open("a") as file:
        file.write(",".join(NEW.values()) + "\n")


KINDS = """\
               keep         bin         all
train         3 → 1           3       6 → 4
validation        2           1           3
test          1 → 2       2 → 3       3 → 5
added: 1 (1 test)
  n12  test  bin
removed: 1 (1 train)
  n1  train  bin
relabelled: 1 (1 train)
  n0  train  keep → bin
moved: 1 (1 train → test)
  n2  train → test  keep
edited: 1 (1 train)
  n3  train  bin
regrouped: 1 (1 train)
  n4  train  keep
new to the Teacher: 2 of the training examples; if task and Teacher settings are unchanged, `dvc repro` asks \
about no others
"""


def squeezed(text):
    return [line.split() for line in text.splitlines()]


def test_every_kind_of_change_is_listed_by_id_before_anything_is_run(made):
    changed()
    before = {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()}
    head, rest = diff().split("\n", 1)
    assert head == f"notes: HEAD ({git('rev-parse', '--short=7', 'HEAD')}) → the workspace"
    assert squeezed(rest) == squeezed(KINDS)
    assert "secret" not in rest
    assert before == {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()}
    assert git("status", "--short") == f"M {CORPUS}"


def test_with_a_limit_on_teacher_examples_the_diff_does_not_promise_which(made):
    changed()
    settings = Path("params.yaml")
    settings.write_text(settings.read_text().replace("overrides: []", 'overrides: ["extraction.examples=2"]'))
    assert "extraction.examples=2 decides which of all it is asked about" in diff()


def test_two_revisions_are_compared_without_a_checkout(made):
    git("tag", "v1")
    changed()
    prepared("second")
    change(n5={"verdict": "keep"})
    squeezed_rest = squeezed(diff("v1", "main").split("\n", 1)[1])
    assert squeezed_rest == squeezed(KINDS)
    assert diff("v1", "HEAD~1").endswith(": the same 12 examples\n")
    git("checkout", "-q", ".")
    git("checkout", "-q", "--detach")
    assert [one["id"] for one in diff_json("HEAD", "v1")["added"]] == ["n1"]
    git("update-ref", f"refs/exps/{'a' * 2}/{'b' * 38}/dim-goat", "v1")
    assert "dim-goat" in diff("dim-goat", "HEAD").splitlines()[0]


def test_a_data_set_that_did_not_change_says_so_and_another_order_too(made):
    assert diff().endswith("→ the workspace: the same 12 examples\n")
    write_notes(notes()[::-1])
    assert diff().endswith("→ the workspace: the same 12 examples, in another order\n")


def test_long_lists_are_cut_and_can_be_had_in_full(made):
    write_notes(notes() + [{**NEW, "no": f"m{n}", "note": f"more {n}"} for n in range(13)])
    message = diff()
    assert "added: 13 (13 test)" in message
    assert "m9" in message
    assert "m10" not in message
    assert "  and 3 more: --all" in message
    assert "m12" in diff("--all")
    plain = diff_json()
    assert len(plain["added"]) == 13
    assert plain["added"][0] == {"id": "m0", "split": "test", "label": "bin"}
    assert plain["new_to_teacher"] == []
    assert plain["after"]["test"] == {"keep": 1, "bin": 15}


def test_labels_of_either_version_are_counted(made):
    select({**TASK, "labels": ["keep", "file"]})
    write_notes([row | {"verdict": row["verdict"].replace("bin", "file")} for row in notes()])
    plain = diff_json()
    assert plain["before"]["train"] == {"keep": 3, "file": 0, "bin": 3}
    assert plain["after"]["train"] == {"keep": 3, "file": 3, "bin": 0}


def test_a_file_that_was_deleted_is_not_read_from_the_copy_that_the_pipeline_has(made, capsys):
    CORPUS.unlink()
    assert Path("data/records/notes.csv").exists()
    assert "expected a data file, got no such file (assets/corpus/records/notes.csv)" in refused(capsys)


def test_rows_that_prepare_would_refuse_are_refused_here_in_its_words(made, capsys):
    change(n3={"verdict": "Bin"})
    message = refused(capsys)
    assert "(assets/corpus/records/notes.csv: row 5, column" in message
    assert "expected a label of task notes (keep, bin), got 'Bin' (did you mean 'bin'?)" in message


def test_another_task_is_not_compared(made, capsys):
    select({**TASK, "name": "letters"})
    message = refused(capsys)
    assert "expected the data of task 'letters', got those of task 'notes'" in message
    assert "params.yaml" in message


@pytest.mark.parametrize("revision", ["nope", "HEAD~7", ""])
def test_a_revision_that_is_not_there_is_named(made, capsys, revision):
    assert "got none of that name" in refused(capsys, revision)


def test_a_revision_before_the_first_prepare_is_refused(made, capsys):
    Path("dvc.lock").unlink()
    committed("lost")
    assert "expected artifacts/splits/ of its dvc.lock in DVC's cache or remote, got" in refused(capsys)


def test_outputs_come_from_the_remote_where_the_cache_lacks_them_and_else_it_says_what_to_do(made, capsys):
    from dvc.repo import Repo

    Path(".dvc/config").write_text("[core]\n    remote = team\n['remote \"team\"']\n    url = ../../team\n")
    committed("a remote")
    with Repo(".") as repo:
        repo.push()
    shutil.rmtree(".dvc/cache")
    assert diff().endswith("the same 12 examples\n")
    shutil.rmtree("../team")
    message = refused(capsys)
    assert "run `dvc push --all-commits` where it was made" in message


def test_a_remote_that_cannot_be_used_is_one_line(made, capsys):
    Path(".dvc/config").write_text("[core]\n    remote = team\n['remote \"team\"']\n    url = s3://no-such/bucket\n")
    committed("a remote")
    shutil.rmtree(".dvc/cache")
    message = refused(capsys)
    assert "dvc-s3" in message
    assert "expected artifacts/splits/ of its dvc.lock in DVC's cache or remote" in message


def test_without_git_without_a_commit_and_without_dvc_it_is_one_line(made, capsys, tmp_path, monkeypatch):
    shutil.rmtree(".git")
    assert "is not a git repository (HEAD)" in refused(capsys)
    git("init", "-q")
    assert "got none of that name" in refused(capsys)
    shutil.rmtree(".dvc")
    Path("dvc.lock").unlink()
    Path("dvc.yaml").unlink()
    committed("no DVC")
    assert "got a revision without .dvc/" in refused(capsys)


def test_a_project_in_a_folder_of_a_repository_is_compared_too(made):
    outer = made.parent / "outer"
    outer.mkdir()
    shutil.rmtree(made / ".git")
    shutil.move(made, outer / "inner")
    os.chdir(outer / "inner")
    git("init", "-q", "..")
    committed("one")
    changed()
    assert squeezed(diff().split("\n", 1)[1]) == squeezed(KINDS)


def test_as_a_process_it_prints_one_line_and_no_traceback(made):
    code = "from pld.cli.main import main; main(['data', 'diff', 'nope'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
