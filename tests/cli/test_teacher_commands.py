import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pld.adapters.teachers.answer_export import write_answers
from pld.adapters.teachers.answer_store import AnswerStore
from pld.adapters.teachers.offline import OfflineTeacher
from pld.adapters.teachers.paid_teacher import Terms, asked_hash
from pld.cli.main import pld
from pld.errors import TeacherError, WaitingError
from pld.params import BudgetParams
from pld.ports import TeacherRequest
from pld.stages import extract
from support.anthropic_server import answer, anthropic_server
from support.kept_answers import SAID, kept
from support.small_projects import configure, write_asked_project

__all__ = ["anthropic_server"]


@pytest.fixture
def store(project, monkeypatch):
    monkeypatch.setenv("PLD_CACHE", str(project / "cache"))
    return AnswerStore(project / "cache/answers.sqlite")


def run(*arguments):
    return CliRunner().invoke(pld, ["teacher", *arguments], catch_exceptions=False).output


def put(store, *answers):
    for item in answers:
        store.put(item.question, item.answer)


def test_answers_are_exported_by_task_and_model_and_taken_in_once(store, monkeypatch):
    put(store, kept("a"), kept("b", model="claude-other"), kept("c", task="mail"))
    assert run("export", "all.jsonl") == "3 answers written to all.jsonl\n"
    assert run("export", "--model", "claude-other", "one.jsonl") == "1 answers written to one.jsonl\n"
    assert run("export", "--task", "colours", "task.jsonl") == "2 answers written to task.jsonl\n"
    monkeypatch.setenv("PLD_CACHE", "elsewhere")
    assert run("import", "one.jsonl") == "1 answers in one.jsonl, 1 of them new\n"
    assert run("import", "all.jsonl") == "3 answers in all.jsonl, 2 of them new\n"
    run("export", "again.jsonl")
    assert Path("again.jsonl").read_bytes() == Path("all.jsonl").read_bytes()
    assert AnswerStore(Path("elsewhere/answers.sqlite")).spent("colours").all_calls == 0


def test_an_export_of_nothing_names_what_there_is_and_leaves_a_file_alone(store, project):
    put(store, kept("a"))
    (project / "old.jsonl").write_text("old")
    with pytest.raises(TeacherError, match=r"task mail by model any, got none .*; stored are those of colours by c"):
        run("export", "--task", "mail", "old.jsonl")
    assert (project / "old.jsonl").read_text() == "old"


def test_a_bad_line_takes_nothing_in(store, project):
    write_answers(project / "answers.jsonl", [kept("a"), kept("b")])
    (project / "answers.jsonl").write_text((project / "answers.jsonl").read_text() + "[]\n")
    with pytest.raises(TeacherError, match=r"answers\.jsonl:3, the line\)"):
        run("import", "answers.jsonl")
    assert list(store.export()) == []
    with pytest.raises(TeacherError, match=r"expected a file of answers, got no such file \(none\.jsonl\)"):
        run("import", "none.jsonl")


def test_spending_is_printed_by_task_role_model_and_way_without_imported_answers(store):
    put(store, kept("a"), kept("b"), kept("c", model="claude-next", usd=None), kept("d", task="mail", usd=1.0))
    store.add_unpaid([kept("e", task="mail", usd=99.0)])
    output = " ".join(run("spent").split())
    assert "│ colours │ extract │ claude-test │ messages │ 2 │ 200 │ 40 │ $0.0200 │" in output
    assert "claude-next │ messages │ 1 │ 100 │ 20 │ $0.00 + 1 calls of unknown price │" in output
    assert "mail: 1 calls, $1.00" in output
    whole = json.loads(run("spent", "--json"))
    assert [(row["task"], row["model"], row["calls"], row["usd"]) for row in whole["rows"]] == [
        ("colours", "claude-next", 1, 0.0), ("colours", "claude-test", 2, 0.02), ("mail", "claude-test", 1, 1.0),
    ]  # fmt: skip
    assert whole["tasks"]["colours"]["unpriced"] == 1
    assert whole["budgets"] == {}


def test_in_a_project_the_budget_is_printed_and_calls_in_flight_count(store, project):
    write_asked_project()
    configure(project, "budget.usd=5", "budget.calls=10")
    put(store, kept("a", usd=1.5))
    with store.asking("colours"):
        store.claim([("k1", 0.25), ("k2", 0.25)], "colours", BudgetParams(usd=None, calls=None))
        output = " ".join(run("spent").split())
        assert "colours: 1 calls, $1.50; in flight: 2 calls, at most $0.50" in output
        assert "colours: $3.00 of budget.usd $5.00 left" in output
        assert "colours: 7 of budget.calls 10 left" in output
        assert json.loads(run("spent", "--json"))["budgets"] == {"colours": {"usd": 5.0, "calls": 10}}


def test_an_empty_store_is_no_error(store):
    assert "no answer in the store was paid for here" in run("spent")


