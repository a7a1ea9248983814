"""A loop of test size: what it works on, a weak list to begin with, and a proposer that does as it is told."""

import numpy as np

from pld.resolve.proposer import Proposal, Proposals
from pld.resolve.search_proposer import SearchProposer
from pld.resolve.view import Ground
from support.word_student import LABELS, answering, config, embed, examples, instruction, rule


def ground(
    seed=0, proposer=None, train=60, validation=90, shuffled=None, noise=(), groups=None, noise_share=0.1, **changes
):
    """`shuffled`: seed of a permutation of validation's labels; `noise`: ids of rules that were dropped; `noise_share`:
    of examples that tell of another label; the rest are settings of `resolution`."""
    found = examples("train", train, seed, noise_share, groups)
    rules = [rule(example) for example in found]
    held = examples("validation", validation, seed, noise_share, groups)
    if shuffled is not None:
        labels = np.random.default_rng(shuffled).permutation([example.label for example in held])
        held = [example.model_copy(update={"label": label}) for example, label in zip(held, labels, strict=True)]
    whole = config(**changes)
    return Ground(
        answering=answering(whole, found, rules),
        train=found,
        validation=held,
        rules=rules,
        vectors=embed([example.inputs["text"] for example in found]),
        clusters={item.id: LABELS.index(item.label) for item in rules if item.id not in noise},
        noise=frozenset(noise),
        proposer=proposer or SearchProposer(),
        embed=embed,
        params=whole.resolution,
        max_words=80,
        max_copied_words=20,
    )


def first_rules(on, count):
    """A weak list: the first `count` rules of each label, each resting on all rules of its label."""
    return [
        instruction(own[at].text, label, own[at:] + own[:at])
        for label in LABELS
        for own in [[item for item in on.rules if item.label == label]]
        for at in range(count)
    ]


class Scripted:
    """Proposes what it is told, round after round; an exception is raised."""

    name = "scripted"

    def __init__(self, *rounds):
        self.rounds = iter(rounds)

    def propose(self, evidence):
        found = next(self.rounds, ())
        if isinstance(found, Exception):
            raise found
        return Proposals([Proposal(edit) for edit in found])
