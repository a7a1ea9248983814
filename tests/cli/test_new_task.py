import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers

from pld.cli.main import pld
from pld.config.composition import compose
from pld.data.audit import task_files
from pld.data.readers import read
from pld.data.splits import assemble, split_of
from pld.errors import ConfigError, DataError
from pld.records import inputs_id
from support.hub_server import COMMIT, Hub

ROOT = Path(__file__).parents[2]
WORDS = [
    "invoice",
    "login",
    "crash",
    "refund",
    "password",
    "server",
    "charge",
    "screen",
    "report",
    "slow",
    "twice",
    "lamp",
]
STANDARD = ("--text", "text", "--label", "label")


@pytest.fixture
def here(project, monkeypatch):
    """A project without data, whose Student's tokenizer is not on the machine."""
    monkeypatch.setenv("PLD_CACHE", str(project / "cache"))
    shutil.copytree(ROOT / "conf", project / "conf")
    shutil.copy(ROOT / "params.yaml", project)
    return project


@pytest.fixture
def file(here):
    """90 different rows, two labels, each on both sides of every split; the tenth has 40 characters."""
    found = rows()
    found[9]["text"] = "this text has forty characters, no more."
    return write(here / "claims.csv", found)


def rows(count=90):
    drawn = random.Random(5)
    return [{"text": " ".join(drawn.choices(WORDS, k=9)), "label": ("bill", "tech")[i % 2]} for i in range(count)]


def write(path, found):
    with path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return path


def run(*arguments):
    """The output, with a refusal as the exception that it is."""
    done = CliRunner().invoke(pld, ["new-task", *map(str, arguments)], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def refused(*arguments, match, kind=DataError):
    before = tree()
    with pytest.raises(kind, match=match) as caught:
        run("mine", *arguments)
    assert tree() == before
    assert "\n" not in str(caught.value)
    assert "reader" not in str(caught.value), "a setting, where the user has options"


def tree():
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def task(name="mine"):
    """As the stages read it, with the new task selected."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["groups"]["task"] = name
    Path("other.yaml").write_text(yaml.safe_dump(params))
    found = compose(Path("conf"), Path("other.yaml")).task
    Path("other.yaml").unlink()
    return found


def prepared(name="mine"):
    """Bring assets/corpus/ to data/ as DVC does, and read the task's data as `prepare` does."""
    shutil.copytree("assets/corpus", "data", dirs_exist_ok=True)
    return assemble(task(name), read(task(name)))


def test_a_file_becomes_a_task_that_prepare_accepts(file):
    output = run("mine", "--data", file, *STANDARD)
    examples, summary = prepared()
    assert len(examples) == 90
    assert task().labels == ("bill", "tech")
    assert task().base_instruction.endswith("Answer with exactly one word: bill or tech.")
    assert "90 rows, 90 examples" in output
    counts = [sum(summary.counts[split].values()) for split in ("train", "validation", "test")]
    assert f"all {counts[0]} {counts[1]} {counts[2]} 90" in output
    assert "inputs: median 9 words" in output
    assert "worth a look" not in output
    assert Path("assets/corpus/records/claims.csv").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".CSV"])
def test_every_format_is_read_and_copied(here, ending):
    path = here / f"größe 1{ending}"
    if ending == ".jsonl":
        path.write_text("\n".join(json.dumps(row | {"n": 1, "tags": []}) for row in rows()))
    elif ending == ".parquet":
        pq.write_table(pa.Table.from_pylist([row | {"score": 0.5} for row in rows()]), path)
    else:
        write(path, rows())
    run("mine", "--data", path, *STANDARD)
    assert len(prepared()[0]) == 90


