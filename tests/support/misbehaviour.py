"""Extraction over the real SDKs from a service that misbehaves on command: is the outcome that of a calm day?

`run_faults` is used with few examples by the tests, and with 1,000 by bench/teacher.py.
"""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore
from pld.adapters.teachers.anthropic import AnthropicTeacher
from pld.adapters.teachers.openai_compatible import OpenAICompatibleTeacher
from pld.artifacts import write_jsonl
from pld.distill import extract as extraction
from pld.params import ExtractionParams
from pld.ports import TeacherRequest
from pld.records import Example, Task, sha256
from support.anthropic_server import answer, claude, error
from support.local_server import DROP, LocalServer, Reply, Request
from support.openai_server import completion, refused

TASK = Task(
    name="parcels",
    labels=("lost", "late", "broken"),
    fields=("note",),
    input_template="{{ note }}",
    base_instruction="Say what happened to the parcel.",
)
PARAMS = ExtractionParams(
    examples=None, draws=1, personal_data="allow", max_words=80, max_copied_words=7, max_rejected_fraction=0.2
)
ATTEMPTS = 3  # at one example
TIMEOUT_S = 2.0
DOWN_S = 1.0
BURST_EVERY, BURST_AT, BURST_S = 250, 40, 0.7  # attempts, attempts, seconds
KILLS_OF_1000 = 20
KINDS = (
    "429",
    "529",
    "500",
    "timeout",
    "cut",
    "cut_body",
    "cut_json",
    "refusal",
    "truncated",
    "invalid",
    "dies",
    "kill",
)
"""429: a tenth of the requests, with retry-after; 529: bursts; cut: before the headers; cut_body: in the middle of the
body; cut_json: half a body that says it is whole; refusal, truncated, invalid: answers that are no use; dies: the port
is closed for a while, with all connections; kill: SIGKILL at random moments."""


@dataclass(frozen=True)
class FaultRun:
    """`attempts`: requests that reached the service. `paid_twice`: answers that it sent in full to one question, after
    the first; of a run that was killed, those to questions whose answer was stored (`lost`: that were not yet)."""

    kind: str
    examples: int
    seconds: float
    overhead_s: float
    attempts: int
    paid_twice: int
    lost: int
    same_rules: bool


def run_faults(n: int, kinds: Sequence[str], folder: Path, provider: str = "anthropic") -> list[FaultRun]:
    """Each kind alone, with a store of its own in `folder`, compared with an undisturbed run (the first of the list,
    kind `none`)."""
    calm = _run("none", n, folder, provider, None, 0.0)
    rules = (folder / "none" / "rules.jsonl").read_bytes()
    return [calm, *(_run(kind, n, folder, provider, rules, calm.seconds) for kind in kinds)]


def examples(n: int) -> list[Example]:
    return [
        Example(
            id=f"e{i:05}", inputs={"note": f"parcel {i} of street {i % 97}"}, label=TASK.labels[i % 3], split="train"
        )
        for i in range(n)
    ]


