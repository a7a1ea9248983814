"""Many requests handed in together, answered within a day for half the price (the Message Batches API).

A request's id in a batch is the key of its answer, so any result under a wanted key is the right answer, whichever
batch and whichever process asked for it. What a batch asks is on disk before it is handed in (batch_log), and its
claims outlive the process: a process that dies at any moment leaves a batch that the next one takes over. Where it is
not known whether a batch was taken (the process or the connection died meanwhile), the provider's list says it:
handing it in again could be paid for twice.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pld.adapters.teachers.answer_store import Kept, StoredAnswer
from pld.adapters.teachers.batch_log import BatchLog, Item, OpenBatch
from pld.adapters.teachers.paid import TURNED_DOWN, Call, Ledger, most_tokens
from pld.adapters.teachers.sdk_faults import words_of
from pld.errors import TeacherError
from pld.ports import TeacherRequest

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import Message
    from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

_MOST_REQUESTS = 20_000  # in a batch: the API takes 100,000, but all of a batch is in memory while it is handed in
_MOST_BYTES = 64 * 2**20  # of text in a batch: JSON's escapes make it three times as long at worst; the API: 256 MB
_HAND_IN_S = 600.0  # for the answer to a batch that is handed in
_SETTLE_S = 30.0  # after which a batch that was handed in is in the provider's list, or was not taken
_CLOCKS_S = 600.0  # which the provider's clock and this one may be apart
_LOOK_AGAIN_S = 0.25  # at what another process is asking
_FIRST_LOOK_S = 1.0  # at a batch; then twice as long each time, up to poll_s
_SILENCE_S = 900.0  # of the provider, in spite of the SDK's retries, before the run ends
_CANCEL_S = 120.0  # for a batch to end after it was cancelled
_RESULTS_LAST_S = 29 * 86400.0
_IN_BATCHES = 3  # a request that is never answered
_FETCHES = 5  # of results that break off
_FETCH_PAUSE_S = 1.0
_AT_ONCE = 200  # results kept in one transaction
_TURNED_DOWN_AT_LEAST = 5  # all of a batch: it is not the requests, it is the settings
_SYSTEMIC = {"authentication_error": 401, "billing_error": 402, "permission_error": 403, "not_found_error": 404}


@dataclass(frozen=True)
class Desk:
    """Where and how a Teacher hands batches in. `body`: the parameters of a request; `read`: an answer from a message,
    its schema and its limit of tokens; `fault`: the SDK's error as one line; `remedies`: what to do, by status."""

    name: str
    endpoint: str
    connect: Callable[[], anthropic.Anthropic]
    body: Callable[[TeacherRequest], dict[str, Any]]
    max_tokens_of: Callable[[str], int]
    read: Callable[[Message, Mapping[str, Any], int], StoredAnswer]
    fault: Callable[[anthropic.AnthropicError], TeacherError]
    remedies: Mapping[int, str]
    poll_s: float
    max_retries: int


class _NotThereError(TeacherError):
    """A batch that this key does not reach."""


@dataclass
class _Results:
    """What a batch brought; `again`: neither answered nor paid for."""

    left: set[str]  # keys without a result
    seen: set[str] = field(default_factory=set)  # ids, foreign ones too
    turned_down: dict[str, StoredAnswer] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    systemic: str | None = None
    status: int = 0


