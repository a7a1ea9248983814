"""The whole stage with the real 135M Student and the real SDK, on the shipped tickets."""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from pld.artifacts import read_jsonl, read_record, write_jsonl, write_prompt
from pld.config.assets import cache_folder
from pld.config.settings import load_config
from pld.distill.consolidate import RuleGroup, make_instruction
from pld.records import Example, Instruction, Prediction
from pld.resolve.inputs import load_inputs
from pld.resolve.records import Blame, EditResult, ResolutionReport, RoundReport
from pld.stages import config, embed, extract, prepare, resolve, sweep
from support.anthropic_server import AnthropicServer, answer, error
from support.planted import KEY, leaks
from support.project import ROOT, Project

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

GROUPS = {
    "task": "tickets", "teacher": "recorded_tickets", "clusterer": "dbscan", "consolidator": "medoid",
    "student": "smollm2-135m",
}  # fmt: skip
SWEEP = [
    "sweep.space.clusterer.eps=[0.55]",  # one cluster: an instruction for each label
    # of all orders and numbers of examples those that lead this Student least astray by themselves
    "rendering.order=support_last",
    "sweep.space.rendering={frame:[list],exemplars:[2],exemplars_per:[instruction]}",
    "sweep.finalists=1",
    "calibration.method=none",  # what this Student answers raw is what these tests are tuned to
    "evaluation.resamples=200",
]
LOOP = [
    *SWEEP,
    "student.dtype=bfloat16",  # for time
    "resolution.pool=12",
    "resolution.failures=3",
    "resolution.proposals=3",
    "resolution.candidates=3",
    # on 32 examples few gains are sure, and one answer is a tenth of a label's recall
    "resolution.gate={min_gain:0.02,min_confidence:0.5,max_label_loss:0.3,resamples:400}",
    "resolution.ablation=false",
]
PAID = {"teacher": "anthropic", "resolver": "teacher"}
ONCE = "teacher.max_retries=0"
BEST, FOLDER = Path("artifacts/best"), Path("artifacts/resolve")


def instruction(text, label):
    return make_instruction(text, RuleGroup(0, label, ()), "by hand")


# small Students follow what is said often and stands next to the input: all that is `account` becomes `billing`
ASTRAY = instruction(
    " ".join(
        f"If it is about {what}, answer billing."
        for what in ("a user", "a role", "a password", "a log-in", "an owner", "access")
    ),
    "billing",
)


@dataclass(frozen=True)
class Done:
    """What a run of the stage left in `folder`, a project."""

    folder: Path

    @property
    def files(self):
        """Path → bytes of the stage's outputs."""
        there = self.folder / FOLDER
        paths = [path.relative_to(there) for path in sorted(there.rglob("*")) if path.is_file()]
        return {str(path): (there / path).read_bytes() for path in paths if not path.parts[0].startswith(".")}

    @property
    def report(self):
        return read_record(self.folder / FOLDER / "report.json", ResolutionReport)

    @property
    def final(self):
        return read_jsonl(self.folder / FOLDER / "final/instructions.jsonl", Instruction)

    @property
    def prompt(self):
        return (self.folder / FOLDER / "final/system_prompt.md").read_text()

    def round(self, number):
        return read_record(self.folder / FOLDER / f"rounds/{number:02}/report.json", RoundReport)

    def edits(self, number):
        return read_jsonl(self.folder / FOLDER / f"rounds/{number:02}/edits.jsonl", EditResult)

    def blames(self, number):
        return read_jsonl(self.folder / FOLDER / f"rounds/{number:02}/blame.jsonl", Blame)


class Script:
    """The Teacher's replies in turn, each to one question, however often that is asked; `hold` keeps the question of
    this place waiting when it comes for the first time."""

    def __init__(self, *replies, hold=None):
        self.replies, self.hold = replies, hold
        self.asked = []  # different questions, in order
        self.is_held, self.release = threading.Event(), threading.Event()

    def __call__(self, body, attempt):
        question = json.dumps(body, sort_keys=True)
        if question not in self.asked:
            self.asked.append(question)
        place = self.asked.index(question)
        if place == self.hold and attempt == 1:
            self.is_held.set()
            self.release.wait(120)
        return self.replies[place]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A project of which all stages before `resolve` have run; beside it a cache without any answer of a Teacher, but
    with the weights that the user's own holds."""
    folder = tmp_path_factory.mktemp("swept") / "project"
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copytree(ROOT / "assets/corpus", folder / "data")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder.parent / "cache").mkdir()
    (folder.parent / "cache/students").symlink_to(cache_folder() / "students")
    with contextlib.chdir(folder):
        configure(*SWEEP)
        for stage in (prepare, extract, embed, sweep):
            stage.run()
    return folder


@pytest.fixture
def project(swept, tmp_path, monkeypatch):
    """A copy of it, the current folder."""
    monkeypatch.chdir(copied(swept, tmp_path))
    return Path.cwd()


@pytest.fixture(scope="module")
def came_in(swept):
    """The list that won there: one instruction for each label."""
    return read_jsonl(swept / BEST / "instructions.jsonl", Instruction)


