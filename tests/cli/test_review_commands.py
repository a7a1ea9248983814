import contextlib
import io
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pld.artifacts import SHIPS, read_prompt, read_record, write_json, write_jsonl, write_prompt, write_text
from pld.cli.main import main, pld
from pld.distill.render import prompt_messages
from pld.records import Message, Reviewed, prompt_sha256, sha256
from pld.review.decisions import apply_decisions
from pld.review.log import read_log, standing_of
from support.artifact_tree import write_artifacts
from support.stories import DELIVERY, FINAL, NEW_ID, NEW_TEXT, PRAISE, REFUND, TWO_ROUNDS, WITH_TURNS

LOG = Path("reviews/mail.jsonl")
FORCED = "expected no file, or this very sheet not filled in, got another file"
EDIT, APPROVE, REJECT = {"verdict": "edit", "text": NEW_TEXT}, {"verdict": "approve"}, {"verdict": "reject"}


@pytest.fixture(autouse=True)
def digest(project, monkeypatch):
    monkeypatch.setattr("pld.registry.registry.review_anchors", lambda config: [])
    write_artifacts(project / "artifacts", story=TWO_ROUNDS)
    return read_record(Path("artifacts/review/review.json"), Reviewed).ships


@pytest.fixture
def sheet(digest):
    """The exported sheet, to be filled in."""
    ran("export")
    return Path(f"review-mail-{digest[:12]}.yaml")


def fill(path: Path, *rest: dict[str, str], reviewer: str = "", **everywhere: str) -> Path:
    """Fill in a sheet as a person does: `everywhere` in each entry, `rest` in the entries in order. A `text` replaces
    the old one."""
    head, *entries = path.read_text().split("- instruction: ")
    filled = [head.replace("reviewer:\n", f"reviewer: {reviewer}\n")]
    for place, entry in enumerate(entries):
        values = everywhere | (rest[place] if place < len(rest) else {})
        for name, value in values.items():
            ends = "(?=\n\n|\\Z)" if name == "text" else "$"
            pattern = rf"^    {name}:.*?{ends}"
            flags = re.MULTILINE | re.DOTALL
            entry = re.sub(pattern, lambda _, line=f"    {name}: {value}": line, entry, count=1, flags=flags)
        filled.append(entry)
    path.write_text("- instruction: ".join(filled))
    return path


def ran(*arguments):
    return CliRunner().invoke(pld, ["review", *arguments], catch_exceptions=False).output


