"""Many requests submitted together, answered within a day at half the price (the Message Batches API).

A request's id in a batch is the key of its answer, so any result under a key is the right answer. What a batch asks is
on disk before it is submitted (batch_records), and its claims outlive the process: the next run of the task fetches the
results. If a connection or the process dies before the provider confirms a batch, the provider's list is searched for
it, since submitting it again could be paid for twice.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pld.adapters.teachers.answer_store import Entry, StoredAnswer
from pld.adapters.teachers.batch_records import BatchRecords, OpenBatch
from pld.adapters.teachers.concurrency import one_line, passes
from pld.adapters.teachers.paid_teacher import BAD_REQUEST, LOOKED_UP_AT_ONCE, Account, Call, most_tokens
from pld.errors import TeacherError
from pld.ports import TeacherRequest

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import Message
    from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

_MOST_REQUESTS = 20_000  # in a batch: the API takes 100,000, but all of a batch is in memory while it is submitted
_MOST_BYTES = 64 * 2**20  # of text in a batch: JSON's escapes make it three times as long at worst; the API: 256 MB
_SUBMIT_S = 600.0  # for the answer to a batch that is submitted
_SETTLE_S = 30.0  # after which the provider's list shows a batch that it took
_CLOCKS_S = 600.0  # by which the provider's clock and this one may differ
_FIRST_LOOK_S = 1.0  # at a batch; then twice as long each time, up to poll_s
_SILENCE_S = 900.0  # of the provider, in spite of the SDK's retries, before the run ends
_YOUNG_S = 300.0  # a 404 for a batch that is younger is not believed: it may not be visible everywhere yet
_DOUBT_S = 30.0  # for which a 404 must last at any age
_RESULTS_LAST_S = 29 * 86400.0
_TRIES = 3  # batches with a request that comes back unanswered
_AT_ONCE = 200  # results stored in one transaction
T = TypeVar("T")


class BatchTeacher(Protocol):
    """What batches need of the Teacher whose requests they carry."""

    max_retries: int

    @property
    def name(self) -> str: ...
    def client(self) -> anthropic.Anthropic: ...
    def body(self, request: TeacherRequest) -> dict[str, Any]: ...
    def max_tokens_of(self, role: str) -> int: ...
    def read_message(self, message: Message, schema: Mapping[str, Any], max_tokens: int) -> StoredAnswer: ...
    def systemic_error(self, error: Exception) -> TeacherError: ...


class Batches:
    """The batches of one `ask`: those that an earlier run left open, and new ones."""

    def __init__(self, teacher: BatchTeacher, account: Account, endpoint: str, poll_s: float) -> None:
        self._teacher = teacher
        self._account = account
        self._poll_s = poll_s
        self._records = BatchRecords(account, endpoint)
        self._open = self._records.open()
        self._pause = min(_FIRST_LOOK_S, poll_s)
        self._client_made: anthropic.Anthropic | None = None
        self._processed: dict[str, int] = {}  # requests of each batch, as last printed
        self._unanswered: Counter[str] = Counter()  # how often, by key
        self._reasons: dict[str, str] = {}

    def answers(self, calls: Mapping[str, Call], *, submit: bool) -> Iterator[tuple[str, StoredAnswer]]:
        """Each of `calls` from open batches and, if `submit`, from new ones; otherwise only what open ones ask.

        Raises BudgetError when the next call could go over the budget, and TeacherError when the provider rejects
        batches or all of their requests, or is silent for long; open batches then go on.
        """
        for batch in self._open:
            _say(f"{batch} of an earlier run is taken up again")
        waiting = dict(calls)
        while waiting:
            for batch in list(self._open):
                for key, answer in self._collect(batch, waiting):
                    if waiting.pop(key, None):
                        yield key, answer
            self._check_unanswered(waiting)
            asked = set[str]().union(*(batch.keys for batch in self._open))
            left = [call for key, call in waiting.items() if key not in asked]
            if left and submit:
                self._submit(left)
            elif len(left) == len(waiting):
                return
            if waiting and not self._open:
                raise self._account.over_budget(list(waiting.values()))
            time.sleep(self._pause if waiting else 0.0)
            self._pause = min(self._poll_s, 2 * self._pause)

    def cancel(self) -> None:
        """Have the provider stop; the next run fetches what was answered by then."""
        import anthropic

        for batch in self._open:
            if batch.id is not None:
                try:
                    self._client.messages.batches.cancel(batch.id)
                    _say(f"{batch} is cancelled")
                except anthropic.AnthropicError as error:  # it has ended, perhaps
                    _say(f"{batch} could not be cancelled: {one_line(error)}")

    def close(self) -> None:
        for batch in self._open:
            _say(f"{batch} is at the provider; the next run fetches its answers")
        if self._client_made is not None:
            self._client_made.close()

    @property
    def _client(self) -> anthropic.Anthropic:
        if self._client_made is None:
            self._client_made = self._teacher.client()
        return self._client_made

    # submitting

    def _submit(self, calls: Sequence[Call]) -> None:
        """As many of `calls` as the budget allows."""
        client = self._client  # without a key nothing is recorded
        for some in _groups(calls):
            requests = [
                {"custom_id": call.question.key, "params": _params(self._teacher.body(call.request))} for call in some
            ]
            batch = self._records.add(some, self._teacher.max_tokens_of)
            if batch is None:
                return
            self._pause = min(_FIRST_LOOK_S, self._poll_s)
            self._open.append(batch)
            count = len(batch.keys)
            self._records.confirm(batch, self._create(client, batch, requests[:count]))
            _say(f"{batch}: {_requests(count)} submitted, to be answered within 24 hours")
            if count < len(some):
                return

    def _create(self, client: anthropic.Anthropic, batch: OpenBatch, requests: Sequence[Any]) -> str:
        """The id of a new batch, which is submitted again only once it is sure that the provider did not take it."""
        import anthropic

        once = client.with_options(max_retries=0)  # a retry could submit the same batch twice
        why: Exception = TeacherError("not asked")
        for attempt in range(self._teacher.max_retries + 1):
            try:
                return str(_checked(once.messages.batches.create(requests=requests, timeout=_SUBMIT_S)).id)
            except anthropic.APIStatusError as error:
                if error.status_code == 429:  # surely not taken
                    asked_to_wait = client._parse_retry_after_header(error.response.headers)
                    wait, why = min(asked_to_wait or 0.5 * 2.0**attempt, 60.0), error
                    time.sleep(wait if attempt < self._teacher.max_retries else 0.0)
                    continue
                if not passes(error):
                    self._end(batch)
                    raise self._teacher.systemic_error(error) from None
                why = error
            except (anthropic.AnthropicError, *_NONSENSE) as error:
                why = error
            _say(f"a batch of {_requests(len(requests))} was submitted but not confirmed ({one_line(why)})")
            if found := self._find(batch):
                return found
        self._end(batch)
        raise self._teacher.systemic_error(why) from None

    def _find(self, batch: OpenBatch) -> str | None:
        """The id of an unconfirmed batch: one of the provider's list that is as new and as large, with results under
        our keys. None: the provider did not take it."""
        _say(f"looking for {batch} at the provider")
        time.sleep(_SETTLE_S)
        known = self._records.known_ids()

        def listed() -> list[MessageBatch]:
            found: list[MessageBatch] = []
            for page in self._client.messages.batches.list(limit=100).iter_pages():
                for one in map(_checked, page.data):
                    if one.created_at.timestamp() < batch.created - _CLOCKS_S:
                        return found
                    if one.id not in known and _size(one) == len(batch.keys):
                        found.append(one)
            return found

        def is_ours(batch_id: str) -> bool:
            return any(_key(line) in batch.keys for line in self._client.messages.batches.results(batch_id))

        for batch_id in [one.id for one in self._wait_for(listed)]:
            while (state := self._retrieve(batch_id, batch)) is not None and state.processing_status != "ended":
                time.sleep(self._poll_s)
            if state is not None and state.archived_at is None and self._wait_for(partial(is_ours, batch_id), batch):
                return batch_id
        return None

    # fetching

    def _collect(self, batch: OpenBatch, wanted: Mapping[str, Call]) -> Iterator[tuple[str, StoredAnswer]]:
        """One look: if `batch` has ended, store its answers, and yield those to `wanted`."""
        if not self._has_ended(batch):
            return
        bad: dict[str, StoredAnswer] = {}
        unanswered: dict[str, str] = {}
        self._wait_for(lambda: self._store_results(batch, bad, unanswered), batch)
        self._end(batch)
        self._unanswered.update(unanswered.keys())
        self._reasons |= unanswered
        yield from bad.items()
        for keys in _chunks((key for key in batch.keys if key in wanted), LOOKED_UP_AT_ONCE):
            yield from self._account.store.get_many(keys).items()

    def _has_ended(self, batch: OpenBatch) -> bool:
        expired = time.time() - batch.created > _RESULTS_LAST_S
        if batch.id is None and not expired:
            if found := self._find(batch):
                self._records.confirm(batch, found)
            else:
                self._end(batch)
                return False
        state = self._retrieve(batch.id, batch) if batch.id else None
        if state is None and not expired:  # its claims stay: none of its questions is paid for twice
            _say(f"{batch} is out of reach: use a key of the workspace that submitted it")
            self._open.remove(batch)
            return False
        if state is None or state.archived_at is not None:
            self._account.store.lose(batch.owner)
            self._end(batch)
            _say(f"{batch}: its results have expired; they count as paid for, and are asked again")
            return False
        done = _size(state) - state.request_counts.processing
        if self._processed.get(batch.owner, 0) != done:
            self._processed[batch.owner] = done
            _say(f"{batch}: {done:,} of {_size(state):,} processed")
        return state.processing_status == "ended"

    def _retrieve(self, batch_id: str, batch: OpenBatch) -> MessageBatch | None:
        """None: there is none under this id that this key may see."""
        try:
            return self._wait_for(lambda: _checked(self._client.messages.batches.retrieve(batch_id)), batch)
        except _NotThereError:
            return None

    def _store_results(self, batch: OpenBatch, bad: dict[str, StoredAnswer], unanswered: dict[str, str]) -> None:
        """Results come in any order. Raises ValueError where they break off: what came is stored."""
        seen: set[str] = set()
        for lines in _chunks(self._client.messages.batches.results(str(batch.id)), _AT_ONCE):
            by_key = {key: line for line in lines if (key := _key(line)) in batch.keys}
            entries = []
            for key, item in self._records.items(batch, by_key).items():
                answer = _read(by_key[key])
                if isinstance(answer, StoredAnswer):
                    bad[key] = answer
                elif isinstance(answer, str):
                    unanswered[key] = answer
                else:
                    read = self._teacher.read_message(answer, item.schema, item.max_tokens)
                    entries.append(Entry(item.question, read))
            self._account.keep(entries)
            seen.update(by_key)
        if missing := len(batch.keys - seen):
            raise ValueError(f"{len(seen):,} of {len(seen) + missing:,} results of {batch}")

    def _check_unanswered(self, waiting: Mapping[str, Call]) -> None:
        given_up = [key for key, count in self._unanswered.items() if count >= _TRIES and key in waiting]
        if given_up:
            raise TeacherError(
                f"expected answers to {_requests(len(given_up))}, got none in {_TRIES} batches (the last time: "
                f"{self._reasons[given_up[0]]:.120}) ({self._teacher.name}); run again later, or with "
                "teacher.way=messages: answers that arrived are kept and not paid for twice"
            )

    def _end(self, batch: OpenBatch) -> None:
        self._records.end(batch)
        self._open.remove(batch)

    def _wait_for(self, ask: Callable[[], T], batch: OpenBatch | None = None) -> T:
        """What `ask` returns, tried again for up to _SILENCE_S after errors that may pass. Raises TeacherError.

        A 404 about `batch` is tried again until the batch is _YOUNG_S old and the 404 has lasted for _DOUBT_S: what was
        just submitted isn't visible everywhere at once. Then it is _NotThereError.
        """
        import anthropic
        import httpx2

        began, pause = time.monotonic(), min(_FIRST_LOOK_S, self._poll_s)
        missing_since: float | None = None
        while True:
            try:
                return ask()
            except anthropic.NotFoundError as error:
                if batch is None:
                    raise self._teacher.systemic_error(error) from None
                now = time.time()
                if missing_since is None:
                    missing_since = now
                    _say(f"{batch} is not visible (status 404); asking again")
                if now >= max(batch.created + _YOUNG_S, missing_since + _DOUBT_S):
                    raise _NotThereError(
                        f"expected the results of {batch}, got status 404 for {now - missing_since:.0f} s: "
                        f"{one_line(error)} ({self._teacher.name}); run again later with a key of the workspace that "
                        "submitted it: its questions are not paid for twice"
                    ) from None
                why = one_line(error)
            except (anthropic.AnthropicError, httpx2.HTTPError, *_NONSENSE) as error:
                if isinstance(error, anthropic.AnthropicError) and not passes(error):
                    raise self._teacher.systemic_error(error) from None
                why = one_line(error)
            silent = time.monotonic() - began
            if silent > _SILENCE_S:
                raise TeacherError(
                    f"expected word of {len(self._open):,} batches, got none for {silent / 60:.0f} minutes: {why} "
                    f"({self._teacher.name}); they go on at the provider: check the network and ANTHROPIC_BASE_URL and "
                    "run again, it takes them up"
                )
            time.sleep(pause)
            pause = min(self._poll_s, 2 * pause)


class _NotThereError(TeacherError):
    """A 404 that did not pass."""


_NONSENSE = (AttributeError, TypeError, ValueError)  # the SDK does not check what a server sends


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _groups(calls: Sequence[Call]) -> Iterator[list[Call]]:
    """As many calls at a time as fit in a batch."""
    some: list[Call] = []
    size = 0
    for call in calls:
        more = most_tokens(call.request)
        if some and (len(some) == _MOST_REQUESTS or size + more > _MOST_BYTES):
            yield some
            some, size = [], 0
        some.append(call)
        size += more
    yield some


def _params(body: dict[str, Any]) -> dict[str, Any]:
    """What `messages.create` would send."""
    extra: dict[str, Any] = body.get("extra_body", {})
    return {name: value for name, value in body.items() if name != "extra_body"} | extra


def _read(line: MessageBatchIndividualResponse) -> Message | StoredAnswer | str:
    """The message of a request that succeeded; the answer to one that was rejected; or why there is neither."""
    from anthropic.types import Message

    try:
        result = line.result
        if result.type == "succeeded":
            message = result.message
            readable = isinstance(message, Message) and message.usage and message.content is not None
            return message if readable else f"not a message: {result!r:.80}"
        if result.type == "errored":
            kind, words = result.error.error.type, " ".join(str(result.error.error.message).split())
            if kind == "invalid_request_error":
                return StoredAnswer(None, f"{BAD_REQUEST}: {words:.200}", {})
            return f"{kind}: {words}"
        return str(result.type)
    except AttributeError:
        return f"not a result: {line!r:.80}"


def _key(line: Any) -> str:
    return str(getattr(line, "custom_id", ""))


def _checked(found: MessageBatch) -> MessageBatch:
    """Raises ValueError for what is no batch."""
    if not (getattr(found, "id", None) and getattr(found, "request_counts", None) and found.created_at):
        raise ValueError(f"no batch: {found!r:.80}")
    return found


def _size(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


def _requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
