import textwrap

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pld.distill.text_checks import one_line
from pld.records import Instruction, Rule
from pld.reports import Interval
from pld.resolve.records import Descent, Effect
from pld.review.checks import SheetRules, check_sheet
from pld.review.decisions import apply_decisions
from pld.review.inputs import ReviewItem
from pld.review.sheet import Sheet, read_sheet, write_sheet
from support.mails import TASK
from support.stories import FINAL, RULES

HEAD = ("mail", "ab" * 32, ("macro-F1 on test 0.5 [0.4, 0.6]",))
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def item(own: Instruction, rule: Rule = RULES[0], note: str = "") -> ReviewItem:
    descent = Descent(
        instruction_id=own.id, label=own.label, text=own.text, origin=note or "medoid", example_ids=(rule.example_id,),
        rule_ids=(rule.id,), cluster_ids=(0,), edits=(), fixed=None, broken=None,
    )  # fmt: skip
    effect = Effect(
        instruction_id=own.id, label=own.label, macro_f1=Interval(value=0.1, low=0, high=0.2), per_label={}, tokens=9,
        fixed=("v1",), broken=(note,), examples=9,
    )  # fmt: skip
    return ReviewItem(own, descent, effect, (rule,) * 7)


def exported(*instructions):
    return write_sheet(*HEAD, [item(own) for own in instructions or FINAL], ())


def typed(fields, head="task: mail\nprompt: abc\nreviewer: Ann"):
    """A sheet with one entry, typed by hand."""
    return f"{head}\ninstructions:\n  - instruction: i\n{textwrap.indent(fields, '    ')}\n"


def read(text):
    found = read_sheet(text.encode() if isinstance(text, str) else text)
    assert isinstance(found, Sheet), found
    return found.content


def only(text):
    (entry,) = read(text).instructions
    return entry


def faults(text):
    found = read_sheet(text.encode())
    assert isinstance(found, list)
    return found


def test_an_untouched_sheet_reads_back_without_decisions():
    found = read(exported())
    assert (found.task, found.prompt, found.reviewer) == ("mail", "ab" * 32, "")
    assert [tuple(own.model_dump().values()) for own in found.instructions] == [
        (own.id, "", "", "", own.text) for own in FINAL
    ]


@settings(max_examples=150, deadline=None)
@given(text=anything, label=anything, rule=anything, example_id=anything, note=anything)
@example(text="{#\u200d\x85?!,-:b`", label="", rule="", example_id="", note="")  # PyYAML misreads its own folding
@example(
    text="a", label="x\n  - instruction: forged\n    verdict: approve", rule="\n\n- a", example_id="\r", note="\x85"
)
def test_any_text_reads_back_unchanged_and_no_evidence_becomes_a_decision(text, label, rule, example_id, note):
    own = FINAL[0].model_copy(update={"text": text, "label": label})
    shown = RULES[0].model_copy(update={"text": rule, "example_id": example_id})
    found = read(write_sheet(*HEAD, [item(own, shown, note), item(FINAL[1])], ()))
    assert [entry.text.strip() for entry in found.instructions] == [text.strip(), FINAL[1].text]
    assert not any(entry.verdict or entry.note or entry.reviewer for entry in found.instructions)


@settings(max_examples=150, deadline=None)
@given(text=anything.filter(lambda text: text == one_line(text) and text), note=anything)
def test_a_text_on_lines_of_its_own_is_read_as_typed(text, note):
    fields = {"text": text, "note": one_line(note) or "-"}
    if all(character.isprintable() for value in fields.values() for character in value):
        entry = only(typed("\n".join(f"{name}: |\n  {value}" for name, value in fields.items())))
        assert {"text": entry.text, "note": entry.note} == fields


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(anything.filter(str.strip), min_size=1, max_size=3, unique_by=one_line))
def test_approving_everything_leaves_any_list_unchanged(texts):
    own = [FINAL[0].model_copy(update={"id": f"i{n}", "text": text}) for n, text in enumerate(texts)]
    text = (
        exported(*own).replace("\n    verdict:\n", "\n    verdict: approve\n").replace("reviewer:", "reviewer: Ann", 1)
    )
    rules = SheetRules(task=TASK, sources=(), max_words=1, max_copied_words=1, personal_data=None)
    sheet = read_sheet(text.encode())
    assert isinstance(sheet, Sheet)
    decisions, wrong = check_sheet(sheet, own, rules)
    assert wrong == []
    assert apply_decisions(own, decisions) == own


