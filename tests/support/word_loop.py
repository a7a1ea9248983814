"""A loop of test size: its inputs, a weak list to begin with, and a scripted proposer."""

import numpy as np

from pld.params import NoResolver
from pld.resolve.inputs import ResolveInputs
from pld.resolve.proposer import Proposal, Proposals
from support.word_student import LABELS, config, embed, examples, instruction, rule, scorer


def loop_inputs(
    seed=0, instructions=(), train=60, validation=90, shuffled=None, noise=(), groups=None, noise_share=0.1,
    resolver=None, **changes,
):  # fmt: skip
    """`shuffled`: seed of a permutation of validation's labels; `noise`: ids of noise rules; `noise_share`: of examples
    with words of another label; the rest are settings of `resolution`."""
    found = examples("train", train, seed, noise_share, groups)
    rules = [rule(example) for example in found]
    held = examples("validation", validation, seed, noise_share, groups)
    if shuffled is not None:
        labels = np.random.default_rng(shuffled).permutation([example.label for example in held])
        held = [example.model_copy(update={"label": label}) for example, label in zip(held, labels, strict=True)]
    whole = config(**changes)
    extraction = whole.extraction.model_copy(update={"max_words": 80, "max_copied_words": 20})
    whole = whole.model_copy(update={"extraction": extraction})
    if resolver == "none":
        whole = whole.model_copy(update={"resolver": NoResolver(kind="none")})
    return ResolveInputs(
        config=whole,
        scorer=scorer(whole, found, rules),
        instructions=instructions,
        train=found,
        validation=held,
        rules=rules,
        vectors=embed([example.inputs["text"] for example in found]),
        clusters={item.id: LABELS.index(item.label) for item in rules if item.id not in noise},
        noise=frozenset(noise),
    )


def first_rules(on, count):
    """A weak list: the first `count` rules of each label, each supported by all rules of its label."""
    return [
        instruction(own[at].text, label, own[at:] + own[:at])
        for label in LABELS
        for own in [[item for item in on.rules if item.label == label]]
        for at in range(count)
    ]


class Scripted:
    """Proposes the given Edits, round by round; raises an exception among them."""

    name = "scripted"

    def __init__(self, *rounds):
        self.rounds = iter(rounds)

    def propose(self, evidence):
        found = next(self.rounds, ())
        if isinstance(found, Exception):
            raise found
        return Proposals([Proposal(edit) for edit in found])