class Service(LocalServer):
    """Speaks the Messages API and chat completions on one port, and answers what is known: the content by prompt.

    It misbehaves in one way (`kind`), after `latency_s`; more than `bears` requests at a time get 429 (retry-after 1).
    """

    def __init__(
        self, contents: Mapping[str, Mapping[str, str]], kind: str = "none", latency_s: float = 0.0, bears: int = 10**6
    ) -> None:
        self.kind, self.latency_s, self.bears = kind, latency_s, bears
        self.answered: Counter[str] = Counter()  # prompts whose answers left in full
        self.too_many = 0
        self._contents = contents
        self._burst_until = 0.0
        super().__init__()

    def reply(self, request: Request) -> Reply:
        if request.at_once > self.bears:
            with self._lock:
                self.too_many += 1
            return error(429, "rate_limit_error", "too many at a time", retry_after="1")
        time.sleep(self.latency_s)
        good = self._said(request.path, request.prompt)
        return self._bad(request, good) or good

    def sent(self, request: Request, reply: Reply) -> None:
        if reply.status != 200 or not reply.body.endswith(b"}"):
            return
        with self._lock:
            self.answered[request.prompt] += 1
            dies = self.kind == "dies" and len(self.answered) >= len(self._contents) // 3
            self.kind = "none" if dies else self.kind
        if dies:
            self.die()
            threading.Timer(DOWN_S, self.come_back).start()

    def _said(self, path: str, prompt: str) -> Reply:
        content = self._contents.get(prompt) or next(
            content for known, content in self._contents.items() if prompt.startswith(known)
        )
        return answer(dict(content)) if path == "/v1/messages" else completion(dict(content))

    def _bad(self, request: Request, good: Reply) -> Reply | None:
        """What goes wrong with this attempt."""
        prompt, theirs = request.prompt, request.path == "/v1/messages"
        refuse: Callable[..., Reply] = (
            (lambda status, words, **h: error(status, "t", words, **h)) if theirs else refused
        )
        if self.kind == "529":
            if request.number % BURST_EVERY == BURST_AT:
                self._burst_until = time.monotonic() + BURST_S
            return refuse(529, "overloaded") if time.monotonic() < self._burst_until else None
        if request.attempt > 1 or prompt not in self._contents or int(sha256(prompt)[:8], 16) % 10:
            return None  # what was asked again, in whatever way, is answered
        if self.kind == "429":
            return refuse(429, "slow down", retry_after="1")
        if self.kind == "500":
            return refuse(500, "broken")
        if self.kind == "timeout":
            time.sleep(TIMEOUT_S * 1.5)
            return DROP
        if self.kind == "cut":
            return DROP
        if self.kind == "cut_body":
            return replace(good, cut_at=len(good.body) // 2)
        if self.kind == "cut_json":
            return replace(good, body=good.body[: len(good.body) // 2])
        if self.kind == "refusal":
            return answer("", "refusal") if theirs else completion(None, refusal="no")
        if self.kind == "truncated":
            return answer('{"rat', "max_tokens") if theirs else completion('{"rat', "length")
        if self.kind == "invalid":
            return answer('{"rationale": "') if theirs else completion('{"rationale": "')
        return None


def teacher(
    provider: str, url: str | None = None, max_concurrency: int = 50
) -> AnthropicTeacher | OpenAICompatibleTeacher:
    """At the default settings but for the time limit. `url` None: that of the environment."""
    if provider == "anthropic":
        return claude(max_tokens=1024, max_concurrency=max_concurrency, max_retries=10, timeout_s=TIMEOUT_S)
    return OpenAICompatibleTeacher(
        base_url=url,
        model="toy",
        api_key_variable="PLD_TEACHER_API_KEY",
        max_tokens=1024,
        max_tokens_field="max_tokens",
        temperature=None,
        roles={},
        max_concurrency=max_concurrency,
        max_retries=10,
        timeout_s=TIMEOUT_S,
        extra_body={},
    )


def contents_of(wanted: Sequence[Example]) -> dict[str, dict[str, str]]:
    """What the service says about each example, by the prompt of its request."""
    requests = extraction.extraction_requests(TASK, wanted, PARAMS)
    return {request.prompt: _content(request, example.label) for request, example in zip(requests, wanted, strict=True)}


def _content(request: TeacherRequest, label: str) -> dict[str, str]:
    mark = sha256(request.key)[:8]
    return {"rationale": f"It bears {mark}.", "rule": f"If a message bears {mark}, answer {label}.", "label": label}


@contextlib.contextmanager
def pointed_at(url: str, cache: Path) -> Iterator[dict[str, str]]:
    """The environment in which the Teachers ask `url` and keep their answers in `cache`."""
    new = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "test-key",
        "OPENAI_BASE_URL": f"{url}/v1",
        "PLD_CACHE": str(cache),
    }
    with patch.dict(os.environ, new):
        yield new


def explain(n: int, provider: str, path: Path) -> None:
    """One extraction, from beginning to end; its rules as `path`."""
    rules, _, _ = extraction.extract(TASK, examples(n), PARAMS, teacher(provider), ATTEMPTS)
    write_jsonl(path, rules)


def _run(kind: str, n: int, folder: Path, provider: str, rules: bytes | None, calm_s: float) -> FaultRun:
    own = folder / kind
    contents = contents_of(examples(n))
    service = Service(contents, kind)
    began = time.perf_counter()
    stored: list[tuple[int, set[str]]] = []
    try:
        with pointed_at(service.url, own):
            if kind == "kill":
                stored = _killed(service, n, provider, own)
            else:
                explain(n, provider, own / "rules.jsonl")
    finally:
        service.close()
    seconds = time.perf_counter() - began
    more = sum(count - 1 for count in service.answered.values())
    again = sum(prompt in kept for at, kept in stored for prompt in service.prompts[at:])
    return FaultRun(
        kind=kind,
        examples=n,
        seconds=seconds,
        overhead_s=seconds - calm_s if calm_s else 0.0,
        attempts=len(service.prompts),
        paid_twice=again if kind == "kill" else more,
        lost=more - again if kind == "kill" else 0,
        same_rules=rules is None or (own / "rules.jsonl").read_bytes() == rules,
    )


def _killed(service: Service, n: int, provider: str, own: Path) -> list[tuple[int, set[str]]]:
    """Kills the process, each time after some more answers, until it has been killed often enough to be let go on.

    Returns, for each kill, how many attempts the service had seen, and the prompts whose answers were stored.
    """
    draw = random.Random(0)
    kills = max(2, KILLS_OF_1000 * n // 1000)
    requests = extraction.extraction_requests(TASK, examples(n), PARAMS)
    keys = {teacher(provider).key_of(request): request.prompt for request in requests}
    seen = []
    for _ in range(kills):
        child = _child(n, provider, own)
        goal = service.answered.total() + draw.randrange(1, max(2, int(1.6 * n / kills)))
        while service.answered.total() < goal and child.poll() is None:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.03))
        child.kill()
        child.wait()
        time.sleep(0.1)  # what is under way arrives at the service
        at = len(service.prompts)
        seen.append((at, {keys[key] for key in AnswerStore(own / FILE_NAME).get_many(keys)}))
    child = _child(n, provider, own)
    if child.wait() != 0:
        raise RuntimeError(f"the run after the last kill ended with {child.returncode}")
    return seen


def _child(n: int, provider: str, own: Path) -> subprocess.Popen[bytes]:
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent / 'src'}"}
    command = [sys.executable, "-m", "support.misbehaviour", str(n), provider, str(own / "rules.jsonl")]
    return subprocess.Popen(command, env=environment)


if __name__ == "__main__":
    explain(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
