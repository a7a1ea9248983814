import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pld.config.settings import check
from pld.data.readers import read
from pld.data.readers.passages import GAP, nearest_first, show
from pld.data.splits import RawExample, assemble
from pld.errors import DataError
from pld.records import Example
from pld.task_params import TaskParams

ROOT = Path(__file__).parents[3]
HYPOTHESES = {
    "nda-1": "The baker shall give back the borrowed ovens.",
    "nda-2": "The baker may sell bread to the neighbours.",
}
CLAUSES = (
    "AGREEMENT ON A BAKERY",
    "The mill lends two ovens to the baker.",
    "The baker gives back every borrowed oven within a week of the end of this agreement.",
    "Flour is paid on delivery.",
    "The baker shall sell no bread to neighbours of the mill.",
    "Keys stay with the miller.",
    "Signed at the market.",
)


def contract(identity: int | str, clauses: tuple[str, ...] = CLAUSES, **annotations: tuple[str, list[int]]) -> Any:
    """In the authors' shape, a clause a span, each on a line of its own. `annotations`: nda_1 and nda_2."""
    given = {"nda_1": ("Entailment", [2]), "nda_2": ("Contradiction", [4])} | annotations
    spans, text = [], ""
    for clause in clauses:
        spans.append([len(text), len(text) + len(clause)])
        text += clause + "\n"
    found = {key.replace("_", "-"): {"choice": choice, "spans": at} for key, (choice, at) in given.items()}
    return {"id": identity, "file_name": "x.pdf", "text": text, "spans": spans,
            "annotation_sets": [{"annotations": found}]}  # fmt: skip


def numbered(count: int) -> list[Any]:
    """Contracts of different texts, so that they are groups of their own."""
    choices = ("Entailment", "NotMentioned")
    return [
        contract(n, (*CLAUSES, f"Copy number {n}."), nda_1=(choices[n % 2], [2] if n % 2 == 0 else []))
        for n in range(count)
    ]


def written(path: Path, documents: list[Any]) -> str:
    labels = {key: {"short_description": "x", "hypothesis": text} for key, text in HYPOTHESES.items()}
    path.write_text(json.dumps({"documents": documents, "labels": labels}), encoding="utf-8")
    return str(path)


def task(**reader: Any) -> TaskParams:
    """The shipped task, with another file and other choices."""
    settings = yaml.safe_load((ROOT / "conf/task/contract_nli.yaml").read_text())
    settings["reader"] |= reader
    return check(TaskParams, settings, "conf/task/contract_nli.yaml")


def raw(path: Path, documents: list[Any], **reader: Any) -> list[RawExample]:
    return list(read(task(path=written(path, documents), **reader)))


def examples(own: TaskParams) -> list[Example]:
    return assemble(own, read(own))[0]


def test_each_contract_meets_each_hypothesis_under_the_id_of_the_recorded_answers(tmp_path: Path) -> None:
    found = raw(tmp_path / "dev.json", [contract(7), contract("b")], context="whole")
    assert [example.id for example in found] == ["7:nda-1", "7:nda-2", "b:nda-1", "b:nda-2"]
    assert [example.label for example in found[:2]] == ["Entailment", "Contradiction"]
    assert found[0].inputs == {"contract": "\n".join(CLAUSES) + "\n", "hypothesis": HYPOTHESES["nda-1"]}
    assert found[0].place == "document 7, hypothesis nda-1"
    assert not any(example.shortened for example in found)


def test_the_contract_comes_before_the_hypothesis_so_that_its_inputs_begin_alike(tmp_path: Path) -> None:
    from pld.distill.render import render_input

    own = task(path=written(tmp_path / "dev.json", [contract(7)]), context="whole")
    first, second = (render_input(own, example.inputs) for example in read(own))
    beginning = first[: first.index(HYPOTHESES["nda-1"])]
    assert second.startswith(beginning)
    assert "\n".join(CLAUSES) in beginning


def test_a_single_file_is_split_by_contract(tmp_path: Path) -> None:
    own = task(path=written(tmp_path / "dev.json", numbered(24)))
    found = examples(own)
    assert len(found) == 48
    assert {example.split for example in found} == {"train", "validation", "test"}
    assert len({(example.group, example.split) for example in found}) == 24


