"""What the Teacher's side costs in time: `python bench/teacher.py` (into bench/results.md; --print).

1. throughput: 1,000 requests to a server with 1 s latency that bears 50 in flight, over the ideal time.
2. store: 100,000 stored answers: writing, look-up, and the `extract` stage with nothing new to ask.
3. faults: what each kind of fault adds to the wall time of 1,000 examples, over the undisturbed run beside it.
4. batches: the same with the Message Batches API.
"""

import argparse
import datetime
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml
from report import grid, put, spread

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "bench/results.md"
sys.path.insert(0, str(ROOT / "tests"))

REQUESTS = 1000
BEARS = 50  # requests in flight, of the server
LATENCY_S = 1.0
AT_ONCE = (50, 64)  # teacher.max_concurrency
ROUNDS = 3
STORED = 100_000
WORDS = 200  # of an example
OPERATIONS = 1000
THREADS = (1, 50)
RATIONALE = (
    "The text speaks of what somebody owes to somebody else and by when, and of what follows if it is not done; "
    "nothing in it takes that back, and the exceptions that it names are about other duties. A reader who has only "
    "this paragraph would come to the same reading, so the label is easy to defend from the words alone."
)
RULE = (
    "If a clause obliges one side to act within a stated time and names the consequence of not acting, and no "
    "exception in the same clause covers that side, answer {}."
)
LOOK_UP = """
import sqlite3, sys
from pathlib import Path
from pld.adapters.teachers.answer_store import AnswerStore

path = Path(sys.argv[1])
with sqlite3.connect(path) as connection:
    keys = [row[0] for row in connection.execute("SELECT key FROM answers ORDER BY request")]
store = AnswerStore(path)
found = sum(len(store.get_many(keys[at : at + 1000])) for at in range(0, len(keys), 1000))  # as a Teacher does it
sys.exit(found != len(keys))
"""


@dataclass(frozen=True)
class Ended:
    """A process: its seconds by the wall and of the CPU, and the most memory that it held."""

    seconds: float
    cpu_s: float
    peak_mib: float


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/teacher.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--print", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--only", choices=PARTS, help="one of the four")
    options = parser.parse_args(arguments)
    from pld.errors import PldError

    try:
        for name, make in PARTS.items():
            if options.only in (None, name):
                with tempfile.TemporaryDirectory(prefix="bench-teacher-") as scratch:
                    text = f"{_stamp(name)} {make(Path(scratch))}"
                if options.print:
                    print(text, flush=True)
                else:
                    put(DOCUMENT, name, text)
    except PldError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _throughput(scratch: Path) -> str:
    ideal = REQUESTS / BEARS * LATENCY_S
    rows = []
    for at_once in AT_ONCE:
        seconds, cpu, refused = [], [], []
        for number in range(ROUNDS):
            with _service() as (url, counts):
                wall, busy = _extraction(url, scratch / f"{at_once}-{number}", at_once)
                attempts, too_many = counts()
            seconds.append(wall)
            cpu.append(busy)
            refused.append(float(too_many))
            if attempts - too_many != REQUESTS:
                raise AssertionError(f"expected {REQUESTS:,} answers, the server gave {attempts - too_many:,}")
        over = [wall / ideal for wall in seconds]
        rows.append([str(at_once), f"{ideal:.0f}", spread(seconds), spread(over, 3), spread(refused, 0), spread(cpu)])
    head = ["max_concurrency", "ideal, s", "seen, s", "over ideal", "refused with 429", "CPU of the client, s"]
    return (
        f"{REQUESTS:,} requests through the SDK to a local server that answers after {LATENCY_S:g} s and refuses more "
        f"than {BEARS} at a time (retry-after 1 s); ideal: {BEARS} under way all the time. From the first request to "
        f"the last answer on disk, {ROUNDS} runs, median (least–most).\n\n{grid(head, rows)}"
    )


