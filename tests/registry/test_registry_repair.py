"""What the next command does about moves that were interrupted, collided or were made past pld."""

import threading
import time
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from pld.config.settings import load_config
from pld.errors import RegistryError
from pld.registry.promotion_gates import judge
from pld.registry.registry import Registry
from pld.registry.release import fetch_release
from pld.registry.store import connect
from support.shelf import AS_FILLED, aliases, any_gates, of, raw_aliases, register
from support.stories import PROMPT


def test_promotions_at_once_leave_one_production_and_one_previous(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = any_gates()
    register(shelf.store, prompt=PROMPT + "4\n", right=0.4)
    ready = threading.Barrier(3)

    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)  # aliases were read before, and are written after
        return judge(*arguments)

    monkeypatch.setattr("pld.registry.registry.judge", slow)
    failures = []

    def promote(number: int) -> None:
        own = Registry(connect(None), "mail")
        ready.wait()
        try:
            own.promote(config, number)
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=promote, args=(number,)) for number in (1, 3, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    left = aliases(shelf)
    moves = shelf.history()
    assert (left["production"], left["previous"]) == (moves[-1].to, moves[-1].was)
    assert {move.to for move in moves[2:]} == {1, 3, 4}
    assert [move.was for move in moves[1:]] == [move.to for move in moves[:-1]], "each replaced the one judged against"
    assert "candidate" not in left


def interrupted(shelf: Registry, monkeypatch: pytest.MonkeyPatch, *, moved: bool) -> None:
    """A move to version 3 is announced, and the store goes away before or (`moved`) after production moves."""

    def gone(*_: object, **__: object) -> None:
        raise MlflowException("connection refused\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(shelf.store.client, "set_model_version_tag" if moved else "set_registered_model_alias", gone)
        if moved:
            patch.setattr(Registry, "_tag", lambda *_: None)  # of the gates, before the move
        with pytest.raises(RegistryError) as caught:
            shelf.promote(any_gates())
    assert "\n" not in str(caught.value)
    assert "connection refused" in str(caught.value)
    assert "the next `pld` command that reaches the store finishes or drops the move" in str(caught.value)
    assert raw_aliases(shelf) == (AS_FILLED | {"production": 3} if moved else AS_FILLED)


@pytest.mark.parametrize("command", ["status", "history", "promote", "rollback", "release"])
def test_an_interrupted_move_is_finished_by_the_next_command_which_says_so(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    interrupted(shelf, monkeypatch, moved=True)
    capsys.readouterr()
    later = Registry(connect(None), "mail")
    if command == "rollback":
        assert later.rollback() == (2, 3)
    elif command == "promote":
        assert later.promote(any_gates(), 3).note == "it was already"
    elif command == "release":
        assert fetch_release(load_config(), "production").number == 3
    else:
        {"status": later.versions, "history": later.history}[command]()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pld-mail: finished a move that was begun at 20" in told
    assert aliases(later) == (
        {"production": 2, "previous": 3} if command == "rollback" else {"production": 3, "previous": 2}
    )


def test_a_move_that_is_interrupted_before_production_moves_is_dropped(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(shelf, monkeypatch, moved=False)
    capsys.readouterr()
    later = Registry(connect(None), "mail")
    assert len(later.history()) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pld-mail: dropped a move that was begun at 20" in told
    assert aliases(later) == AS_FILLED


def test_aliases_that_somebody_moved_in_mlflow_are_kept_and_written_down(
    shelf: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.store.client.set_registered_model_alias("pld-mail", "production", "3")
    assert aliases(shelf) == {"production": 3, "previous": 1}
    assert "something other than pld moved its aliases; found: production version 3" in capsys.readouterr().err
    assert [(move.kind, move.was, move.to) for move in shelf.history()[2:]] == [("outside", 2, 3)]
    assert shelf.rollback() == (1, 3)


def test_an_alias_of_a_version_that_pld_did_not_register_is_refused_in_one_line(shelf: Registry) -> None:
    client = shelf.store.client
    run = of(shelf, 1).evidence_run
    client.create_model_version("pld-mail", source=client.get_run(run).info.artifact_uri, run_id=run)
    client.set_registered_model_alias("pld-mail", "production", "4")
    for command in (shelf.versions, shelf.rollback, lambda: shelf.promote(load_config(), 1)):
        with pytest.raises(RegistryError, match=r"got version 4 as production .*move that alias in MLflow") as caught:
            command()
        assert "\n" not in str(caught.value)
    assert raw_aliases(shelf) == {**AS_FILLED, "production": 4}
    client.set_registered_model_alias("pld-mail", "production", "2")
    assert aliases(shelf) == AS_FILLED


def test_a_deleted_version_leaves_a_registry_that_works(shelf: Registry) -> None:
    shelf.store.client.delete_model_version("pld-mail", "1")
    assert aliases(shelf) == {"production": 2, "candidate": 3}
    with pytest.raises(RegistryError, match="expected a previous version to roll back to, got none"):
        shelf.rollback()
    shelf.promote(any_gates())
    assert aliases(shelf) == {"production": 3, "previous": 2}


def test_with_a_deleted_history_the_aliases_stay_and_a_new_one_begins(
    shelf: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    for move in shelf.history():
        shelf.store.client.delete_model_version_tag("pld-mail", str(move.to), f"pld.move.{move.number:04}")
    assert aliases(shelf) == AS_FILLED
    assert "it had no history; found: production version 2, previous version 1" in capsys.readouterr().err
    assert [(move.kind, move.to, move.previous) for move in shelf.history()] == [("outside", 2, 1)]
    assert shelf.rollback() == (1, 2)
