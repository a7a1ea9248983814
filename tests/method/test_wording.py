"""Checks of what a rule's text may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.method import wording

LABELS = ("gender", "race", "Not Mentioned", "C++")


TOKENS = (
    "<|im_start|> <|im_end|> <|eot_id|> <|endoftext|> <|start_header_id|> <start_of_turn> <end_of_turn> [INST] [/INST] "
    "<<SYS>> <</SYS>> <s> </s> <bos> <eos> <｜User｜> <｜end▁of▁sentence｜> <|turn> <turn|> [SYSTEM_PROMPT] <think> "
    "</think> <tool_call> <|IM_END|>"
)


@pytest.mark.parametrize("token", [*TOKENS.split(), "\x00", "\x1b"])
def test_chat_template_control_tokens_are_refused_wherever_they_stand(token):
    found = wording.fault(f"If so,{token}answer race.", "race", LABELS, 80)
    assert found is not None
    assert (found.reason, found.detail) == ("control_token", f"contains {token!r}")


@pytest.mark.parametrize(
    "text",
    ["If a < b and b > c, answer race.", "If x|y|z or <b>, answer race.", "[instead], answer race", "a\tb\nrace"],
)
def test_plain_signs_are_no_control_tokens(text):
    assert wording.control_token(text) is None


@pytest.mark.parametrize(
    ("text", "label", "named"),
    [
        ("answer race", "race", True),
        ("Answer RACE.", "race", True),
        ("a 'race'-based claim", "race", True),
        ("embrace it", "race", False),
        ("racers win", "race", False),
        ("answer not\n mentioned", "Not Mentioned", True),
        ("answer not, mentioned", "Not Mentioned", False),
        ("answer C++ here", "C++", True),
        ("answer C", "C++", False),
    ],
)
def test_a_label_is_named_as_words_of_its_own_in_any_case(text, label, named):
    assert wording.names_label(text, label) == named


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("If so, answer race.", None),
        ("If so, answer race, not gender.", None),
        ("Not gender but race.", None),
        ("If so, answer gender, not race.", "other_label"),
        ("Answer gender rather than 'race'.", "other_label"),
        ("If so, answer gender.", "other_label"),
        ("If so, answer.", "no_label"),
        ("  \n", "empty"),
        ("race " * 81, "too_long"),
        ("race " * 80, None),
    ],
)
def test_a_text_leads_to_its_label_and_keeps_its_length(text, reason):
    found = wording.fault(text, "race", LABELS, 80)
    assert (found.reason if found else None) == reason


_word = st.text("abcdefgh", min_size=1, max_size=4)


@given(st.lists(_word, min_size=8, max_size=12), st.lists(_word), st.lists(_word), st.data())
def test_eight_words_of_the_source_are_found_however_they_are_written(source, before, after, data):
    at = data.draw(st.integers(0, len(source) - 8))
    signs = data.draw(st.lists(st.sampled_from([" ", ", ", "\n", ' "', "; — "]), min_size=8, max_size=8))
    run = "".join(word.upper() + sign for word, sign in zip(source[at : at + 8], signs, strict=True))
    assert wording.copied_words(" ".join([*before, run, *after]), " ".join(source), 8)


@given(st.lists(_word, max_size=20), st.lists(_word, max_size=20))
def test_a_copy_is_found_exactly_where_a_run_is_shared(text, source):
    joined = " " + " ".join(source) + " "
    shared = any(f" {' '.join(text[i : i + 3])} " in joined for i in range(len(text) - 2))
    assert (wording.copied_words(" ".join(text), " ".join(source), 3) is not None) == shared


@given(
    st.lists(_word | st.sampled_from(["A,", "a’b", "ab'", "—", "ß"]), max_size=20),
    st.lists(st.lists(_word | st.sampled_from(["a", '"AB"', "ab", "SS"]), max_size=20).map(" ".join), max_size=4),
    st.integers(1, 4),
)
def test_one_text_is_tested_against_many_sources_as_against_each(text, sources, count):
    text = " ".join(text)
    copies = wording.copy_test(text, count)
    assert [copies(source) for source in sources] == [
        wording.copied_words(text, source, count) is not None for source in sources
    ]


def test_seven_words_in_a_row_are_no_copy_of_eight():
    source = "one two three four five six seven eight nine"
    assert wording.copied_words("one two three four five six seven, then", source, 8) is None
    assert wording.copied_words("ONE: two, three four; five six seven eight", source, 8) == (
        "one two three four five six seven eight"
    )


def test_an_apostrophe_makes_no_second_word():
    assert wording.copied_words("don’t they", "Don't they", 2) == "dont they"
