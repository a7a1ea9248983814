import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.data.splits import RawExample, assemble, split_of
from pld.errors import DataError
from pld.records import SPLITS, Task, inputs_id

TASK = Task(
    name="moods", labels=("happy", "sad"), fields=("title", "text"), input_template="{{ text }}", base_instruction="?"
)


def raw(number: int, label: str = "happy", text: str | None = None, **more: str | None) -> RawExample:
    inputs = {"title": "", "text": f"text {number}" if text is None else text}
    return RawExample(file="moods.csv", place=f"row {number}", inputs=inputs, label=label, **more)


ENOUGH = [raw(number, "happy" if number % 2 else "sad") for number in range(2, 42)]


def refusal(*rows: RawExample, task: Task = TASK) -> str:
    with pytest.raises(DataError) as caught:
        assemble(task, rows)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_split_of_a_key_is_the_documented_hash() -> None:
    for key in ("a", "T-1044", "ключ", ""):
        position = int(hashlib.sha256(f"split:{key}".encode()).hexdigest()[:8], 16) / 2**32
        assert split_of(key) == ("train" if position < 0.5 else "validation" if position < 0.7 else "test")


def test_the_shares_of_the_splits_are_half_a_fifth_and_the_rest() -> None:
    shares = Counter(split_of(str(number)) for number in range(10_000))
    assert shares["train"] == pytest.approx(5000, abs=150)
    assert shares["validation"] == pytest.approx(2000, abs=150)


def test_an_example_without_a_natural_id_is_named_and_split_by_its_inputs() -> None:
    examples, _ = assemble(TASK, ENOUGH)
    assert [example.id for example in examples] == [inputs_id(row.inputs) for row in ENOUGH]
    assert all(example.split == split_of(example.id) for example in examples)


def test_a_natural_id_is_kept_and_decides_the_split() -> None:
    rows = [raw(number, row.label, id=f"00{number} ") for number, row in enumerate(ENOUGH)]
    examples, _ = assemble(TASK, rows)
    assert [(example.id, example.split) for example in examples] == [(row.id, split_of(row.id or "")) for row in rows]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=60))
def test_no_input_and_no_group_is_ever_in_two_splits(rows: list[tuple[int, int]]) -> None:
    repeated = [
        raw(row, "happy", f"text {text}", id=f"id {row}", group=f"group {group}" if group else None)
        for row, (text, group) in enumerate(rows)
    ]
    filler = [raw(1000 + row, ("happy", "sad")[row % 2]) for row in range(60)]
    examples, summary = assemble(TASK, [*repeated, *filler])
    inputs = Counter(example.inputs["text"] for example in examples)
    assert max(inputs.values()) == 1
    sides: dict[str, set[str]] = {}
    for example in examples:
        if example.group is not None:
            sides.setdefault(example.group, set()).add(example.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert summary.rows == len(repeated) + len(filler) == summary.examples + summary.merged_duplicates


@given(st.lists(st.integers(0, 10_000), unique=True, min_size=60, max_size=90), st.integers(0, 59))
def test_adding_or_relabelling_data_moves_no_other_example(numbers: list[int], cut: int) -> None:
    rows = [raw(number, ("happy", "sad")[row % 2]) for row, number in enumerate(numbers)]
    other = [raw(number, ("sad", "happy")[row % 2]) for row, number in enumerate(numbers)]
    before = {example.id: example.split for example in assemble(TASK, rows)[0]}
    after = {example.id: example.split for example in assemble(TASK, [*other[cut:], raw(-1), *other[:cut]])[0]}
    assert before.items() <= after.items()


def test_rows_that_repeat_input_and_label_are_merged_into_the_first_and_counted() -> None:
    again = raw(99, "sad", "text 2", id="later")
    examples, summary = assemble(TASK, [*ENOUGH, again, again.__class__(**{**_fields(again), "id": "later still"})])
    assert [example.id for example in examples] == [inputs_id(row.inputs) for row in ENOUGH]
    assert (summary.rows, summary.examples, summary.merged_duplicates) == (42, 40, 2)


def _fields(row: RawExample) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__slots__}