def test_a_contract_under_two_ids_is_one_group(tmp_path: Path) -> None:
    found = raw(tmp_path / "dev.json", [contract(7), contract(8)])
    assert {example.group for example in found} == {"7"}


def test_the_authors_three_files_keep_their_splits(tmp_path: Path) -> None:
    parts = numbered(6)
    files = {
        "train": written(tmp_path / "train.json", parts[:3]),
        "validation": written(tmp_path / "dev.json", parts[3:5]),
        "test": written(tmp_path / "test.json", parts[5:]),
    }
    own = task(path=None, splits=files)
    assert [example.split for example in examples(own)] == ["train"] * 6 + ["validation"] * 4 + ["test"] * 2
    assert own.reader.source == ", ".join(files.values())

    files["test"] = written(tmp_path / "test.json", [*parts[5:], parts[0]])
    with pytest.raises(DataError, match=r"expected each document id once, got it here and in "
                                        r".*train.json \(.*test.json: document 0\); delete one"):  # fmt: skip
        examples(own)


def test_evidence_is_filled_up_with_the_nearest_passages_so_that_its_length_does_not_reveal_the_label(
    tmp_path: Path,
) -> None:
    documents = [contract(7, nda_1=("Entailment", [5, 6]), nda_2=("NotMentioned", []))]
    entailed, left_open = raw(tmp_path / "dev.json", documents, context="evidence", passages=3)
    assert entailed.inputs["contract"] == f"{CLAUSES[2]}{GAP}{CLAUSES[5]}\n{CLAUSES[6]}"
    assert left_open.inputs["contract"].count("\n") >= 2
    assert CLAUSES[4] in left_open.inputs["contract"]
    wide = raw(tmp_path / "dev.json", [contract(7, nda_1=("Entailment", [0, 1, 3, 5]))], context="evidence", passages=3)
    assert wide[0].inputs["contract"] == f"{CLAUSES[0]}\n{CLAUSES[1]}{GAP}{CLAUSES[3]}{GAP}{CLAUSES[5]}"


def test_the_nearest_passages_are_chosen_without_a_look_at_the_annotation(tmp_path: Path) -> None:
    one, other = (
        raw(tmp_path / "dev.json", [contract(7, nda_1=annotation)], context="nearest", passages=2)
        for annotation in (("Entailment", [0, 6]), ("NotMentioned", []))
    )
    assert [example.inputs for example in one] == [example.inputs for example in other]
    assert CLAUSES[2] in one[0].inputs["contract"]
    assert CLAUSES[4] in one[1].inputs["contract"]


def test_contracts_from_one_template_show_more_passages_until_they_differ(tmp_path: Path) -> None:
    documents = [contract(n, (*CLAUSES, f"Copy {n}.")) for n in range(20)]
    own = task(path=written(tmp_path / "dev.json", documents), context="nearest", passages=1)
    found, summary = assemble(own.model_copy(update={"labels": ("Entailment", "Contradiction")}), read(own))
    assert (len(found), summary.merged_duplicates) == (40, 0)
    assert found[0].inputs["contract"] == CLAUSES[2]
    assert found[2].inputs["contract"] == f"{CLAUSES[2]}{GAP}{CLAUSES[4]}"
    assert "Copy 19." in found[38].inputs["contract"]


def test_another_contract_does_not_change_the_excerpts(tmp_path: Path) -> None:
    alone = raw(tmp_path / "dev.json", [contract(7)], context="nearest", passages=2)
    beside = raw(tmp_path / "dev.json", [contract(8, tuple(f"Oven {n} is borrowed." for n in range(7))), contract(7)],
                 context="nearest", passages=2)  # fmt: skip
    assert [example.inputs for example in alone] == [example.inputs for example in beside[2:]]


def test_a_contract_over_the_limit_keeps_its_nearest_passages_and_is_counted(tmp_path: Path) -> None:
    documents = [*numbered(23), contract(99, CLAUSES[:3], nda_2=("Contradiction", [1]))]
    own = task(path=written(tmp_path / "dev.json", documents), context="whole", max_words=30)
    found, summary = assemble(own, read(own))
    assert sum(summary.shortened.values()) == 46
    assert found[0].inputs["contract"] == f"{CLAUSES[2]}{GAP}{CLAUSES[4]}{GAP}Copy number 0."  # 16 + 11 + 3 words
    assert found[-1].inputs["contract"] == "\n".join(CLAUSES[:3]) + "\n"
    unlimited = task(path=own.reader.source, context="whole", max_words=None)
    assert sum(assemble(unlimited, read(unlimited))[1].shortened.values()) == 0


