"""What all paid Teachers share: stored answers first, then claims under the task's budget, and what answers cost."""

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from pld.adapters.teachers.answer_store import (
    FILE_NAME,
    RUN,
    AnswerStore,
    Entry,
    Question,
    StoredAnswer,
    request_key,
)
from pld.config.assets import cache_folder
from pld.errors import BudgetError, ConfigError
from pld.params import BudgetParams, PricesParams
from pld.ports import TeacherAnswer, TeacherRequest
from pld.pricing import price_of, usd_of, worst_usd
from pld.reports import RoleSpending

BAD_REQUEST = "bad_request"
"""Code of the answer to a request that the provider rejects as it is: free of charge, and not stored."""
Role = Literal["extract", "consolidate", "resolve", "optimise"]
LOOKED_UP_AT_ONCE = 1000
"""Stored answers in memory at a time."""
_ADD_PRICE = "add it to conf/prices.yaml, or set budget.usd=null and cap budget.calls"


class RoleSettings(BaseModel):
    """What differs for one role; None: as for the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    max_tokens: PositiveInt | None = None


@dataclass(frozen=True)
class Terms:
    """The task that pays for a Teacher's answers, and its budget as a whole."""

    task: str
    budget: BudgetParams
    prices: PricesParams | None


NO_TERMS = Terms("", BudgetParams(usd=None, calls=None), None)


@dataclass(frozen=True)
class Call:
    """A question without a stored answer; `most_usd`: what its answer can cost at most, None if unknown."""

    question: Question
    request: TeacherRequest
    most_usd: float | None


class Account:
    """A task's claims, answers and money while it asks."""

    def __init__(self, store: AnswerStore, terms: Terms) -> None:
        self.store = store
        self.terms = terms
        self._answered: set[str] = set()

    def claim(self, calls: Sequence[Call], owner: str = RUN, within: Connection | None = None) -> int:
        """Claim the first of `calls`, as many as the budget allows. Returns how many."""
        wanted = [(call.question.key, call.most_usd) for call in calls]
        return self.store.claim(wanted, self.terms.task, self.terms.budget, owner, within)

    def keep(self, entries: Sequence[Entry]) -> list[StoredAnswer]:
        """Price the answers, store them, end their claims."""
        priced = [
            replace(
                one,
                answer=replace(one.answer, usd=self._usd_of(one.question.model, one.question.way, one.answer.usage)),
            )
            for one in entries
        ]
        stored = self.store.put_many(priced)
        self._answered.update(one.question.key for one in entries)  # from many threads at once
        return stored

    def price_earlier_answers(self) -> None:
        """A cap on dollars means nothing while paid calls have no price. Raises ConfigError."""
        if self.terms.budget.usd is None or not self.store.spent(self.terms.task).unpriced:
            return
        if unknown := self.store.price(self.terms.task, self._usd_of):
            raise ConfigError(
                f"expected the cost of all calls of task {self.terms.task!r}, got answers of {', '.join(unknown)} "
                f"that were paid for without a known price (budget.usd); {_ADD_PRICE}"
            )

    def over_budget(self, left: Sequence[Call]) -> BudgetError:
        """Says what is done, and what the calls that are left would need."""
        budget, spent, more = self.terms.budget, self.store.spent(self.terms.task), len(left)
        so_far = f"{spent.all_calls:,} calls and {_usd(spent.all_usd)} spent"
        if spent.lost:
            so_far += f", of which killed runs lost {spent.lost:,} calls at {_usd(spent.lost_usd)} at most"
        if budget.calls is not None and spent.all_calls >= budget.calls:
            limit, need = f"budget.calls {budget.calls:,}", f"budget.calls={spent.all_calls + more}"
        else:
            most = max(call.most_usd or 0.0 for call in left)  # for which the last call needs room
            each = spent.usd / spent.calls if spent.calls else most
            total = _usd(spent.all_usd + each * (more - 1) + most).strip("$").replace(",", "")
            limit = f"budget.usd {_usd(budget.usd or 0.0)}"
            need = f"budget.usd={total} ({_usd(each)} a call{'' if spent.calls else ' at most'})"
        kept = f"{len(self._answered):,} answers have just arrived and are kept; " if self._answered else ""
        return BudgetError(
            f"expected {more:,} more calls of the Teacher, got {so_far} ({limit} of task {self.terms.task!r}); "
            f"{kept}set about {need} and run again: it goes on where it stopped"
        )

    def _usd_of(self, model: str, way: str, usage: Mapping[str, int]) -> float | None:
        price = price_of(self.terms.prices, model) if self.terms.prices else None
        return usd_of(usage, price, way)