def test_the_summary_counts_every_split_label_group_and_empty_field() -> None:
    examples, summary = assemble(TASK, [*ENOUGH, raw(50, group="a"), raw(51, group="a"), raw(52, group="b")])
    assert {split: sum(counts.values()) for split, counts in summary.counts.items()} == Counter(
        example.split for example in examples
    )
    assert all(list(summary.counts[split]) == ["happy", "sad"] for split in SPLITS)
    assert summary.groups == 2
    assert summary.empty_fields == {"title": 43, "text": 0}


def test_a_duplicate_id_names_both_rows() -> None:
    message = refusal(raw(2, id="7"), raw(3, id="8"), raw(9, id="7"))
    assert message.startswith("expected each id once, got '7', which row 2 has too (moods.csv: row 9); ")


def test_an_empty_id_is_refused() -> None:
    assert "expected an id, got none (moods.csv: row 4)" in refusal(raw(4, id=" "))


@pytest.mark.parametrize("label", ["Happy", "happy ", "hapy"])
def test_a_label_outside_the_declared_set_is_refused_with_the_nearest(label: str) -> None:
    message = refusal(raw(2), raw(3, label))
    assert (
        f"expected a label of task moods (happy, sad), got {label!r} (did you mean 'happy'?) (moods.csv: row 3)"
        in message
    )


def test_an_empty_label_is_refused_without_a_guess() -> None:
    message = refusal(raw(3, ""))
    assert "got '' (moods.csv: row 3); correct the row" in message


@pytest.mark.parametrize("text", ["", " \t\n", "\u00a0"])
def test_an_input_without_any_text_is_refused(text: str) -> None:
    got = "only blanks or invisible characters" if text else "none"
    assert f"expected text in 'title' or 'text', got {got} (moods.csv: row 5)" in refusal(raw(5, text=text))


def test_one_input_with_two_labels_is_refused_whatever_its_ids() -> None:
    message = refusal(raw(2, "happy", "x", id="1"), raw(3, "sad", "x", id="2"))
    assert (
        "expected one label per input, got 'sad' here and 'happy' for the same input in row 2 (moods.csv: row 3)"
        in message
    )


def test_the_message_names_the_first_offence_and_counts_the_others() -> None:
    message = refusal(raw(2, "mad"), raw(3, "mad"), raw(4, "bad"), raw(5, text=""), *ENOUGH)
    assert "got 'mad' (did you mean 'sad'?) (moods.csv: row 2); correct the row" in message
    assert message.endswith("(and 2 more of this kind, 1 of 'empty input')")


def test_if_all_labels_are_undeclared_the_message_doubts_the_column() -> None:
    message = refusal(raw(2, "mad"), raw(3, "bad"))
    assert message.endswith("(and 1 more of this kind, so in every row: is this the label column?)")
    assert "right column" not in refusal(raw(2, "mad"), raw(3, "bad"), raw(4))


def test_the_split_column_may_use_the_usual_names() -> None:
    names = ["train", "Train ", "dev", "val", "valid", "validation", "test"]
    rows = [raw(row, ("happy", "sad")[row % 2], split=name) for row, name in enumerate(names)]
    examples, _ = assemble(TASK, rows)
    assert [example.split for example in examples] == ["train", "train", *["validation"] * 4, "test"]


@pytest.mark.parametrize("split", ["", "holdout"])
def test_an_unknown_split_is_refused(split: str) -> None:
    message = refusal(raw(3, split=split))
    assert f"expected a split (train, validation, valid, val, dev, test), got {split!r} (moods.csv: row 3)" in message


