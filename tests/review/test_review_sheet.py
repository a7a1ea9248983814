import textwrap

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pld.distill.text_checks import one_line
from pld.records import Instruction, Interval, Rule
from pld.resolve.records import Descent, Effect
from pld.review.checks import SheetRules, judged
from pld.review.decisions import edited
from pld.review.inputs import Evidence
from pld.review.sheet import SheetHead, read_sheet, write_sheet
from support.mails import TASK
from support.two_rounds import FINAL, RULES

HEAD = SheetHead("mail", "ab" * 32, ("macro-F1 on test 0.5 [0.4, 0.6]",))
FENCE = "```yaml\ninstruction: {id}\nverdict: approve\n```"
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def evidence(own: Instruction, rule: Rule = RULES[0], note: str = "") -> Evidence:
    descent = Descent(
        instruction_id=own.id, label=own.label, text=own.text, origin=note or "medoid", example_ids=(rule.example_id,),
        rule_ids=(rule.id,), cluster_ids=(0,), edits=(), fixed=None, broken=None,
    )  # fmt: skip
    effect = Effect(
        instruction_id=own.id, label=own.label, macro_f1=Interval(value=0.1, low=0, high=0.2), per_label={}, tokens=9,
        fixed=("v1",), broken=(note,),
    )  # fmt: skip
    return Evidence(own, descent, effect, (rule,) * 7)


def sheet(kind="markdown", *instructions):
    return write_sheet(HEAD, [evidence(own) for own in instructions or FINAL], (), kind)


def markdown(*blocks, head="task: mail\nprompt: abc\nreviewer: Ann"):
    return "\n\n".join(f"```yaml\n{textwrap.dedent(block).strip()}\n```" for block in (head, *blocks))


def read(text, kind="markdown"):
    found = read_sheet(text.encode() if isinstance(text, str) else text, kind)
    assert found.faults == []
    return found


def only(text, kind="markdown"):
    (block,) = read(text, kind).blocks
    return block


def faults(text, kind="markdown"):
    return [(fault.line, fault.where, fault.words) for fault in read_sheet(text.encode(), kind).faults]


@pytest.mark.parametrize("kind", ["markdown", "yaml"])
def test_a_sheet_that_was_not_touched_reads_back_empty(kind):
    found = read(sheet(kind), kind)
    assert (found.task, found.prompt_sha256, found.reviewer) == ("mail", "ab" * 32, "")
    assert [(own.instruction_id, own.text, own.verdict, own.note, own.reviewer) for own in found.blocks] == [
        (own.id, own.text, "", "", "") for own in FINAL
    ]
    assert not found.holds_decisions({own.id: own.text for own in FINAL})


@pytest.mark.parametrize("kind", ["markdown", "yaml"])
@settings(max_examples=150, deadline=None)
@given(text=anything, label=anything, rule=anything, example=anything, note=anything)
@example(
    text="{#\u200d\x85?!,-:b`", label="", rule="", example="", note=""
)  # PyYAML folds it otherwise than it reads it
def test_any_text_comes_back_as_it_was_and_no_evidence_becomes_a_decision(kind, text, label, rule, example, note):
    own = FINAL[0].model_copy(update={"text": text, "label": label})
    shown = RULES[0].model_copy(update={"text": rule, "example_id": example})
    found = read(write_sheet(HEAD, [evidence(own, shown, note), evidence(FINAL[1])], (), kind), kind)
    assert [block.text.strip() for block in found.blocks] == [text.strip(), FINAL[1].text]
    assert not any(block.verdict or block.note or block.reviewer for block in found.blocks)


@pytest.mark.parametrize("kind", ["markdown", "yaml"])
@settings(max_examples=150, deadline=None)
@given(text=anything.filter(lambda text: text == one_line(text) and text), note=anything)
def test_any_text_that_is_typed_on_lines_of_its_own_is_read_as_it_was_typed(kind, text, note):
    typed = {"text": text, "note": one_line(note) or "-"}
    if any(not character.isprintable() for value in typed.values() for character in value):
        return
    fields = [f"{name}: |\n  {value}" for name, value in typed.items()]
    if kind == "markdown":
        block = only("~~~yaml\nprompt: abc\n~~~\n~~~yaml\ninstruction: i\n" + "\n".join(fields) + "\n~~~\n")
    else:
        indented = textwrap.indent("\n".join(fields), "    ")
        block = only(f"prompt: abc\ninstructions:\n  - instruction: i\n{indented}\n", kind)
    assert {"text": block.text, "note": block.note} == typed


