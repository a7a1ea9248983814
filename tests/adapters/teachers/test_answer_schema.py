"""Answers against the JSON schemas that pydantic writes."""

import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pld.adapters.teachers.answer_schema import misfit, read_answer


class Edit(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    place: int = Field(ge=1, le=9)
    text: str | None
    kind: Literal["add", "drop"]


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    edits: list[Edit] = Field(max_length=2)
    why: str = Field(min_length=1)
    sure: bool
    share: float
    note: str = "none"


SCHEMA = Answer.model_json_schema()
FITS = {"edits": [{"place": 1, "text": None, "kind": "add"}], "why": "so", "sure": True, "share": 1}


def test_an_answer_that_fits_is_read():
    assert misfit(FITS, SCHEMA) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"why": ""}, "answer.why: wanted minLength 1"),
        ({"why": 1}, "answer.why: wanted string, found int"),
        ({"sure": 1}, "answer.sure: wanted boolean, found int"),
        ({"share": True}, "answer.share: wanted number, found bool"),
        ({"edits": {}}, "answer.edits: wanted array, found dict"),
        ({"edits": FITS["edits"] * 3}, "answer.edits: wanted minItems None, maxItems 2, found 3"),
        ({"edits": [{"place": 0, "text": None, "kind": "add"}]}, r"answer.edits\[0\].place: wanted minimum 1"),
        ({"edits": [{"place": True, "text": None, "kind": "add"}]}, r"answer.edits\[0\].place: wanted integer"),
        ({"edits": [{"place": 1, "text": 2, "kind": "add"}]}, r"answer.edits\[0\].text: fits none of 2"),
        ({"edits": [{"place": 1, "text": None, "kind": "mend"}]}, r"answer.edits\[0\].kind: wanted one of"),
        ({"edits": [{"place": 1, "kind": "add"}]}, r"answer.edits\[0\]: wanted text"),
        ({"more": 1}, "answer: unknown more"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change, words):
    assert re.match(words, misfit({**FITS, **change}, SCHEMA) or "")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_json_object_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"not JSON|wanted an object"):
        read_answer(text, SCHEMA)


def test_a_keyword_that_would_be_skipped_is_an_error_of_the_program():
    with pytest.raises(NotImplementedError, match="pattern"):
        misfit("x", {"type": "string", "pattern": "y"})


_scalars = st.none() | st.booleans() | st.integers(-1, 11) | st.sampled_from(["", "a", "add", "drop"])
_edits = st.fixed_dictionaries({"place": _scalars, "text": _scalars, "kind": _scalars}, optional={"x": _scalars})


@given(
    st.fixed_dictionaries(
        {"edits": st.lists(_edits | _scalars, max_size=3), "why": _scalars, "sure": _scalars, "share": _scalars},
        optional={"note": _scalars, "more": _scalars},
    )
)
def test_it_agrees_with_pydantic(value):
    try:
        Answer.model_validate(value)
        fits = True
    except ValidationError:
        fits = False
    assert (misfit(value, SCHEMA) is None) == fits
