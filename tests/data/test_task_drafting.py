from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.data.audit.task_files import selected
from pld.data.task_drafting import draft_instruction, draft_template, field_names
from pld.errors import ConfigError
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


def test_a_drafted_instruction_names_the_input_columns_and_every_label():
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


def selected_in(text, groups, folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("conf").mkdir()
    Path("params.yaml").write_text(text)
    return selected(groups)


@pytest.mark.parametrize(
    ("groups", "changed"),
    [
        ({"task": "new"}, PARAMS.replace('"old"', "new")),
        ({"task": "new", "teacher": "openai"}, PARAMS.replace('"old"', "new").replace("recorded", "openai")),
    ],
)
def test_selecting_options_changes_no_other_character_of_params_yaml(groups, changed, tmp_path, monkeypatch):
    assert selected_in(PARAMS, groups, tmp_path, monkeypatch) == changed


@pytest.mark.parametrize(
    "text",
    [
        "groups: {}\n",
        "groups: null\n",
        "- groups\n",
        "",
        "groups:\n  a: b\nother:\n  task: c\n",
    ],
)
def test_a_params_yaml_without_a_line_for_the_task_is_refused(text, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"expected groups with a line for task, got others \(params.yaml\)"):
        selected_in(text, {"task": "new"}, tmp_path, monkeypatch)
