"""The Message Batches API of the local server that tests ask: what it was given, what it charged, how it misbehaves."""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from support.local_server import Reply

_PAGE = 2  # batches of the list that are sent at a time, however many are asked for
Body = dict[str, Any]
Result = dict[str, Any]


@dataclass
class Batch:
    """`looks`: how often its state was asked for; `results`: by custom_id, of those that are decided."""

    id: str
    requests: dict[str, Body]
    created: datetime
    looks: int = 0
    results: dict[str, Result] = field(default_factory=dict)
    cuts: int = 0
    cancelled: bool = False
    ended: bool = False


class BatchDesk:
    """A batch ends at its `ends_after`th look, or a moment (`cancel_looks`) after it was cancelled. `fate` says what
    becomes of a request (custom_id, how often it was submitted): succeeded | expired | canceled | an error's type;
    `written`: the results as lines in the order in which they are sent; `on_create` may wait, or drop the answer to a
    batch that was taken (returns False); `paid` counts the requests that were charged, by custom_id."""

    def __init__(self, message: Callable[[Body], Reply]) -> None:
        self._message = message
        self.batches: dict[str, Batch] = {}
        self.paid: Counter[str] = Counter()
        self.submitted: Counter[str] = Counter()
        self.fate: Callable[[str, int], str] = lambda key, times: "succeeded"
        self.written: Callable[[list[str]], list[str]] = lambda lines: lines
        self.on_create: Callable[[int], bool] = lambda number: True
        self.refuse_create: Callable[[int], Reply | None] = lambda number: None
        self.nonsense: Callable[[int], Reply | None] = lambda number: None  # to the so-manieth request
        self.ends_after = 2
        self.cancel_looks = 1
        self.cut_results = 0  # so many times for each batch, in the middle
        self.results_delay_s = 0.0  # in the middle
        self.asked_to_create = 0
        self.seen: list[str] = []  # method and path of every request
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def sizes(self) -> list[int]:
        return [len(batch.requests) for batch in self.batches.values()]

    def serve(self, method: str, path: str, body: Body, url: str) -> Reply | None:
        """None: the connection is dropped."""
        path, _, query = path.partition("?")
        at = path.removeprefix("/v1/messages/batches").strip("/")
        with self._lock:
            self.seen.append(f"{method} {path}")
        if method == "POST" and not at:
            return self._create(body, url)
        nonsense = self.nonsense(len(self.seen))
        if nonsense is not None:
            return nonsense
        if not at:
            return self._list(query, url)
        batch = self.batches.get(at.split("/")[0])
        if batch is None:
            words = {"type": "error", "error": {"type": "not_found_error", "message": "no such batch"}}
            return Reply(404, json.dumps(words).encode())
        if at.endswith("/results"):
            return self._results(batch)
        with self._lock:
            if at.endswith("/cancel"):
                batch.cancelled, batch.looks = True, 0
            else:
                self._go_on(batch)
        return Reply(200, json.dumps(self._shown(batch, url)).encode())

    def _create(self, body: Body, url: str) -> Reply | None:
        with self._lock:
            self.asked_to_create += 1
            number = self.asked_to_create
        refused = self.refuse_create(number)
        if refused is not None:
            return refused
        requests = {one["custom_id"]: one["params"] for one in body["requests"]}
        assert len(requests) == len(body["requests"]), "custom_id must be unique"
        with self._lock:
            batch = Batch(f"msgbatch_{next(self._numbers):03d}", requests, datetime.now(UTC))
            self.batches[batch.id] = batch
            self.submitted.update(requests.keys())
        if not self.on_create(number):
            return None
        return Reply(200, json.dumps(self._shown(batch, url)).encode())

    def _list(self, query: str, url: str) -> Reply:
        options = dict(pair.split("=") for pair in query.split("&") if pair)
        with self._lock:
            newest = list(reversed(self.batches.values()))
        ids = [batch.id for batch in newest]
        start = ids.index(options["after_id"]) + 1 if "after_id" in options else 0
        some = newest[start : start + min(int(options.get("limit", 20)), _PAGE)]
        page = {
            "data": [self._shown(batch, url) for batch in some],
            "has_more": start + len(some) < len(newest),
            "first_id": some[0].id if some else None,
            "last_id": some[-1].id if some else None,
        }
        return Reply(200, json.dumps(page).encode())

    def _go_on(self, batch: Batch) -> None:
        batch.looks += 1
        if batch.ended or batch.looks < (self.cancel_looks if batch.cancelled else self.ends_after):
            return
        done = len(batch.requests) // 2 if batch.cancelled else len(batch.requests)
        for number, (key, params) in enumerate(batch.requests.items()):
            fate = self.fate(key, self.submitted[key]) if number < done else "canceled"
            reply = self._message(params) if fate == "succeeded" else None
            if reply is not None and reply.status == 200:
                batch.results[key] = {"type": "succeeded", "message": json.loads(reply.body)}
                self.paid[key] += 1
            elif reply is not None:
                batch.results[key] = {"type": "errored", "error": json.loads(reply.body)}
            elif fate in ("expired", "canceled"):
                batch.results[key] = {"type": fate}
            else:
                words = {"type": "error", "error": {"type": fate, "message": f"an {fate}"}}
                batch.results[key] = {"type": "errored", "error": words}
        batch.ended = True

    def _shown(self, batch: Batch, url: str) -> dict[str, Any]:
        counts = Counter(result["type"] for result in batch.results.values())
        kinds = ("succeeded", "errored", "canceled", "expired")
        state = "ended" if batch.ended else "canceling" if batch.cancelled else "in_progress"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": state,
            "request_counts": {kind: counts[kind] for kind in kinds}
            | {"processing": len(batch.requests) - sum(counts.values())},
            "created_at": batch.created.isoformat(),
            "expires_at": (batch.created + timedelta(hours=24)).isoformat(),
            "ended_at": None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{url}/v1/messages/batches/{batch.id}/results" if batch.ended else None,
        }

    def _results(self, batch: Batch) -> Reply:
        lines = [json.dumps({"custom_id": key, "result": result}) for key, result in batch.results.items()]
        data = "".join(f"{line}\n" for line in self.written(lines)).encode()
        with self._lock:
            cut = batch.cuts < self.cut_results
            batch.cuts += 1
        return Reply(
            200,
            data,
            {"content-type": "application/x-jsonl"},
            cut_at=len(data) // 2 if cut else None,
            pause_s=self.results_delay_s,
        )


def wait_until(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.01)
