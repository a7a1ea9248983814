"""SIGKILL at any moment of a promotion or a rollback, on a real database: aliases end as before or as after."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from pld.config.settings import load_config
from pld.registry.registry import Registry
from pld.registry.store import connect
from support.shelf import aliases, raw_aliases

MOMENTS = 50
Work = Callable[[Registry], object]


def in_a_child(work: Work, seconds: float | None = None) -> float:
    """Run `work` in a process of its own, killed after `seconds` (None: never); how long it took, once it began."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as VersionStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as RunStore

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for engine in (*RunStore._engine_map.values(), *VersionStore._engine_map.values()):
                engine.dispose(close=False)  # connections of the parent
            registry = Registry(connect(None), "mail")
            os.write(write, b"!")
            work(registry)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    assert os.read(read, 1) == b"!"
    os.close(read)
    started = time.monotonic()
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert seconds is not None or status == 0
    return time.monotonic() - started


def prompt_aliases(registry: Registry) -> dict[str, int]:
    """In the shelf version n has version n of the prompt."""
    named = f"name = '{registry.prompt}' AND tag.`mlflow.prompt.is_prompt` = 'true'"
    (found,) = registry.store.client.search_registered_models(named)
    return {alias: int(number) for alias, number in found.aliases.items()}


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_the_aliases_as_before_or_as_after(shelf: Registry) -> None:
    config = load_config()
    open_gates = config.promotion.model_copy(
        update=dict.fromkeys(("better_than_zero_shot", "not_worse_than_production"), False) | {"rivals": ()}
    )
    config = config.model_copy(update={"promotion": open_gates})
    randomly = random.Random(0)
    lasting: dict[str, float] = {}
    ends = []
    for moment in range(-2, MOMENTS):
        before, lines = aliases(shelf), len(shelf.history())
        if moment % 2:
            kind, target = "rollback", before["previous"]
            work: Work = Registry.rollback
        else:
            kind, target = "promote", randomly.choice([n for n in (1, 2, 3) if n != before["production"]])
            work = lambda registry, target=target: registry.promote(config, target)  # noqa: E731
        after = {"production": target, "previous": before["production"]}
        after |= {"candidate": 3} if before.get("candidate", target) != target else {}
        if moment < 0:
            lasting[kind] = in_a_child(work)
            assert aliases(shelf) == after
            continue
        earliest = 0 if moment % 4 < 2 else lasting[kind] / 2  # the second half is where something is written
        in_a_child(work, randomly.uniform(earliest, lasting[kind]))

        raw = raw_aliases(shelf)
        assert raw["production"] in (before["production"], target), "never missing, never anything else"
        left = aliases(shelf)
        assert left in (before, after)
        assert prompt_aliases(shelf) == left
        moves = shelf.history()
        assert len(moves) == lines + (left == after)
        assert [move.number for move in moves] == list(range(1, len(moves) + 1))
        assert all(later.was == earlier.to for earlier, later in itertools.pairwise(moves))
        ends.append((left == after, raw == left))
    assert {done for done, _ in ends} == {True, False}, "some were killed before it counted, some after"
