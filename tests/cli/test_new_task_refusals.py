"""Data and options that `pld new-task` refuses, with nothing written."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pld.cli.main import pld
from pld.data.audit import task_files
from pld.data.splits import split_of
from pld.errors import ConfigError, DataError
from pld.records import inputs_id
from support.new_task import STANDARD, prepared, rows, run, task, tree, write


def refused(*arguments, match, kind=DataError):
    before = tree()
    with pytest.raises(kind, match=match) as caught:
        run("mine", *arguments)
    assert tree() == before
    assert "\n" not in str(caught.value)
    assert "reader" not in str(caught.value), "a setting, where the user has options"


def test_a_task_or_a_file_that_differs_is_kept_unless_forced(file):
    run("mine", "--data", file, *STANDARD)
    refused(
        "--data", file, *STANDARD, "--instruction", "Other.", match="expected no task of this name", kind=ConfigError
    )
    write(file, rows(80))
    refused(
        "--data",
        file,
        *STANDARD,
        match=r"expected no file of this name, got one .*\(assets/corpus/records/claims\.csv\)",
    )
    run("mine", "--data", file, *STANDARD, "--instruction", "Other.", "--force")
    assert (task().base_instruction, len(prepared()[0])) == ("Other.", 80)


def test_all_that_prepare_would_refuse_is_listed_and_nothing_is_written(here):
    found = [row | {"ref": f"X-{i}"} for i, row in enumerate(rows())]
    found[1]["label"] = ""
    found[2]["label"] = " bill"
    found[3]["text"] = "  "
    found[5]["text"] = found[4]["text"]
    found[7]["text"] = found[6]["text"]
    found[8]["ref"] = "X-9"
    found[10]["ref"] = ""
    for row in found[30:36]:
        row["ref"] = "X-29"
    path = write(here / "bad.csv", found)
    before = tree()
    done = CliRunner().invoke(pld, ["new-task", "mine", "--data", str(path), *STANDARD, "--id", "ref"])
    assert isinstance(done.exception, DataError)
    assert str(done.exception).endswith("; nothing was written")
    assert "declare" not in str(done.exception)
    for line in (
        "- two labels in 2 rows: correct or delete one of the two rows\n    row 7: got 'tech' here and 'bill' for the",
        "    row 9: got 'tech' here and 'bill' for the same input in row 8\n",
        "- undeclared label in 2 rows: correct the row, or the task's labels\n    row 3: got ''\n",
        "    row 4: got ' bill' (did you mean 'bill'?)\n",
        "- empty input in 1 row: fill it in or delete the row\n    row 5: got only blanks",
        "- empty id in 1 row", "- duplicate id in 7 rows: ", "    row 11: got 'X-9', which row 10 has too\n",
    ):  # fmt: skip
        assert line in done.output
    assert "--group ref" not in done.output
    assert tree() == before


def test_splits_and_groups_that_prepare_would_refuse_are_listed(here):
    found = [row | {"fold": ("train", "dev", "test")[i // 2 % 3], "doc": f"d{i // 2}"} for i, row in enumerate(rows())]
    found[0]["fold"] = "holdout"
    found[3]["fold"] = "test"
    found[10] = found[4] | {"doc": "d5", "fold": found[10]["fold"]}
    path = write(here / "bad.csv", found)
    done = CliRunner().invoke(
        pld, ["new-task", "mine", "--data", str(path), *STANDARD, "--group", "doc", "--split", "fold"]
    )
    assert isinstance(done.exception, DataError)
    for line in (
        "- unknown split in 1 row: correct the row, or name no split column to split by hash\n",
        "    row 2: got 'holdout'\n",
        "- group in two splits in 1 row: ", "    row 5: got test here and validation in row 4\n",
    ):  # fmt: skip
        assert line in done.output


def test_a_label_without_a_training_example_is_refused(here):
    held_out = next(f"alone {i}" for i in range(100) if split_of(inputs_id({"text": f"alone {i}"})) == "test")
    path = write(here / "rare.csv", [*rows(), {"text": held_out, "label": "rare"}])
    done = CliRunner().invoke(pld, ["new-task", "mine", "--data", str(path), *STANDARD])
    assert "got none of rare (1 test) among" in " ".join(done.output.split())
    assert "expected a training example of every label" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "match", "kind"),
    [
        (("--text", "txt", "--label", "label"), r"\(did you mean 'text'\?\) .*; correct the name", DataError),
        (("--text", "text", "--label", "Label"), r"\(did you mean 'label'\?\) .*; correct the name", DataError),
        (("--text", "label", "--label", "text"), "labels that repeat, got 90 different texts in 90 rows", DataError),
        (("--text", "text", "--label", "text"), "would show the label to the Student", ConfigError),
        ((*STANDARD, "--template", "{{ txt }}"), r"\{ text \}\}.*\(--template\): .*missing txt", ConfigError),
        ((*STANDARD, "--template", "{{ text"), r"\(--template\)", ConfigError),
        ((*STANDARD, "--template", "{{ text | int / 0 }}"), r"\(--template\).*division", ConfigError),
        ((*STANDARD, "--template", "{{ 1 / (text | length - 40) }}"), "division by zero", ConfigError),
        ((*STANDARD, "--data", "conf"), r"got a directory or device \(conf\); correct --data", DataError),
        ((*STANDARD, "--select", "--teacher", "antropic"), r"expected one of anthropic.*groups.teacher", ConfigError),
        ((*STANDARD, "--data", "nowhere.csv"), r"got no such file \(nowhere\.csv\); correct --data", DataError),
        ((*STANDARD, "--data", "hf:imdb"), "expected hf:OWNER/DATASET", DataError),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_and_leaves_nothing_behind(file, arguments, match, kind):
    refused("--data", file, *arguments, match=match, kind=kind)


def test_a_file_that_is_no_table_is_named_by_its_format(here):
    (here / "page.csv").write_text("<!DOCTYPE html>\n<html>Please log in</html>\n")
    refused("--data", "page.csv", *STANDARD, match=r"got a web page or XML \(page\.csv\)")


def test_a_long_label_is_refused_as_the_wrong_column(here):
    found = rows()
    found[3]["label"] = "so " * 100
    path = write(here / "long.csv", found)
    refused("--data", path, *STANDARD, match=r"expected a column of short labels that repeat, .*\(.*: column 'label'\)")


@pytest.mark.parametrize("groups", ["task:\n  teacher: recorded", "task: &other recorded\n  teacher: *other"])
def test_params_yaml_in_an_unsupported_form_is_refused(file, groups):
    Path("params.yaml").write_text(f"groups:\n  {groups}\noverrides: []\n")
    refused("--data", file, *STANDARD, match="select the task there by hand", kind=ConfigError)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--teacher", "openai"), "expected --select with --teacher"),
        (("--options", "label"), "expected 2 to 26 columns as --options, got 1"),
        (("--text", "text"), "expected each column once, got 'text'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(file, arguments, said):
    done = CliRunner().invoke(pld, ["new-task", "mine", "--data", str(file), *STANDARD, *arguments])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("name", ["", "1st", "a b", "a/b", "../x", "-x", "no", "Null", "größe", "a" * 65])
def test_a_name_that_no_file_or_model_can_have_is_refused(file, name):
    with pytest.raises(ConfigError, match="expected a name of letters"):
        run("--data", file, *STANDARD, "--", name)


def test_outside_a_project_the_message_says_where_to_run(file):
    Path("params.yaml").unlink()
    refused("--data", file, *STANDARD, match="run in the project's folder", kind=ConfigError)


def test_overrides_of_the_task_in_params_are_refused(file):
    text = Path("params.yaml").read_text().replace("overrides: []", 'overrides: ["task.labels=[a, b]"]')
    Path("params.yaml").write_text(text)
    refused("--data", file, *STANDARD, match="take overrides of task out of params.yaml", kind=ConfigError)


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError])
def test_stopped_while_it_writes_it_leaves_nothing_behind(file, monkeypatch, stopped):
    def stop(*_):
        raise stopped

    monkeypatch.setattr(task_files.shutil, "copyfile", stop)  # when the texts are written beside their places
    before = tree()
    CliRunner().invoke(pld, ["new-task", "mine", "--data", str(file), *STANDARD, "--select"])
    assert tree() == before
