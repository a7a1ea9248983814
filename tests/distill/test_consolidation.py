"""From rules to a prompt by the Teacher: questions ahead, lists, checklists."""

import json
import re

import pytest

from pld.adapters.teachers.answer_store import AnswerStore, Entry, Question, StoredAnswer
from pld.adapters.teachers.offline import OfflineTeacher, waiting
from pld.distill.consolidation import calls_behind
from pld.distill.trial import draft
from pld.errors import WaitingError
from pld.params import TeacherConsolidator
from pld.records import Instruction
from pld.stages import sweep
from support.word_student import WordStudent
from support.word_sweep import MATERIAL, ByNearest, whole

CONSOLIDATOR = TeacherConsolidator(
    kind="teacher",
    scope="label",
    instructions=2,
    max_steps=9,
    min_share=0.0,
    max_rules=400,
    max_characters=100_000,
    max_words=40,
    max_calls=9,
)


def by_label(**rendering):
    base = whole(draw=0)
    space = {
        "consolidator": {"instructions": (1, 2)},
        "rendering": {"frame": ("list", "checklist"), "exemplars": (0, 2)},
    }
    return base.model_copy(
        update={
            "consolidator": CONSOLIDATOR,
            "rendering": base.rendering.model_copy(update=rendering),
            "sweep": base.sweep.model_copy(update={"space": space}),
        }
    )


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PLD_CACHE", str(tmp_path))
    monkeypatch.setattr(sweep, "build", lambda *_: ByNearest())
    return AnswerStore(tmp_path / "answers.sqlite")


def answer(store):
    """Answer all that waits: one instruction per label, and a step per label with the last label first."""
    for question in waiting(store):
        label = re.search(r"The label of `rules`: (\S+)", question.prompt)
        if label:
            most = re.search(r"Write (\d)", question.prompt)[1]
            text = f"If {label[1]} {most} is there, answer {label[1]}."
            said = {"instructions": [{"rules": ["r001"], "text": text}]}
        else:
            rows = json.loads(re.search(r"<instructions-\w+>\n(.*)\n</", question.prompt, re.DOTALL)[1])
            said = {
                "steps": [
                    {
                        "instructions": [row["number"]],
                        "text": f"Is {row['label']} there? Then answer {row['label']}.",
                        "label": row["label"],
                    }
                    for row in reversed(rows)
                ]
            }
        about = Question(
            question.asked, question.asked, "", "offline", "m", question.role, question.request, 0, "offline"
        )
        store.add_unpaid([Entry(about, StoredAnswer(said, None, {}))])


def test_questions_of_all_points_of_the_space_wait_together_and_then_all_checklists(store):
    labels = len(by_label().task.labels)
    rounds = []
    for _ in range(3):
        try:
            sweep._ask_ahead(by_label(), MATERIAL, OfflineTeacher(recorded=None))
        except WaitingError as error:
            rounds.append((len(waiting(store)), re.search(r"got (\d+) questions", str(error))[1]))
            answer(store)
    assert rounds == [(labels * 2, str(labels * 2)), (2, "2")]  # two lengths; exemplars change no question


def test_a_checklist_is_numbered_in_the_order_of_its_steps_and_a_list_in_the_configured_one(store):
    for _ in range(2):
        with pytest.raises(WaitingError):
            sweep._ask_ahead(by_label(), MATERIAL, OfflineTeacher(recorded=None))
        answer(store)

    def lines(consolidator=CONSOLIDATOR, **rendering):
        config = by_label(order="label", **rendering).model_copy(update={"consolidator": consolidator})
        text = draft(config, MATERIAL, ByNearest(), WordStudent(), OfflineTeacher(recorded=None)).prompt.text
        return [line for line in text.splitlines() if "answer " in line]

    labels = by_label().task.labels
    assert lines(frame="list") == [f"- If {label} 2 is there, answer {label}." for label in labels]
    steps = [f"{number}. Is {label} there? Then answer {label}." for number, label in enumerate(labels[::-1], 1)]
    assert lines(frame="checklist") == steps
    medoids = lines(whole().consolidator, frame="checklist")
    assert [line.split(".")[0] for line in medoids] == [str(number) for number in range(1, len(medoids) + 1)]
    said = [next(label for label in labels if f"answer {label}" in line) for line in medoids]
    assert said == sorted(said, key=labels.index)


def test_the_questions_behind_a_list_are_counted_by_its_origins():
    def count(*origins):
        made = [
            Instruction(id=str(i), text="t", label=label, rule_ids=(), support=1, origin=origin)
            for i, (label, origin) in enumerate(origins)
        ]
        return calls_behind(made)

    assert count(("a", "merged (m)"), ("a", "medoid (merge refused: empty)"), ("b", "medoid")) == 2
    assert count(("a", "consolidated"), ("a", "consolidated"), ("b", "medoid (consolidation refused: empty)")) == 2
    assert count(("a", "step"), ("a", "step"), ("b", "step")) == 3
