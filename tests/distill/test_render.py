import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.distill.render import exemplars_of, few_shot_messages, render_input, render_system_prompt
from pld.errors import ConfigError, DistillError
from pld.params import RenderingParams
from pld.prompts import names
from pld.records import Example, Instruction, Rule, Task, canonical_json, content_id, sha256

TASK = Task(
    name="t", labels=("yes", "no"), fields=("text",), input_template="{{ text }}", base_instruction="Say yes or no."
)


def instruction(text, label="yes", support=1):
    return Instruction(
        id=content_id([label, text], 12), text=text, label=label, rule_ids=(), support=support, origin="medoid"
    )


def params(**changed):
    values = {
        "frame": "list",
        "order": "support",
        "exemplars": 0,
        "exemplars_per": "label",
        "exemplars_as": "inline",
        "token_budget": None,
    }
    return RenderingParams(**(values | changed))


def render(instructions, shown=None, **changed):
    shown = shown or {item.id: [] for item in instructions}
    return render_system_prompt(TASK, instructions, shown, params(**changed), words)


def configured(rendering, personal_data="allow"):
    return SimpleNamespace(task=TASK, rendering=rendering, extraction=SimpleNamespace(personal_data=personal_data))


def words(messages):
    return sum(len(message.content.split()) for message in messages)


def example(text, label="yes"):
    return Example(id=content_id(text), inputs={"text": text}, label=label, split="train")


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), min_size=1)


@pytest.mark.parametrize("frame", [name.removeprefix("frame_") for name in names() if name.startswith("frame_")])
@given(texts=st.lists(WORDS, min_size=1, max_size=6, unique=True))
def test_every_instruction_stands_in_the_prompt_letter_for_letter(frame, texts):
    instructions = [instruction(text) for text in texts]
    prompt = render(instructions, frame=frame)
    for text in texts:
        assert text in prompt.text
    assert prompt.sha256 == sha256(prompt.text)
    assert set(prompt.instruction_ids) == {item.id for item in instructions}


@given(
    st.lists(
        st.tuples(WORDS, st.sampled_from(["yes", "no"]), st.integers(1, 9)),
        min_size=2,
        max_size=8,
        unique_by=lambda t: t[0],
    )
)
def test_the_prompt_does_not_depend_on_the_order_that_instructions_come_in(rows):
    instructions = [instruction(*row) for row in rows]
    assert render(instructions) == render(instructions[::-1])


def test_braces_in_a_rule_or_an_example_are_text_and_never_a_template():
    assert "{{ 1 + 1 }}" in render([instruction("answer yes to {{ 1 + 1 }}")]).text
    assert render_input(TASK, {"text": "{% for x in y %}"}) == "{% for x in y %}"


def test_an_input_without_a_field_of_the_template_is_refused_by_name():
    with pytest.raises(ConfigError, match="text"):
        render_input(TASK, {"body": "x"})


@pytest.mark.parametrize(("order", "expected"), [("support", "cab"), ("support_last", "bac"), ("label", "cba")])
def test_order_is_by_support_or_by_label(order, expected):
    a, b, c = instruction("a", "no", 2), instruction("b", "yes", 1), instruction("c", "yes", 3)
    prompt = render([a, b, c], order=order)
    by_id = {a.id: "a", b.id: "b", c.id: "c"}
    assert "".join(by_id[identity] for identity in prompt.instruction_ids) == expected


def test_over_the_budget_the_least_supported_goes_first_but_a_labels_last_instruction_stays():
    weak_but_alone = instruction("only no", "no", 1)
    instructions = [weak_but_alone, instruction("yes much", support=9), instruction("yes little", support=2)]
    whole = render(instructions)
    prompt = render(instructions, token_budget=whole.tokens - 1)
    assert weak_but_alone.id in prompt.instruction_ids
    assert [(cut.instruction_id, cut.reason) for cut in prompt.cut] == [
        (instructions[2].id, f"over the budget of {whole.tokens - 1} tokens")
    ]
    assert prompt.tokens <= whole.tokens - 1


