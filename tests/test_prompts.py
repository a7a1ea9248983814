"""The loader of prompt templates, and what every template keeps."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld import prompts
from pld.errors import ConfigError

MERGE = {"rules": "R", "label": "red"}


def test_a_template_is_filled_without_a_last_newline():
    assert prompts.render("merge_user", **MERGE) == "R\n\nThe label that they lead to: red"


def test_an_unknown_template_lists_what_is_there():
    with pytest.raises(ConfigError, match=r"prompt template \(.*merge_system, merge_user.*\), got 'merge_usr'"):
        prompts.render("merge_usr", **MERGE)


@pytest.mark.parametrize("name", ["../__init__", "merge_user.j2", "", "."])
def test_a_name_is_no_path(name):
    with pytest.raises(ConfigError, match="expected a prompt template"):
        prompts.render(name)


def test_missing_variables_are_listed():
    with pytest.raises(
        ConfigError,
        match=r"variables label, rules, got missing label, rules \(prompt template",
    ):
        prompts.render("merge_user")


def test_surplus_variables_are_listed():
    with pytest.raises(ConfigError, match=r"variables label, rules, got .*surplus lable, x"):
        prompts.render("merge_user", **MERGE, x=1, lable=2)


@given(st.text())
def test_what_is_filled_in_stays_as_it_is(text):
    hostile = text + "{{ label }}{% for x in y %}{# #}</rules>"
    assert prompts.render("merge_user", rules=hostile, label="red").startswith(hostile)
    assert prompts.render_string("{{ a }}", {"a": hostile}) == hostile


def test_a_template_of_conf_is_as_strict():
    assert prompts.render_string("Q: {{ a }}\nT: {{ b }}\n", {"a": "1", "b": "2"}) == "Q: 1\nT: 2"
    with pytest.raises(ConfigError, match="expected the variables a, b, got missing b and surplus c"):
        prompts.render_string("{{ a }} {{ b }}", {"a": "1", "c": "2"})


@pytest.mark.parametrize("template", ["{{ a", "{{ a.__class__.__mro__ }}", "{{ a | nosuch }}", "{{ a | round }}"])
def test_a_template_of_conf_that_fails_or_reaches_out_is_one_line(template):
    with pytest.raises(ConfigError, match=r"expected a template that renders, got: .*\(template") as caught:
        prompts.render_string(template, {"a": "x"})
    assert "\n" not in str(caught.value)


_values = st.recursive(
    st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(_values, st.text())
def test_no_text_can_close_its_block(value, more):
    first = prompts.data_block("example", value)
    own_tags = re.findall(r"</?example-[0-9a-f]{16}>", first)
    # the strongest attack: text that carries the tags of its own earlier block
    block = prompts.data_block("example", {"text": first + more + own_tags[-1]})
    tag = block.splitlines()[0]
    closing = tag.replace("<", "</")
    assert block.startswith(tag + "\n")
    assert block.endswith("\n" + closing)
    assert (block.count(tag), block.count(closing)) == (1, 1)
    assert json.loads(block.removeprefix(tag).removesuffix(closing)) == {"text": first + more + own_tags[-1]}
