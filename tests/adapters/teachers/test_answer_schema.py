"""Answers against the JSON schemas that pydantic writes."""

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pld.adapters.teachers.paid_teacher import read_answer


def test_a_lone_surrogate_is_refused_before_it_reaches_a_file():
    with pytest.raises(ValueError, match="lone surrogate"):
        read_answer('{"text": "\\ud800"}', {"type": "object"})
    assert read_answer('{"text": "\\ud83d\\ude00"}', {"type": "object"}) == {"text": "\U0001f600"}


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


def fault(value):
    try:
        read_answer(json.dumps(value), SCHEMA)
    except ValueError as error:
        return str(error)
    return None


def test_an_answer_that_fits_is_read():
    assert read_answer(json.dumps(FITS), SCHEMA) == FITS


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"why": ""}, "$.why"),
        ({"why": 1}, "$.why"),
        ({"sure": 1}, "$.sure"),
        ({"share": True}, "$.share"),
        ({"edits": {}}, "$.edits"),
        ({"edits": FITS["edits"] * 3}, "$.edits"),
        ({"edits": [{"place": 0, "text": None, "kind": "add"}]}, "$.edits[0].place"),
        ({"edits": [{"place": True, "text": None, "kind": "add"}]}, "$.edits[0].place"),
        ({"edits": [{"place": 1, "text": 2, "kind": "add"}]}, "$.edits[0].text"),
        ({"edits": [{"place": 1, "text": None, "kind": "mend"}]}, "$.edits[0].kind"),
        ({"edits": [{"place": 1, "kind": "add"}]}, "$.edits[0]"),
        ({"more": 1}, "$"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change, place):
    assert (fault({**FITS, **change}) or "").startswith(f"{place}: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_json_object_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"not JSON|expected an object"):
        read_answer(text, SCHEMA)


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
    assert (fault(value) is None) == fits
