"""What all Teachers that cost money share: stored answers first, claims and a budget for the new ones, what it cost."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pld.adapters.teachers.answer_store import (
    FILE_NAME,
    AnswerStore,
    Kept,
    Question,
    Spent,
    StoredAnswer,
    Verdict,
    request_key,
)
from pld.config.assets import cache_folder
from pld.errors import BudgetError, ConfigError
from pld.params import BudgetParams, PricesParams
from pld.ports import TeacherAnswer, TeacherRequest
from pld.pricing import price_of, usd_of, worst_usd
from pld.records import RoleSpending

TURNED_DOWN = "bad_request"
"""The code of an answer to a request that was turned down: it speaks of one request, and says nothing of the next."""
_LOOKED_UP_AT_ONCE = 1000
_ADD_PRICE = "add it to conf/prices.yaml, or set budget.usd=null and cap budget.calls"


@dataclass(frozen=True)
class Terms:
    """On whose account a Teacher is asked: `budget` holds for `task` as a whole."""

    task: str
    budget: BudgetParams
    prices: PricesParams | None


NO_TERMS = Terms("", BudgetParams(usd=None, calls=None), None)


@dataclass(frozen=True)
class Call:
    """A question that has no stored answer yet; `most_usd`: what its answer can cost at most, None if unknown."""

    question: Question
    request: TeacherRequest
    most_usd: float | None


class Ledger:
    """Claims, answers and money of one `ask`, in the store and under the task's budget."""

    def __init__(self, store: AnswerStore, owner: str, terms: Terms) -> None:
        self.store = store
        self.owner = owner
        self.terms = terms
        self._answered: set[str] = set()
        self._spent = Spent()  # before the last claims

    def claim(self, calls: Sequence[Call], owner: str | None = None) -> dict[str, Verdict]:
        """See AnswerStore.claim; `owner`: another than the process."""
        wanted = [(call.question.key, call.most_usd) for call in calls]
        verdicts, self._spent = self.store.claim(wanted, owner or self.owner, self.terms.task, self.terms.budget)
        return verdicts

    def keep(self, question: Question, answer: StoredAnswer) -> StoredAnswer:
        """Price `answer`, store it, end its claim."""
        return self.keep_many([Kept(question, answer)])[0]

    def keep_many(self, kept: Sequence[Kept]) -> list[StoredAnswer]:
        """`keep` in one transaction."""
        priced = []
        for question, answer in ((item.question, item.answer) for item in kept):
            usd = self._usd_of(question.model, question.way, answer.usage)
            priced.append(Kept(question, StoredAnswer(answer.content, answer.error, answer.usage, usd)))
        stored = self.store.put_many(priced)
        self._answered.update(item.question.key for item in kept)  # from many threads at once
        return stored

    def release(self, calls: Sequence[Call]) -> None:
        """What was claimed and cost nothing."""
        self.store.release([call.question.key for call in calls], self.owner)

    def others_are_asking(self) -> bool:
        """Whether part of the budget was only reserved when calls were last claimed, by who is still there to ask."""
        return self._spent.open_calls > self.store.stranded(self.terms.task)

    def check_earlier_prices(self) -> None:
        """A cap on dollars means nothing while calls that are paid for have no price. Those that have one by now get
        it. Raises ConfigError."""
        if self.terms.budget.usd is None or not self.store.spent(self.terms.task).unpriced:
            return
        if unknown := self.store.price(self.terms.task, self._usd_of):
            raise ConfigError(
                f"budget.usd: wanted the cost of all calls of task {self.terms.task!r}, found answers of "
                f"{', '.join(unknown)} that were paid for without a known price; {_ADD_PRICE}"
            )

    def over_budget(self, left: Sequence[Call]) -> BudgetError:
        """What is done, and what the calls that are left would need."""
        budget, spent, more = self.terms.budget, self._spent, len(left)
        priced = spent.calls - spent.unpriced
        found = f"{spent.all_calls:,} calls and {_usd(spent.all_usd)} spent"
        if spent.lost:
            found += f" ({spent.lost:,} calls, {_usd(spent.lost_usd)} at most, were lost in killed runs)"
        if budget.calls is not None and spent.all_calls >= budget.calls:
            limit = f"budget.calls {budget.calls:,}"
            need = f"budget.calls={spent.all_calls + more}"
        else:
            most = [call.most_usd or 0.0 for call in left]
            limit = f"budget.usd {_usd(budget.usd or 0.0)}"
            # the last call needs room for its worst case
            each = spent.usd / priced if priced else sum(most) / more
            so_far = f"{_usd(each)} a call so far" if priced else "if every answer is as long as it may be"
            total = _usd(spent.all_usd + each * (more - 1) + max(most)).strip("$").replace(",", "")
            need = f"budget.usd={total} ({so_far}, and the next may cost {_usd(most[0])})"
        kept = f"{len(self._answered):,} answers have just arrived and are kept; " if self._answered else ""
        return BudgetError(
            f"{limit} of task {self.terms.task!r}: wanted {more:,} more calls of the Teacher, found {found}; {kept}"
            f"set about {need} and run again: it goes on where it stopped"
        )

    def _usd_of(self, model: str, way: str, usage: Mapping[str, int]) -> float | None:
        price = price_of(self.terms.prices, model) if self.terms.prices else None
        return usd_of(usage, price, way)