@contextmanager
def _service() -> Iterator[tuple[str, Callable[[], tuple[int, int]]]]:
    """The server in a process of its own: its address, and a function that says how many requests came and how many
    it refused."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    child = processes.Process(target=_serve, args=(theirs,), daemon=True)
    child.start()
    try:
        yield ours.recv(), lambda: _counts(ours)
    finally:
        child.terminate()
        child.join()


def _counts(pipe: Connection) -> tuple[int, int]:
    pipe.send("how many?")
    came, refused = pipe.recv()
    return came, refused


def _serve(pipe: Connection) -> None:
    from support.misbehaviour import Service, contents_of, examples

    service = Service(contents_of(examples(REQUESTS)), latency_s=LATENCY_S, bears=BEARS)
    pipe.send(service.url)
    pipe.recv()
    pipe.send((len(service.prompts), service.too_many))


def _extraction(url: str, cache: Path, at_once: int) -> tuple[float, float]:
    """Seconds by the wall and of the CPU, with the settings of conf/teacher/anthropic.yaml."""
    from pld.config.build import build
    from pld.distill.extract import extraction_requests
    from support.misbehaviour import PARAMS, TASK, examples, pointed_at

    settings = yaml.safe_load((ROOT / "conf/teacher/anthropic.yaml").read_text(encoding="utf-8"))
    teacher: Any = build(settings | {"max_concurrency": at_once}, "teacher")
    requests = extraction_requests(TASK, examples(REQUESTS), PARAMS)
    with pointed_at(url, cache):
        import anthropic  # noqa: F401  (a second that a run of 20 s would show)

        wall, cpu = time.perf_counter(), time.process_time()
        answers = sum(answer.content is not None for answer in teacher.ask(requests))
        taken = time.perf_counter() - wall, time.process_time() - cpu
    if answers != REQUESTS:
        raise AssertionError(f"expected {REQUESTS:,} answers, got {answers:,}")
    return taken


def _store(scratch: Path) -> str:
    environment = os.environ | {"PLD_CACHE": str(scratch), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        environment.pop(name, None)
    speeds = [[str(threads), *_speeds(scratch / f"{threads}.sqlite", threads)] for threads in THREADS]
    project = scratch / "project"
    project.mkdir()
    (project / "conf").symlink_to(ROOT / "conf")
    selections = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    selections["groups"]["teacher"] = "anthropic"
    (project / "params.yaml").write_text(yaml.safe_dump(selections), encoding="utf-8")
    _run(["-m", "pld.stages", "config"], project, environment)
    # apart: the peak memory of a process that is started counts what its parent held
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        filled, mib = alone.apply(_fill, (project, scratch))
    look_ups = [_run(["-c", LOOK_UP, str(scratch / "answers.sqlite")], project, environment) for _ in range(ROUNDS)]
    reruns = [_run(["-m", "pld.stages", "extract"], project, environment) for _ in range(ROUNDS)]
    rules = (project / "artifacts/rules/rules.jsonl").read_bytes().count(b"\n")
    if rules != STORED:
        raise AssertionError(f"expected {STORED:,} rules, got {rules:,}")
    rows = [["look-up of all by key", *_columns(look_ups)], ["`extract`, nothing new to ask", *_columns(reruns)]]
    return (
        f"{STORED:,} answers of {len(RATIONALE) + len(RULE)} characters to examples of {WORDS} words: a file of "
        f"{mib:,.0f} MiB, taken in in {filled:.1f} s. Each line is a process of its own, without a key, {ROUNDS} runs, "
        f"median (least–most).\n\n{grid(['', 'wall, s', 'CPU, s', 'peak memory, MiB'], rows)}\n\n"
        f"Operations a second, each its own transaction, an answer on disk (fsync) before `put` returns:\n\n"
        f"{grid(['threads', 'claims', 'answers put'], speeds)}"
    )


def _speeds(path: Path, threads: int) -> list[str]:
    """Operations a second: claims, then puts."""
    from pld.adapters.teachers.answer_store import AnswerStore, Question, StoredAnswer
    from pld.params import BudgetParams

    store, budget = AnswerStore(path), BudgetParams(usd=1e6, calls=10**9)
    answer = StoredAnswer({"rationale": RATIONALE, "rule": RULE}, None, {"input_tokens": 600}, 0.001)
    keys = [f"{number:064x}" for number in range(OPERATIONS)]

    def put_one(key: str) -> None:
        store.put(Question(key, "", "task", "anthropic", "m", "extract", key, 0, "messages"), answer)

    with store.asking("task"), ThreadPoolExecutor(threads) as pool:
        rates = []
        for act in (lambda key: store.claim([(key, 0.01)], "task", budget), put_one):
            started = time.perf_counter()
            list(pool.map(act, keys))
            rates.append(f"{OPERATIONS / (time.perf_counter() - started):,.0f}")
    return rates


def _fill(project: Path, cache: Path) -> tuple[float, float]:
    """Examples for the stage, and an answer to each in the store. Seconds that taking them in took, MiB of the file."""
    from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore, Entry, Question, StoredAnswer
    from pld.artifacts import write_jsonl
    from pld.distill.extract import extraction_requests

    config, teacher = _project_teacher(project)
    examples = list(_examples(config.task))
    write_jsonl(project / "artifacts/splits/train.jsonl", examples)
    kept = []
    for request, example in zip(extraction_requests(config.task, examples, config.extraction), examples, strict=True):
        key, model = teacher.key_of(request), teacher.model_of(request.role)
        content = {"rationale": RATIONALE, "rule": RULE.format(example.label), "label": example.label}
        question = Question(key, "", config.task.name, "anthropic", model, request.role, request.key, 0, "messages")
        kept.append(Entry(question, StoredAnswer(content, None, {"input_tokens": 600, "output_tokens": 250}, 0.003)))
    started = time.perf_counter()
    AnswerStore(cache / FILE_NAME).add_unpaid(kept)
    return time.perf_counter() - started, (cache / FILE_NAME).stat().st_size / 2**20


def _project_teacher(project: Path) -> tuple[Any, Any]:
    from pld.adapters.teachers.factory import create_teacher
    from pld.config.settings import load_config

    config = load_config(project / "artifacts/config.yaml")
    return config, create_teacher(config)


def _examples(task: Any) -> Iterator[Any]:
    """Of words that no language has."""
    from pld.records import Example

    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    for number in range(STORED):
        inputs = {field: " ".join(draw.choices(words, k=WORDS // len(task.fields))) for field in task.fields}
        yield Example(id=f"{number:016x}", inputs=inputs, label=task.labels[number % len(task.labels)], split="train")


def _run(arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> Ended:
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise AssertionError(f"{' '.join(arguments)} exited {child.returncode}: {said.read().decode()}")
    return Ended(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _columns(runs: Sequence[Ended]) -> list[str]:
    memory = statistics.median(run.peak_mib for run in runs)
    return [spread([run.seconds for run in runs]), spread([run.cpu_s for run in runs]), f"{memory:,.0f}"]


def _faults(scratch: Path) -> str:
    from support.misbehaviour import KINDS, run_faults

    run_faults(BEARS, (), scratch / "warm")  # the SDK's import is no part of the undisturbed run
    calm, *runs = run_faults(REQUESTS, KINDS, scratch)
    rows = [
        [*_beside(run, calm), f"{run.attempts:,}", str(run.paid_twice), str(run.lost), _yes(run.same_rules)]
        for run in (calm, *runs)
    ]
    head = ["fault", "s", "over undisturbed", "requests", "paid twice", "lost in kills", "same rules.jsonl"]
    return f"{REQUESTS:,} examples.\n\n{grid(head, rows)}"


def _batches(scratch: Path) -> str:
    from support.batch_misbehaviour import run_batch_faults

    calm, *runs = run_batch_faults(REQUESTS, scratch)
    rows = [
        [*_beside(run, calm), str(run.batches), str(run.paid_twice), str(run.kills), _yes(run.same_answers)]
        for run in (calm, *runs)
    ]
    head = ["fault", "s", "over undisturbed", "batches taken", "paid twice", "kills", "same answers"]
    return f"{REQUESTS:,} requests, in about ten batches.\n\n{grid(head, rows)}"


def _beside(run: Any, calm: Any) -> list[str]:
    return [run.kind, f"{run.seconds:.1f}", f"{run.seconds / calm.seconds:.2f}"]


def _yes(same: bool) -> str:
    return "yes" if same else "no"


def _stamp(only: str) -> str:
    from pld.evaluate.latency import machine

    ran = f"{datetime.date.today().isoformat()}, `python bench/teacher.py --only {only}`: {machine()}"
    return f"{ran}, load {os.getloadavg()[0]:.1f} when it began."


PARTS = {"throughput": _throughput, "store": _store, "faults": _faults, "batches": _batches}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