def test_labels_and_columns_survive_yaml_and_interpolation(here):
    odd = ["no", "on", "0", "1.0", "1e3", "null", "~", "größe", "a: b", "#c", "- x", "{x}", '"q"', "it's",
           "${task.name}", r"a\${b}", "日本"]  # fmt: skip
    drawn = random.Random(3)
    found = [
        {"claim text": " ".join(drawn.choices(WORDS, k=9)), "2nd": "x", "class": "y", "no": odd[i % len(odd)]}
        for i in range(len(odd) * 40)
    ]
    path = write(here / "odd.csv", found)
    run("mine", "--data", path, "--text", "claim text", "--text", "2nd", "--text", "class", "--label", "no")
    examples, _ = prepared()
    assert set(task().labels) == set(odd)
    assert {example.label for example in examples} == set(odd)
    assert task().fields == ("claim_text", "field_2nd", "class")
    assert task().input_template == "Claim text: {{ claim_text }}\n2nd: {{ field_2nd }}\nClass: {{ class }}"


def test_run_again_it_changes_nothing_and_says_so(file):
    run("mine", "--data", file, *STANDARD, "--select")
    before = tree()
    assert "nothing to change: all is there already" in run("mine", "--data", file, *STANDARD, "--select")
    assert tree() == before


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


def test_a_file_of_the_project_is_not_copied(file):
    place = Path("assets/corpus/records/old/claims.csv")
    place.parent.mkdir(parents=True)
    shutil.move(file, place)
    run("mine", "--data", place, *STANDARD)
    shutil.copytree("assets/corpus", "data")
    run("yours", "--data", "data/records/old/claims.csv", *STANDARD)
    assert task("mine").reader.path == task("yours").reader.path == "data/records/old/claims.csv"
    assert not Path("assets/corpus/records/claims.csv").exists()


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


def near(text, at, word):
    words = text.split()
    return " ".join([*words[:at], word, *words[at + 1 :]])


def test_near_duplicates_across_splits_are_shown_with_the_column_that_holds_them_together(here):
    drawn = random.Random(1)
    found = []
    for number in range(60):
        text = " ".join(drawn.choices(WORDS, k=40)) + f" {number}"
        label = drawn.choice(["bill", "tech"])
        found += [{"text": text, "label": label, "doc": f"doc-{number}"},
                  {"text": near(text, 20, "changed"), "label": label, "doc": f"doc-{number}"}]  # fmt: skip
    path = write(here / "twins.csv", found)
    output = run("mine", "--data", path, *STANDARD)
    assert "validation and test examples have a near-duplicate in train" in output
    assert "--group doc would keep 100% of such sets in one split" in output
    assert "% alike: '" in output
    output = run("grouped", "--data", path, *STANDARD, "--group", "doc")
    assert "near-duplicate" not in output
    assert "60 groups, each in one split" in output
    assert task("grouped").reader.group == "doc"


def test_columns_of_documents_ids_and_splits_are_proposed(here):
    found = [
        row | {"doc id": f"contract {i // 4}", "claim_no": 1000 + i, "fold": ("train", "dev", "test")[i % 3],
               "day": f"2024-01-{i % 28 + 1:02}", "stars": i % 12, "lang": "en"}
        for i, row in enumerate(rows())
    ]  # fmt: skip
    path = write(here / "columns.csv", found)
    output = run("mine", "--data", path, *STANDARD)
    assert "--group 'doc id': 23 different values, about 4 rows each, 4 at most" in output
    assert "no two values of 'claim_no' are the same: with --id claim_no" in output
    assert "the values of 'fold' name splits: --split fold keeps" in output
    assert "day" not in output.partition("worth a look")[2].replace("today", "")
    assert "stars" not in output
    named = run("named", "--data", path, *STANDARD, "--group", "doc id", "--id", "claim_no")
    assert "no two values" not in named
    assert "may end up in different splits" not in named
    named = run("brought", "--data", path, *STANDARD, "--split", "fold")
    assert "name splits" not in named
    assert "may end up in different splits" not in named
    assert "splits: from column 'fold'" in named


