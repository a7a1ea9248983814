"""docs/reference/data-files.md is true: its task file is read, its table and its errors are what a user sees."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pld.config.settings import check
from pld.data.readers import read
from pld.data.splits import assemble
from pld.errors import DataError
from pld.stages.prepare import table
from pld.task_params import TaskParams

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/data-files.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ERRORS = [text.strip() for language, text in BLOCKS if not language and "expected " in text]
CLAIMS = Path("assets/corpus/records/claims.csv")  # which a task names as data/records/claims.csv


@pytest.fixture(autouse=True)
def _claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's claims.csv: the shipped tickets without subjects, under other names."""
    monkeypatch.chdir(tmp_path)
    CLAIMS.parent.mkdir(parents=True)
    with (ROOT / "assets/corpus/records/tickets.csv").open(newline="", encoding="utf-8") as file:
        tickets = list(csv.DictReader(file))
    with CLAIMS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["claim_no", "text", "department", "policy"])
        for ticket in tickets:
            number = ticket["ticket_id"][2:]
            writer.writerow([f"C-{number}", ticket["body"], ticket["outcome"], f"P-{number[-2:]}"])


def _task() -> TaskParams:
    (settings,) = [text for language, text in BLOCKS if language == "yaml" and text.startswith("name: claims")]
    return check(TaskParams, yaml.safe_load(settings), "docs/reference/data-files.md")


def _change(change: Callable[[str], str]) -> None:
    with CLAIMS.open(newline="", encoding="utf-8") as file:
        text = file.read()
    CLAIMS.write_bytes(change(text).encode())


def _utf16() -> None:
    CLAIMS.write_bytes(CLAIMS.read_text(encoding="utf-8").encode("utf-16"))


def _repeated_text_with_another_label() -> None:
    with CLAIMS.open(newline="", encoding="utf-8") as file:
        row = list(csv.reader(file))[4]
    _change(lambda text: f'{text}C-9,"{row[1]}",account,P-1\r\n')


FAULTS: list[Callable[[], object]] = [
    lambda: _change(lambda text: text.replace(",technical,", ",Technical,")),
    lambda: _change(lambda text: text.replace("department", "team", 1)),
    _utf16,
    lambda: _change(lambda text: text.replace(",", ";")),
    lambda: CLAIMS.write_bytes(CLAIMS.read_bytes() + "C-9,kein Anschluß,billing,P-9\r\n".encode("cp1252")),
    lambda: _change(lambda text: text + "C-9,one, two, three,billing,P-9\r\n"),
    lambda: _change(lambda text: text + 'C-8,"the quote stays open,billing,P-9\r\nC-9,as before,billing,P-9\r\n'),
    lambda: _change(lambda text: text + "C-9, ,billing,P-9\r\n"),
    lambda: _change(lambda text: text + "C-1044,the same number again,billing,P-9\r\n"),
    _repeated_text_with_another_label,
    CLAIMS.unlink,
]


def test_the_page_shows_an_error_for_each_fault_tried_here() -> None:
    assert len(ERRORS) == len(FAULTS)


@pytest.mark.parametrize(("fault", "shown"), list(zip(FAULTS, ERRORS, strict=False)))
def test_each_error_on_the_page_is_what_the_fault_says(fault: Callable[[], object], shown: str) -> None:
    fault()
    with pytest.raises(DataError) as caught:
        assemble(_task(), read(_task()))
    assert str(caught.value) == shown


def test_the_table_on_the_page_is_what_prepare_prints() -> None:
    task = _task()
    _, summary = assemble(task, read(task))
    assert f"```\n{table(summary, task.reader.path)}\n```" in PAGE