def replayed(project, monkeypatch, anthropic_server, respond, *overrides):
    """rules.jsonl of a paid run, and of its exported answers played back without store, key and service."""
    write_asked_project()
    configure(project, *overrides)
    server = anthropic_server(respond)
    extract.run()
    rules = Path("artifacts/rules")
    paid = {name: (rules / name).read_text() for name in ("rules.jsonl", "rejected.jsonl")}
    run("export", "answers.jsonl")
    shutil.rmtree(project / "cache")
    shutil.rmtree(rules)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    server.close()
    target = {"_target_": "pld.adapters.teachers.recorded.RecordedTeacher", "path": "answers.jsonl"}
    (project / "conf/teacher/replay.yaml").write_text(yaml.safe_dump(target))
    configure(project, *overrides, teacher="replay")
    extract.run()
    return paid, {name: (rules / name).read_text() for name in paid}


def without_teacher(lines):
    return [{**json.loads(line), "teacher": ""} for line in lines.splitlines()]


def test_a_run_is_played_back_from_an_export_without_store_key_or_network(project, monkeypatch, anthropic_server):
    def respond(body, _):
        if "number 3" in body["messages"][0]["content"]:
            return answer("", stop_reason="refusal")
        number = body["messages"][0]["content"].count("x")
        return answer({**SAID, "rule": f"If it is warm {number}, answer red."})

    paid, played = replayed(project, monkeypatch, anthropic_server, respond, "asking.attempts=1", "extraction.draws=2")
    assert len(without_teacher(paid["rules.jsonl"])) == 18
    assert without_teacher(played["rules.jsonl"]) == without_teacher(paid["rules.jsonl"])
    assert played["rules.jsonl"] == paid["rules.jsonl"].replace("anthropic:claude-sonnet-5-5", "recorded:answers.jsonl")
    assert played["rejected.jsonl"] == paid["rejected.jsonl"]
    assert json.loads(Path("artifacts/rules/summary.json").read_text())["recorded"] is True


def test_answers_that_were_asked_for_again_are_played_back_too(project, monkeypatch, anthropic_server):
    def respond(body, _):
        again = "earlier answers" in body["messages"][0]["content"]
        doubtful = "number 3" in body["messages"][0]["content"] and not again
        return answer({**SAID, "label": "blue"} if doubtful else SAID)

    paid, played = replayed(project, monkeypatch, anthropic_server, respond)
    assert len(without_teacher(paid["rules.jsonl"])) == 10
    assert without_teacher(played["rules.jsonl"]) == without_teacher(paid["rules.jsonl"])


SCHEMA = {"type": "object", "properties": {"rule": {"type": "string"}}, "required": ["rule"]}
DATED = {"content": {"rule": "If warm, answer red."}, "model": "a person", "date": "2026-11-29"}


@pytest.fixture
def waits(store):
    """Two questions that wait, as `pld teacher questions` writes them."""
    terms = Terms("colours", BudgetParams(usd=None, calls=None), None)
    with pytest.raises(WaitingError):
        list(OfflineTeacher(recorded=None, terms=terms).ask(offline_questions()))
    assert run("questions", "--out", "questions.jsonl") == "2 questions written to questions.jsonl\n"
    return [json.loads(line) for line in Path("questions.jsonl").read_text().splitlines()]


def offline_questions():
    return [TeacherRequest(key, "consolidate", "the task", f"question {key}", SCHEMA) for key in "ab"]


def answered(*lines):
    Path("answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_waiting_question_is_written_with_all_that_its_answer_needs(waits):
    first = {"task": "colours", "role": "consolidate", "system": "the task", "prompt": "question a", "schema": SCHEMA}
    assert waits[0] == {"asked": asked_hash(offline_questions()[0]), **first}
    assert run("questions", "--out", "none.jsonl", "--task", "mail") == "0 questions written to none.jsonl\n"


def test_answers_to_waiting_questions_are_taken_in_and_given_with_their_source(waits):
    answered({"asked": waits[0]["asked"], **DATED})
    assert run("import", "answers.jsonl") == "1 answers in answers.jsonl, 1 of them new; 1 questions still wait\n"
    assert run("import", "answers.jsonl") == "1 answers in answers.jsonl, 0 of them new; 1 questions still wait\n"
    (found,) = OfflineTeacher(recorded=None).ask(offline_questions()[:1])
    assert (found.content, found.source) == (DATED["content"], "a person, 2026-11-29")
    run("export", "all.jsonl")
    assert json.loads(Path("all.jsonl").read_text())["date"] == "2026-11-29"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            {"content": {"rule": 7}},
            r"fits its question's schema, got \$\.rule: 7 is not of type 'string' \(answers\.j.*:2",
        ),
        ({"asked": "0" * 64}, r"a question that waits, got one to 000000000000 \(answers\.jsonl:2\)"),
        ({"model": ""}, r"answers\.jsonl:2, model\)"),
        ({"contents": {}}, r"answers\.jsonl:2, contents\)"),
    ],
)
def test_a_bad_answer_to_a_waiting_question_is_named_and_none_is_taken_in(waits, store, line, words):
    answered({"asked": waits[0]["asked"], **DATED}, {"asked": waits[1]["asked"], **DATED, **line})
    with pytest.raises(TeacherError, match=words) as caught:
        run("import", "answers.jsonl")
    assert "\n" not in str(caught.value)
    assert list(store.export()) == []


def test_two_answers_to_one_waiting_question_are_refused(waits):
    answered({"asked": waits[0]["asked"], **DATED}, {"asked": waits[0]["asked"], **DATED, "content": {"rule": "No."}})
    with pytest.raises(TeacherError, match=r"expected one answer for a key, .*answers\.jsonl:2"):
        run("import", "answers.jsonl")