def test_labels_that_differ_only_in_case_and_rare_labels_are_warned_of(here):
    found = rows(120)
    for row in found[:40:2]:
        row["label"] = "Bill"
    output = run("mine", "--data", write(here / "case.csv", found), *STANDARD)
    assert "labels differ only in case" in output
    assert "'Bill' (20 examples), 'bill' (40 examples)" in output
    trained = [f"some {i}" for i in range(100) if split_of(inputs_id({"text": f"some {i}"})) == "train"]
    found = rows() + [{"text": text, "label": "rare"} for text in trained[:3]]
    output = run("rare", "--data", write(here / "rare.csv", found), *STANDARD)
    assert "a label with fewer than 10 training examples" in output
    assert "'rare': 3 in train" in output
    assert "no validation example of 'rare': its F1 there is 0" in output
    assert "no test example of 'rare': its F1 there is 0" in output


def test_an_input_that_is_the_label_under_another_name_is_warned_of(here):
    found = [row | {"team": {"bill": "red", "tech": "blue"}[row["label"]]} for row in rows()]
    path = write(here / "proxy.csv", found)
    output = run("mine", "--data", path, "--text", "text", "--text", "team", "--label", "label")
    assert "each of the 2 different values of 'team' goes with one label alone" in output
    assert "under another name" not in run("other", "--data", path, *STANDARD)


def test_labels_that_were_written_into_the_texts_are_warned_of(here):
    found = [row | {"text": f"[{row['label'].upper()}] {row['text']}"} for row in rows()]
    assert "100% of the texts contain their own label" in run(
        "mine", "--data", write(here / "said.csv", found), *STANDARD
    )


def test_empty_fields_and_merged_rows_are_counted(here):
    found = [row | {"subject": "" if i < 7 else f"about {i}"} for i, row in enumerate(rows())]
    path = write(here / "gaps.csv", [*found, found[20], found[21]])
    output = run("mine", "--data", path, "--text", "subject", "--text", "text", "--label", "label")
    assert "7 examples have nothing in 'subject'" in output
    assert "2 rows that repeat another's input and label: merged into the first" in output


def test_lengths_are_counted_in_the_students_tokens_and_what_it_cannot_hold_is_named(here):
    model = here / "student"
    model.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"unknown": 0}, unk_token="unknown"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(model / "tokenizer.json"))
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 16}))
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["overrides"] = [f"student.model={model}"]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    found = rows()
    found[4]["text"] += " and on and on and on and on"
    output = run("mine", "--data", write(here / "long.csv", found), *STANDARD)
    assert "inputs: median 9 tokens, 95 % up to 9, longest 17; context of qwen2.5-coder-0.5b: 16" in output
    assert "1 inputs are longer than the Student's context of 16 tokens" in output


def test_options_of_free_text_become_letters_and_inputs(here):
    found = [
        {"question": row["text"], "first": f"yes {i}", "second": f"no {i}", "answer": (f"yes {i}", f"no {i}")[i % 2]}
        for i, row in enumerate(rows())
    ]
    path = write(here / "choice.csv", found)
    run("mine", "--data", path, "--text", "question", "--label", "answer", "--options", "first", "--options", "second")
    examples, _ = prepared()
    assert task().labels == ("A", "B")
    assert task().input_template == "Question: {{ question }}\nA. {{ first }}\nB. {{ second }}"
    assert {example.label for example in examples} == {"A", "B"}
    assert task().base_instruction.endswith("Answer with exactly one letter: A or B.")


def test_a_template_and_an_instruction_of_ones_own_are_kept_to_the_letter(file):
    template, instruction = 'Say: {{ text | upper }}\n\n  "end" ', "One.\n\n- two: ${x}\n"
    run("mine", "--data", file, *STANDARD, "--template", template, "--instruction", instruction)
    assert (task().input_template, task().base_instruction) == (template, instruction)