class Batches:
    """The batches that one `ask` hands in or takes over, all in its own thread."""

    def __init__(self, desk: Desk, ledger: Ledger) -> None:
        self._desk = desk
        self._ledger = ledger
        self._log = BatchLog(ledger.store, desk.endpoint, ledger.owner)
        self._connected: anthropic.Anthropic | None = None
        self._kept: dict[str, OpenBatch] = {}
        self._inside: dict[str, set[str]] = {}  # the keys of each
        self._left: set[str] = set()  # not to be taken over again
        self._unconfirmed_since: dict[str, float] = {}
        self._shown: dict[str, int] = {}  # how many of each were processed
        self._in_vain: Counter[str] = Counter()  # batches that came back without an answer, by key
        self._said: dict[str, str] = {}  # why, by key
        self._not_taken = 0
        self._next_look = 0.0
        self._pause = min(_FIRST_LOOK_S, desk.poll_s)
        self._silent_since: float | None = None
        self._changed = True  # since requests were last handed in, money may have come free

    def answers(self, calls: Mapping[str, Call]) -> Iterator[tuple[str, StoredAnswer]]:
        """Each of `calls`, from batches that are open, from new ones, or from other processes that ask it now.

        Raises BudgetError when the next call could go over the budget, and TeacherError when the provider turns
        batches or all of their requests down, or is silent for long; batches that are under way then go on.
        """
        waiting, full = dict(calls), False
        while waiting:
            for key, answer in self.look(waiting):
                if waiting.pop(key, None):
                    yield key, answer
            self._check_in_vain(waiting)
            # one at a time is unconfirmed: a second one of its size could pass for it
            if (self._changed or not full) and all(batch.id for batch in self._kept.values()):
                self._changed = full = False
                inside = set[str]().union(*self._inside.values())
                left = [call for key, call in waiting.items() if key not in inside]
                for some in _groups(left):
                    verdicts = self._hand_in(some)
                    full |= "full" in verdicts.values()
                    ready = [key for key, verdict in verdicts.items() if verdict == "answered"]
                    for key, answer in self._ledger.store.get_many(ready).items():
                        del waiting[key]
                        yield key, answer
                    if not all(batch.id for batch in self._kept.values()):
                        break
            if waiting and not self._kept:
                self._ledger.store.end_claims_of_the_dead()
                if full and not self._ledger.others_are_asking():
                    raise self._ledger.over_budget(list(waiting.values()))
                full = False
            if waiting:
                pause = self._next_look - time.monotonic() if self._kept else _LOOK_AGAIN_S
                time.sleep(max(0.0, pause))

    def look(self, wanted: Mapping[str, Call]) -> Iterator[tuple[str, StoredAnswer]]:
        """One look, if it is time, at each batch that concerns `wanted` or the task's money and that no other living
        process keeps: what it answered is kept, and yielded, whoever wanted it."""
        if time.monotonic() < self._next_look:
            return
        for batch in self._log.take_over(self._ledger.terms.task, wanted, self._left):
            self._keep(batch, self._log.keys(batch.owner))
            _say(f"{_named(batch)} of an earlier run is taken up again")
        for batch in list(self._kept.values()):
            try:
                yield from self._look_at(batch)
            except _NotThereError as error:
                if not self._inside[batch.owner].isdisjoint(wanted):
                    raise
                _say(str(error))
                self._leave(batch.owner)
        self._next_look = time.monotonic() + self._pause
        self._pause = min(self._desk.poll_s, 2 * self._pause)

    def cancel(self) -> None:
        """Have the provider stop, and keep what was answered by then."""
        try:
            client = self._client().with_options(max_retries=2) if self._kept else None
            ending = []
            for batch in list(self._kept.values()):
                if client is None or batch.id is None or not batch.sure:
                    continue  # it may be somebody else's
                _say(f"{_named(batch)} is cancelled; waiting for what is answered (Ctrl-C again: leave at once)")
                self._cancel_at(client, batch.id)
                ending.append(batch)
            until, pause = time.monotonic() + _CANCEL_S, min(_FIRST_LOOK_S, self._desk.poll_s)
            while ending and time.monotonic() < until:
                for batch in list(ending):
                    for _ in self._look_at(batch):  # what it answered is kept
                        pass
                    if batch.owner not in self._kept:
                        ending.remove(batch)
                time.sleep(pause if ending else 0.0)
        except TeacherError as error:
            _say(str(error))

    def close(self) -> None:
        for batch in self._kept.values():
            goes_on = "goes on at the provider; the next run takes it up"
            _say(f"{_named(batch)} {goes_on if batch.id else 'may go on at the provider; the next run looks for it'}")
        if self._connected is not None:
            self._connected.close()

    def _client(self) -> anthropic.Anthropic:
        if self._connected is None:
            self._connected = self._desk.connect()
        return self._connected

    def _keep(self, batch: OpenBatch, keys: set[str]) -> None:
        self._kept[batch.owner], self._inside[batch.owner] = batch, keys
        self._pause = min(_FIRST_LOOK_S, self._desk.poll_s)
        self._next_look = time.monotonic() + self._pause

    def _end(self, owner: str) -> None:
        self._log.end(owner)
        del self._kept[owner], self._inside[owner]
        self._changed = True

    def _leave(self, owner: str) -> None:
        """To whoever can reach it."""
        self._log.leave(owner)
        self._left.add(owner)
        del self._kept[owner], self._inside[owner]

    def _hand_in(self, calls: Sequence[Call]) -> Mapping[str, str]:
        """As many of `calls` as can be claimed, in a batch."""
        client = self._client()  # without a key there is no batch
        owner = self._log.begin()
        try:
            verdicts = self._ledger.claim(calls, owner)
            claimed = [call for call in calls if verdicts[call.question.key] == "claimed"]
            requests = [
                {"custom_id": call.question.key, "params": _params(self._desk.body(call.request))} for call in claimed
            ]
        except BaseException:
            self._log.end(owner)
            raise
        if not claimed:
            self._log.end(owner)
            return verdicts
        items = [
            Item(call.question, call.request.schema, self._desk.max_tokens_of(call.request.role)) for call in claimed
        ]
        batch = self._log.sent(owner, items)
        self._keep(batch, {call.question.key for call in claimed})
        if batch_id := self._create(client, owner, requests):
            self._log.known_as(owner, batch_id, sure=True)
            self._kept[owner] = replace(batch, id=batch_id, sure=True)
            self._not_taken = 0
            _say(f"batch {batch_id}: {_requests(len(claimed))} handed in, to be answered within 24 hours")
        return verdicts

    def _create(self, client: anthropic.Anthropic, owner: str, requests: Sequence[Any]) -> str | None:
        """The id of a new batch; None: it is not known whether it was taken."""
        import anthropic

        why: anthropic.AnthropicError = anthropic.AnthropicError("not asked")
        once = client.with_options(max_retries=0)  # a retry could hand the same batch in twice
        for attempt in range(self._desk.max_retries + 1):
            try:
                made = once.messages.batches.create(requests=requests, timeout=_HAND_IN_S)
            except anthropic.APIStatusError as error:
                if error.status_code == 429 and attempt < self._desk.max_retries:  # surely not taken
                    time.sleep(_pause_named(error, attempt))
                    continue
                if not _passing(error) or error.status_code == 429:
                    self._end(owner)
                    raise self._not_accepted(error, len(requests)) from None
                why = error
            except anthropic.AnthropicError as error:
                why = error
            else:
                if _is_batch(made):
                    return made.id
                why = _no_batch(made)
            break
        self._not_taken += 1
        if self._not_taken > self._desk.max_retries:
            raise self._desk.fault(why) from None
        _say(
            f"a batch of {_requests(len(requests))} was handed in, but not confirmed ({words_of(why)}): looking for it"
        )
        return None

    def _look_at(self, batch: OpenBatch) -> Iterator[tuple[str, StoredAnswer]]:
        import anthropic

        if batch.id is None:
            self._settle(batch)
            return
        try:
            found = self._client().messages.batches.retrieve(batch.id)
        except anthropic.NotFoundError as error:
            if batch.sure:
                self._not_there(batch, error)
            else:
                self._not_it(batch, batch.id)
            return
        except anthropic.AnthropicError as error:
            self._bear(error)
            return
        if not _is_batch(found):
            self._bear(_no_batch(found))
            return
        self._silent_since = None
        total = _total(found)
        done = total - found.request_counts.processing
        if self._shown.get(batch.owner, 0) != done:
            self._shown[batch.owner] = done
            _say(f"batch {batch.id}: {done:,} of {total:,} processed")
        if found.archived_at is not None:
            self._lose(batch)
        elif found.processing_status == "ended":
            yield from self._collect(batch, batch.id, total)

    def _settle(self, batch: OpenBatch) -> None:
        """Was it taken? Of the provider's batches that are new since then, as large, and not known here, the oldest."""
        import anthropic

        others, found = self._log.sure_ids().union(batch.foreign_ids), None
        try:
            for listed in self._listed():
                if listed.created_at.timestamp() < batch.created - _CLOCKS_S:
                    break
                if listed.id not in others and _total(listed) == batch.size:
                    found = listed.id
        except anthropic.AnthropicError as error:
            self._bear(error)
            return
        self._silent_since = None
        if found is not None:
            self._not_taken = 0
            self._log.known_as(batch.owner, found, sure=False)
            self._kept[batch.owner] = replace(batch, id=found)
            _say(f"batch {found} is as large and as old as the one that was not confirmed: its results will tell")
        elif time.monotonic() - self._unconfirmed_since.setdefault(batch.owner, time.monotonic()) > _SETTLE_S:
            self._end(batch.owner)

    def _listed(self) -> Iterator[MessageBatch]:
        """The workspace's batches, the newest first. Raises AnthropicError, also for what is no list."""
        try:
            for page in self._client().messages.batches.list(limit=100).iter_pages():
                if not isinstance(page.data, list) or not all(map(_is_batch, page.data)):
                    raise _no_batch(page)
                yield from page.data
        except AttributeError as error:  # the SDK does not check what it is given
            raise _no_batch(error) from None

    def _not_it(self, batch: OpenBatch, batch_id: str) -> None:
        self._log.not_it(batch)
        self._kept[batch.owner] = replace(batch, id=None, foreign_ids=(*batch.foreign_ids, batch_id))

    def _collect(self, batch: OpenBatch, batch_id: str, total: int) -> Iterator[tuple[str, StoredAnswer]]:
        """Results in any order, each once; fetched again where they break off."""
        import anthropic
        import httpx2

        results = _Results(self._log.keys(batch.owner))
        mine, found = len(results.left), f"{total:,} results"
        for attempt in range(_FETCHES):
            try:
                for some in _some_at_once(self._results(batch_id)):
                    yield from self._keep_results(batch.owner, some, results)
            except anthropic.APIStatusError as error:
                if not _passing(error):
                    raise self._desk.fault(error) from None
                found = words_of(error)
            except (anthropic.AnthropicError, httpx2.HTTPError, ValueError) as error:
                found = words_of(error)
            if len(results.seen) >= total:
                break
            time.sleep(_FETCH_PAUSE_S * attempt)
        else:
            raise TeacherError(
                f"{self._desk.name}: wanted {total:,} results of batch {batch_id}, found {len(results.seen):,} "
                f"({found}); run again: they are fetched anew, and not paid for twice"
            )
        if not batch.sure and len(results.left) == mine:
            self._not_it(batch, batch_id)
            return
        if not batch.sure:
            self._log.known_as(batch.owner, batch_id, sure=True)
        self._end(batch.owner)
        for key in results.left:
            results.again[key] = "it has no result"
        self._in_vain.update(results.again.keys())
        self._said |= results.again
        self._check_turned_down(results, mine)
        yield from results.turned_down.items()
        if results.systemic is not None:
            raise TeacherError(
                f"{self._desk.name}: wanted answers of batch {batch_id}, found {results.systemic:.200}; "
                f"{self._desk.remedies[results.status]}, then run again: answers that arrived are kept"
            )

    def _results(self, batch_id: str) -> Iterable[MessageBatchIndividualResponse]:
        try:
            return self._client().messages.batches.results(batch_id)
        except AttributeError as error:  # the SDK does not check what it is given
            raise _no_batch(error) from None

    def _keep_results(
        self, owner: str, lines: Sequence[MessageBatchIndividualResponse], results: _Results
    ) -> Iterator[tuple[str, StoredAnswer]]:
        kept = []
        found = {line.custom_id: line for line in lines if isinstance(getattr(line, "custom_id", None), str)}
        items = self._log.items(owner, results.left.intersection(found))
        for key, item in items.items():
            message = _message(found[key], key, results)
            if message is not None:
                kept.append(Kept(item.question, self._desk.read(message, item.schema, item.max_tokens)))
        stored = self._ledger.keep_many(kept) if kept else []
        results.left.difference_update(items)
        results.seen.update(found)
        yield from zip((one.question.key for one in kept), stored, strict=True)

    def _check_turned_down(self, results: _Results, mine: int) -> None:
        if len(results.turned_down) == mine >= _TURNED_DOWN_AT_LEAST:
            raise TeacherError(
                f"{self._desk.name}: wanted answers, but each of the {mine:,} requests of a batch was turned down: "
                f"{next(iter(results.turned_down.values())).error}; check the settings in conf/teacher/"
            )

    def _check_in_vain(self, waiting: Mapping[str, Call]) -> None:
        given_up = [key for key, count in self._in_vain.items() if count >= _IN_BATCHES and key in waiting]
        if given_up:
            raise TeacherError(
                f"{self._desk.name}: wanted answers to {_requests(len(given_up))}, found none in {_IN_BATCHES} batches "
                f"(the last time: {self._said[given_up[0]]:.120}); run again later, or with teacher.way=messages: "
                "answers that arrived are kept and not paid for twice"
            )

    def _not_accepted(self, error: anthropic.APIStatusError, size: int) -> TeacherError:
        if error.status_code in self._desk.remedies:
            return self._desk.fault(error)
        return TeacherError(
            f"{self._desk.name}: wanted to hand in a batch of {_requests(size)}, found status {error.status_code}: "
            f"{words_of(error)}; check the settings in conf/teacher/, or set "
            "teacher.way=messages"
        )

    def _not_there(self, batch: OpenBatch, error: anthropic.NotFoundError) -> None:
        age = time.time() - batch.created
        if age > _RESULTS_LAST_S:
            self._lose(batch)
            return
        raise _NotThereError(
            f"{self._desk.name}: wanted {_named(batch)}, found status 404: {words_of(error)}; use a key of the "
            "workspace that it was handed in with (what it was asked is asked again when its results have expired, in "
            f"{(_RESULTS_LAST_S - age) / 86400:.0f} days)"
        )

    def _lose(self, batch: OpenBatch) -> None:
        self._ledger.store.lose(batch.owner)
        self._end(batch.owner)
        _say(f"{_named(batch)}: its results are not to be had any more; they count as paid for, and are asked again")

    def _bear(self, error: anthropic.AnthropicError) -> None:
        """A fault that may pass. Raises TeacherError for others, and when it does not pass for long."""
        if not _passing(error):
            raise self._desk.fault(error) from None
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since > _SILENCE_S:
            raise TeacherError(
                f"{self._desk.name}: wanted word of {len(self._kept):,} batches, found none for "
                f"{(now - self._silent_since) / 60:.0f} minutes ({words_of(error)}); they go on at "
                "the provider: check the network and run again, it takes them up"
            )

    def _cancel_at(self, client: anthropic.Anthropic, batch_id: str) -> None:
        import anthropic

        try:
            client.messages.batches.cancel(batch_id)
        except anthropic.APIStatusError as error:
            if _passing(error):
                raise self._desk.fault(error) from None
            # it has ended by itself: its results say how
        except anthropic.AnthropicError as error:
            raise self._desk.fault(error) from None


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
    if some:
        yield some