def test_a_budget_that_nothing_fits_says_so():
    with pytest.raises(DistillError, match="expected a prompt of at most 3 tokens"):
        render([instruction("one two three four")], token_budget=3)


def test_exemplars_per_label_come_from_its_instructions_in_turn_each_once():
    first, second = instruction("first", support=2), instruction("second", support=1)
    shared, own, other = example("shared"), example("own"), example("other")
    exemplars = {first.id: [shared, own], second.id: [shared, other]}
    text = render([first, second], exemplars, exemplars=3).text
    assert [text.count(word) for word in ("shared", "own", "other")] == [1, 1, 1]


def test_exemplars_per_instruction_stand_with_it():
    first, second = instruction("first", support=2), instruction("second", support=1)
    exemplars = {first.id: [example("alpha"), example("beta")], second.id: [example("gamma")]}
    text = render([first, second], exemplars, exemplars=1, exemplars_per="instruction").text
    assert text.index("first") < text.index("alpha") < text.index("second") < text.index("gamma")
    assert "beta" not in text


def test_doubtful_examples_are_shown_last():
    rules = {
        identity: Rule(
            id=identity, example_id=identity, label="yes", rationale="", text="", teacher="", doubtful=doubtful
        )
        for identity, doubtful in (("r1", True), ("r2", False))
    }
    train = {"r1": example("one"), "r2": example("two")}
    item = instruction("x").model_copy(update={"rule_ids": ("r1", "r2")})
    assert [
        found.inputs["text"] for found in exemplars_of([item], rules, train, configured(params(exemplars=1)))[item.id]
    ] == ["two", "one"]


