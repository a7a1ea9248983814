"""Questions to the Teacher, each asked again a bounded number of times with what was wrong with its answers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pld import prompts
from pld.distill import text_checks as wording
from pld.distill.text_checks import Fault
from pld.ports import OnProgress, Teacher, TeacherAnswer, TeacherRequest

T = TypeVar("T")
Judge = Callable[[str, Mapping[str, Any]], T | Fault]
"""A request's key and the content of its answer → what is made of it, or why it is refused."""

_NOT_MENDED = ("bad_request",)  # codes of answers that the same request would get again
_SHOWN = 300  # characters of a reason that a prompt repeats


@dataclass(frozen=True)
class Settled(Generic[T]):
    """What came of a request: `outcome` is that of its last answer, `usage` sums those of all `attempts`."""

    outcome: T | Fault
    attempts: int
    recorded: bool
    usage: Mapping[str, int]


def ask(
    teacher: Teacher,
    requests: Sequence[TeacherRequest],
    judge: Judge[T],
    attempts: int,
    on_progress: OnProgress | None = None,
    *,
    max_calls: int | None = None,
    max_tokens: int | None = None,
) -> dict[str, Settled[T]]:
    """Put `requests` to `teacher`; those whose answers have an error or are refused by `judge` are put again, all
    together, up to `attempts` times in all, each with the reasons so far in its prompt.

    Not asked again: what the API turned down as it stands, and anything once `max_calls` answers came or they used
    `max_tokens` (the first of `requests` go first). A request that the Teacher leaves out is in no entry; left out only
    when it is asked again (a recording by example), the answer before stands. The course depends on the answers alone,
    never on their order, so that a rerun, or a replay of exported answers, finds all of them. `on_progress` counts each
    request once, when it is settled.
    """
    settled: dict[str, Settled[T]] = {}
    faults: dict[str, list[Fault]] = {request.key: [] for request in requests}
    usage: dict[str, Counter[str]] = {request.key: Counter() for request in requests}
    turn, calls, told = list(requests), 0, 0
    for attempt in range(1, attempts + 1):
        refused: set[str] = set()
        for answer in teacher.ask(turn) if turn else ():
            usage[answer.key].update(dict(answer.usage))
            outcome = _outcome(answer, judge)
            settled[answer.key] = Settled(outcome, attempt, answer.recorded, dict(usage[answer.key]))
            calls += 1
            if isinstance(outcome, Fault) and attempt < attempts and outcome.reason not in _NOT_MENDED:
                faults[answer.key].append(outcome)
                refused.add(answer.key)
            elif on_progress:
                on_progress(1)
                told += 1
        turn = [asked_again(request, faults[request.key]) for request in requests if request.key in refused]
        if max_calls is not None:
            turn = turn[: max(max_calls - calls, 0)]
        if max_tokens is not None and tokens_of(total(settled)) >= max_tokens:
            turn = []
    if on_progress and told < len(requests):
        on_progress(len(requests) - told)
    return settled


def asked_again(request: TeacherRequest, faults: Sequence[Fault]) -> TeacherRequest:
    """`request` with the reasons why its answers so far were refused. Each attempt lists one more, so no two are the
    same question, of which the answer store would give the old answer."""
    reasons = [{"reason": fault.reason, "detail": _shown(fault.detail)} for fault in faults]
    block = prompts.data_block("refusals", reasons)
    return replace(request, prompt=prompts.render("asked_again", prompt=request.prompt, refusals=block))


def total(settled: Mapping[str, Settled[T]]) -> dict[str, int]:
    """The usage of all answers, by name."""
    summed: Counter[str] = Counter()
    for item in settled.values():
        summed.update(dict(item.usage))
    return dict(sorted(summed.items()))


def tokens_of(usage: Mapping[str, int]) -> int:
    """All tokens of `usage`, of whatever kind."""
    return sum(count for name, count in usage.items() if name.endswith("tokens"))


def after(attempts: int) -> str:
    """Words that end a reason, where there was more than one attempt."""
    return f" (after {attempts} attempts)" if attempts > 1 else ""


def _outcome(answer: TeacherAnswer, judge: Judge[T]) -> T | Fault:
    if answer.content is None:
        reason, _, detail = (answer.error or "invalid: no content").partition(":")
        return Fault(reason.strip(), detail.strip())
    return judge(answer.key, answer.content)


def _shown(detail: str) -> str:
    """A detail may quote the answer, which may quote the example: it travels as data, and without chat markup."""
    shown = wording.one_line(detail)[:_SHOWN]
    return "withheld: it quotes chat markup" if wording.control_token(detail) else shown
