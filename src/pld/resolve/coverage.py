"""A declared label without an instruction: an alarm, and the best rules that led to it come back in."""

from collections.abc import Collection, Sequence

from pld.distill.consolidate import RuleGroup, Weigh, make_instruction, nearest_first
from pld.ports import Vectors
from pld.records import Instruction, Rule


def lost_labels(before: Sequence[Instruction], after: Sequence[Instruction]) -> tuple[str, ...]:
    """Labels that had an instruction and have none any more, in the order of `before`."""
    left = {instruction.label for instruction in after}
    return tuple(dict.fromkeys(item.label for item in before if item.label not in left))


def restored(
    label: str,
    rules: Sequence[Rule],
    vectors: Vectors,
    noise: Collection[str],
    dropped: Collection[str],
    origin: str,
    weigh: Weigh = len,
) -> Instruction | None:
    """An instruction for `label` from those of its rules that were dropped as `noise` (rule ids), or, where none was,
    from all of them: the text of the most typical one, the others behind it. None where `label` has no rule but those
    with a text in `dropped`. `vectors` [n, d] belong to `rules` [n]."""
    own = [at for at, rule in enumerate(rules) if rule.label == label and rule.text not in dropped]
    members = [at for at in own if rules[at].id in noise] or own
    if not members:
        return None
    group = RuleGroup(-1, label, nearest_first(members, rules, vectors, weigh))
    return make_instruction(group.rules[0].text, group, origin, weigh)
