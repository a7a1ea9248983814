import csv
import errno
import io
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pld.distill.render import prompt_messages
from pld.errors import DataError
from pld.records import Task, sha256
from pld.serving import batch as batch_classification
from pld.serving.batch import Batch, Done, classify_file
from pld.serving.batch_rows import check_file
from pld.serving.model import PromptClassifier, Release, ServedSpec
from support.word_student import CUES, LABELS, WordStudent

PROMPT = "\n".join(f"- {' '.join(words)} {label}" for label, words in CUES.items())
TASK = Task(
    name="colours", labels=LABELS, fields=("text", "more"), input_template="{{ text }} {{ more }}", base_instruction="b"
)
FIELDS = {"text": "words", "more": "further words"}
SPEC = ServedSpec(
    task=TASK, student={"name": "words"}, calibration=None, prompt_sha256=sha256(PROMPT), prompt_version="5"
)


def release(number: int = 3, spec: ServedSpec = SPEC) -> Release:
    return Release(spec, prompt_messages(PROMPT), "pld-colours", number)


class Student(WordStudent):
    """As the real one: a text that is too long has no scores; progress is told."""

    def __init__(self, seconds: float = 0) -> None:
        super().__init__()
        self._seconds = seconds

    def score(self, messages: Any, inputs: Sequence[str], labels: Sequence[str], on_progress: Any = None) -> Any:
        time.sleep(self._seconds)
        scores = super().score(messages, inputs, labels)
        scores[[len(text) > 500 for text in inputs]] = np.nan
        if on_progress is not None:
            on_progress(len(inputs))
        return scores


def run(path: Path, out: Path, student: Student | None = None, wanted: Release | None = None, **options: Any) -> Done:
    batch = Batch(check_file(path, FIELDS), out, **({"prefix": "", "skip_bad": False} | options))
    version = wanted or release()
    return classify_file(batch, version, PromptClassifier(version.spec, version.messages, student or Student()))  # type: ignore[arg-type]