def test_a_passage_without_room_is_shown_by_its_beginning() -> None:
    shown = show("one two three. four", [(0, 14), (15, 19)], [0], 2)
    assert (shown.text, shown.places, shown.cut) == ("one two", (0,), True)


def test_text_between_two_passages_is_replaced_by_a_gap() -> None:
    assert show("One. (page 2) Two.", [(0, 4), (14, 18)], [0, 1], None).text == f"One.{GAP}Two."


def test_of_passages_as_near_the_first_comes_first() -> None:
    assert nearest_first([0.1, 0.5, 0.5, 0.0]) == [1, 2, 0, 3]
    assert nearest_first([0.1, 0.5, 0.5, 0.0], [3, 0]) == [0, 3, 1, 2]


@given(
    passages=st.lists(st.text(alphabet="ab \n", max_size=12), min_size=1, max_size=8),
    data=st.data(),
    limit=st.none() | st.integers(1, 12),
)
def test_excerpts_are_verbatim_in_the_texts_order_and_never_over_the_limit(
    passages: list[str], data: st.DataObject, limit: int | None
) -> None:
    spans, text = [], ""
    for passage in passages:
        spans.append((len(text), len(text) + len(passage)))
        text += passage + data.draw(st.sampled_from(["", "\n", " page "]))
    wanted = data.draw(st.permutations(range(len(passages))))
    wanted = wanted[: data.draw(st.integers(1, len(wanted)))]
    shown = show(text, spans, wanted, limit)
    runs = shown.text.split(GAP)
    assert sum(len(run.split()) for run in runs) <= (limit if limit is not None else len(text.split()))
    assert list(shown.places) == sorted(shown.places)
    assert set(shown.places) <= set(wanted)
    assert shown.cut or set(shown.places) == set(wanted)
    at = 0
    for run in runs:
        at = text.find(run, at) + len(run)
        assert at >= len(run)
    assert " page " not in shown.text


