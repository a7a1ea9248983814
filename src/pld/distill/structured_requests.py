"""Structured questions to the Teacher: an answer that fails its check is asked for again, with the reasons."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pld import prompts
from pld.distill import text_checks
from pld.distill.text_checks import Fault
from pld.ports import OnProgress, Teacher, TeacherAnswer, TeacherRequest

T = TypeVar("T")
Check = Callable[[str, Mapping[str, Any]], T | Fault]
"""Turns a request's key and the content of its answer into a result, or into the reason to refuse it."""

_FINAL = ("bad_request",)  # error codes that a repeated request would get again
_SHOWN = 300  # characters of a reason that a prompt repeats


@dataclass(frozen=True)
class Settled(Generic[T]):
    """The result of a request: `outcome` and `source` of its last answer, `usage` summed over all `attempts`."""

    outcome: T | Fault
    attempts: int
    recorded: bool
    usage: Mapping[str, int]
    source: str = ""


def ask(
    teacher: Teacher,
    requests: Sequence[TeacherRequest],
    check: Check[T],
    attempts: int,
    on_progress: OnProgress | None = None,
    *,
    max_calls: int | None = None,
    max_tokens: int | None = None,
) -> dict[str, Settled[T]]:
    """Ask `teacher`; requests whose answer has an error or fails `check` are asked again together, up to `attempts`
    times in all, with the reasons so far in their prompts.

    Not repeated: what the API rejects as invalid, and anything after `max_calls` answers or `max_tokens` (the first of
    `requests` have priority). A request that the Teacher skips has no entry; one that it skips only when asked again (a
    recording by example) keeps its earlier answer. What is asked depends on the answers, never on their order, so a
    rerun or a replay of exported answers finds all of them. `on_progress` counts each request once, when it is settled.
    """
    settled: dict[str, Settled[T]] = {}
    faults: dict[str, list[Fault]] = {request.key: [] for request in requests}
    usage: dict[str, Counter[str]] = {request.key: Counter() for request in requests}
    pending, calls, reported = list(requests), 0, 0
    for attempt in range(1, attempts + 1):
        refused: set[str] = set()
        for answer in teacher.ask(pending) if pending else ():
            usage[answer.key].update(dict(answer.usage))
            outcome = _outcome(answer, check)
            settled[answer.key] = Settled(outcome, attempt, answer.recorded, dict(usage[answer.key]), answer.source)
            calls += 1
            if isinstance(outcome, Fault) and attempt < attempts and outcome.reason not in _FINAL:
                faults[answer.key].append(outcome)
                refused.add(answer.key)
            elif on_progress:
                on_progress(1)
                reported += 1
        pending = [repeated(request, faults[request.key]) for request in requests if request.key in refused]
        if max_calls is not None:
            pending = pending[: max(max_calls - calls, 0)]
        if max_tokens is not None and tokens_of(total(settled)) >= max_tokens:
            pending = []
    if on_progress and reported < len(requests):
        on_progress(len(requests) - reported)
    return settled


def repeated(request: TeacherRequest, faults: Sequence[Fault]) -> TeacherRequest:
    """`request` with the reasons why its answers were refused. Each attempt lists one more reason, so that no two are
    the same question, to which the answer store would return the old answer."""
    reasons = [{"reason": fault.reason, "detail": _shown(fault.detail)} for fault in faults]
    block = prompts.data_block("refusals", reasons)
    return replace(request, prompt=prompts.render("asked_again", prompt=request.prompt, refusals=block))


def total(settled: Mapping[str, Settled[T]]) -> dict[str, int]:
    """Usage summed over all answers, by name."""
    summed: Counter[str] = Counter()
    for item in settled.values():
        summed.update(dict(item.usage))
    return dict(sorted(summed.items()))


def tokens_of(usage: Mapping[str, int]) -> int:
    """All tokens of `usage`, of every kind."""
    return sum(count for name, count in usage.items() if name.endswith("tokens"))


def after(attempts: int) -> str:
    """A suffix for a reason after more than one attempt."""
    return f" (after {attempts} attempts)" if attempts > 1 else ""


def _outcome(answer: TeacherAnswer, check: Check[T]) -> T | Fault:
    if answer.content is None:
        reason, _, detail = (answer.error or "invalid: no content").partition(":")
        return Fault(reason.strip(), detail.strip())
    return check(answer.key, answer.content)


def _shown(detail: str) -> str:
    """A detail may quote the answer, which may quote the example, so it is passed on as data without chat markup."""
    shown = text_checks.one_line(detail)[:_SHOWN]
    return "withheld: it quotes chat markup" if text_checks.control_token(detail) else shown
