import csv
import errno
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.artifacts import (
    atomic_folder,
    atomic_path,
    csv_line,
    file_sha256,
    read_jsonl,
    read_prompt,
    write_jsonl,
    write_prompt,
    write_text,
)
from pld.errors import ArtifactError
from pld.records import Cut, Message, prompt_sha256


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_takes_the_place_of_the_old_one_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "f"
    with atomic_folder(folder) as temporary:
        write_text(temporary / "one", "1")
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        raise RuntimeError
    assert [found.name for found in folder.iterdir()] == ["one"]
    with atomic_folder(folder) as temporary:
        write_text(temporary / "two", "2")
    assert [found.name for found in folder.iterdir()] == ["two"]
    assert [found.name for found in tmp_path.iterdir()] == ["f"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "f"
    with atomic_folder(folder) as temporary:
        write_text(temporary / "one", "1")
    rename = Path.rename

    def fails_on_the_new(self, target):
        if (self / "two").exists():
            raise OSError(errno.EIO, "Input/output error", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_on_the_new)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(folder) as temporary:
        write_text(temporary / "two", "2")
    assert [str(found.relative_to(tmp_path)) for found in sorted(tmp_path.rglob("*"))] == ["f", "f/one"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "disk/f").mkdir(parents=True)
    (tmp_path / "disk/f/one").touch()
    (tmp_path / "f").symlink_to("disk/f")
    with atomic_folder(tmp_path / "f") as temporary:
        write_text(temporary / "two", "2")
    assert (tmp_path / "f").is_symlink()
    assert [found.name for found in (tmp_path / "disk/f").iterdir()] == ["two"]
    assert sorted(found.name for found in (tmp_path / "disk").iterdir()) == ["f"]


FILL_A_MOUNT_POINT = """
import sys
from pathlib import Path
from pld.artifacts import atomic_folder

with atomic_folder(Path("splits")) as folder:
    (folder / "new").write_text("new")
    (folder / "both").write_text("x" * int(sys.argv[1]))
"""


@pytest.mark.parametrize(("size", "held"), [(3, "both new "), (60_000, "both old ")])
def test_a_mount_point_is_filled_and_keeps_the_old_files_when_the_new_ones_do_not_fit(tmp_path, size, held):
    (tmp_path / "splits").mkdir()
    (tmp_path / "fill.py").write_text(FILL_A_MOUNT_POINT)
    script = (
        "mount -t tmpfs -o size=32k none splits && touch splits/old splits/both || exit 77; "
        f'"$0" fill.py {size} 2>error; ls splits | tr "\\n" " "; cat error >&2'
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount")
    assert done.stdout == held, done.stderr
    assert ("No space left" in done.stderr) == (size > 3)


def test_records_come_back_as_they_were_written_line_separators_included(tmp_path):
    records = [Cut(instruction_id="a\u2028b\x85", reason="ü\n"), Cut(instruction_id="", reason="")]
    write_jsonl(tmp_path / "r.jsonl", records)
    assert read_jsonl(tmp_path / "r.jsonl", Cut) == records
    assert (tmp_path / "r.jsonl").read_bytes().endswith(b"\n")


def test_a_line_that_is_no_record_names_file_line_and_key(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"instruction_id": "a", "reason": "b"}\n{"instruction_id": "a", "rason": "b"}\n')
    with pytest.raises(ArtifactError, match=r"expected a Cut, got .* at reason \(.*r\.jsonl:2\)"):
        read_jsonl(tmp_path / "r.jsonl", Cut)


def test_a_missing_file_says_which_command_makes_it(tmp_path):
    with pytest.raises(ArtifactError, match="dvc repro"):
        read_jsonl(tmp_path / "r.jsonl", Cut)


@pytest.mark.parametrize(
    ("process", "remedy"),
    [(os.getpid(), "wait for `dvc repro extract`"), (2**22 + 1, "run `dvc")],
    ids=["running", "ended"],
)
def test_a_file_that_a_running_stage_will_write_says_to_wait(process, remedy, project):
    """As DVC 3.67 notes it; a process that was killed leaves its note."""
    note = {"read": {}, "write": {"/p/artifacts/rules": {"pid": process, "cmd": "dvc repro extract"}}}
    Path(".dvc/tmp").mkdir(parents=True)
    Path(".dvc/tmp/rwlock").write_text(json.dumps(note))
    with pytest.raises(ArtifactError, match=remedy):
        read_jsonl(Path("artifacts/rules/rules.jsonl"), Cut)


@given(st.lists(st.text(), min_size=1))
def test_any_row_of_texts_comes_back_from_a_csv_line(cells):
    assert next(csv.reader(io.StringIO(csv_line(cells) + "\n", newline=""), strict=True)) == cells


def test_a_files_sha256_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"a\r\n\0")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"a\r\n\0").hexdigest()


CHAT = (
    Message(role="system", content="Answer “a” or b.\r\n"),
    Message(role="user", content='{"x": 1}\u2028 {{ y }}'),
    Message(role="assistant", content="a"),
)


@pytest.mark.parametrize("messages", [CHAT, CHAT[:1]])
def test_a_prompt_reads_back_byte_for_byte(messages, tmp_path):
    write_prompt(tmp_path, messages)
    assert read_prompt(tmp_path) == messages
    assert (tmp_path / "system_prompt.md").read_bytes() == messages[0].content.encode()
    assert prompt_sha256(read_prompt(tmp_path)) == prompt_sha256(messages)


@pytest.mark.parametrize(
    ("name", "held", "told"),
    [
        ("system_prompt.md", b"another", "expected the system message of .*messages.json, got another text"),
        ("system_prompt.md", b"\xff", "expected UTF-8"),
        ("messages.json", b"[]", "expected a Message, got .*at least 1 item"),
        ("messages.json", b'[{"role": "tool", "content": "x"}]', "expected a Message, got .*0.role"),
        ("messages.json", None, "got no such file .*run `dvc repro`"),
    ],
)
def test_a_prompt_whose_files_are_missing_or_disagree_is_refused(name, held, told, tmp_path):
    write_prompt(tmp_path, CHAT)
    (tmp_path / name).unlink()
    if held is not None:
        (tmp_path / name).write_bytes(held)
    with pytest.raises(ArtifactError, match=told):
        read_prompt(tmp_path)


@pytest.mark.parametrize("at", [1, 2])
def test_ctrl_c_between_two_renames_loses_neither_the_old_folder_nor_its_name(at, tmp_path, monkeypatch):
    folder = tmp_path / "trials"
    folder.mkdir()
    (folder / "old").write_text("kept")
    calls, rename = [], Path.rename

    def interrupted(self, target):
        calls.append(target)
        if len(calls) == at:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as temporary:
        (temporary / "new").write_text("written")
    assert [path.name for path in tmp_path.iterdir()] == ["trials"]
    assert (folder / "old").read_text() == "kept"
