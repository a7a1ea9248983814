"""Personal data in what the Teacher writes, where they are to be refused; `@` stands for any."""

from test_edits import LIST, SOURCES, TASK, add
from test_extraction import PARAMS, Playback, example, said
from test_extraction import TASK as COLOURS

from pld.distill import extract as extraction
from pld.resolve.edits import fault_of, withheld


def find(text):
    return "EMAIL_ADDRESS" if "@" in text else None


def extract(*answers):
    return extraction.extract(COLOURS, [example(1)], PARAMS, Playback(answers), 1, personal_data=find)


def test_a_rule_that_holds_them_is_refused_by_their_kind_alone():
    rules, (rejection,), _ = extract(said(1, "If ann@example.org writes, answer red."))
    assert (rules, rejection.reason) == ([], "personal_data")
    assert rejection.detail == "holds personal data (EMAIL_ADDRESS)"


def test_a_rationale_that_holds_them_is_withheld_and_its_rule_kept():
    (rule,), _, _ = extract(said(1, why="Doubtful: ann@example.org may have meant blue."))
    assert (rule.rationale, rule.doubtful) == ("(withheld: holds personal data (EMAIL_ADDRESS))", True)


def test_an_edit_that_holds_them_is_refused_and_its_words_are_withheld():
    edit = add("If ann@example.org writes, answer red.")
    found = fault_of(edit, LIST, TASK, SOURCES, 80, 7, find)
    assert found.reason == "personal_data"
    assert "ann" not in found.detail + str(withheld(edit))
    assert fault_of(edit, LIST, TASK, SOURCES, 80, 7).reason == "link"
