"""Names and texts as MLflow takes them: its limits are checked, or kept, here."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from pld.records import content_id

LONGEST_NAME = 250  # of a metric or parameter
LONGEST_VALUE = 6000  # of a parameter, in MLflow 3.17
LONGEST_TAG = 8000  # of a run
LONGEST_DESCRIPTION = 5000  # of a registered model or version: the database's column
METRICS_AT_ONCE = 1000
PARAMS_AT_ONCE = 100
_REFUSED = re.compile(r"[^\w\-. :]")  # MLflow takes letters and digits of any script, and `_-. :`


def names(keys: Iterable[str]) -> dict[str, str]:
    """Key → its name in MLflow, a different one for each key: refused characters become `_`; where that makes two keys
    alike, these are spelled out (`:thumbs up sign:`); what is still alike, or too long, is cut and ends in a hash.
    Databases may ignore case, so names that differ only in case count as alike."""
    left, found = list(dict.fromkeys(keys)), dict[str, str]()
    spellings: list[Callable[[str], str]] = [_plain, _spelled, _hashed]
    for spelling in spellings:
        spelled = {key: spelling(key) for key in left}
        taken = Counter(name.casefold() for name in (*found.values(), *spelled.values()))
        fits = {key: name for key, name in spelled.items() if len(name) <= LONGEST_NAME and taken[name.casefold()] == 1}
        found |= fits
        left = [key for key in left if key not in fits]
    return found


def cut(text: str, longest: int) -> str:
    """`text` of at most `longest` characters, with its loss marked."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def described(task: str, labels: Sequence[str]) -> str:
    """The description of a registered model."""
    ending = f" ({len(labels)} labels) by a distilled system prompt."
    return cut(f"Classifies {task} into {', '.join(labels)}", LONGEST_DESCRIPTION - len(ending)) + ending


def _plain(key: str) -> str:
    return _REFUSED.sub("_", key)[:LONGEST_NAME]


def _spelled(key: str) -> str:
    return _REFUSED.sub(lambda found: f":{unicodedata.name(found[0], f'{ord(found[0]):x}').lower()}:", key)


def _hashed(key: str) -> str:
    return f"{_plain(key)[: LONGEST_NAME - 9]}-{content_id(key, 8)}"
