"""What identifies a person, found by the real Presidio: offline, and without a language model."""

import json
import sys

import pytest

from pld.distill import personal_data
from pld.distill.personal_data import find_personal_data, personal_data_check
from pld.errors import ConfigError
from support.project import ROOT

pytestmark = pytest.mark.slow  # importing Presidio takes seconds; what it finds decides nothing by default


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("If it was sent to ann.lee@example.org, answer billing.", "EMAIL_ADDRESS"),
        ("If it was sent to ann@mail.internal, answer billing.", "EMAIL_ADDRESS"),  # no public suffix
        ("If the caller leaves 212-555-0187, answer billing.", "PHONE_NUMBER"),
        ("If the caller leaves +44 20 7946 0958, answer billing.", "PHONE_NUMBER"),
        ("If card 4111 1111 1111 1111 is charged, answer billing.", "CREDIT_CARD"),
        ("If GB33BUKB20201555555555 is named, answer billing.", "IBAN_CODE"),
        ("If the log shows 203.0.113.7, answer technical.", "IP_ADDRESS"),
        ("If the number is 536-90-4399, answer account.", "US_SSN"),
        ("Call 212-555-0187 or write to ann@example.org.", "PHONE_NUMBER"),
    ],
)
def test_what_identifies_a_person_is_named_by_its_kind_alone(text, kind):
    assert find_personal_data(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "If an e-mail address or a telephone number is asked for, answer account.",
        "If the notice period is 30 days, or 3.5 to 10 years from 2019-2024, answer Entailment.",
        "If order 536904399 of 12 May 2024 is late, answer billing.",
        "If section 12(b)(3) or 4.1.2 is cited, answer NotMentioned.",
        "",
    ],
)
def test_numbers_and_talk_of_personal_data_are_none(text):
    assert find_personal_data(text) is None


def test_no_recorded_rule_is_refused():
    recorded = [
        json.loads(line)
        for path in sorted((ROOT / "assets/corpus/teacher").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    # answers by example have a rule, those by question instructions or steps
    rules = [json.dumps(line.get("rule", line.get("content"))) for line in recorded]
    assert len(rules) > 1_000
    assert [rule for rule in rules if find_personal_data(rule)] == []


def test_names_are_found_with_a_language_model(monkeypatch):
    import spacy

    model = spacy.blank("en")  # stands in for en_core_web_sm: it knows one name
    model.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Lee"}])
    monkeypatch.setattr(spacy.util, "is_package", lambda name: name == "en_core_web_sm")
    monkeypatch.setattr(spacy, "load", lambda name: model)
    personal_data._analyzer.cache_clear()
    try:
        assert find_personal_data("If Ann Lee asks, answer billing.") == "PERSON"
        assert find_personal_data("If a customer asks, answer billing.") is None
    finally:
        personal_data._analyzer.cache_clear()


def test_it_is_only_looked_for_when_it_is_to_be_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    personal_data._analyzer.cache_clear()
    assert personal_data_check("allow") is None
    with pytest.raises(ConfigError) as caught:
        personal_data_check("refuse")
    assert str(caught.value) == (
        "expected the package presidio-analyzer, got none (extraction.personal_data=refuse); run `pip install "
        "'pld[privacy]'`, or set extraction.personal_data=allow"
    )


def test_refusing_gives_the_check():
    assert personal_data_check("refuse") is find_personal_data
