import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pld.data.task_drafting import draft_instruction, draft_template, field_names, replaced
from pld.prompts import render_string


@given(
    st.lists(
        st.text(max_size=12) | st.sampled_from(["for", "self", "loop", "range", "a b", "a_b", "a-b", "2nd"]), min_size=1
    )
)
def test_every_column_gets_a_name_of_its_own_that_a_template_can_hold(columns):
    fields = field_names(columns)
    assert len(set(fields)) == len(columns)
    template = draft_template(fields, columns, (), ())
    values = {field: f"<{at}>" for at, field in enumerate(fields)}
    assert all(value in render_string(template, values) for value in values.values())


def test_names_of_fields_stay_near_those_of_columns():
    assert field_names(["claim text", "2nd", "text", "text ", "range", "größe", "?"]) == (
        "claim_text", "field_2nd", "text", "text_2", "range_text", "größe", "field",
    )  # fmt: skip


def test_the_draft_of_an_instruction_names_what_is_read_and_every_label():
    assert draft_instruction(["claimText", "policy_no"], (), "department", ("a", "b-c", "d")) == (
        "Read the claim text and the policy no and decide the department.\nAnswer with exactly one word: a, b-c or d."
    )
    assert draft_instruction(["text"], (), "label", ("not sure", "yes")) == (
        "Read the text and decide which of the labels fits.\nAnswer with exactly one label: not sure or yes."
    )
    assert draft_instruction(["text"], (), "stars", ("1", "2")).endswith("Answer with exactly one number: 1 or 2.")


PARAMS = """\
# which
groups:
  task: "old"   # why
  teacher: recorded
  embedder: minilm
overrides: []  # none
"""


def test_an_option_is_replaced_where_it_stands():
    assert replaced(PARAMS, {"task": "new"}) == PARAMS.replace('"old"', "new")
    both = replaced(PARAMS, {"task": "new", "teacher": "openai"})
    assert both == PARAMS.replace('"old"', "new").replace("recorded", "openai")
    assert replaced("groups: {task: a, teacher: b}\n", {"teacher": "c"}) == "groups: {task: a, teacher: c}\n"


@pytest.mark.parametrize("text", ["groups: {}\n", "groups: null\n", "- groups\n", "groups: {task: [a]}\n", ""])
def test_a_file_without_the_role_is_refused(text):
    with pytest.raises(ValueError, match="no task under groups"):
        replaced(text, {"task": "new"})


def test_what_is_replaced_is_read_back():
    assert yaml.safe_load(replaced(PARAMS, {"task": "new"}))["groups"]["task"] == "new"
