import types

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pld.data.audit.columns import Column, column_hints, looks_like_id
from pld.data.audit.draft import declared
from pld.data.audit.findings import beginning, faults, labels_in_text, near_duplicates_across_splits, similar_labels
from pld.data.audit.hub_dataset import labelled_table
from pld.data.splits import RawExample, assemble, examine
from pld.errors import DataError
from pld.records import Task


def raw(place, text, label, **more):
    return RawExample(file="f.csv", place=f"row {place}", inputs={"text": text}, label=label, **more)


def task(labels):
    return Task(name="t", labels=labels, fields=("text",), input_template="{{ text }}", base_instruction="Do.")


def column(name, values):
    return Column(name, [value if value.strip() else "" for value in values])


TEXTS = st.sampled_from(["", " ", "\u200b", "text of row 1", "text of row 2", "another text"])
LABELS = st.sampled_from(["a", "b", "c", "a ", "", "\u200b", "á", "a\u0301", "x\ny"])
SPLITS = st.sampled_from(["train", "Dev", "test", "validation", "other", ""])
IDS = st.sampled_from(["id 1", "", "x\n", "\u200b", "another id"])
GROUPS = st.sampled_from(["g1", "g1 ", "g2", "another group"])


@st.composite
def files(draw):
    """Forty good rows and up to three more, which may hold every offence that `assemble` knows."""
    with_id, with_group, with_split = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    rows = [
        {
            "text": f"text of row {i}",
            "label": "ab"[i // 3 % 2],
            "id": f"id {i}" if with_id else None,
            "group": f"g{i}" if with_group else None,
            "split": ("train", "val", "test")[i % 3] if with_split else None,
        }
        for i in range(40)
    ]
    for number in range(draw(st.integers(0, 3))):
        odd = {
            "text": draw(st.just(f"odd text {number}") | TEXTS),
            "label": draw(st.just("a") | LABELS),
            "id": draw(st.just(f"odd {number}") | IDS) if with_id else None,
            "group": draw(st.just(f"odd {number}") | GROUPS) if with_group else None,
            "split": draw(st.just("train") | SPLITS) if with_split else None,
        }
        rows.insert(draw(st.integers(0, len(rows))), odd)
    return [raw(i, row.pop("text"), row.pop("label"), **row) for i, row in enumerate(rows)]


@given(files())
def test_faults_are_found_exactly_where_prepare_refuses_the_file(raws):
    labels, _ = declared(example.label for example in raws)
    assembly = examine(task(labels), raws)
    found = list(faults(assembly))
    try:
        examples, summary = assemble(task(labels), raws)
    except DataError:
        assert found
        assert sum(len(offence.message) > 0 for offence in assembly.offences) or assembly.gaps
        return
    assert not found
    assert (assembly.examples, assembly.summary) == (examples, summary)
    assert [raws[row].inputs for row in assembly.rows] == [example.inputs for example in examples]


def test_labels_are_ordered_by_number_or_else_by_alphabet_and_look_different():
    assert declared(["10", "9", "-1", "2.5"]) == (("-1", "2.5", "9", "10"), "by number")
    assert declared(["b", "A", "c", "10"]) == (("10", "A", "b", "c"), "by alphabet")
    assert declared(["yes ", "yes", "yes", "no", "", "a\nb", "\u200b"]) == (("no", "yes"), "by alphabet")


def test_every_row_that_contradicts_an_earlier_one_is_listed():
    raws = [raw(1, "x", "a"), raw(2, "x", "b"), raw(3, "x", "c"), raw(4, "x", "a"), raw(5, "y", "a"), raw(6, "y", "b")]
    (fault,) = faults(examine(task(("a", "b", "c")), raws))
    assert fault.text == "two labels in 3 rows: correct or delete one of the two rows"
    assert [shown.partition(":")[0] for shown in fault.shown] == ["row 2", "row 3", "row 6"]
    assert fault.shown[2] == "row 6: got 'b' here and 'a' for the same input in row 5"


def test_a_split_without_examples_is_a_fault_with_what_to_do():
    in_file = [raw(1, "x", "a", split="train"), raw(2, "y", "b", split="train"), raw(3, "z", "b", split="test")]
    (fault,) = faults(examine(task(("a", "b")), in_file))
    assert "got 2 train, 0 validation, 1 test (f.csv); mark rows as validation in the split column" in fault.text
    assert fault.text.endswith("or derive it from the test rows (`pld new-task --derive validation`)")
    (fault, *_) = faults(examine(task(("a", "b")), [raw(1, "x", "a"), raw(2, "y", "b")]))
    assert "or add a split column" in fault.text


def test_an_input_in_two_splits_is_listed_with_both():
    raws = [raw(1, "x", "a", split="train"), raw(2, "y", "a", split="dev"), raw(3, "x", "a", split="test")]
    (fault,) = faults(examine(task(("a", "b")), raws))
    assert fault.shown == ("row 3: got this one in test here and in train in row 1",)


def test_of_many_instances_the_first_are_shown_and_the_others_counted():
    (fault,) = faults(examine(task(("a", "b")), [raw(i, "", "a") for i in range(1234)]))
    assert fault.text.startswith("empty input in 1,234 rows")
    assert [shown.partition(":")[0] for shown in fault.shown[:5]] == ["row 0", "row 1", "row 2", "row 3", "row 4"]
    assert fault.shown[5] == "… and 1,229 more"


def test_groups_are_suggested_for_ids_that_repeat():
    raws = [raw(i, f"text {i}", "a", id=f"doc {i // 5}") for i in range(50)]
    (fault,) = faults(examine(task(("a", "b")), raws))
    assert "they may be groups" in fault.text


def test_labels_that_differ_only_in_case_spaces_and_punctuation_are_found_but_numbers_are_not():
    def found(*labels):
        return [shown for finding in similar_labels(dict.fromkeys(labels, 2)) for shown in finding.shown]

    assert found("Not mentioned", "not-mentioned", "other") == [
        "'Not mentioned' (2 examples), 'not-mentioned' (2 examples)"
    ]
    assert found("ｆｕｌｌ", "full") != []
    assert found("1.0", "10", "-1", "1") == []
    assert found("+", "-", "C", "C++", "C#") == []


def groups(**columns):
    found = [column(name, values) for name, values in columns.items()]
    hints = column_hints(found, ("text",), True, False, False)
    return [shown.split(":")[0].removeprefix("--group ") for hint in hints for shown in hint.shown]


def test_columns_that_look_like_documents_are_found_but_not_quantities_dates_and_categories():
    rows = range(100)
    assert groups(
        doc=[f"contract {i // 4}" for i in rows],
        customer_id=[str(5000 + i % 30) for i in rows],
        threadId=[str(i // 2) for i in rows],
    ) == ["customer_id", "threadId", "doc"]
    assert groups(
        stars=[str(i % 12) for i in rows],
        price=[f"{i % 40}.50" for i in rows],
        day=[f"2024-03-{i % 28 + 1:02}" for i in rows],
        time=[f"12:{i % 50:02}" for i in rows],
        language=["en" if i % 3 else f"l{i}" for i in rows],
        team=[f"team {i % 3}" for i in rows],
        name=[f"name {i}" for i in rows],
        note=[f"a long note that says the same as {i % 20} others do, and then goes on {'x' * 40}" for i in rows],
        empty=["" if i % 5 else f"d{i % 20}{i // 60}" for i in rows],
        sparse=["" if i % 3 else f"d{i % 11}" for i in rows],
        region=[f"region {i % 9}" for i in rows],
    ) == []  # fmt: skip


def test_an_input_that_several_rows_share_is_a_group_unless_it_is_the_only_one():
    clause = column("clause", [f"The parties agree on {i // 4}. " + "word " * 30 for i in range(100)])
    question = column("question", [f"What of {i}?" for i in range(100)])
    (hint,) = column_hints([clause, question], ("clause", "question"), True, False, False)
    assert hint.shown == ("--group clause: 25 different values, about 4 rows each, 4 at most",)
    assert not list(column_hints([clause], ("clause",), True, False, False))


def test_a_column_of_ids_is_short_unique_and_no_quantity():
    def is_id(name, values):
        return looks_like_id(column(name, values))

    assert is_id("ticket", [f"T-{i}" for i in range(50)])
    assert is_id("row_id", [str(i) for i in range(50)])
    assert not is_id("score", [f"{i}.5" for i in range(50)])
    assert not is_id("ticket", [*(f"T-{i}" for i in range(50)), "T-3"])
    assert not is_id("ticket", [*(f"T-{i}" for i in range(50)), ""])
    assert not is_id("title", [f"The report of {i}" for i in range(50)])
    assert not is_id("made", [f"2024-01-0{i % 9 + 1}T10:00:{i}" for i in range(50)])


def test_a_label_in_the_text_is_a_finding_only_where_it_tells_labels_apart():
    def found(text):
        labels = ("billing", "tech support")
        raws = [raw(i, text(labels[i % 2], labels[(i + 1) % 2]), labels[i % 2]) for i in range(40)]
        return list(labels_in_text(raws, labels))

    assert found(lambda own, other: f"Queue: {own.upper()}. It broke.") != []
    assert found(lambda own, other: f"Is it {own} or {other}?") == []
    assert found(lambda own, other: f"It {own}s.") == []


def test_near_duplicates_in_one_split_are_fine_and_those_in_two_name_a_column():
    raws = [raw(i, f"t {i}", "ab"[i % 2], split=("train" if i < 20 else "test")) for i in range(40)]
    assembly = examine(task(("a", "b")), raws)
    docs = column("doc", [f"d{i % 20}" for i in range(40)])
    assert not list(near_duplicates_across_splits([(0, 1, 0.9), (25, 26, 0.9)], raws, assembly, [docs]))
    (finding,) = near_duplicates_across_splits([(0, 20, 0.9), (20, 25, 0.85), (3, 23, 0.8)], raws, assembly, [docs])
    assert finding.text.startswith("3 of the 20 validation and test examples have a near-duplicate in train")
    assert "--group doc would keep 50% of such sets in one split" in finding.text
    assert finding.shown == (
        "row 0 (train) and row 20 (test), 90% alike: 't 0'",
        "row 3 (train) and row 23 (test), 80% alike: 't 3'",
    )
    (finding,) = near_duplicates_across_splits([(0, 20, 0.9)], raws, assembly, [])
    assert "name a column that they share with --group" in finding.text


def test_text_of_the_file_is_shown_without_line_ends_and_control_characters():
    assert beginning(raw(1, "a\n\x1b[31mb" + " c" * 60, "a")) == repr("a \x1b[31mb" + " c" * 26 + "…")
    assert "\x1b" not in beginning(raw(1, "\x1b[31m", "a"))


def test_a_data_set_of_a_hub_gets_class_names_and_a_split_column_and_loses_unlabelled_splits():
    class Split:
        features = types.SimpleNamespace(names=["down", "up"])

        def __init__(self, *labels):
            self.features = {"text": None, "label": Split.features, "score": None, "tags": None}
            self._table = pa.table({"text": ["t"] * len(labels), "label": labels, "score": [0.5] * len(labels),
                                    "tags": [["x"]] * len(labels)})  # fmt: skip

        def with_format(self, _):
            return self._table

    table = labelled_table({"train": Split(1, 0), "test": Split(-1), "dev": Split(1)}, "label")
    assert table.to_pydict() == {
        "text": ["t"] * 3, "label": ["up", "down", "up"], "score": ["0.5"] * 3, "split": ["train", "train", "dev"],
    }  # fmt: skip
