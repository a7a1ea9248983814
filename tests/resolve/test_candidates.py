"""Lists that Edits make, with the supports of their new instructions."""

import pytest

from pld.resolve.candidates import Candidate, Maker
from pld.resolve.coverage import restored
from pld.resolve.proposer import Proposal
from pld.resolve.records import Revise
from support.word_student import answering, config, embed, examples, instruction, rule

TRAIN = examples("train", 9, noise=0.0)
RULES = [rule(example).model_copy(update={"doubtful": at in (0, 3)}) for at, example in enumerate(TRAIN)]
RED = [item for item in RULES if item.label == "red"]


def ground(doubtful):
    settings = config()
    clustering = settings.clustering.model_copy(update={"doubtful": doubtful})
    return answering(settings.model_copy(update={"clustering": clustering}), TRAIN, RULES)


@pytest.mark.parametrize(("doubtful", "support"), [("keep", 3), ("downweight", 1.5)])
def test_doubtful_rules_behind_an_edited_and_a_restored_instruction_count_as_the_settings_say(doubtful, support):
    asked, present = ground(doubtful), [instruction("If it tells of fire, answer red", "red", RED)]
    maker = Maker(1, present, asked, lambda *_: None, TRAIN, 80, 20, None)
    edit = Revise(id=present[0].id, text="If it tells of an apple, answer red", reason="Why not.")
    made = maker.make(Proposal(edit, tuple(item.id for item in RED)))
    assert isinstance(made, Candidate)
    assert made.instructions[0].support == support
    vectors = embed([example.inputs["text"] for example in TRAIN])
    back = restored("red", RULES, vectors, (), (), "restored", asked.weigh)
    assert back.support == support
    assert (back.text == next(item.text for item in RED if not item.doubtful)) == (doubtful == "downweight")