class PaidTeacher(ABC):
    """Every answer is stored (by a hash of what determines it) before it is used, also one that is a refusal, cut off
    or not what was asked for: it was paid for. A key is read when a first new answer is needed, so a rerun that needs
    none needs no key."""

    provider: str

    def __init__(self, terms: Terms | None) -> None:
        self._terms = terms or NO_TERMS
        self._given: dict[tuple[str, str], _Given] = {}

    @property
    def name(self) -> str:
        """Who explains examples; other roles may have other models."""
        return f"{self.provider}:{self.model_of('extract')}"

    @abstractmethod
    def model_of(self, role: str) -> str: ...

    @abstractmethod
    def max_tokens_of(self, role: str) -> int: ...

    @abstractmethod
    def way_of(self, role: str) -> str:
        """How it is asked: messages | batches | openai."""

    @abstractmethod
    def _determinants(self, request: TeacherRequest) -> dict[str, Any]:
        """All that determines the answer but the draw, in JSON's types."""

    @abstractmethod
    def _answers(self, calls: Mapping[str, Call], ledger: Ledger) -> Iterator[tuple[str, StoredAnswer]]:
        """Ask each of `calls` (by key) or wait for who does. Yields stored answers, and those that cost nothing.

        On a systemic fault (TeacherError), a full budget (BudgetError) and on Ctrl-C no new attempt is made, the
        answers in flight are awaited and stored, and only then it raises.
        """

    @abstractmethod
    def count_tokens(self, requests: Sequence[TeacherRequest]) -> list[int] | None:
        """Input tokens of each, as the provider counts them; None where it does not, or there is no key."""

    def key_of(self, request: TeacherRequest) -> str:
        """Under which the answer is stored."""
        drawn = {"draw": request.draw} if request.draw else {}
        return request_key(self._determinants(request) | drawn)

    def keys_of(self, requests: Sequence[TeacherRequest]) -> dict[str, str]:
        return {request.key: self.key_of(request) for request in requests}

    def spent(self) -> tuple[RoleSpending, ...]:
        """What the answers that this object gave out cost when they were paid for, each question once."""
        return tuple(given.spending(role, model) for (role, model), given in sorted(self._given.items()))

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Stored answers first, then the new ones as they arrive; requests that are alike are paid for once."""
        store = AnswerStore(cache_folder() / FILE_NAME)
        alike: dict[str, list[TeacherRequest]] = {}
        for request in requests:
            alike.setdefault(self.key_of(request), []).append(request)
        new: dict[str, Call] = {}
        keys = list(alike)
        for at in range(0, len(keys), _LOOKED_UP_AT_ONCE):  # not all at once: answers fill the memory
            stored = store.get_many(keys[at : at + _LOOKED_UP_AT_ONCE])
            for key in keys[at : at + _LOOKED_UP_AT_ONCE]:
                if key in stored:
                    yield from self._given_out(key, alike[key], stored[key])
                else:
                    new[key] = self._call(key, alike[key][0])
        if not new:
            return
        self._check_prices(new)
        with store.owner() as owner:
            store.end_claims_of_the_dead()
            ledger = Ledger(store, owner, self._terms)
            ledger.check_earlier_prices()
            for key, answer in self._answers(new, ledger):
                yield from self._given_out(key, alike[key], answer)

    def _given_out(self, key: str, alike: Sequence[TeacherRequest], answer: StoredAnswer) -> Iterator[TeacherAnswer]:
        role = alike[0].role
        self._given.setdefault((role, self.model_of(role)), _Given()).add(key, answer)
        for request in alike:
            yield TeacherAnswer(key=request.key, content=answer.content, error=answer.error, usage=answer.usage)

    def _call(self, key: str, request: TeacherRequest) -> Call:
        question = Question(
            key=key,
            asked=asked_hash(request),
            task=self._terms.task,
            provider=self.provider,
            model=self.model_of(request.role),
            role=request.role,
            request=request.key,
            draw=request.draw,
            way=self.way_of(request.role),
        )
        price = price_of(self._terms.prices, question.model) if self._terms.prices else None
        most = worst_usd(most_tokens(request), self.max_tokens_of(request.role), price, question.way)
        return Call(question, request, most)

    def _check_prices(self, new: Mapping[str, Call]) -> None:
        """A cap on dollars means nothing where a price is unknown."""
        if self._terms.budget.usd is None:
            return
        for call in new.values():
            if call.most_usd is None:
                raise ConfigError(
                    f"budget.usd: wanted the price of {call.question.model!r}, found none for a request of up to "
                    f"{most_tokens(call.request):,} tokens; {_ADD_PRICE}"
                )


class _Given:
    """Answers of one role and model that were given out."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._tokens: Counter[str] = Counter()
        self._usd = 0.0
        self._unpriced = False

    def add(self, key: str, answer: StoredAnswer) -> None:
        if key in self._keys or turned_down(answer):
            return
        self._keys.add(key)
        self._tokens.update(answer.usage)
        self._usd += answer.usd or 0.0
        self._unpriced |= answer.usd is None

    def spending(self, role: str, model: str) -> RoleSpending:
        usd = None if self._unpriced else round(self._usd, 6)
        tokens = dict(sorted(self._tokens.items()))
        return RoleSpending(role=role, model=model, calls=len(self._keys), tokens=tokens, usd=usd)


def turned_down(answer: StoredAnswer) -> bool:
    """Whether the provider refused to take the request: it cost nothing, and is not stored."""
    return (answer.error or "").startswith(TURNED_DOWN)


def asked_hash(request: TeacherRequest) -> str:
    """What is asked, whoever is asked."""
    asked = {"role": request.role, "system": request.system, "prompt": request.prompt, "draw": request.draw}
    return request_key(asked | {"schema": dict(request.schema)})


def most_tokens(request: TeacherRequest) -> int:
    """An upper bound of the input tokens: no tokenizer makes more tokens than there are bytes (1,000 for markup)."""
    return len(f"{request.system}{request.prompt}{dict(request.schema)}".encode()) + 1000


def _usd(amount: float) -> str:
    """Rounded up to the cent, and below a dollar to a hundredth of it."""
    digits = 2 if amount >= 1 or amount == 0 else 4
    return f"${math.ceil(round(amount * 10**digits, 6)) / 10**digits:,.{digits}f}"