@pytest.mark.parametrize("kind", ["markdown", "yaml"])
@settings(max_examples=80, deadline=None)
@given(texts=st.lists(anything.filter(str.strip), min_size=1, max_size=3, unique_by=one_line))
def test_approval_of_all_leaves_any_list_as_it_is(kind, texts):
    own = [FINAL[0].model_copy(update={"id": f"i{n}", "text": text}) for n, text in enumerate(texts)]
    open_line = "\nverdict:\n" if kind == "markdown" else "\n    verdict:\n"
    found = read(sheet(kind, *own).replace(open_line, open_line.rstrip() + " approve\n"), kind)
    rules = SheetRules(task=TASK, sources=(), max_words=1, max_copied_words=1, personal_data=None)
    decisions, wrong = judged(found.blocks, own, "Ann", rules)
    assert wrong == []
    assert edited(own, decisions) == own


@pytest.mark.parametrize(
    "value",
    [
        "too broad: it says “money”",
        "see issue #12 # really",
        "[sic]",
        "- a dash",
        "yes",
        "007",
        "2026-01-02",
        "null",
        "don't",
        "{a: b}",
        "*bold* & `code`",
        "100 %",
        "@ann, !important",
        "C:\\temp\\n",
    ],
)
def test_what_is_typed_on_the_line_of_a_field_is_taken_as_it_stands(value):
    block = only(markdown(f"instruction: i\nnote: {value}\nreviewer:{value}\ntext:   {value}  "))
    assert (block.note, block.reviewer, block.text) == (value, value, value)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("text: one\n  two: three\n\n  four", "one\ntwo: three\n\nfour"),
        ("text: >-\n  one\n  two: 'three'\n  # four", "one two: 'three' # four"),
        ("text: |\n  one\n\n  two", "one\n\ntwo\n"),
        ("text:\n\tone\n\ttwo", "one\ntwo"),
        ("text: |\n\tone\n\ttwo", "one\ntwo\n"),
        ('text: "a \\"quoted\\" one: \\u00e9"', 'a "quoted" one: é'),
        ("text: 'it''s'", "it's"),
        ('text: "over\n  two lines"', "over two lines"),
        ("TEXT : here", "here"),
        ("text:", ""),
    ],
)
def test_a_text_may_be_typed_in_all_these_ways(typed, wanted):
    assert only(markdown(f"instruction: i\nverdict: edit\n{typed}")).text == wanted.strip()


@pytest.mark.parametrize("kind", ["markdown", "yaml"])
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(kind):
    plain = sheet(kind)
    windows = b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode()
    assert read(windows, kind) == read(plain, kind)
    assert read(plain.replace("\n", "\r"), kind) == read(plain, kind)
    assert only(b"\xef\xbb\xbf" + markdown("instruction: i").encode()).instruction_id == "i"


@pytest.mark.parametrize("mark", ["```", "~~~"])
def test_a_rule_can_not_close_its_place_and_decide(mark):
    forged = "\n\n" + FENCE.format(id=FINAL[1].id).replace("```", mark)
    own = FINAL[0].model_copy(update={"label": forged, "text": f"a ```` b {forged}"})
    shown = RULES[0].model_copy(update={"text": forged, "example_id": f"x{forged}"})
    found = read(write_sheet(HEAD, [evidence(own, shown, forged)], (), "markdown"))
    assert [(block.instruction_id, block.verdict) for block in found.blocks] == [(own.id, "")]
    ticks = FINAL[0].model_copy(update={"text": f"{'x' * 100} {'`' * 100} y"})  # on a line of their own
    assert read(write_sheet(HEAD, [evidence(ticks)], (), "markdown")).blocks[0].text == ticks.text


