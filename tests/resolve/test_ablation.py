"""Ablation, pruning and the front, with a Student of test size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pld.distill.cached_scorer import CachedScorer
from pld.metrics import compare
from pld.params import GateParams
from pld.records import Example, Instruction, content_id
from pld.resolve.ablation import (
    FrontPoint,
    ablate,
    ablated_points,
    ablation_part,
    front_point,
    pareto,
    pareto_csv,
    prune,
    read_pareto_csv,
)
from support.artifact_tree import composed
from support.mails import LABELS, TASK
from support.word_student import WordStudent

WORDS = ("money", "parcel", "thanks", "late", "order", "love", "broken", "price")
FRAMED = composed()
CONFIG = FRAMED.model_copy(
    update={
        "rendering": FRAMED.rendering.model_copy(update={"exemplars": 0, "frame": "list"}),
        "evaluation": FRAMED.evaluation.model_copy(update={"resamples": 100}),
    }
)
GATE = GateParams(min_gain=0.05, min_confidence=0.9, max_label_loss=0.3, resamples=100)


def instruction(label, *words):
    text = f"{' '.join(words)} -> {label}"
    identity = content_id({"label": label, "text": text}, 12)
    return Instruction(id=identity, text=text, label=label, rule_ids=(), support=1, origin="medoid")


def scorer(student=None):
    return CachedScorer(config=CONFIG, rules={}, train={}, explained=(), student=student or WordStudent())


def mail(number, label, *words):
    return Example(id=f"v{number}", inputs={"text": " ".join(words)}, label=label, split="validation")


def prompts(student):
    """As they were asked about, one after the other."""
    return list(dict.fromkeys(prompt for prompt, _ in student.asked))


SOME_WORDS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True)
LISTS = st.lists(
    st.builds(lambda label, words: instruction(label, *words), st.sampled_from(LABELS), SOME_WORDS),
    min_size=1,
    max_size=6,
    unique_by=lambda own: own.id,
)
MAILS = st.lists(st.tuples(st.sampled_from(LABELS), SOME_WORDS), min_size=1, max_size=12).map(
    lambda drawn: [mail(number, label, *words) for number, (label, words) in enumerate(drawn)]
)
REFUND = instruction("refund", "money", "price", "order")
ALSO_REFUND = instruction("refund", "money")
DELIVERY = instruction("delivery", "parcel", "late")
PRAISE = instruction("praise", "love")
VALIDATION = [
    mail(0, "refund", "money", "price"), mail(1, "refund", "money"), mail(2, "delivery", "parcel"),
    mail(3, "delivery", "late"), mail(4, "praise", "love"), mail(5, "praise", "love", "thanks"),
]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(LISTS, MAILS)
def test_an_effect_is_the_comparison_with_the_list_without_it(instructions, validation):
    asked = scorer()
    gold = asked.gold(validation)
    with_all = asked.chosen(asked.prompt(instructions), validation)
    effects = ablate(instructions, asked, validation)
    assert [effect.instruction_id for effect in effects] == [own.id for own in instructions]
    for place, effect in enumerate(effects):
        without = asked.prompt(instructions[:place] + instructions[place + 1 :])
        chosen = asked.chosen(without, validation)
        found = compare("a", "b", gold, with_all, chosen, 3, None, 100, CONFIG.evaluation.seed)
        assert effect.macro_f1 == found.macro_f1_delta
        assert (len(effect.fixed), len(effect.broken)) == (found.fixed, found.broken)
        assert np.mean(list(effect.per_label.values())) == pytest.approx(effect.macro_f1.value)
        assert effect.tokens == len(instructions[place].text.split()) + 1  # and its dash


def test_examples_that_an_instruction_turns_right_or_wrong_are_named():
    effects = ablate([REFUND, DELIVERY, PRAISE], scorer(), VALIDATION)
    assert effects[0].fixed == ()  # without it nothing speaks for any label, and the first declared one is refund
    assert effects[1].fixed == ("v2", "v3")
    astray = ablate([REFUND, DELIVERY, PRAISE, instruction("delivery", "love")], scorer(), VALIDATION)[3]
    assert set(astray.broken) == {"v4", "v5"}
    assert astray.macro_f1.value < 0


def test_a_single_instruction_is_measured_against_the_frame_alone():
    student = WordStudent()
    (effect,) = ablate([DELIVERY], scorer(student), VALIDATION)
    assert effect.fixed == ("v2", "v3")
    assert prompts(student)[1].rstrip() == f"{TASK.base_instruction}\n\nRules:"


def test_lists_are_asked_in_the_order_that_shares_the_longest_beginnings():
    student = WordStudent()
    ablate([REFUND, DELIVERY, PRAISE], scorer(student), VALIDATION)
    missing = [
        [own.label for own in (REFUND, DELIVERY, PRAISE) if own.text not in prompt] for prompt in prompts(student)
    ]
    assert missing == [[], ["praise"], ["delivery"], ["refund"]]


def test_the_points_of_an_ablation_ask_the_student_nothing_more():
    asked = scorer()
    instructions = [REFUND, DELIVERY, PRAISE]
    ablate(instructions, asked, VALIDATION)
    before = asked.asked
    points = ablated_points(instructions, asked, VALIDATION)
    assert asked.asked == before
    assert [point.what for point in points] == [f"without {own.id}" for own in instructions]


@settings(max_examples=60, deadline=None)
@given(LISTS, MAILS, st.floats(0, 1), st.floats(0, 1))
def test_pruning_drops_nothing_that_is_missed(instructions, validation, share, min_gain):
    asked = scorer()
    gate = GATE.model_copy(update={"min_gain": min_gain})
    whole = asked.report(asked.prompt(instructions), validation)
    floor = whole.macro_f1.value * share
    pruned = prune(instructions, asked, validation, gate, floor)
    left = asked.report(asked.prompt(pruned.instructions), validation)

    places = [instructions.index(own) for own in pruned.instructions]
    assert places == sorted(places)
    gone = {own.id for own in instructions} - {own.id for own in pruned.instructions}
    assert {identity for identity, _ in pruned.dropped} == gone
    assert {own.label for own in pruned.instructions} == {own.label for own in instructions}
    if gone:
        assert left.macro_f1.value >= floor
        assert whole.macro_f1.value - left.macro_f1.value <= min_gain
        for label, score in whole.per_label.items():
            now = left.per_label[label]
            assert score.recall - now.recall <= gate.max_label_loss or now.f1 >= score.f1
    # and of what is left, nothing more could go
    for own in pruned.instructions:
        rest = [other for other in pruned.instructions if other is not own]
        if own.label in {other.label for other in rest}:
            without = asked.report(asked.prompt(rest), validation)
            assert (
                without.macro_f1.value < floor
                or whole.macro_f1.value - without.macro_f1.value > min_gain
                or any(
                    score.recall - without.per_label[label].recall > gate.max_label_loss
                    and without.per_label[label].f1 < score.f1
                    for label, score in whole.per_label.items()
                )
            )


def test_the_longest_instruction_that_is_not_missed_goes_first():
    instructions = [ALSO_REFUND, REFUND, DELIVERY, PRAISE]
    pruned = prune(instructions, scorer(), VALIDATION, GATE, 0.0)
    assert pruned.instructions == [ALSO_REFUND, DELIVERY, PRAISE]  # either refund alone would do
    ((identity, words),) = pruned.dropped
    assert identity == REFUND.id
    assert words.startswith("6 tokens; without it macro-F1 on validation +0.0000 [")
    assert [point.what for point in pruned.points] == ["pruned 1"]


def test_small_losses_do_not_add_up():
    # each of three lines is worth one example of twelve: one may go under these terms, not two
    extra = [instruction("delivery", word) for word in ("broken", "late", "order")]
    validation = [mail(n, "delivery", own.text.split()[0]) for n, own in enumerate(extra)]
    validation += [mail(9 + n, "delivery", "parcel") for n in range(9)]
    validation += [mail(30 + n, "praise", "love") for n in range(3)]
    gate = GATE.model_copy(update={"min_gain": 0.1, "max_label_loss": 1.0})
    asked = scorer()
    instructions = [instruction("delivery", "parcel"), *extra, PRAISE]
    whole = asked.report(asked.prompt(instructions), validation).macro_f1.value
    losses = [
        whole - asked.report(asked.prompt([own for own in instructions if own not in out]), validation).macro_f1.value
        for out in (extra[:1], extra[:2])
    ]
    assert losses[0] < losses[1]
    between = gate.model_copy(update={"min_gain": sum(losses) / 2})
    assert len(prune(instructions, asked, validation, between, 0.0).dropped) == 1


def test_a_label_whose_recall_would_fall_keeps_its_instruction():
    rare = instruction("praise", "broken", "thanks")
    validation = [*VALIDATION, *(mail(20 + n, "refund", "money") for n in range(30)), mail(60, "praise", "broken")]
    loose = GATE.model_copy(update={"min_gain": 1.0, "max_label_loss": 1.0})
    instructions = [REFUND, DELIVERY, PRAISE, rare]
    assert rare.id in dict(prune(instructions, scorer(), validation, loose, 0.0).dropped)
    strict = loose.model_copy(update={"max_label_loss": 0.1})
    assert rare.id not in dict(prune(instructions, scorer(), validation, strict, 0.0).dropped)


def test_nothing_goes_below_the_floor():
    asked = scorer()
    instructions = [instruction("delivery", "parcel"), instruction("delivery", "late"), REFUND, PRAISE]
    whole = asked.report(asked.prompt(instructions), VALIDATION).macro_f1.value
    loose = GATE.model_copy(update={"min_gain": 1.0, "max_label_loss": 1.0})
    assert len(prune(instructions, asked, VALIDATION, loose, 0.0).dropped) == 1
    assert prune(instructions, asked, VALIDATION, loose, whole).dropped == ()


POINTS = st.lists(
    st.builds(
        lambda place, tokens, value: FrontPoint(
            what=f"list {place}", prompt_sha256=str(place), tokens=tokens, macro_f1=value / 8, low=0, high=1
        ),
        st.integers(0, 20),
        st.integers(1, 6),
        st.integers(0, 8),
    ),
    max_size=15,
)


def dominates(a, b):
    return (a.tokens < b.tokens and a.macro_f1 >= b.macro_f1) or (a.tokens <= b.tokens and a.macro_f1 > b.macro_f1)


@given(POINTS)
def test_a_point_is_on_the_front_exactly_when_no_other_dominates_it(points):
    found = pareto(points)
    assert sorted(point.prompt_sha256 for point in found) == sorted({point.prompt_sha256 for point in points})
    front = [point for point in found if point.on_front]
    assert bool(front) == bool(points)
    for point in found:
        assert point.on_front != any(dominates(other, point) for other in front)
    # along the front longer is better
    along = [(point.tokens, point.macro_f1) for point in front]
    assert along == sorted(along)


@given(POINTS)
def test_the_file_of_the_front_holds_the_same_points(points):
    found = pareto(points)
    text = pareto_csv(found)
    assert text.splitlines()[0] == "what,prompt_sha256,tokens,macro_f1,low,high,on_front"
    assert read_pareto_csv(text) == found


def test_a_list_that_was_measured_twice_keeps_its_first_name():
    asked = scorer()
    prompt = asked.prompt([REFUND])
    report = asked.report(prompt, VALIDATION)
    (point,) = pareto([front_point("came in", prompt, report), front_point("without x", prompt, report)])
    assert point.what == "came in"
    assert point.tokens == report.prompt_tokens


@pytest.mark.parametrize(("examples", "measured"), [(4, 4), (None, len(VALIDATION)), (1000, len(VALIDATION))])
def test_the_effect_is_measured_on_as_many_validation_examples_as_the_settings_say(examples, measured):
    params = composed().resolution.model_copy(update={"ablation_examples": examples})
    part = ablation_part(VALIDATION, params)
    assert len(part) == measured
    assert {effect.examples for effect in ablate([REFUND, DELIVERY], scorer(), part)} == {measured}
