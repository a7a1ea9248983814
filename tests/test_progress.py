import sys

from pld import progress as module
from pld.progress import progress


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_long_work_off_a_terminal_says_a_line_every_ten_per_cent(capsys, monkeypatch):
    monkeypatch.setattr(module, "DELAY_S", -1.0)
    with progress("embed", 40) as advance:
        for _ in range(40):
            advance(1)
    assert lines(capsys) == [f"embed: {4 * i}/40 ({10 * i} %)" for i in range(1, 11)]


def test_short_work_says_nothing(capsys):
    with progress("embed", 40) as advance:
        advance(40)
    assert lines(capsys) == []


def test_work_on_nothing_ends(capsys):
    with progress("embed", 0):
        pass
    assert lines(capsys) == []


def test_on_a_terminal_it_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(module, "DELAY_S", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("embed", 2) as advance:
        advance(1)
    assert "embed" in capsys.readouterr().err