def test_links_and_html_of_a_rule_are_shown_and_not_followed():
    shown = RULES[0].model_copy(update={"text": "<img src=x> ![a](http://x) [b][c] `d` *e*\u202e"})
    text = write_sheet(HEAD, [evidence(FINAL[0], shown)], (), "markdown")
    assert r"\<img src=x> ![a\](http://x) [b\][c] \`d\` \*e\*" + "\\\\u202e" in text


def test_other_fences_lists_and_words_around_the_blocks_are_left_alone():
    text = markdown("instruction: i\nverdict: approve") + "\n\nsome words\n\n```python\nx = 1\n```\n- ```yaml\n  x: y\n"
    assert only(text).verdict == "approve"


@pytest.mark.parametrize(
    ("text", "line", "where", "words"),
    [
        (markdown("instruction: i\nverdict: edit\nverdict: reject"), 10, "verdict", "found a second one"),
        (markdown("instruction: i\nnote: one\ntwo"), 10, "the fields", "found 'two'; indent the further lines"),
        (markdown("instruction: i\nverdct: edit"), 9, "the fields", "wanted one of instruction, verdict, reviewer"),
        (markdown("verdict: edit"), 7, "the block", "wanted the field instruction with an id"),
        (markdown('instruction: i\ntext: "open'), 9, "text", "on lines of its own, indented by two spaces, below `>-`"),
        (markdown('instruction: i\ntext: "a" b'), 9, "text", "wanted a text as YAML writes it"),
        (markdown(head="prompt: a") + "\n\n" + markdown(head="prompt: b"), 5, "the head", "found a second one"),
        ("# nothing here", 0, "the head", "`pld review export` writes one"),
        ("prompt\0", 1, "the file", "wanted text, found a NUL"),
    ],
)
def test_what_is_wrong_with_the_form_is_told_with_its_line(text, line, where, words):
    (found,) = faults(text)
    assert found[:2] == (line, where)
    assert words in found[2]
    assert "\n" not in found[2]


@pytest.mark.parametrize(
    ("text", "line", "where", "words"),
    [
        (
            "prompt: a\ninstructions:\n  - instruction: i\n    note: a: b\n",
            4,
            "the file",
            "mapping values are not allowed",
        ),
        ("prompt: a\ninstructions:\n  - instruction: i\n    note: fix #12\n", 4, "note", "cuts off as a comment"),
        ("prompt: a\ninstructions:\n  - instruction: i\n    note: 1\n    note: 2\n", 5, "note", "found a second one"),
        ("prompt: a\ninstructions:\n  - instruction: i\n    note: [1]\n", 4, "note", "found a list or a mapping"),
        ("prompt: a\ninstructions:\n  - what: i\n", 3, "the fields", "found 'what'"),
        ("- a\n", 0, "the file", "wanted a sheet as `pld review export` writes it"),
        ("[" * 5000, 0, "the file", "wanted YAML"),
    ],
)
def test_what_is_wrong_with_a_yaml_sheet_is_told_with_its_line(text, line, where, words):
    found = faults(text, "yaml")
    assert (found[0][0] if line else 0, found[0][1]) == (line, where)
    assert words in found[0][2]


def test_another_encoding_is_told():
    (found,) = read_sheet("verdict: früh".encode("latin-1"), "markdown").faults
    assert found.words == "wanted UTF-8, found byte 0xfc; save it so"


def test_a_verdict_in_a_yaml_sheet_may_have_a_comment_behind_it():
    text = "prompt: a\ninstructions:\n  - instruction: i\n    verdict: Approve   # fine\n    text: no\n"
    assert (only(text, "yaml").verdict, only(text, "yaml").text) == ("Approve", "no")


def test_whatever_was_filled_in_is_seen():
    texts = {own.id: own.text for own in FINAL}
    for old, new in (
        ("verdict:", "verdict: edit"),
        ("note:", "note: x"),
        ("reviewer:", "reviewer: x"),
        ("If ", "When "),
    ):
        assert read(sheet().replace(old, new)).holds_decisions(texts), old
    assert read(sheet()).holds_decisions({})  # of another list: its texts may have been edited
