"""What the text of a rule or an instruction may say: it names its label, is not too long, copies nothing, holds no
chat markup. Pure text checks, shared by extraction and merging."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# turn markers and special tokens of the chat templates in use (ChatML, Llama 2 and 3, Gemma, Mistral, DeepSeek, Phi),
# and characters that no line of a prompt needs
_CONTROL_TOKEN = re.compile(
    r"<[|｜][^|｜<>\n]{1,64}[|｜]>|<[|｜]\w{1,32}>|<\w{1,32}[|｜]>"
    r"|</?(?:s|bos|eos|pad|unk|mask|think|tool_call|tool_response|(?:start|end)_of_(?:turn|image))>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|THINK)\]"
    r"|<</?SYS>>"
    r"|[\x00-\x08\x0e-\x1f\x7f]",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|never|than|instead of)\s+(?:(?:a|an|as|the|by|for|answer)\s+)?[\"'`“]?$", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Fault:
    """Why a text is refused: `reason` is a short code that is counted, `detail` says it in words."""

    reason: str
    detail: str


def fault(text: str, label: str, labels: Iterable[str], max_words: int) -> Fault | None:
    """The first reason to refuse `text` as an instruction that leads to `label`, or None."""
    if not text.strip():
        return Fault("empty", "no text")
    if token := control_token(text):
        return Fault("control_token", f"contains {token!r}")
    if (words := len(text.split())) > max_words:
        return Fault("too_long", f"{words} words, over {max_words}")
    return _label_fault(text, label, labels)


def control_token(text: str) -> str | None:
    """The first chat-template control token (or control character) in `text`."""
    found = _CONTROL_TOKEN.search(text)
    return found.group() if found else None


def names_label(text: str, label: str) -> bool:
    """Whether `label` stands in `text` as a word (or words) of its own, in any case."""
    return _as_words(label).search(text) is not None


def copied_words(text: str, source: str, count: int) -> str | None:
    """The first `count` consecutive words of `text` that stand in `source` too, without case and punctuation."""
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
    mentions = list(_as_words(label).finditer(text))
    # "answer A, not B" leads to A although it names B
    if any(not _DENIED.search(text[: mention.start()]) for mention in mentions):
        return None
    named = [other for other in labels if other != label and names_label(text, other)]
    if named:
        return Fault("other_label", f"leads to {' or '.join(named)}, not {label}")
    return Fault("no_label", f"does not lead to {label}")


def _as_words(label: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in label.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def _words(text: str) -> list[str]:
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    """Without case, and without apostrophes: they part no words."""
    return text.casefold().replace("'", "").replace("’", "")
