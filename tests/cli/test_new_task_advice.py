"""What `pld new-task` says of data that it accepts: lengths, duplicates, columns to name, labels to look at."""

import json
import random
from pathlib import Path

import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from pld.data.splits import split_of
from pld.records import inputs_id
from support.new_task import STANDARD, WORDS, prepared, rows, run, task, write


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


def test_a_file_with_two_splits_gets_the_third_by_hash_and_the_task_says_so(here):
    found = [row | {"part": ("train", "dev")[i % 4 == 1 or i % 4 == 2]} for i, row in enumerate(rows(200))]
    path = write(here / "two.csv", found)
    assert "the values of 'part' name splits: --split part --derive test keeps" in run("a", "--data", path, *STANDARD)
    output = run("mine", "--data", path, *STANDARD, "--split", "part", "--derive", "test")
    assert "splits: from column 'part'; validation rows are divided by hash into validation and test" in output
    assert "derive: test # the column lacks it" in " ".join(Path("conf/task/mine.yaml").read_text().split())
    assert task().reader.derive == "test"
    before = {example.id: example.split for example in prepared()[0]}
    assert set(before.values()) == {"train", "validation", "test"}
    with Path("assets/corpus/records/two.csv").open("a") as file:
        file.writelines(f"added text {n},bill,dev\n" for n in range(50))
    after = {example.id: example.split for example in prepared()[0]}
    assert len(after) == 250
    assert before.items() <= after.items()


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
    assert "inputs: median 9 tokens, 95 % up to 9, longest 17; context of qwen2.5-coder-1.5b: 16" in output
    assert "1 inputs are longer than the Student's context of 16 tokens" in output


def test_inputs_longer_than_the_embedders_window_are_counted_and_named(here):
    found = rows()
    found[3]["text"] = "invoice " * 300
    output = run("mine", "--data", write(here / "long.csv", found), *STANDARD)
    assert "1 inputs are longer than the embedder's window of 254 tokens" in output
    assert "sees each of them as the mean of its parts row 5" in output
    assert "embedder's window" not in run("short", "--data", write(here / "short.csv", rows()), *STANDARD)
