"""`pld new-task` makes a task that `prepare` accepts, from files of every format and a hub's data set."""

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

from support.hub_server import COMMIT, Hub
from support.new_task import ROOT, STANDARD, WORDS, prepared, rows, run, task, tree, write


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


def test_nested_lines_become_a_task_by_dotted_paths(here):
    path = here / "nested.jsonl"
    nested = [{"input": {"utterance": row["text"]}, "expected": {"label": row["label"], "no": 500 + at}}
              for at, row in enumerate(rows())]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in nested))
    output = run("mine", "--data", path, "--text", "input.utterance", "--label", "expected.label")
    assert "with --id expected.no" in output
    assert task().fields == ("input_utterance",)
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


def test_a_file_of_the_project_is_not_copied(file):
    place = Path("assets/corpus/records/old/claims.csv")
    place.parent.mkdir(parents=True)
    shutil.move(file, place)
    run("mine", "--data", place, *STANDARD)
    shutil.copytree("assets/corpus", "data")
    run("yours", "--data", "data/records/old/claims.csv", *STANDARD)
    assert task("mine").reader.path == task("yours").reader.path == "data/records/old/claims.csv"
    assert not Path("assets/corpus/records/claims.csv").exists()


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
    assert "in params.yaml: `teacher: anthropic` or `teacher: offline` or `teacher: openai`" in output
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
