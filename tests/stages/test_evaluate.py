"""What the stage `evaluate` asks and times, for the distilled prompts alone."""

from collections import Counter
from types import SimpleNamespace

import pytest

from pld.artifacts import write_prompt
from pld.distill.render import prompt_messages
from pld.evaluate.baselines.prompting import few_shot_examples
from pld.evaluate.build_systems import DistilledPrompt, SystemInputs, distilled_systems
from pld.evaluate.latency import _ANYTHING, WARM_UP
from pld.records import Calibration
from pld.reports import TrainingCost
from pld.stages import evaluate
from support.artifact_tree import composed
from support.mails import LABELS, mails
from support.scripted_student import LetterEmbedder, ScriptedStudent
from support.stories import CLUSTERED, PROMPT
from support.word_student import WordStudent


class Counting:
    """A Student that counts the inputs it scores after each system prompt, and notes what it is asked, in turn: the
    kind of call, how many turns come first, and how many inputs there are."""

    def __init__(self, student):
        self._student = student
        self.scored = Counter()
        self.calls = []

    def __getattr__(self, name):
        return getattr(self._student, name)

    def score(self, messages, inputs, labels, on_progress=None):
        self.scored[messages[0].content] += len(inputs)
        self.calls.append(("score", len(messages), len(inputs)))
        return self._student.score(messages, inputs, labels, on_progress)

    def score_chats(self, chats, labels, on_progress=None):
        self.calls.append(("chats", None, len(chats)))
        return self._student.score_chats(chats, labels, on_progress)

    def generate(self, chats, max_tokens, on_progress=None):
        self.calls.append(("generate", None, len(chats)))
        return self._student.generate(chats, max_tokens, on_progress)

    def prefill(self, messages):
        if messages != _ANYTHING:
            self.calls.append(("prefill", len(messages), 0))


@pytest.fixture(scope="module")
def small_student():
    return WordStudent()


@pytest.fixture
def measured(small_student, monkeypatch):
    """Measure the prompts of the pipeline with `prompt` as what came in: the Student, answers and latency."""

    def measure(prompt, unreviewed=None):
        config = composed()
        few = config.latency.model_copy(update={"requests": 4})  # what is timed is not looked at
        inputs = SystemInputs(
            config=config.model_copy(update={"latency": few}),
            train=mails("train", 3),
            validation=mails("validation", 3),
            explained=[],
            shots={},
            clustered=distilled(prompt, -2.0, TrainingCost(teacher_calls=9)),
            distilled=distilled(PROMPT, -1.0, TrainingCost(teacher_calls=11)),
            unreviewed=distilled(unreviewed, -1.5, TrainingCost(teacher_calls=11)) if unreviewed else None,
        )
        student = Counting(small_student)
        monkeypatch.setitem(inputs.__dict__, "student", student)
        monkeypatch.setattr(evaluate, "build_systems", distilled_systems)
        return student, *evaluate._measured(inputs.config, inputs, mails("test", 6))

    return measure


def distilled(prompt, mean, training):
    calibration = Calibration(labels=LABELS, method="batch", scale=1.0, bias=(-mean,) * 3, examples=3)
    return DistilledPrompt(prompt_messages(prompt), calibration, "some instructions", training)


def test_a_prompt_that_the_loop_did_not_change_is_scored_and_timed_once(measured):
    student, answers, latency = measured(PROMPT)
    once = student.scored[PROMPT]
    assert list(answers) == ["clustered", "distilled"]
    assert (answers["clustered"].scores == answers["distilled"].scores).all()
    assert latency.systems["clustered"] == latency.systems["distilled"] == latency.systems["distilled_calibrated"]
    # what is not the Student's stays each row's own
    assert answers["distilled"].calibration.bias == (1.0, 1.0, 1.0)
    assert [answers[name].cost.training.teacher_calls for name in answers] == [9, 11]

    student, answers, latency = measured(CLUSTERED)
    assert student.scored == {CLUSTERED: once, PROMPT: once}
    assert (answers["clustered"].scores != answers["distilled"].scores).any()
    assert latency.systems["clustered"] != latency.systems["distilled"]


def test_each_prompt_is_prefilled_once_and_asked_once_about_test_and_calibration_examples(monkeypatch):
    config = composed()
    calibration = config.calibration.model_copy(update={"examples": 12})
    nearest = config.baselines.few_shot_nearest.model_copy(update={"examples": 9})
    baselines = config.baselines.model_copy(update={"few_shot": (3, 6), "few_shot_nearest": nearest})
    train = mails("train", 30)
    inputs = SystemInputs(
        config=config.model_copy(update={"calibration": calibration, "baselines": baselines}),
        train=train,
        validation=mails("validation", 3),
        explained=train[:6],
        shots={
            name: few_shot_examples(config.task, train, size, 0) for name, size in baselines.few_shot_systems.items()
        },
        clustered=distilled(PROMPT, -2.0, TrainingCost()),
        distilled=distilled(PROMPT, -1.0, TrainingCost()),
    )
    student = Counting(ScriptedStudent())
    inputs.__dict__.update({"student": student, "embedder": LetterEmbedder()})
    evaluate._measured(inputs.config, inputs, mails("test", 60))
    requests, warm_up = config.latency.requests, WARM_UP
    whole = [call for call in student.calls if call[2] != 1]
    assert whole == [
        ("prefill", 1, 0), ("score", 1, 60 + 12),  # zero_shot
        ("prefill", 7, 0), ("score", 7, 60 + 12),  # few_shot, from short to long
        ("prefill", 13, 0), ("score", 13, 60 + 12),  # few_shot_6
        ("prefill", 1, 0), ("chats", None, 9 + 12),  # few_shot_nearest
        ("prefill", 1, 0), ("generate", None, 24), ("chats", None, 24),  # chain_of_thought
        ("prefill", 1, 0), ("score", 1, 60),  # the distilled prompt, once for both names
    ]  # fmt: skip
    single = Counter(kind for kind, _, n in student.calls if n == 1)
    thoughts = config.baselines.chain_of_thought.latency_requests
    assert single == {
        "score": 4 * (requests + warm_up),
        "chats": requests + warm_up + thoughts,
        "generate": thoughts,
    }


def test_the_prompt_before_review_is_measured_too(measured):
    _, answers, latency = measured(CLUSTERED, unreviewed="Another list.")
    assert list(answers) == ["clustered", "unreviewed", "distilled"]
    assert (answers["unreviewed"].scores != answers["distilled"].scores).any()
    assert "unreviewed_calibrated" in latency.systems


def test_each_different_prompt_of_the_sweep_is_timed_once(small_student, tmp_path):
    for trial, prompt in {"t1": PROMPT, "t2": CLUSTERED, "t3": PROMPT}.items():
        write_prompt(tmp_path / f"artifacts/trials/{trial}", prompt_messages(prompt))
    (tmp_path / "artifacts/trials/failed").mkdir()
    config = composed()
    inputs = SimpleNamespace(student=small_student)

    def timed(requests):
        few = config.latency.model_copy(update={"trial_requests": requests})
        changed = config.model_copy(update={"latency": few})
        return evaluate._timed_trials(changed, tmp_path / "artifacts", inputs, mails("test", 3))

    found = timed(2)
    assert list(found) == ["t1", "t2", "t3"]
    assert found["t1"] == found["t3"] != found["t2"]
    assert {latency.requests for latency in found.values()} == {2}
    assert timed(0) == {}