def test_an_input_repeated_in_one_split_is_merged_and_in_two_is_refused() -> None:
    brought = [
        raw(2, "happy", split="train"),
        raw(3, "sad", split="train"),
        raw(4, "sad", split="val"),
        raw(5, "sad", split="test"),
    ]
    assert assemble(TASK, [*brought, raw(6, "happy", "text 2", split="train")])[1].merged_duplicates == 1
    message = refusal(*brought, raw(6, "happy", "text 2", split="test"))
    assert (
        "expected each input in one split, got this one in test here and in train in row 2 (moods.csv: row 6)"
        in message
    )


def test_a_group_in_two_splits_of_the_file_is_refused() -> None:
    message = refusal(raw(2, split="train", group="a"), raw(3, split="test", group="a"))
    assert "expected group 'a' in one split, got test here and train in row 2 (moods.csv: row 3)" in message


def test_a_split_without_examples_is_refused_with_the_counts() -> None:
    message = refusal(raw(2, split="train"), raw(3, split="dev"))
    assert (
        "expected examples in every split, got 1 train, 1 validation, 0 test (moods.csv); mark rows as test" in message
    )


def test_with_too_few_rows_the_message_says_how_the_hash_splits() -> None:
    assert "about half go to train, a fifth to validation" in refusal(raw(2))


def test_a_declared_label_without_a_training_example_is_refused() -> None:
    rows = [raw(2, "happy", split="train"), raw(3, "sad", split="dev"), raw(4, "sad", split="test")]
    assert (
        "expected a training example of every label, got none of sad (1 validation, 1 test) among 1 (moods.csv)"
        in refusal(*rows)
    )


def test_no_rows_at_all_are_refused() -> None:
    assert "expected examples, got none (task moods)" in refusal()


def two_splits(held_out: str, count: int = 400, **more: str | None) -> list[RawExample]:
    """Half `train`, half `held_out`, to derive the other held-out split from."""
    lacking = "test" if held_out == "validation" else "validation"
    return [
        raw(row, ("happy", "sad")[row % 3 == 0], split=("train", held_out)[row % 2], derive=lacking, **more)
        for row in range(count)
    ]


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_a_derived_split_takes_its_share_of_the_held_out_rows_by_hash_and_none_of_train(held_out: str) -> None:
    examples, _ = assemble(TASK, two_splits(held_out))
    shares = Counter(example.split for example in examples)
    assert shares["train"] == 200
    assert 60 <= shares["validation"] <= 100
    assert all(example.split == "train" for row, example in enumerate(examples) if row % 2 == 0)


def test_rows_that_are_added_move_no_row_of_a_derived_split() -> None:
    before, _ = assemble(TASK, two_splits("validation", 100))
    after, _ = assemble(TASK, two_splits("validation", 400)[::-1])
    splits = {example.id: example.split for example in after}
    assert all(splits[example.id] == example.split for example in before)


def test_groups_and_repeated_inputs_stay_in_one_derived_split() -> None:
    rows = [
        raw(row, "happy", f"text {row // 4}", id=f"id {row}", split=("train", "dev")[row // 200], derive="test",
            group=f"group {row // 8}") for row in range(400)
    ]  # fmt: skip
    rows += [raw(1000 + at, "sad", split="train", derive="test") for at in range(2)]
    examples, summary = assemble(TASK, [*rows, raw(2000, "happy", "text 99", id="other", split="dev", derive="test")])
    assert summary.merged_duplicates == 301
    splits = {(example.group, example.split) for example in examples if example.group}
    assert len(splits) == 50
    assert {split for _, split in splits} == set(SPLITS)


def test_a_file_with_the_split_that_is_to_be_derived_is_refused() -> None:
    message = refusal(*two_splits("validation"), raw(999, split="test", derive="test"))
    assert "expected no test rows where this split is derived, got 'test' (moods.csv: row 999)" in message


def test_a_file_with_two_splits_is_offered_to_derive_the_third() -> None:
    rows = [raw(row, ("happy", "sad")[row % 3 == 0], split=("train", "dev")[row % 2]) for row in range(40)]
    assert "or derive it from the validation rows (`pld new-task --derive test`)" in refusal(*rows)
    assert "derive" not in refusal(*rows[::2])