def write(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("no", "words", "further words")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(count: int) -> list[list[str]]:
    draw = random.Random(1)
    cues = [cue for words in CUES.values() for cue in words]
    return [[f"{n:05}", " ".join(draw.choices(cues, k=3)), draw.choice(cues)] for n in range(count)]


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


def test_the_rows_come_out_in_their_order_with_all_their_columns_as_they_were(tmp_path: Path) -> None:
    given = [["007", 'apple, "brick"', "x\r\ny"], ["", "  grass ", "ü 日本"], ["NA", "sea", "=1+1"]]
    write(tmp_path / "in.csv", given).open("ab").write(b"\r\n")  # a blank line is no row
    done = run(tmp_path / "in.csv", tmp_path / "out.csv")
    found = read(tmp_path / "out.csv")
    assert [[row["no"], row["words"], row["further words"]] for row in found] == given
    assert [row["label"] for row in found] == ["red", "green", "blue"]
    assert list(found[0])[3:] == [
        "label", "score_red", "score_green", "score_blue", "margin", "prompt_sha256", "prompt_version",
    ]  # fmt: skip
    wanted = PromptClassifier(SPEC, prompt_messages(PROMPT), Student()).scores([{"text": "sea", "more": "=1+1"}])[0]  # type: ignore[arg-type]
    assert [float(found[2][f"score_{label}"]) for label in LABELS] == [round(float(score), 6) for score in wanted]
    assert float(found[2]["margin"]) == round(float(wanted[2] - wanted[0]), 6)
    assert (found[0]["prompt_sha256"], found[0]["prompt_version"]) == (SPEC.prompt_sha256, "5")
    assert (done.rows, done.resumed, dict(done.labels)) == (3, 0, {"red": 1, "green": 1, "blue": 1})
    assert not (tmp_path / "out.csv.partial").exists()


def test_nested_lines_are_classified_by_dotted_paths(tmp_path: Path) -> None:
    lines = ['{"id": 1, "in": {"words": "apple", "more": "x", "tags": []}}', '{"id": 2, "in": null}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    fields = {"text": "in.words", "more": "in.more"}
    batch = Batch(check_file(tmp_path / "in.jsonl", fields), tmp_path / "out.csv", "", skip_bad=True)
    classify_file(batch, release(), PromptClassifier(SPEC, prompt_messages(PROMPT), Student()))  # type: ignore[arg-type]
    first, second = read(tmp_path / "out.csv")
    assert list(first)[:5] == ["id", "in.words", "in.more", "in.tags", "in"]
    assert (first["in.words"], first["in.tags"], first["label"]) == ("apple", "[]", "red")
    assert second["reason"] == f"expected text, got none ({tmp_path}/in.jsonl: line 2, column 'in.words')"


def test_jsonl_and_parquet_keep_their_values_and_every_key(tmp_path: Path) -> None:
    lines = [
        '{"words": "apple", "further words": 1.50, "nested": [1.50, {"a": null}], "yes": true}',
        "",
        '{"words": "sea", "further words": "x", "late": "e"}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run(tmp_path / "in.jsonl", tmp_path / "json.csv")
    first, second = read(tmp_path / "json.csv")
    assert list(first)[:5] == ["words", "further words", "nested", "yes", "late"]
    assert [first[key] for key in list(first)[1:5]] == ["1.50", '[1.50, {"a": null}]', "true", ""]
    assert (first["label"], second["label"], second["late"]) == ("red", "blue", "e")
    columns = {"words": ["sea", "apple"], "further words": ["x", "y"], "price": [1.5, None], "no": [1, 2]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", tmp_path / "parquet.csv")
    found = read(tmp_path / "parquet.csv")
    assert [(row["price"], row["no"], row["label"]) for row in found] == [("1.5", "1", "blue"), ("", "2", "red")]


def test_a_text_longer_than_the_context_has_no_label_and_is_counted(tmp_path: Path) -> None:
    done = run(write(tmp_path / "in.csv", [["1", "sea", "x"], ["2", "sea " * 200, "x"]]), tmp_path / "out.csv")
    short, long = read(tmp_path / "out.csv")
    assert (short["label"], long["label"], long["score_red"], long["margin"]) == ("blue", "", "", "")
    assert (dict(done.labels), done.too_long) == ({"blue": 1}, 1)


def test_a_bad_row_stops_before_anything_is_scored_or_is_skipped_with_its_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", [*rows(300), ["300", "", "sea"], ["301", "sea", " "], ["302", "sea", "x"]])
    student = Student()
    with pytest.raises(DataError) as caught:
        run(path, tmp_path / "out.csv", student)
    assert str(caught.value) == (
        f"expected text, got none ({path}: row 302, column 'words') (and 1 more rows like it); correct it, or skip "
        "such rows with --skip-bad"
    )
    assert not student.asked
    assert [file.name for file in tmp_path.iterdir()] == ["in.csv"]
    done = run(path, tmp_path / "out.csv", skip_bad=True)
    found = read(tmp_path / "out.csv")
    assert [row["no"] for row in found] == [f"{n:05}" for n in range(300)] + ["300", "301", "302"]
    assert [row["label"] for row in found[300:]] == ["", "", "blue"]
    assert [row["reason"] for row in found[299:]] == [
        "", f"expected text, got none ({path}: row 302, column 'words')",
        f"expected text, got none ({path}: row 303, column 'further words')", "",
    ]  # fmt: skip
    assert (done.rows, done.skipped, done.labels.total()) == (303, 2, 301)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("in.csv", "no,words\n1,a\n", "expected a column 'further words', got 'no', 'words'"),
        ("in.csv", "words,further words\na,b\nc,d,e\n", "expected a row of CSV, got 3 instead of 2 cells"),
        ("in.csv", "words,further words,x,x\na,b,c,d\n", "expected one column 'x', got 2 of that name"),
        ("in.csv", "words,further words,label\na,b,c\n", "expected no column 'label', which pld writes"),
        (
            "in.jsonl",
            '{"words": "a", "further words": "b"}\n{"words"\n',
            "per line, got bad JSON",
        ),
        (
            "in.tsv",
            "words\tfurther words\n",
            "expected a .csv, .jsonl or .parquet file, got .tsv",
        ),
    ],
)
def test_a_file_that_is_broken_or_lacks_a_column_is_refused_in_one_line(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        run(tmp_path / name, tmp_path / "out.csv", skip_bad=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prefix_keeps_a_label_that_the_file_has_already(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", [["gold", "sea", "x"]], ("label", "words", "further words"))
    run(path, tmp_path / "out.csv", prefix="pld_")
    (found,) = read(tmp_path / "out.csv")
    assert (found["label"], found["pld_label"]) == ("gold", "blue")


def test_a_finished_file_is_not_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", rows(1))
    run(path, tmp_path / "out.csv")
    for out in (tmp_path / "out.csv", path):
        with pytest.raises(DataError, match="expected a new file to write, got an existing one"):
            run(path, out)


class Stops(Student):
    """Is interrupted at the third chunk."""

    def score(self, messages: Any, inputs: Sequence[str], labels: Sequence[str], on_progress: Any = None) -> Any:
        if len(self.asked) >= 2 * batch_classification.CHUNK:
            raise KeyboardInterrupt
        return super().score(messages, inputs, labels, on_progress)


def test_what_is_finished_is_not_scored_again_and_only_the_same_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write(tmp_path / "in.csv", rows(700)), tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(path, out, Stops())
    another = write(tmp_path / "other.csv", rows(701))
    with pytest.raises(DataError, match=r"by pld-colours version 4 .*, got those of other work .*out.csv.partial"):
        run(path, out, wanted=release(4))
    with pytest.raises(DataError, match=r"expected rows of .*other.csv .*; finish that with its own command"):
        run(another, out)
    for other in ({"skip_bad": True}, {"wanted": release(spec=SPEC.model_copy(update={"student": {"name": "x"}}))}):
        with pytest.raises(DataError, match="with the same options, got those of other work"):
            run(path, out, **other)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(batch_classification, "CHUNK", 8)
        with pytest.raises(DataError, match="got those of other work"):
            run(path, out)
    student = Student()
    done = run(path, out, student)
    assert (done.resumed, len(student.asked), done.rows) == (128, 572, 700)
    run(path, tmp_path / "whole.csv")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_partial_file_that_was_cut_anywhere_is_continued(tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.csv", rows(700)), tmp_path / "out.csv"
    run(path, tmp_path / "whole.csv")
    with pytest.raises(KeyboardInterrupt):
        run(path, out, Stops())
    partial = tmp_path / "out.csv.partial"
    kept = partial.read_bytes()
    header, first, _, _ = kept.split(b"\n")
    second = len(header) + len(first) + 2
    cuts = {0: 0, 20: 0, kept.index(b"\n") + 5: 0, second + 5: 64, second + 400: 64, len(kept) - 1: 64}
    for cut, resumed in cuts.items():
        for rubbish in (b"", b"\x00" * 50_000):
            partial.write_bytes(kept[:cut] + (rubbish if cut > 20 else b""))
            assert run(path, out).resumed == resumed
            assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
            out.unlink()


def test_the_file_appears_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = write(tmp_path / "in.csv", rows(3)), tmp_path / "out.csv"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(batch_classification, "csv_line", full)
        with pytest.raises(
            DataError, match=r"expected to write it, got No space left on device .*the same command continues"
        ):
            run(path, out)
    assert not out.exists()
    assert run(path, out).resumed == 3


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.csv", rows(2)), tmp_path / "out.csv"

    class Second(Student):
        def score(self, *given: Any, **more: Any) -> Any:
            with pytest.raises(DataError, match="got another process writing it"):
                run(path, out)
            return super().score(*given, **more)

    assert run(path, out, Second()).rows == 2


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_classification, "CHUNK", 16)
    path = write(tmp_path / "in.csv", [*rows(400), ["", "", ""], *rows(100)])
    run(path, tmp_path / "whole.csv", skip_bad=True)
    whole, draw, kills, finished = (tmp_path / "whole.csv").read_bytes(), random.Random(7), 0, 0
    while finished < 5:
        out = tmp_path / f"{finished}.csv"
        before = _chunks(out)
        child = os.fork()
        if not child:
            run(path, out, Student(seconds=0.002), skip_bad=True)
            os._exit(0)
        time.sleep(draw.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        if out.exists():  # it is there whole or not at all
            assert out.read_bytes() == whole
            finished += 1
        else:
            assert _chunks(out)[: len(before)] == before, "nothing that was finished is lost or done again"
    assert kills > 10


def _chunks(out: Path) -> list[bytes]:
    """The finished chunks, each a line."""
    partial = out.with_name(f"{out.name}.partial")
    return partial.read_bytes().split(b"\n")[1:-1] if partial.exists() else []