def set_in(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        *above, last = path
        for key in above:
            file = file[key]
        file[last] = to

    return change


def drop(*path: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        *above, last = path
        for key in above:
            file = file[key]
        del file[last]

    return change


OF_FIRST = ("documents", 0)
ANNOTATIONS = (*OF_FIRST, "annotation_sets", 0, "annotations")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("labels"), r"Field required \(.*dev.json: labels\)"),
        (set_in("documents", to=[]), r"at least 1 item .* \(.*dev.json: documents\)"),
        (set_in("documents", to={}), r"valid array \(.*dev.json: documents\)"),
        (set_in("documents", 1, to=3), r"object \(.*dev.json: documents.1\)"),
        (drop(*OF_FIRST, "text"), r"Field required \(.*dev.json: documents.0.text\)"),
        (set_in(*OF_FIRST, "text", to=" "), r"no text, or a NUL character in it \(.*documents.0.text\)"),
        (set_in(*OF_FIRST, "text", to="a\0b"), r"no text, or a NUL character in it \(.*documents.0.text\)"),
        (drop(*OF_FIRST, "id"), r"Field required \(.*documents.0.id.*\)"),
        (set_in(*OF_FIRST, "spans", 1, to=[20, 9999]), r"spans that overlap or end behind the text \(.*documents.0\)"),
        (set_in(*OF_FIRST, "spans", 1, to=[30]), r"Field required \(.*documents.0.spans.1.1\)"),
        (set_in(*OF_FIRST, "spans", to=[]), r"no span with text \(.*documents.0\)"),
        (set_in(*OF_FIRST, "annotation_sets", to=[]), r"at least 1 item .* \(.*documents.0.annotation_sets\)"),
        (drop(*ANNOTATIONS, "nda-1"), r"document 7 with annotations of other hypotheses than those of labels \("),
        (drop("labels", "nda-2"), r"document 7 with annotations of other hypotheses than those of labels \("),
        (set_in(*ANNOTATIONS, "nda-1", "spans", to=[7]), r"span that is not there \(.*documents.0\)"),
        (set_in(*ANNOTATIONS, "nda-1", "spans", to=["2"]), r"valid integer \(.*annotations.nda-1.spans.0\)"),
        (set_in("labels", "nda-1", "hypothesis", to=""), r"no text, .*\(.*labels.nda-1.hypothesis\)"),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_refused_in_one_line_that_says_where(
    change: Callable[[Any], None], said: str, tmp_path: Path
) -> None:
    own = task(path=written(tmp_path / "dev.json", [contract(7), contract(8, ("Another one.", *CLAUSES))]))
    file = json.loads((tmp_path / "dev.json").read_text())
    changed = copy.deepcopy(file)
    change(changed)
    assert changed != file
    (tmp_path / "dev.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match=f"expected the authors' JSON, got .*{said}") as error:
        examples(own)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_in("documents", 1, "id", to=7), r"each document id once, got it here and in .* \(.*document 7\)"),
        (set_in(*ANNOTATIONS, "nda-1", "choice", to="Entailed"), r"a label of task contract_nli .*got 'Entailed' "
         r"\(did you mean 'Entailment'\?\) \(.*document 7, hypothesis nda-1\)"),
    ],
)  # fmt: skip
def test_an_unusable_contract_is_named(change: Callable[[Any], None], said: str, tmp_path: Path) -> None:
    own = task(path=written(tmp_path / "dev.json", [contract(7), contract(8, ("Another one.", *CLAUSES))]))
    file = json.loads((tmp_path / "dev.json").read_text())
    change(file)
    (tmp_path / "dev.json").write_text(json.dumps(file))
    with pytest.raises(DataError, match=said):
        examples(own)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"documents": [', r"authors' JSON, got Invalid JSON: EOF .* at line 1 column 15 \("),
        (b"[" * 100_000, "authors' JSON, got Invalid JSON: recursion limit"),
        (
            b'{"documents": []}\n{"documents": []}',
            r"authors' JSON, got Invalid JSON: trailing characters at line 2 column 1",
        ),
        ("\ufeff{}".encode(), r"expected the authors' JSON, got Field required \(.*documents\)"),
        ("{}".encode("utf-16"), "UTF-16"),
    ],
)
def test_other_json_than_the_authors_is_refused_in_one_line(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_bytes(data)
    with pytest.raises(DataError, match=said) as error:
        list(read(task(path=str(tmp_path / "dev.json"))))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"expected a data file, got no such file \(.*contract-nli/dev.json\); "
                                        r"correct reader in conf/task/ \(docs/how-to/benchmarks.md"):  # fmt: skip
        list(read(task()))
    source = tmp_path / "assets/corpus/records/contract-nli/dev.json.dvc"
    source.parent.mkdir(parents=True)
    source.write_text("outs: []")
    with pytest.raises(DataError, match="run `dvc pull` if only its"):
        list(read(task()))


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        ({"splits": {"train": "a", "validation": "b", "test": "c"}}, "expected either path"),
        ({"path": None}, "expected either path"),
        ({"path": None, "splits": {"train": "a", "test": "c"}}, "expected a file for each of"),
    ],
)
def test_the_files_are_named_in_one_way(reader: dict[str, Any], said: str) -> None:
    from pld.errors import ConfigError

    with pytest.raises(ConfigError, match=said):
        task(**reader)


def test_every_recorded_answer_is_of_a_contract_and_a_hypothesis() -> None:
    lines = (ROOT / "assets/corpus/teacher/contract_nli.jsonl").read_text().splitlines()
    recordings = [json.loads(line) for line in lines]
    parts = [recording["example_id"].partition(":") for recording in recordings]
    assert len(recordings) == 1037 == len({recording["example_id"] for recording in recordings})
    assert len({document for document, _, _ in parts}) == 61
    assert all(document.isdigit() and key.startswith("nda-") for document, _, key in parts)
    assert {recording["label"] for recording in recordings} == set(task().labels)


DEV = ROOT / "assets/corpus/records/contract-nli/dev.json"


@pytest.mark.skipif(not DEV.exists(), reason="Contract-NLI is not there (docs/how-to/benchmarks.md)")
def test_every_recorded_answer_is_for_the_label_of_the_official_development_split() -> None:
    labels = {example.id: example.label for example in read(task(path=str(DEV), context="whole", max_words=None))}
    lines = (ROOT / "assets/corpus/teacher/contract_nli.jsonl").read_text().splitlines()
    assert {(own := json.loads(line))["example_id"]: own["label"] for line in lines} == labels
