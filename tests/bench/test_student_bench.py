import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from pld.records import Message
from support.small_students import make_student, smollm_folder, tiny_folder

__all__ = ["make_student", "smollm_folder", "tiny_folder"]
ROOT = Path(__file__).parents[2]
TINY = [
    "--student=smollm2-135m",
    "--dtype=float32",
    "--prompt-tokens=96",
    "--examples=2",
    "--rounds=1",
    "--latency-rounds=1",
    "--requests=1",
    "--thoughts=3",
    "--checked=1",
]


@pytest.fixture
def bench(monkeypatch):
    """The modules of bench/, which are scripts beside one another."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


@pytest.mark.slow
def test_the_benchmark_measures_every_method_that_is_installed_and_writes_its_tables(tmp_path):
    document, figures = tmp_path / "performance.md", tmp_path / "figures.json"
    document.write_text("before\n<!-- bench:start -->\nold\n<!-- bench:end -->\nafter\n")
    run = subprocess.run(
        [sys.executable, "bench/student.py", *TINY, f"--document={document}", f"--json={figures}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    text = document.read_text()
    assert text.startswith("before\n<!-- bench:start -->\n")
    assert text.endswith("\n<!-- bench:end -->\nafter\n")
    assert "old" not in text
    found = json.loads(figures.read_text())
    (section,) = found["sections"]
    single, several = section["tables"]
    assert len(single["rows"]) == 7
    assert len(several["rows"]) == 4
    for row in single["rows"] + several["rows"]:
        if row["missing"]:
            assert f"| {row['method']} | {row['missing']} |" in text
        else:
            assert row["per_example_ms"][0] > 0
            assert row["peak_mib"] > 100
    assert {item["largest"] is None or item["largest"] < 1.5 for item in found["check"]} == {True}
    assert {request["system"].rpartition(", ")[2] for request in section["requests"]} == {
        "cached",
        "not cached",
        "up to 3 tokens",
    }


def test_a_method_with_other_scores_or_choices_ends_the_benchmark(bench):
    import numpy as np
    from engines import Answers
    from measure import _agreement
    from worker import BenchError

    reference = (np.log([[0.7, 0.3], [0.2, 0.8]]), (5, 6), [0.5, 0.5])
    assert _agreement("ours", "kind", Answers(1.0, reference[0] + 1e-5), reference).equal == 2
    with pytest.raises(BenchError, match="within"):
        _agreement("ours", "kind", Answers(1.0, reference[0] + 0.01), reference)
    with pytest.raises(BenchError, match="choice"):
        _agreement("generate", "kind", Answers(1.0, None, (5, 7)), reference)


def test_work_counts_a_shared_token_once(bench):
    from workload import Item, Job, Work

    job = Job("kind", "", ("x y", "x z"), ((7, 8), (7, 9)), (1, 2))
    items = [Item("", (1, 2, 3, 4)), Item("", (1, 2, 3, 5))]
    # 3, 4 and 5 once, and for each example the labels' common first token
    assert Work.of(job, items) == Work(tokens=5, pairs=3 + 4 + 4 + 5 + 5, rows=4)


def test_sentences_differ_and_repeat_with_their_seed(bench):
    from workload import sentences

    first = list(islice(sentences(3), 200))
    assert len(set(first)) == 200
    assert first == list(islice(sentences(3), 200))
    assert first != list(islice(sentences(4), 200))


def test_a_document_without_the_marks_is_refused(bench, tmp_path):
    from report import put
    from worker import BenchError

    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(BenchError, match="bench:start"):
        put(tmp_path / "page.md", "bench", "text")


def test_the_sweep_watch_accounts_for_all_of_the_students_time(bench, make_student, tiny_folder):
    from sweep import Watch

    watch = Watch()
    student = watch.over(make_student(model=tiny_folder("llama"), search_dtype="float32"))
    assert student.name == "smollm2-135m"
    messages = [Message(role="system", content="Label the sentence.")]
    scores = student.for_search().score(messages, ["one", "another"], ["yes", "no"])
    assert scores.shape == (2, 2)
    found = watch.timings()
    assert min(found["load"], found["score"]) > 0
    assert sum(found.values()) == pytest.approx(watch.seconds)
    assert 0 <= found["bookkeeping"] < watch.seconds / 2