class PaidTeacher(ABC):
    """Stores every answer before it is used, under a hash of what determines it; refusals and malformed answers too,
    since they were paid for. Needs the provider's key only when a new answer is needed."""

    provider: str

    def __init__(self, general: RoleSettings, roles: Mapping[Role, RoleSettings], terms: Terms | None) -> None:
        self._general = general
        self._roles: dict[str, RoleSettings] = {str(role): settings for role, settings in roles.items()}
        self._terms = terms or NO_TERMS
        self._costs: dict[tuple[str, str], dict[str, StoredAnswer]] = {}

    @property
    def name(self) -> str:
        """By the model that explains examples; other roles may have other models."""
        return f"{self.provider}:{self.model_of('extract')}"

    def model_of(self, role: str) -> str:
        return str(self._setting(role, "model"))

    def max_tokens_of(self, role: str) -> int:
        return int(self._setting(role, "max_tokens"))

    def _setting(self, role: str, name: str) -> Any:
        own = getattr(self._roles.get(role), name, None)
        return getattr(self._general, name) if own is None else own

    @abstractmethod
    def way_of(self, role: str) -> str:
        """How it is asked: messages | batches | openai."""

    @abstractmethod
    def _determinants(self, request: TeacherRequest) -> dict[str, Any]:
        """All that determines the answer but the draw, in JSON's types."""

    @abstractmethod
    def _answers(self, calls: Mapping[str, Call], account: Account) -> Iterator[tuple[str, StoredAnswer]]:
        """Ask each of `calls` (by key). Yields stored answers, and those that cost nothing.

        On a systemic error (TeacherError), a full budget (BudgetError) and on Ctrl-C no new attempt is made, the
        answers in flight are awaited and stored, and only then it raises.
        """

    @abstractmethod
    def count_tokens(self, requests: Sequence[TeacherRequest]) -> list[int] | None:
        """Input tokens of each, as the provider counts them; None where it does not, or there is no key."""

    def key_of(self, request: TeacherRequest) -> str:
        """The key under which the answer is stored."""
        drawn = {"draw": request.draw} if request.draw else {}
        return request_key(self._determinants(request) | drawn)

    def without_answer(self, store: AnswerStore, requests: Sequence[TeacherRequest]) -> list[TeacherRequest]:
        """Those of `requests` that would have to be paid for; of requests that are alike, one."""
        by_key = {self.key_of(request): request for request in requests}
        stored = store.stored_keys(by_key)
        return [request for key, request in by_key.items() if key not in stored]

    def spent(self) -> tuple[RoleSpending, ...]:
        """What the answers that this object gave out cost when they were paid for, each question once."""
        return tuple(_spending(role, model, answers.values()) for (role, model), answers in sorted(self._costs.items()))

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Stored answers first, then the new ones as they arrive; requests that are alike are paid for once."""
        store = AnswerStore(cache_folder() / FILE_NAME)
        alike: dict[str, list[TeacherRequest]] = {}
        for request in requests:
            alike.setdefault(self.key_of(request), []).append(request)
        new = yield from self._stored(store, alike)
        if not new:
            return
        self._check_prices([self._call(key, same[0]) for key, same in new.items()])
        with store.asking(self._terms.task):
            new = yield from self._stored(store, new)  # an earlier run may have just asked them
            account = Account(store, self._terms)
            account.price_earlier_answers()
            calls = {key: self._call(key, same[0]) for key, same in new.items()}
            for key, answer in self._answers(calls, account) if calls else ():
                yield from self._given(key, new[key], answer)

    def _stored(
        self, store: AnswerStore, alike: Mapping[str, list[TeacherRequest]]
    ) -> Generator[TeacherAnswer, None, dict[str, list[TeacherRequest]]]:
        """Yields stored answers; returns what has none."""
        new: dict[str, list[TeacherRequest]] = {}
        keys = list(alike)
        for at in range(0, len(keys), LOOKED_UP_AT_ONCE):
            some = keys[at : at + LOOKED_UP_AT_ONCE]
            stored = store.get_many(some)
            for key in some:
                if key in stored:
                    yield from self._given(key, alike[key], stored[key])
                else:
                    new[key] = alike[key]
        return new

    def _given(self, key: str, alike: Sequence[TeacherRequest], answer: StoredAnswer) -> Iterator[TeacherAnswer]:
        role = alike[0].role
        if not is_bad_request(answer):
            self._costs.setdefault((role, self.model_of(role)), {}).setdefault(key, replace(answer, content=None))
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

    def _check_prices(self, calls: Sequence[Call]) -> None:
        """A cap on dollars means nothing where a price is unknown."""
        for call in calls if self._terms.budget.usd is not None else ():
            if call.most_usd is None:
                raise ConfigError(
                    f"expected the price of {call.question.model!r}, got none for a request of up to "
                    f"{most_tokens(call.request):,} tokens (budget.usd); {_ADD_PRICE}"
                )


def is_bad_request(answer: StoredAnswer) -> bool:
    """Whether the provider rejected the request as it is: that cost nothing, and is not stored."""
    return (answer.error or "").startswith(BAD_REQUEST)


def stored_answer(text: str, schema: Mapping[str, Any], usage: Mapping[str, int]) -> StoredAnswer:
    """The answer in a model's `text`, or why there is none."""
    if not text.strip():
        return StoredAnswer(None, "empty: no text", usage)
    try:
        return StoredAnswer(read_answer(text, schema), None, usage)
    except ValueError as error:
        return StoredAnswer(None, f"invalid: {error}", usage)


