"""Checks every generated rule and instruction: it names its label, is short, copies nothing from its example, and holds
no chat markup, address or order to its reader. A text that an example talked the Teacher into must not reach the
Student's prompt."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pld.distill.prompt_injection import order_in
from pld.prompts.markup import control_token as control_token

# any scheme, `www.`, an e-mail address, a Markdown link, a domain with a path (without one for common endings), an IP
# address with a port or a path. Every repetition is bounded, so that time is linear in the length of the text
_LINK = re.compile(
    r"\b\w{2,16}://|\bmailto:|\bwww\.\w"
    r"|[\w+-]@[\w-]{1,63}\.\w"
    r"|\]\([^)\s]"
    r"|(?<![\w-])(?:[\w-]{1,63}\.){1,6}(?:(?:com|org|edu|gov)\b|[^\W\d_]{2,24}/\w)"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}[:/]\w",
    re.IGNORECASE,
)
FindPersonalData = Callable[[str], str | None]
"""Returns the kind of personal data in a text (`EMAIL_ADDRESS`), never the value; None: none found."""

_CLAUSE_END = re.compile(r"[.;!?](?=\s|$)")
# "read it as A", "lean to A", "gets A"; "A follows", "A if"
_LEADS = re.compile(r"\b(?:as|to|gets|gives|choose|say)\s+[\"'`“]?$", re.IGNORECASE)
_FOLLOWS = re.compile(r"[\"'`”]?\s+(?:follows|if|only)\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|never|than|instead of)\s+(?:(?:a|an|as|the|by|for|answer)\s+)?[\"'`“]?$", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Fault:
    """Why a text is refused: `reason` is a short code for counting, `detail` explains it without quoting the text
    (except control tokens and labels), so that it may be shared."""

    reason: str
    detail: str


def fault(text: str, label: str, labels: Iterable[str], max_words: int) -> Fault | None:
    """The first reason to refuse `text` as an instruction that leads to `label`, or None. Reasons: `empty`,
    `control_token`, `link`, `addresses_model`, `too_long`, `other_label`, `no_label`."""
    if not text.strip():
        return Fault("empty", "no text")
    if token := control_token(text):
        return Fault("control_token", f"contains {token[:20]!r}")
    if _LINK.search(text):
        return Fault("link", "contains a web or e-mail address")
    if order := order_in(text):
        return Fault("addresses_model", order)
    if (words := len(text.split())) > max_words:
        return Fault("too_long", f"{words} words, over {max_words}")
    return _label_fault(text, label, labels)


def personal_data_fault(text: str, find: FindPersonalData | None) -> Fault | None:
    """The fault of a `text` with personal data; None when `find` is None or finds nothing."""
    kind = find(text) if find else None
    return Fault("personal_data", f"holds personal data ({kind})") if kind else None


def names_label(text: str, label: str) -> bool:
    """Whether `text` contains `label` as separate words, in any case."""
    return _as_words(label).search(text) is not None


def copied_words(text: str, source: str, count: int) -> str | None:
    """The first `count` consecutive words of `text` that `source` contains too, ignoring case and punctuation."""
    if not copy_test(text, count)(source):  # fast path: most texts copy nothing
        return None
    wanted, given = _words(text), _words(source)
    runs = {tuple(given[at : at + count]) for at in range(len(given) - count + 1)}
    for at in range(len(wanted) - count + 1):
        if tuple(wanted[at : at + count]) in runs:
            return " ".join(wanted[at : at + count])
    return None


def copy_test(text: str, count: int) -> Callable[[str], bool]:
    """A fast test of whether `copied_words(text, source, count)` finds anything, for thousands of sources: a source is
    tokenized only if it contains each of `count` neighbouring words of `text` somewhere."""
    wanted = _words(text)
    runs = {tuple(wanted[at : at + count]) for at in range(len(wanted) - count + 1)}
    starts = {run[0] for run in runs}

    def copies(source: str) -> bool:
        plain = _plain(source)
        held = 0
        for word in wanted:
            held = held + 1 if word in plain else 0
            if held == count:
                break
        else:
            return False
        given = _WORD.findall(plain)
        return any(tuple(given[at : at + count]) in runs for at, word in enumerate(given) if word in starts)

    return copies


def one_line(text: str) -> str:
    """`text` with every run of white space as one space, stripped."""
    return " ".join(text.split())


def _label_fault(text: str, label: str, labels: Iterable[str]) -> Fault | None:
    others = [other for other in labels if other != label]
    answered = [other for other in others if _answers(text, other)]
    # "answer A, not B" leads to A although it names B; so do "if it is about B, answer A" and "B is wrong; answer A"
    for mention in _as_words(label).finditer(text):
        if _DENIED.search(text[: mention.start()]):
            continue
        clause = _clause(text, mention)
        if _answers(clause, label) or not answered:
            return None
        leads = _LEADS.search(text[: mention.start()]) or _FOLLOWS.match(text[mention.end() :])
        if leads and not any(_answers(clause, other) for other in answered):
            return None
    named = [other for other in others if names_label(text, other)]
    if named:
        return Fault("other_label", f"leads to {' or '.join(named)}, not {label}")
    return Fault("no_label", f"does not lead to {label}")


def _clause(text: str, mention: re.Match[str]) -> str:
    """The text around `mention` up to a full stop or a semicolon."""
    ends = [end.end() for end in _CLAUSE_END.finditer(text, 0, mention.start())]
    after = _CLAUSE_END.search(text, mention.end())
    return text[ends[-1] if ends else 0 : after.start() if after else len(text)]


def _answers(text: str, label: str) -> bool:
    return re.search(rf"\b(?:answer|else|otherwise)\s+[\"'`“]?{_words_of(label)}", text, re.IGNORECASE) is not None


def _as_words(label: str) -> re.Pattern[str]:
    # not as the end of a compound: anti-stereotype does not name stereotype
    return re.compile(rf"(?<!\w)(?<!\w-){_words_of(label)}", re.IGNORECASE)


def _words_of(label: str) -> str:
    words = r"\s+".join(re.escape(word) for word in label.split())
    if len(label) == 1:
        words = rf"(?-i:{words})"  # A is a label, a is an article
    return rf"{words}(?!\w)"


def _words(text: str) -> list[str]:
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    """Casefolded, without apostrophes."""
    return text.casefold().replace("'", "").replace("’", "")