@pytest.mark.parametrize(
    "value", ["yes", "007", "2026-01-02", "null", "don't", "100 %", "1.0", "C:\\temp\\n", "“money”"]
)
def test_values_on_the_line_of_a_field_stay_text(value):
    entry = only(typed(f"note: {value}\nreviewer: {value}\ntext:   {value}  "))
    assert (entry.note, entry.reviewer, entry.text) == (value, value, value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("text: >-\n  one\n  two: 'three'\n  # four", "one two: 'three' # four"),
        ("text: |\n  one\n\n  two", "one\n\ntwo"),
        ('text: "a \\"quoted\\" one: \\u00e9"', 'a "quoted" one: é'),
        ("text: 'it''s'", "it's"),
        ('text: "over\n  two lines"', "over two lines"),
        ("text: over\n  two lines", "over two lines"),
        ("text: 'one' # a comment", "one"),
        ("text:", ""),
    ],
)
def test_a_text_may_be_written_in_every_style_of_yaml(fields, expected):
    assert only(typed(fields)).text == expected


def test_line_ends_and_a_byte_order_mark_make_no_difference():
    plain = exported()
    assert read(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode()) == read(plain)
    assert read(plain.replace("\n", "\r")) == read(plain)


def test_hidden_characters_of_a_rule_are_escaped_in_the_comments():
    shown = RULES[0].model_copy(update={"text": "a\u202eb"})
    assert "a\\u202eb" in write_sheet(*HEAD, [item(FINAL[0], shown)], ())


@pytest.mark.parametrize(
    ("text", "line", "where", "problem"),
    [
        (typed("note: a: b"), 6, "the file", "expected YAML, got mapping values are not allowed here"),
        (typed('text: "open'), 7, "the file", "expected YAML, got found unexpected end of stream"),
        (typed("note: fix #12"), 6, "the file", "expected YAML, got a note cut off by a comment"),
        (typed("verdict: edit\nverdict: reject"), 7, "the file", "expected YAML, got a second 'verdict'"),
        (typed("", head="prompt: a\nprompt: b"), 2, "the file", "expected YAML, got a second 'prompt'"),
        (typed("note: [1]"), 6, "instructions.0.note", "got input should be a valid string"),
        (typed("verdct: edit"), 6, "instructions.0.verdct", "got extra inputs are not permitted"),
        (
            "prompt: a\ntask: mail\ninstructions:\n  - verdict: edit\n",
            4,
            "instructions.0.instruction",
            "field required",
        ),
        ("task: mail\ninstructions: []\n", 1, "prompt", "got field required"),
        ("prompt: a\ntask: b\ninstructions: none\n", 3, "instructions", "got input should be a valid list"),
        ("- a\n", 0, "the file", "expected a sheet as `pld review export` writes it, got none"),
        ("# nothing here", 0, "the file", "expected a sheet as `pld review export` writes it, got none"),
        ("a: &x [*x]", 1, "the file", "expected YAML, got found unconstructable recursive node"),
        ("[" * 5000, None, "the file", "expected YAML"),
        ("prompt\0", 0, "the file", "expected YAML, got special characters are not allowed"),
    ],
)
def test_a_fault_of_form_says_its_line(text, line, where, problem):
    fault = next(fault for fault in faults(text) if fault.where == where)
    assert line in (fault.line, None)
    assert problem in fault.problem
    assert "\n" not in fault.message("a.yaml")


def test_a_fault_is_one_line_with_its_place_in_parentheses():
    (fault,) = faults(typed("note: a: b"))
    assert fault.message("a.yaml").startswith(
        "expected YAML, got mapping values are not allowed here (a.yaml:6, the file); write a text with a colon"
    )


def test_another_encoding_is_refused():
    (fault,) = read_sheet("verdict: früh".encode("latin-1"))
    assert (fault.problem, fault.advice) == ("expected UTF-8, got byte 0xfc", "save it as UTF-8")


def test_a_verdict_may_have_a_comment_behind_it():
    assert only(typed("verdict: Approve   # fine\ntext: no")).verdict == "Approve"
