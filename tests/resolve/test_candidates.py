"""Lists that Edits make, with the supports of their new instructions."""

import pytest

from pld.resolve.candidates import Candidate, CandidateMaker
from pld.resolve.inputs import ResolveInputs
from pld.resolve.proposer import Proposal
from pld.resolve.records import Revise
from support.word_student import config, embed, examples, instruction, rule, scorer

TRAIN = examples("train", 9, noise=0.0)
RULES = [rule(example).model_copy(update={"doubtful": at in (0, 3)}) for at, example in enumerate(TRAIN)]
RED = [item for item in RULES if item.label == "red"]


def inputs(doubtful):
    settings = config()
    clustering = settings.clustering.model_copy(update={"doubtful": doubtful})
    settings = settings.model_copy(update={"clustering": clustering})
    return ResolveInputs(
        config=settings, scorer=scorer(settings, TRAIN, RULES), instructions=(), train=TRAIN, validation=(),
        rules=RULES, vectors=embed([example.inputs["text"] for example in TRAIN]), clusters={}, noise=frozenset(),
    )  # fmt: skip


@pytest.mark.parametrize(("doubtful", "support"), [("keep", 3), ("downweight", 1.5)])
def test_doubtful_rules_of_edited_and_restored_instructions_count_by_the_settings(doubtful, support):
    on, present = inputs(doubtful), [instruction("If it tells of fire, answer red", "red", RED)]
    edit = Revise(id=present[0].id, text="If it tells of an apple, answer red", reason="Why not.")
    made = CandidateMaker(on, 1, present).make(Proposal(edit, tuple(item.id for item in RED)))
    assert isinstance(made, Candidate)
    assert made.instructions[0].support == support
    back = on.restored("red", (), "restored")
    assert back.support == support
    assert (back.text == next(item.text for item in RED if not item.doubtful)) == (doubtful == "downweight")