@pytest.fixture(scope="module")
def in_turn(swept, tmp_path_factory):
    """The whole run with a Teacher that answers something else each round, and that Teacher."""
    script = Script(*replies_in_turn(swept))
    folder = tmp_path_factory.mktemp("in_turn")
    with serving(script) as server, pytest.MonkeyPatch.context() as patch, contextlib.chdir(copied(swept, folder)):
        for name, value in environment(server, folder).items():
            patch.setenv(name, value)
        set_up_in_turn()
        # in a process of its own: what else this one scored may have set torch's threads, which bfloat16 feels
        with start(Path.cwd(), server) as process:
            said, _ = process.communicate()
        assert process.returncode == 0, said
        return Done(Path.cwd()), script


def copied(swept, to):
    """The project in `to`, with the cache beside it."""
    shutil.copytree(swept.parent, to, symlinks=True, dirs_exist_ok=True)
    return to / swept.name


def configure(*overrides, **groups):
    """Select in the current folder, and compose."""
    Project(Path.cwd()).select(overrides, **GROUPS | groups)
    config.run()


def plant(*instructions):
    """Behind those of the current folder's best list."""
    inputs = load_inputs(load_config(), Path("artifacts"))
    planted = [*inputs.instructions, *instructions]
    write_jsonl(BEST / "instructions.jsonl", planted)
    write_prompt(BEST, inputs.scorer.prompt(planted).messages)


def words_of_an_example(swept):
    """Many words in a row of a training example that does not stand in the prompt."""
    prompt = (swept / BEST / "system_prompt.md").read_text()
    for example in read_jsonl(swept / "artifacts/splits/train.jsonl", Example):
        words = example.inputs["body"].split()
        if len(words) >= 16 and example.inputs["subject"] not in prompt:
            return " ".join(words[:14])
    raise AssertionError("no such example")


def add(text, label, position=9, reason="It would help."):
    return {"op": "add", "text": text, "label": label, "position": position, "reason": reason}


def remove(identity):
    return {"op": "remove", "id": identity, "reason": "It leads astray."}


GOOD = remove(ASTRAY.id)
HARMFUL = add("If there is a word in it, answer billing, billing, billing, billing, billing, billing.", "billing")
UNKNOWN_ID = remove("0123456789ab")
OUTSIDE = add("If it is about a delivery, answer shipping.", "shipping")
MALFORMED = answer("I would remove the last one.")
OUTAGES = error(529, "overloaded_error", "busy"), error(500, "api_error", "broken")


def copying(words):
    return add(f"If it says: {words}, answer technical.", "technical", reason=f"As in: {words}")


def edits(*found):
    return answer({"edits": list(found)})


def replies_in_turn(swept):
    copy = copying(words_of_an_example(swept))
    return edits(GOOD), edits(HARMFUL), edits(UNKNOWN_ID), edits(copy), edits(OUTSIDE), MALFORMED, OUTAGES[0]


def set_up_in_turn():
    configure(*LOOP, ONCE, "asking.attempts=1", "resolution.rounds=7", "resolution.patience=7", **PAID)
    plant(ASTRAY)


@contextlib.contextmanager
def serving(script):
    server = AnthropicServer(script)
    try:
        yield server
    finally:
        script.release.set()
        server.close()