def test_few_shot_shows_each_example_as_a_turn_and_its_label_as_the_answer():
    messages = few_shot_messages(TASK, [example("up", "no")])
    assert [(message.role, message.content) for message in messages] == [
        ("system", "Say yes or no."),
        ("user", "up"),
        ("assistant", "no"),
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["yes", "no"]), st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=9)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_turns_are_nested_balanced_and_never_doubtful(rows, fewer, more):
    train, rules, instructions = {}, {}, []
    for place, (label, sources) in enumerate(rows):
        item = instruction(f"rule {place}", label, support=9 - place)
        ids = []
        for number, doubtful in sources:
            shown = example(f"{label} {number}", label)
            rule = Rule(
                id=f"{place} {number}", example_id=shown.id, label=label, rationale="", text="", teacher="",
                doubtful=doubtful,
            )  # fmt: skip
            train[shown.id], rules[rule.id] = shown, rule
            ids.append(rule.id)
        instructions.append(item.model_copy(update={"rule_ids": tuple(ids)}))
    turns = {}
    for exemplars in (fewer, fewer + more):
        settings = params(exemplars=exemplars, exemplars_per="prompt", exemplars_as="turns")
        shown = exemplars_of(instructions, rules, train, configured(settings))
        turns[exemplars] = render_system_prompt(TASK, instructions, shown, settings, words).turns
    longer = turns[fewer + more]
    assert turns[fewer] == longer[: 2 * fewer]
    assert [message.role for message in longer] == ["user", "assistant"] * (len(longer) // 2)
    doubtful = {rule.example_id for rule in rules.values() if rule.doubtful}
    texts = {found.inputs["text"]: found for identity, found in train.items() if identity not in doubtful}
    asked = [message.content for message in longer[::2]]
    assert len(set(asked)) == len(asked) == min(fewer + more, len(texts))
    assert [texts[text].label for text in asked] == [message.content for message in longer[1::2]]
    left = Counter(found.label for found in texts.values())
    for end in range(len(asked) + 1):
        counts = Counter(texts[text].label for text in asked[:end])
        for label, other in (("yes", "no"), ("no", "yes")):
            assert counts[label] >= min(counts[other] - 1, left[label])


def test_an_example_with_personal_data_is_not_shown_where_rules_may_not_have_it_either(monkeypatch):
    finds = lambda text: "EMAIL" if "@" in text else None  # noqa: E731
    monkeypatch.setattr(sys.modules["pld.distill.render"], "personal_data_check", lambda _: finds)
    item = instruction("x").model_copy(update={"rule_ids": ("r1", "r2")})
    train = {"r1": example("write to a@b.example"), "r2": example("two")}
    rules = {
        identity: Rule(id=identity, example_id=identity, label="yes", rationale="", text="", teacher="", doubtful=False)
        for identity in train
    }
    for how in ("inline", "turns"):
        settings = params(exemplars=2, exemplars_as=how)
        (shown,) = exemplars_of([item], rules, train, configured(settings, "refuse")).values()
        assert shown == [train["r2"]]


def test_turns_are_each_instructions_most_typical_examples_in_turn():
    first, second = instruction("first", support=2), instruction("second", support=1)
    exemplars = {first.id: [example("a1"), example("a2")], second.id: [example("b1"), example("b2")]}
    prompt = render([first, second], exemplars, exemplars=3, exemplars_per="prompt", exemplars_as="turns")
    assert [message.content for message in prompt.turns[::2]] == ["a1", "b1", "a2"]
    assert prompt.example_ids == tuple(example(text).id for text in ("a1", "b1", "a2"))
    assert not any(text in prompt.text for text in ("a1", "b1", "Examples"))


@pytest.mark.parametrize(("per", "expected"), [("instruction", 4), ("label", 3), ("prompt", 2)])
def test_exemplars_are_counted_per_instruction_label_or_prompt(per, expected):
    first, second, other = instruction("first"), instruction("second"), instruction("other", "no")
    exemplars = {
        first.id: [example("a1"), example("a2")],
        second.id: [example("b1"), example("b2")],
        other.id: [example("c1", "no")],
    }
    settings = {"exemplars": 1 if per == "instruction" else 2, "exemplars_per": per}
    expected -= per == "instruction"
    for how in ("turns", "inline"):
        prompt = render([first, second, other], exemplars, exemplars_as=how, **settings)
        assert len(prompt.example_ids) == expected
        assert len(prompt.turns) == (2 * expected if how == "turns" else 0)


def test_a_bare_prompt_has_the_hash_of_its_text_and_turns_count_in_the_hash():
    item = instruction("first")
    bare = render([item], exemplars_as="turns")
    prompt = render([item], {item.id: [example("a1")]}, exemplars=1, exemplars_per="prompt", exemplars_as="turns")
    assert bare.sha256 == sha256(bare.text)
    assert prompt.text == bare.text
    listed = [{"role": message.role, "content": message.content} for message in prompt.messages]
    assert prompt.sha256 == sha256(canonical_json(listed)) != bare.sha256


def test_over_the_budget_turns_go_first_from_the_end_and_then_instructions():
    strong, weak = instruction("strong rule", support=9), instruction("weak rule", support=2)
    exemplars = {strong.id: [example("a a a")], weak.id: [example("b b b")]}
    settings = {"exemplars": 2, "exemplars_per": "prompt", "exemplars_as": "turns"}
    whole = render([strong, weak], exemplars, **settings)
    assert (len(whole.turns), whole.tokens) == (4, len(whole.text.split()) + 8)
    less = render([strong, weak], exemplars, token_budget=whole.tokens - 1, **settings)
    assert (less.turns, less.cut_turns, less.cut) == (whole.turns[:2], 1, ())
    none = render([strong, weak], exemplars, token_budget=whole.tokens - 8, **settings)
    assert (none.turns, none.cut_turns, none.cut) == ((), 2, ())
    few = render([strong, weak], exemplars, token_budget=whole.tokens - 9, **settings)
    assert [cut.instruction_id for cut in few.cut] == [weak.id]
