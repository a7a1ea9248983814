"""Systems with a Student of test size in place of a model: what is asked of it, not what it knows."""

import numpy as np
import pytest

from pld.evaluate.baselines.prompting import ChainOfThought, NearestShots
from pld.evaluate.baselines.without_llm import Majority
from pld.evaluate.systems import Prompted
from pld.ports import Generation
from pld.records import Example, Message, Task

TASK = Task(
    name="t", labels=("a", "b"), fields=("x",), input_template="In: {{ x }}", base_instruction="Answer with a or b."
)
TRAIN = [Example(id=f"t{i}", inputs={"x": str(i)}, label="ab"[i % 2], split="train") for i in range(5)]
ASKED = [Example(id=f"q{i}", inputs={"x": str(i)}, label="a", split="test") for i in (3, 10)]


class Listener:
    """Keeps the chats that it is given; thinks aloud about everything but inputs that end in 0."""

    def __init__(self):
        self.chats = []

    def score(self, messages, inputs, labels, on_progress=None):
        return self.score_chats([(*messages, Message(role="user", content=text)) for text in inputs], labels)

    def score_chats(self, chats, labels, on_progress=None):
        self.chats += chats
        return np.tile(np.arange(len(labels), dtype=float), (len(chats), 1))

    def generate(self, chats, max_tokens, on_progress=None):
        no_room = [chat[-1].content.partition("\n")[0].endswith("0") for chat in chats]
        return [Generation("", 0, False) if none else Generation("Hm. So b.", max_tokens, False) for none in no_room]


class OnALine:
    """Embeds a number as an angle, so that near numbers are near."""

    def embed(self, texts, on_progress=None):
        angles = np.array([float(text.removeprefix("In: ")) / 10 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def exceed_window(self, texts):
        return [False] * len(texts)


def turns(chat):
    return [(message.role, message.content) for message in chat]


def test_the_majority_system_ignores_the_input():
    replies = Majority(TASK, TRAIN)(ASKED)
    assert replies.scores.argmax(axis=1).tolist() == [0, 0]
    assert replies.chats == ()


def test_replies_contain_the_chats_that_the_student_read():
    student = Listener()
    replies = Prompted(TASK, student, (Message(role="system", content="P"),))(ASKED)
    assert list(replies.chats) == student.chats
    assert turns(student.chats[0]) == [("system", "P"), ("user", "In: 3")]


def nearest(student, size=2):
    vectors = OnALine().embed([f"In: {example.inputs['x']}" for example in TRAIN])
    return NearestShots(TASK, student, OnALine(), TRAIN, vectors, size)


def test_the_nearest_shot_comes_last():
    student = Listener()
    nearest(student)(ASKED)
    assert turns(student.chats[0]) == [
        ("system", "Answer with a or b."),
        ("user", "In: 2"), ("assistant", "a"),
        ("user", "In: 3"), ("assistant", "b"),
        ("user", "In: 3"),
    ]  # fmt: skip
    assert [content for role, content in turns(student.chats[1]) if role == "user"] == ["In: 3", "In: 4", "In: 10"]


def test_the_nearest_shots_of_a_training_example_exclude_it():
    student = Listener()
    nearest(student)([TRAIN[3]])
    assert [content for role, content in turns(student.chats[0]) if role == "user"] == ["In: 4", "In: 2", "In: 3"]


def test_a_chain_of_thought_becomes_a_turn_before_the_question_for_one_label():
    student = Listener()
    replies = ChainOfThought(TASK, student, 50)(ASKED[:1])
    (system, asked, thought, question) = student.chats[0]
    assert TASK.base_instruction in system.content
    assert asked.content.startswith("In: 3\n")  # after the input: a small Student else answers at once
    assert "step by step" in asked.content
    assert turns([thought]) == [("assistant", "Hm. So b.")]
    assert question.role == "user"
    assert question.content.endswith("a, b.")
    assert list(replies.chats) == student.chats
    assert replies.chains[0].tokens == 50


def test_an_input_that_leaves_no_room_to_think_is_unparsable():
    scores = ChainOfThought(TASK, Listener(), 50)(ASKED).scores
    assert np.isnan(scores).all(axis=1).tolist() == [False, True]


@pytest.mark.parametrize(
    "make", [lambda: Majority(TASK, TRAIN), lambda: nearest(Listener()), lambda: ChainOfThought(TASK, Listener(), 9)]
)
def test_a_call_with_one_example_is_one_request(make):
    assert make()(ASKED[:1]).scores.shape == (1, 2)