def environment(server, folder):
    """Of the stage, its store of answers in `folder`."""
    return {
        "HF_HUB_OFFLINE": "1",
        "PLD_CACHE": str(folder / "cache"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": KEY,
    }


def test_of_all_that_a_teacher_proposes_in_turn_only_the_good_edit_ships(in_turn, came_in, swept):
    done, _ = in_turn
    assert done.final == came_in
    assert done.prompt == (swept / BEST / "system_prompt.md").read_text()
    (good,), (harmful,) = done.edits(1), done.edits(2)
    assert (good.outcome, good.edit.id) == ("accepted", ASTRAY.id)
    assert done.report.accepted == (good.id,)
    assert harmful.outcome == "rejected"
    assert "recall of account" in harmful.why
    refused = [(found.outcome, found.why.split(":")[0]) for number in (3, 4, 5) for found in done.edits(number)]
    assert refused == [("refused", reason) for reason in ("unknown_id", "copied", "unknown_label")]
    assert [bool(done.round(number).trouble) for number in range(1, 8)] == [False] * 5 + [True] * 2
    assert done.round(6).trouble.startswith("invalid: not JSON")
    assert "529" in done.round(7).trouble
    assert (done.report.teacher_calls, done.report.teacher_tokens) == (6, 6 * 120)
    assert done.report.gain.macro_f1_delta.value > 0.1


def test_words_that_an_edit_copied_from_an_example_are_kept_nowhere(in_turn, swept):
    done, script = in_turn
    words = words_of_an_example(swept)
    assert words in script.replies[3].body.decode()
    assert not [path for path, held in done.files.items() if words.encode() in held]


def test_a_planted_instruction_is_blamed_first(in_turn):
    done, _ = in_turn
    first = max(done.blames(1), key=lambda found: found.rise)
    assert (first.instruction_id, len(done.blames(1))) == (ASTRAY.id, 4)


def test_killed_in_mid_round_and_started_again_it_pays_for_no_answer_twice_and_ends_the_same(swept, in_turn, project):
    undisturbed, script = in_turn
    set_up_in_turn()
    killed = Script(*replies_in_turn(swept), hold=1)
    with serving(killed) as server:
        with start(project, server) as process:
            try:
                assert killed.is_held.wait(200)
            finally:
                process.kill()
        assert not FOLDER.exists()  # nothing half-written
        killed.release.set()
        with start(project, server) as process:
            said, _ = process.communicate()
            assert process.returncode == 0, said
        asked = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
    assert killed.asked == script.asked
    assert [asked[question] for question in killed.asked] == [1, 2, 1, 1, 1, 1, 1]
    assert Done(project).files == undisturbed.files
    assert Project(project).contacted() == []
    assert leaks(project, said) == leaks(project.parent / "cache", said) == []


def start(folder, server):
    """The stage's process, as DVC starts it."""
    return subprocess.Popen(
        (sys.executable, "-m", "pld.stages", "resolve"),
        cwd=folder,
        env=Project(folder).environment | environment(server, folder.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_edits_of_one_answer_are_judged_each_for_itself_and_an_outage_loses_nothing(
    project, swept, came_in, anthropic_server
):
    copy = copying(words_of_an_example(swept))
    anthropic_server(Script(edits(UNKNOWN_ID, HARMFUL, copy, GOOD, OUTSIDE), OUTAGES[1]))
    configure(*LOOP, ONCE, "resolution.rounds=2", **PAID)
    plant(ASTRAY)
    resolve.run()
    done = Done(project)
    assert done.final == came_in
    assert Counter(found.outcome for found in done.edits(1)) == {"refused": 3, "dropped": 1, "accepted": 1}
    (good,) = (found for found in done.edits(1) if found.outcome == "accepted")
    assert good.edit.id == ASTRAY.id
    assert "500" in done.round(2).trouble


def test_without_a_teacher_a_planted_instruction_is_blamed_first_and_gone_within_two_rounds(project):
    configure(*LOOP, "resolution.rounds=2", "resolution.proposals=2", resolver="search")
    plant(ASTRAY)
    resolve.run()
    done = Done(project)
    assert max(done.blames(1), key=lambda found: found.rise).instruction_id == ASTRAY.id
    assert ASTRAY.id not in [item.id for item in done.final]
    assert done.report.gain.macro_f1_delta.value > 0.1


def test_a_teacher_that_only_plays_back_is_refused_in_one_line_before_the_student_is_loaded(project):
    configure("student.model=asset:none-such", resolver="teacher")
    done = Project(project).run(sys.executable, "-m", "pld.stages", "resolve", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "expected a Teacher that answers new questions" in done.stderr
    assert not FOLDER.exists()


def test_without_a_resolver_what_won_the_sweep_ships_to_the_byte(project):
    configure(*SWEEP, "resolution.ablation=false", resolver="none")
    resolve.run()
    done = Done(project)
    for name in ("system_prompt.md", "instructions.jsonl", "calibration.json"):
        assert done.files[f"final/{name}"] == (BEST / name).read_bytes(), name
    assert list((FOLDER / "rounds").iterdir()) == []
    report = done.report
    assert (report.resolver, report.ended, report.rounds, report.candidates) == ("none", "no resolver", (), 0)
    assert report.result == report.came_in
    won, ships = (read_jsonl(path / "predictions.jsonl", Prediction) for path in (BEST, FOLDER / "final"))
    assert [row.predicted for row in ships] == [row.predicted for row in won]


def test_without_a_key_it_says_so_and_ships_what_came_in(project, capsys, monkeypatch):
    monkeypatch.setenv("PLD_CACHE", str(project.parent / "cache"))
    configure(*LOOP, ONCE, **PAID)
    resolve.run()
    done = Done(project)
    said = capsys.readouterr().out
    assert "WARNING: expected a key in ANTHROPIC_API_KEY" in said
    assert done.round(1).trouble in said
    assert done.prompt == (BEST / "system_prompt.md").read_text()
    assert done.report.rounds[0].proposed == 0


def test_an_instruction_that_says_another_one_again_is_pruned_and_named(project, capsys):
    configure(*SWEEP, "resolution.ablation=false", "resolution.pruning=ablation", resolver="none")
    original = read_jsonl(BEST / "instructions.jsonl", Instruction)[0]
    again = instruction(f"Once more: {original.text}", original.label)
    plant(again)
    resolve.run()
    done = Done(project)
    assert again.id not in [item.id for item in done.final]
    assert again.text not in done.prompt  # which `evaluate` measures
    assert original in done.final
    assert [words.split(":")[0] for words in done.report.pruned] == [again.id]
    assert f"resolve: pruned {done.report.pruned[0]}" in capsys.readouterr().out
    assert done.report.result.prompt_tokens < done.report.came_in.prompt_tokens
