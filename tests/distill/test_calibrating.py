"""Which training examples calibrate a prompt, and the fit on them."""

import numpy as np
import pytest

from pld.calibration import calibrate, cross_fitted
from pld.distill.calibrating import Part, calibration_parts, fitted
from pld.distill.render import base_messages, few_shot_messages
from pld.params import CalibrationParams
from pld.records import Example, Message
from support.word_student import CUES, LABELS, TASK, config, examples, instruction, rule, scorer

SYSTEM = Message(role="system", content="Which colour?")


def params(examples, method="affine"):
    return CalibrationParams(method=method, examples=examples)


def mails(label, n):
    return [Example(id=f"{label}{i}", inputs={"text": f"({label} {i})"}, label=label, split="train") for i in range(n)]


TRAIN = mails("red", 60) + mails("green", 40) + mails("blue", 12)


def ids(parts):
    return {example.id for part in parts for example in part.examples}


def counts(parts):
    return [sum(identity.startswith(label) for identity in ids(parts)) for label in LABELS]


def drawn(size, messages=(SYSTEM,), train=TRAIN, explained=()):
    return calibration_parts(TASK, params(size), messages, train, explained)


def test_examples_are_balanced_by_label_and_common_labels_fill_what_rare_ones_leave():
    assert counts(drawn(30)) == [10, 10, 10]
    assert counts(drawn(60)) == [24, 24, 12]
    assert counts(drawn(500)) == [60, 40, 12]


def test_every_prompt_is_calibrated_on_the_same_examples_except_for_those_that_it_shows():
    plain = drawn(60)
    assert plain == drawn(60, train=TRAIN[::-1])
    shots = [example for example in TRAIN if example.id in ids(plain)][:6]
    few_shot = drawn(60, few_shot_messages(TASK, shots))
    assert not ids(few_shot) & {example.id for example in shots}
    assert len(ids(few_shot) & ids(plain)) == 54
    assert len(few_shot) == 1
    assert few_shot[0].messages == few_shot_messages(TASK, shots)


def test_examples_that_the_teacher_explained_come_last():
    explained = {f"red{i}" for i in range(55)}
    assert ids(drawn(15, explained=explained)) >= {f"red{i}" for i in range(55, 60)}
    assert ids(drawn(30, explained=explained)) & explained  # five more are needed


def test_shown_examples_of_a_rare_label_are_scored_without_their_own_turns():
    shots = mails("blue", 8) + mails("red", 8)
    messages = few_shot_messages(TASK, shots)
    whole, *folds = drawn(30, messages)
    assert whole.messages == messages
    assert counts([whole]) == [10, 10, 4]
    assert counts(folds) == [0, 0, 6]  # ten are enough
    for fold in folds:
        gone = {example.inputs["text"] for example in fold.examples}
        users = [message.content for message in fold.messages if message.role == "user"]
        assert not gone & set(users)
        assert len(fold.messages) == len(messages) - 2 * len(gone)
        answered = {user: answer.content for user, answer in zip(users, fold.messages[2::2], strict=True)}
        assert all(label in text for text, label in answered.items())


def test_an_example_that_the_prompt_shows_twice_is_taken_out_twice():
    shots = mails("blue", 8) * 2
    for fold in drawn(30, few_shot_messages(TASK, shots))[1:]:
        texts = [message.content for message in fold.messages]
        assert not {example.inputs["text"] for example in fold.examples} & set(texts)


def test_what_the_system_message_shows_is_left_out_with_a_warning_where_the_label_is_rare(capsys):
    lines = "\n".join(f"{example.inputs['text']} -> {example.label}" for example in mails("blue", 8) + mails("red", 8))
    parts = drawn(60, [Message(role="system", content=f"Which colour?\n{lines}")])
    assert counts(parts)[2] == 4
    assert not ids(parts) & {f"red{i}" for i in range(8)}
    said = capsys.readouterr().out
    assert said.count("WARNING") == 1
    assert "training examples of 'blue' that the prompt doesn't show, got 4" in said


def test_a_prompt_that_shows_nothing_has_no_warning_however_few_examples_there_are(capsys):
    assert counts(drawn(30, train=mails("red", 2))) == [2, 0, 0]
    assert drawn(30, train=[]) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["affine", "batch", "none"])
def test_the_fit_reads_each_part_after_its_own_messages(method):
    short, long = base_messages(TASK), few_shot_messages(TASK, mails("red", 1))
    asked = []

    def score(messages, examples):
        asked.append((messages, len(examples)))
        return np.array([[LABELS.index(example.label) == k for k in range(3)] for example in examples]) - [
            0.0,
            9.0,
            0.0,
        ]

    parts = [Part(short, tuple(mails("red", 3) + mails("blue", 3))), Part(long, tuple(mails("green", 3)))]
    found = fitted(TASK, params(9, method), parts, score)
    assert asked == [(short, 6), (long, 3)]
    assert found.method == ("batch" if method == "batch" else "affine")
    assert found.examples == 9
    assert found.bias[1] > max(found.bias[0], found.bias[2])


def test_without_examples_scores_stay_as_they_are():
    found = fitted(TASK, params(9), [], lambda messages, examples: np.empty((0, 3)))
    assert (found.scale, found.bias, found.examples) == (1.0, (0.0, 0.0, 0.0), 0)


def test_an_input_of_a_few_words_that_a_rule_happens_to_contain_is_not_shown():
    train = [Example(id="x", inputs={"text": "late parcel"}, label="red", split="train")]
    assert ids(drawn(9, [Message(role="system", content="- A late parcel is red")], train)) == {"x"}
    assert not ids(drawn(9, [Message(role="system", content="late parcel -> red")], train))
    longer = [train[0].model_copy(update={"inputs": {"text": "my late parcel came today"}})]
    assert not ids(drawn(9, [Message(role="system", content="Say red to: my late parcel came today.")], longer))


def test_lists_are_compared_without_further_answers_and_what_ships_is_fitted_on_training_examples():
    settings = config()
    affine = settings.calibration.model_copy(update={"method": "affine", "examples": 12})
    train, validation = examples("train", 30), examples("validation", 30)
    rules = [rule(example) for example in train[:6]]
    found = scorer(settings.model_copy(update={"calibration": affine}), train, rules)
    prompt = found.prompt([instruction(f"{' '.join(words)} -> {label}", label) for label, words in CUES.items()])
    raw = found.raw_scores(prompt, validation)
    compared = found.scores(prompt, validation)
    assert found.asked == 30
    expected = cross_fitted(raw, found.gold(validation), [example.id for example in validation], LABELS)
    assert np.array_equal(compared, expected)
    shipped, calibration = found.shipped_scores(prompt, validation)
    assert (found.asked, calibration.examples) == (42, 12)
    assert np.array_equal(shipped, calibrate(raw, calibration))
    asked = {text for _, text in found.student.asked[30:]}
    assert asked <= {example.inputs["text"] for example in train[6:]}, "not one that the Teacher explained"