def read_answer(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `text` and check it against `schema`. Raises ValueError that says, in words, what does not fit."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, but no file can hold it
        raise ValueError("expected text, got a lone surrogate") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    problem = best_match(Draft202012Validator(dict(schema)).iter_errors(value))
    if problem is not None:
        # the message repeats what was found, which can be long
        raise ValueError(f"{problem.json_path}: {problem.message:.200}")
    return value


def asked_hash(request: TeacherRequest) -> str:
    """Hash of the question, whatever the model."""
    asked = {"role": request.role, "system": request.system, "prompt": request.prompt, "draw": request.draw}
    return request_key(asked | {"schema": dict(request.schema)})


def most_tokens(request: TeacherRequest) -> int:
    """An upper bound of the input tokens: no tokenizer makes more tokens than there are bytes (1,000 for markup)."""
    return len(f"{request.system}{request.prompt}{dict(request.schema)}".encode()) + 1000


def _spending(role: str, model: str, answers: Collection[StoredAnswer]) -> RoleSpending:
    tokens: Counter[str] = Counter()
    usd: float | None = 0.0
    for answer in answers:
        tokens.update(answer.usage)
        usd = None if usd is None or answer.usd is None else usd + answer.usd
    rounded = None if usd is None else round(usd, 6)
    return RoleSpending(role=role, model=model, calls=len(answers), tokens=dict(sorted(tokens.items())), usd=rounded)


def _usd(amount: float) -> str:
    """Rounded up to the cent, and below a dollar to a hundredth of it."""
    digits = 2 if amount >= 1 or amount == 0 else 4
    return f"${math.ceil(round(amount * 10**digits, 6)) / 10**digits:,.{digits}f}"