def test_selecting_keeps_every_other_character_of_params(file):
    text = Path("params.yaml").read_text().replace("task: stereoset_bias", "task:   'stereoset_bias'  # which")
    Path("params.yaml").write_text(text)
    output = run("mine", "--data", file, *STANDARD, "--select", "--teacher", "anthropic")
    expected = text.replace("'stereoset_bias'", "mine").replace("teacher: recorded", "teacher: anthropic")
    assert Path("params.yaml").read_text() == expected
    assert "in params.yaml:" not in output
    assert "git add assets/corpus/records/claims.csv.dvc assets/corpus/records/.gitignore conf/task/mine.yaml" in output
    assert "written: params.yaml" in output


def test_the_next_steps_depend_on_the_state_of_the_project(file):
    output = run("mine", "--data", file, *STANDARD)
    assert "in params.yaml: `task: mine` (or, for one run, dvc exp run -S groups.task=mine)" in output
    assert "in params.yaml: `teacher: anthropic` or `teacher: openai`" in output
    assert "dvc add assets/corpus/records/claims.csv git add assets/corpus/records/claims.csv.dvc" in output
    answers = Path("assets/corpus/teacher/mine.jsonl")
    answers.parent.mkdir()
    answers.touch()
    assert "teacher:" not in run("mine", "--data", file, *STANDARD)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "assets"], check=True)
    output = run("mine", "--data", file, *STANDARD)
    assert "dvc add" not in output
    assert "git add conf/task/mine.yaml dvc repro prepare" in output


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


@pytest.fixture
def hub():
    mood = {"huggingface": json.dumps({"info": {"features": {
        "sentence": {"dtype": "string", "_type": "Value"}, "label": {"names": ["down", "up"], "_type": "ClassLabel"},
    }}})}  # fmt: skip

    def parquet(count, labelled=True):
        table = pa.table({
            "sentence": [row["text"] for row in rows(200)[-count:]],
            "label": pa.array([i % 2 if labelled else -1 for i in range(count)], pa.int64()),
        }).replace_schema_metadata(mood)  # fmt: skip
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        return sink.getvalue().to_pybytes()

    server = Hub({"firm/mood": {
        "data/train-00000-of-00001.parquet": parquet(90),
        "data/validation-00000-of-00001.parquet": parquet(30),
        "data/test-00000-of-00001.parquet": parquet(30, labelled=False),
    }})  # fmt: skip
    yield server
    server.close()


@pytest.mark.slow  # two processes that import the library datasets
def test_a_data_set_of_a_hub_becomes_a_file_with_names_for_class_numbers(here, hub):
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(here / "hub"), "HF_HUB_OFFLINE": "0",
                                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests/support/no_network'}",
                                "NO_NETWORK_LOG": str(here / "network.log")}  # fmt: skip

    def new_task(data):
        command = [sys.executable, "-m", "pld.cli.main", "new-task", "mine", "--data", data, "--text", "sentence",
                   "--label", "label"]  # fmt: skip
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = new_task("hf:firm/mood")
    assert done.returncode == 0, done.stderr
    assert "120 rows, 90 examples" in done.stdout  # of test's labels all are -1; validation repeats the last of train
    assert f"# hf:firm/mood at {COMMIT}; " in Path("conf/task/mine.yaml").read_text()
    assert task().reader.path == "data/records/mood.parquet"
    assert {example.label for example in prepared()[0]} == {"down", "up"}
    assert (
        pq.read_table("assets/corpus/records/mood.parquet")["split"].to_pylist() == ["train"] * 90 + ["validation"] * 30
    )
    hub.close()
    done = new_task("hf:firm/mood")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "download the file and pass it as --data" in done.stderr
    assert not (here / "network.log").exists()


def test_help_needs_no_heavy_library():
    code = (
        "import sys; from pld.cli.main import pld; pld(['new-task', '--help'], standalone_mode=False); "
        "print([m for m in ('numpy', 'pandas', 'pyarrow', 'hydra', 'datasets', 'torch', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
