"""Find personal data in what the Teacher writes, by Presidio (optional: the extra `privacy`)."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from pld.errors import ConfigError

_NAMES_MODEL = "en_core_web_sm"
_LEAST_SCORE = 0.4  # Presidio's for a valid telephone number; weaker patterns, as any nine digits, stay below it


def personal_data_check(setting: Literal["allow", "refuse"]) -> Callable[[str], str | None] | None:
    """`find_personal_data` for `refuse`, else None. Raises ConfigError without the package."""
    if setting == "allow":
        return None
    _analyzer()
    return find_personal_data


def find_personal_data(text: str) -> str | None:
    """The kind of the first personal data in `text` (as `EMAIL_ADDRESS`), never the value.

    Recognized by pattern and check digits: e-mail addresses, telephone numbers (international, or in the national
    format of the US, Canada, Britain, Germany, France, Israel, India or Brazil), credit cards, IBANs, IP and MAC
    addresses, cryptocurrency wallets, US social security and taxpayer numbers, British NHS numbers. Names of persons
    only with spaCy's model `en_core_web_sm`, and then not all. Not recognized: postal addresses, dates of birth, user
    names, and indirect references. Raises ConfigError without the package.
    """
    found = _analyzer().analyze(text, language="en", score_threshold=_LEAST_SCORE)
    first = min(found, key=lambda item: (item.start, -item.score, item.entity_type), default=None)
    return None if first is None else str(first.entity_type)


@cache
def _analyzer() -> Any:
    """Presidio's AnalyzerEngine with the recognizers above; downloads nothing and contacts no host."""
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer import predefined_recognizers as known
        from presidio_analyzer.nlp_engine import NoOpNlpEngine, SpacyNlpEngine
    except ImportError:
        raise ConfigError(
            "expected the package presidio-analyzer, got none (extraction.personal_data=refuse); run `pip install "
            "'pld[privacy]'`, or set extraction.personal_data=allow"
        ) from None

    email = known.EmailRecognizer()
    email.validate_result = lambda _: None  # its own looks the domain up in a list of suffixes that it downloads
    recognizers = [
        email,
        known.PhoneRecognizer(),
        known.CreditCardRecognizer(),
        known.IbanRecognizer(),
        known.IpRecognizer(),
        known.MacAddressRecognizer(),
        known.CryptoRecognizer(),
        known.UsSsnRecognizer(),
        known.UsItinRecognizer(),
        known.NhsRecognizer(),
    ]
    if spacy.util.is_package(_NAMES_MODEL):
        engine = SpacyNlpEngine()
        engine.nlp = {"en": spacy.load(_NAMES_MODEL)}  # its own `load` downloads, and takes a GPU where there is one
        recognizers.append(known.SpacyRecognizer(supported_entities=["PERSON"]))
    else:
        engine = NoOpNlpEngine([{"lang_code": "en", "model_name": ""}])
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