def _some_at_once(
    lines: Iterable[MessageBatchIndividualResponse],
) -> Iterator[list[MessageBatchIndividualResponse]]:
    """Also those before a fault, which is raised after them."""
    some: list[MessageBatchIndividualResponse] = []
    try:
        for line in lines:
            some.append(line)
            if len(some) == _AT_ONCE:
                yield some
                some = []
    except Exception:
        yield some
        raise
    yield some


def _params(body: dict[str, Any]) -> dict[str, Any]:
    """What `messages.create` would send."""
    params = dict(body)
    params |= params.pop("extra_body", {})
    return params


def _message(line: MessageBatchIndividualResponse, key: str, results: _Results) -> Message | None:
    """The message of a request that succeeded; of another, `results` learns why."""
    from anthropic.types import Message

    try:
        result = line.result
        if result.type == "succeeded":
            if isinstance(result.message, Message) and result.message.usage and result.message.content is not None:
                return result.message
            results.again[key] = f"not a message: {result!r:.80}"
        elif result.type == "errored":
            kind, words = result.error.error.type, " ".join(str(result.error.error.message).split())
            if kind == "invalid_request_error":
                results.turned_down[key] = StoredAnswer(None, f"{TURNED_DOWN}: {words:.200}", {})
                return None
            results.again[key] = f"{kind}: {words}"
            if kind in _SYSTEMIC:
                results.systemic, results.status = results.again[key], _SYSTEMIC[kind]
        else:
            results.again[key] = str(result.type)
    except AttributeError:  # the SDK does not check what it is given
        results.again[key] = f"not a result: {line!r:.80}"
    return None


def _is_batch(found: MessageBatch) -> bool:
    """The SDK does not check what it is given."""
    return bool(getattr(found, "id", None) and getattr(found, "request_counts", None) and found.created_at)


def _no_batch(found: object) -> anthropic.AnthropicError:
    import anthropic

    return anthropic.AnthropicError(f"wanted a batch, found {found!r:.80}; check ANTHROPIC_BASE_URL")


def _total(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


def _passing(error: anthropic.AnthropicError) -> bool:
    status = getattr(error, "status_code", None)
    return status is None or status in (408, 409, 429) or status >= 500


def _pause_named(error: anthropic.APIStatusError, attempt: int) -> float:
    """By the header retry-after, in seconds, a minute at most."""
    try:
        named = float(error.response.headers.get("retry-after-ms", "")) / 1000
    except ValueError:
        try:
            named = float(error.response.headers.get("retry-after", ""))
        except ValueError:
            named = 0.5 * 2.0**attempt
    return min(max(named, 0.0), 60.0)


def _requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"


def _named(batch: OpenBatch) -> str:
    return f"batch {batch.id}" if batch.id else f"a batch of {_requests(batch.size)} that was not confirmed"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
