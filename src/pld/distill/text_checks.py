"""What the text of a rule or an instruction may say: it names its label, is not too long, copies nothing, holds no
chat markup and no address, and speaks of examples, not of instructions. Pure text checks, shared by extraction, merging
and Edits: a text that an example talked the Teacher into must not reach the Student's prompt."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pld.distill.prompt_injection import order_in
from pld.prompts.markup import control_token as control_token

# any scheme, `www.`, an e-mail address, a Markdown link, a domain with a path (of a common ending also without one), an
# IP address with a port or a path. Every repetition is bounded: time grows with the length of the text alone.
_LINK = re.compile(
    r"\b\w{2,16}://|\bmailto:|\bwww\.\w"
    r"|[\w+-]@[\w-]{1,63}\.\w"
    r"|\]\([^)\s]"
    r"|(?<![\w-])(?:[\w-]{1,63}\.){1,6}(?:(?:com|org|edu|gov)\b|[^\W\d_]{2,24}/\w)"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}[:/]\w",
    re.IGNORECASE,
)
FindPersonalData = Callable[[str], str | None]
"""A text → the kind of personal data that it holds (`EMAIL_ADDRESS`), never the value; None: none is found."""

_CLAUSE_END = re.compile(r"[.;!?](?=\s|$)")
# "read it as A", "lean to A", "gets A"; "A follows", "A if"
_LEADS = re.compile(r"\b(?:as|to|gets|gives|choose|say)\s+[\"'`“]?$", re.IGNORECASE)
_FOLLOWS = re.compile(r"[\"'`”]?\s+(?:follows|if|only)\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|never|than|instead of)\s+(?:(?:a|an|as|the|by|for|answer)\s+)?[\"'`“]?$", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Fault:
    """Why a text is refused: `reason` is a short code that is counted, `detail` says it in words that may be shown and
    shared: none of the text's own, but for a control token and labels."""

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
    """Why `text` is refused where personal data are looked for."""
    kind = find(text) if find else None
    return Fault("personal_data", f"holds personal data ({kind})") if kind else None


def names_label(text: str, label: str) -> bool:
    """Whether `label` stands in `text` as a word (or words) of its own, in any case."""
    return _as_words(label).search(text) is not None


def copied_words(text: str, source: str, count: int) -> str | None:
    """The first `count` consecutive words of `text` that stand in `source` too, without case and punctuation."""
    if not copy_test(text, count)(source):  # most texts copy nothing, and this is quicker to see
        return None
    wanted, given = _words(text), _words(source)
    runs = {tuple(given[at : at + count]) for at in range(len(given) - count + 1)}
    for at in range(len(wanted) - count + 1):
        if tuple(wanted[at : at + count]) in runs:
            return " ".join(wanted[at : at + count])
    return None


def copy_test(text: str, count: int) -> Callable[[str], bool]:
    """Whether a source has a run for `copied_words(text, source, count)`, for thousands of sources: a source is cut
    into words only if `count` neighbouring words of `text` stand somewhere in it."""
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
    """`text` with every run of white space as one space, none at the ends."""
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
    """What stands around `mention`, up to a full stop or a semicolon."""
    ends = [end.end() for end in _CLAUSE_END.finditer(text, 0, mention.start())]
    after = _CLAUSE_END.search(text, mention.end())
    return text[ends[-1] if ends else 0 : after.start() if after else len(text)]


def _answers(text: str, label: str) -> bool:
    return re.search(rf"\b(?:answer|else|otherwise)\s+[\"'`“]?{_words_of(label)}", text, re.IGNORECASE) is not None


def _as_words(label: str) -> re.Pattern[str]:
    # the end of a compound is another word: anti-stereotype does not name stereotype
    return re.compile(rf"(?<!\w)(?<!\w-){_words_of(label)}", re.IGNORECASE)


def _words_of(label: str) -> str:
    words = r"\s+".join(re.escape(word) for word in label.split())
    if len(label) == 1:
        words = rf"(?-i:{words})"  # A is a label, and a is none
    return rf"{words}(?!\w)"


def _words(text: str) -> list[str]:
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    """Without case, and without apostrophes: they part no words."""
    return text.casefold().replace("'", "").replace("’", "")