def refused(*arguments):
    """The lines that a person sees."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main(["review", *map(str, arguments)])
    assert ended.value.code == 1
    return said.getvalue().splitlines()


def test_a_sheet_names_the_prompt_its_figures_and_the_evidence_of_each_instruction(sheet, digest):
    text = sheet.read_text()
    for part in (
        "# Review of mail\n",
        f"# prompt {digest}, 3 instructions",
        "# macro-F1 on validation 0.",
        "not measured for this prompt",
        f"prompt: {digest}\nreviewer:\ninstructions:\n",
        "  # 1 of 3: refund\n",
        "support: 4 (4 rules, cluster 0); origin: medoid",
        "macro-F1 +0.120 [+0.110, +0.150]; 20 tokens",
        "fixes 12: validation-0, validation-1,",
        "breaks none",
        "  # Edits:\n  #   round 1: revise of",
        "  # comes from 4 rules, the most typical first:\n  #   train-0: If money is asked for as in train-0",
        "train-3 (doubtful): ",
        f"  - instruction: {PRAISE.id}\n    verdict:\n    reviewer:\n    note:\n    text: >-\n      {PRAISE.text}\n",
    ):
        assert part in text, part


def test_without_an_ablation_the_sheet_says_so(digest):
    for name in ("resolve/final", SHIPS):
        Path("artifacts", name, "ablation.jsonl").unlink()
    ran("export", "--out", "a.yaml")
    assert "effect: not measured (resolution.ablation); `pld ablate` measures it" in Path("a.yaml").read_text()


def test_a_sheet_is_written_where_out_says(digest):
    assert "fill it in, then: pld review import deep/er/a.yaml" in ran("export", "--out", "deep/er/a.yaml")
    assert Path("deep/er/a.yaml").read_text().startswith("# Review of mail\n")


def test_what_was_filled_in_is_not_written_over(sheet):
    ran("export")  # nobody touched it
    filled_in = fill(sheet, {"note": "half way"}).read_bytes()
    assert refused("export") == [f"pld: {FORCED} ({sheet}); choose another --out, or overwrite it with --force"]
    Path("mine.yaml").write_text("my own notes")
    assert FORCED in refused("export", "--out", "mine.yaml")[0]
    assert sheet.read_bytes() == filled_in
    ran("export", "--force")
    assert "half way" not in sheet.read_text()


def test_approval_of_all_is_recorded_and_changes_nothing(sheet, digest):
    fill(sheet, reviewer="Ann", **APPROVE)
    said = ran("import", str(sheet))
    assert f"recorded as sheet 1 of {LOG}: 3 approve by Ann" in said
    assert "no evaluation needed; `pld promote` checks the gates" in said
    (entry,) = read_log("mail")
    assert (entry.prompt_sha256, entry.makes) == (digest, digest)
    assert standing_of("mail", digest, [own.id for own in FINAL]).approved
    assert f"nothing new: {LOG} holds it as sheet 1 of {entry.at}" in ran("import", str(sheet))
    assert len(read_log("mail")) == 1


def test_edits_and_rejections_are_told_and_make_the_prompt_that_the_stage_will_make(sheet, digest):
    said = ran("import", str(fill(sheet, EDIT | {"note": '"it: is clearer"'}, reviewer="Ann Ö", **APPROVE)))
    assert f"  edit {REFUND.id} (it: is clearer): {REFUND.text}\n    becomes: {NEW_TEXT}\n" in said
    assert f"commit {LOG} with the code" in said
    (entry,) = read_log("mail")
    text = (Path("artifacts") / SHIPS / "system_prompt.md").read_text()
    assert entry.makes == sha256(text.replace(REFUND.text, NEW_TEXT))
    assert f"next: `dvc repro` evaluates prompt {entry.makes[:12]} like any other" in said
    assert (entry.decisions[0].note, entry.decisions[0].text_sha256) == ("it: is clearer", sha256(REFUND.text))
    assert [own.id for own in apply_decisions(FINAL, entry.decisions)] == [NEW_ID, DELIVERY.id, PRAISE.id]
    assert not standing_of("mail", digest, [own.id for own in FINAL]).approved
    assert f"note: by {LOG} prompt {entry.makes[:12]} should ship" in ran("export", "--out", "b.yaml")
    assert "decided before, sheet 1: edit by Ann Ö: it: is clearer" in Path("b.yaml").read_text()


def test_example_turns_are_listed_and_stay_where_only_a_text_is_edited(project):
    write_artifacts(project / "artifacts", story=WITH_TURNS)
    prompt = read_prompt(Path("artifacts") / SHIPS)
    assert len(prompt) == 11
    assert ran("export", "--out", "a.yaml").startswith("3 instructions of prompt")
    text = Path("a.yaml").read_text()
    assert f"# prompt {prompt_sha256(prompt)}, 3 instructions, 5 example turns" in text
    assert "# The prompt ends in 5 example turns, training examples that" in text
    for user, answer in zip(prompt[1::2], prompt[2::2], strict=True):
        assert f" is {answer.content}: {' '.join(user.content.split())}" in text
    ran("import", str(fill(Path("a.yaml"), EDIT, reviewer="Ann", **APPROVE)))
    edited = Message(role="system", content=prompt[0].content.replace(REFUND.text, NEW_TEXT))
    assert read_log("mail")[0].makes == prompt_sha256((edited, *prompt[1:]))


def test_every_fault_is_a_line_and_nothing_is_recorded(sheet):
    fill(sheet, {"verdict": "edit"}, {"verdict": "approve", "note": '"see \\x1b[2J"'}, reviewer="Ann")
    lines = refused("import", sheet)
    number = sheet.read_text().splitlines().index("    verdict: edit") + 4
    old = "pld: expected a new text with verdict edit, got the old one"
    assert lines[0].startswith(f"{old} ({sheet}:{number}, {REFUND.id}: text)")
    assert "expected no control token" in lines[1]
    assert f"{DELIVERY.id}: note)" in lines[1]
    assert lines[2].startswith("pld: expected approve, edit or reject, got none")
    assert f"{PRAISE.id}: verdict)" in lines[2]
    assert lines[3:] == [f"pld: expected a sheet without faults, got 3 ({sheet}); fix them and import it again"]
    assert "\x1b" not in "".join(lines)
    assert not LOG.parent.exists()


def test_one_fault_is_one_line(sheet):
    lines = refused("import", fill(sheet, {"verdict": ""}, reviewer="Ann", **APPROVE))
    assert len(lines) == 1
    assert lines[0].startswith("pld: expected approve, edit or reject, got none")
    assert lines[0].endswith("verdict)")


def test_the_last_instruction_of_a_label_goes_only_where_it_is_asked_for(sheet):
    fill(sheet, REJECT, reviewer="Ann", **APPROVE)
    (line,) = refused("import", sheet)
    assert "got none left for refund" in line
    assert line.endswith("keep one, or import with --allow-missing-label")
    assert "1 reject" in ran("import", "--allow-missing-label", str(sheet))


def test_a_sheet_of_another_prompt_or_task_is_refused(sheet):
    fill(sheet, reviewer="Ann", **APPROVE)
    text = sheet.read_text()
    for old, new in (("task: mail", "task: post"), ("prompt: ", "prompt: 0")):
        sheet.write_text(text.replace(old, new))
        (line,) = refused("import", sheet)
        assert "`pld review export` writes a new one" in line


def test_a_list_that_no_longer_makes_its_prompt_is_neither_exported_nor_imported(sheet):
    path = Path("artifacts") / SHIPS / "instructions.jsonl"
    write_jsonl(path, [FINAL[0]])
    for arguments in (["export"], ["import", sheet]):
        assert "expected the prompt that instructions.jsonl beside it makes, got another" in refused(*arguments)[0]


def ship_edited(entry):
    """What the stage `review` does with it, as far as commands look at it."""
    final = Path("artifacts") / SHIPS
    write_jsonl(final / "instructions.jsonl", apply_decisions(FINAL, entry.decisions))
    text = (final / "system_prompt.md").read_text().replace(REFUND.text, NEW_TEXT)
    write_prompt(final, prompt_messages(text))
    rows = [json.loads(line) for line in (final / "descent.jsonl").read_text().splitlines()]
    rows[0] |= {"instruction_id": NEW_ID, "text": NEW_TEXT}
    write_text(final / "descent.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    reviewed = Reviewed(came_in=entry.prompt_sha256, ships=entry.makes, sheets=(entry.number,))
    write_json(Path("artifacts/review/review.json"), reviewed)


def test_what_was_edited_needs_a_sheet_of_its_own_and_can_be_taken_back(sheet, digest):
    ran("import", str(fill(sheet, EDIT, reviewer="Ann", **APPROVE)))
    entry = read_log("mail")[0]
    ship_edited(entry)
    ids = [NEW_ID, DELIVERY.id, PRAISE.id]
    assert not standing_of("mail", entry.makes, ids).approved

    ran("export", "--out", "b.yaml")
    assert "1 of 3: refund" in Path("b.yaml").read_text()
    assert "no evaluation needed" in ran("import", str(fill(Path("b.yaml"), reviewer="Bob", **APPROVE)))
    assert standing_of("mail", entry.makes, ids).approved

    ran("export", "--unreviewed", "--out", "c.yaml")
    said = ran("import", str(fill(Path("c.yaml"), reviewer="Cy", **APPROVE)))
    assert f"recorded as sheet 3 of {LOG}" in said
    assert f"next: `dvc repro` evaluates prompt {digest[:12]}" in said


def test_where_the_stage_failed_the_list_of_the_loop_can_still_be_reviewed(digest):
    shutil.rmtree(Path("artifacts") / SHIPS)
    assert "run `dvc repro`" in refused("export")[0]
    ran("export", "--unreviewed", "--out", "a.yaml")
    assert "recorded as sheet 1" in ran("import", str(fill(Path("a.yaml"), reviewer="Ann", **APPROVE)))


def test_repro_runs_the_pipeline_and_ends_as_it_does(sheet, monkeypatch, capfd):
    fill(sheet, reviewer="Ann", **APPROVE)
    Path("stub/dvc").mkdir(parents=True)
    Path("stub/dvc/__init__.py").touch()
    Path("stub/dvc/__main__.py").write_text("import sys; print('dvc', *sys.argv[1:]); sys.exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(Path("stub").resolve()))
    with pytest.raises(SystemExit) as ended:
        main(["review", "import", str(sheet), "--repro"])
    assert ended.value.code == 7
    assert "dvc repro\n" in capfd.readouterr().out
    assert len(read_log("mail")) == 1


def test_verify_tells_every_sheet_the_head_and_the_people(sheet):
    assert "no sheet imported yet" in ran("verify")
    ran("import", str(fill(sheet, {"reviewer": "Bob"}, reviewer="Ann", **APPROVE)))
    (entry,) = read_log("mail")
    lines = ran("verify").splitlines()
    assert lines[0] == f"sheet 1, {entry.at}, prompt {entry.prompt_sha256[:12]}: 3 approve by Bob, Ann"
    assert lines[1] == f"{LOG}: unbroken, 1 sheet by Ann, Bob, head {entry.hash}"


def test_verify_names_the_first_line_that_is_wrong(sheet):
    ran("import", str(fill(sheet, reviewer="Ann", **APPROVE)))
    LOG.write_text(LOG.read_text().replace('"Ann"', '"Bob"', 1))
    (line,) = refused("verify")
    assert line.startswith(f"pld: expected the hash of what the line says, got another: it was edited ({LOG}:1)")


def test_verify_misses_an_end_that_was_cut_off_where_a_version_remembers_it(sheet, monkeypatch):
    ran("import", str(fill(sheet, reviewer="Ann", **APPROVE)))
    ran("import", str(fill(sheet, {"reviewer": "Bob"})))
    first, second = read_log("mail")
    anchors = [(1, 1, first.hash), (4, 2, second.hash)]
    monkeypatch.setattr("pld.registry.registry.review_anchors", lambda config: anchors)
    assert "promoted with this log: 2" in ran("verify")
    LOG.write_text(LOG.read_text().splitlines(keepends=True)[0])
    (line,) = refused("verify")
    assert "for version (number of sheets) 4 (2) in a log of 1 sheet" in line
    LOG.unlink()
    assert "1 (1), 4 (2) in a log of 0 sheets" in refused("verify")[0]


def test_verify_makes_no_store(project, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert "no sheet imported yet" in ran("verify")
    assert not [path for path in project.rglob("*") if path.name.startswith("mlflow.db")]


def test_the_commands_are_imported_without_what_is_heavy():
    code = "import sys, pld.cli.review; print([n for n in ('mlflow', 'torch', 'transformers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_log_can_be_read_by_others(sheet):
    ran("import", str(fill(sheet, reviewer="Ann", **APPROVE)))
    assert stat.S_IMODE(LOG.stat().st_mode) & 0o444 == 0o444
