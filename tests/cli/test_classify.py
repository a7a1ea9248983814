import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from pld.cli.main import main, pld
from pld.distill.render import prompt_messages
from pld.registry.packaging import spec_of
from pld.registry.result import read_result
from pld.registry.store import Store
from pld.serving.model import PromptClassifier
from pld.task_params import RecordsReader
from support.artifact_tree import write_artifacts
from support.mail_student import MailStudent
from support.mails import LABELS, TASK, mails
from support.shelf import register
from support.stories import PROMPT

READER = RecordsReader(
    format="records",
    path="mail.csv",
    fields={"text": "body"},
    label="topic",
    options=None,
    id=None,
    group=None,
    split=None,
)


def ran(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(pld, ["classify", *arguments], catch_exceptions=False)
    return done.exit_code, done.output


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["classify", *arguments])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_a_file_is_classified_by_the_version_that_is_asked_for(
    project: Path, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASK.model_copy(update={"reader": READER})
    config = write_artifacts(project / "artifacts", task=task)
    monkeypatch.setattr("pld.serving.model.build", lambda *_: MailStudent())
    with Path("mails.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["no", "body"])
        writer.writerows([example.id, example.inputs["text"]] for example in mails("test", 5))
    assert "expected version 'production', got no version" in refused(capsys, "mails.csv", "--out", "out.csv")
    register(store, task=task)
    assert refused(capsys, "mails.csv", "--version", "7", "--out", "out.csv").startswith(
        "pld: expected version '7', got 1 production"
    )
    assert "expected a file of rows to classify, got none" in refused(capsys, "none.csv", "--out", "out.csv")
    assert not list(project.glob("out*"))

    code, said = ran("mails.csv", "--out", "out.csv")
    assert code == 0
    assert said.startswith("out.csv: 5 rows (")
    assert "by pld-mail version 1 (prompt 4c9f38aaec23)" in said
    with Path("out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    spec = spec_of(read_result(config))
    classifier = PromptClassifier(spec, prompt_messages(PROMPT), MailStudent())
    wanted = classifier.classify([example.inputs for example in mails("test", 5)])
    assert [row["no"] for row in found] == [example.id for example in mails("test", 5)]
    assert [row["label"] for row in found] == list(wanted.labels)
    for row, scores in zip(found, wanted.scores, strict=True):
        assert [float(row[f"score_{label}"]) for label in LABELS] == [round(float(score), 6) for score in scores]
    assert {row["prompt_version"] for row in found} == {"1"}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PromptClassifier, "classify", interrupted)
    code, said = ran("mails.csv", "--version", "1", "--out", "again.csv")
    assert (code, said) == (
        130, "interrupted; again.csv.partial keeps what is finished, the same command continues from there\n",
    )  # fmt: skip
    assert not Path("again.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alias", "production", "--version", "3", "--out", "o.csv"], "expected --alias or --version, got both"),
        (["--out", "o.xlsx"], "expected a name that ends in .csv, got o.xlsx (--out)"),
        ([], "Missing option '--out'"),
    ],
)
def test_what_is_asked_for_must_make_sense(arguments: list[str], message: str) -> None:
    code, said = ran("mails.csv", *arguments)
    assert code == 2
    assert message in said
