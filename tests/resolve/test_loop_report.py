"""The loop's page, of loops of test size."""

from dataclasses import replace

from pld.errors import TeacherError
from pld.resolve.loop_report import loop_report
from pld.resolve.records import Add
from pld.resolve.resolution import resolve
from support.word_loop import Scripted, first_rules, loop_inputs
from support.word_student import embed_examples, instruction

GOOD = Add(text="If it tells of sea or sky or whale or ink, answer blue", label="blue", position=0, reason="a | <b>")


def page(on, came_in, proposer=None):
    rounds = []
    done = resolve(replace(on, instructions=came_in), proposer, embed_examples, rounds.append)
    return done, loop_report(done, rounds)


def test_the_page_shows_rounds_edits_and_what_each_instruction_does():
    on = loop_inputs(patience=2, rounds=2, train=120, ablation=True)
    came_in = [*first_rules(on, 1)[:2], instruction("If it tells of nothing, answer blue", "blue")]
    done, text = page(on, came_in, Scripted(TeacherError("status 529"), [GOOD]))
    assert "Round 1: status 529" in text
    assert f"| 2 | add: {GOOD.text} | scripted |" in text
    for effect in done.effects:
        assert f"| `{effect.instruction_id}` | {effect.label} | {effect.macro_f1.signed} |" in text
    for point in done.points:
        assert point.what in text


def test_no_text_can_break_out_of_its_cell():
    on = loop_inputs(train=120)
    _, text = page(on, first_rules(on, 1), Scripted([GOOD]))
    assert "a \\| &lt;b>" in text
    rows = [line for line in text.splitlines() if line.startswith("| 1 | add")]
    assert len(rows) == 1


def test_without_a_loop_or_an_ablation_the_page_says_so():
    on = loop_inputs(ablation=False, resolver="none")
    _, text = page(on, first_rules(on, 1))
    assert "Ended: no resolver" in text
    assert "Not measured" in text
    assert "## Rounds" not in text
