"""Detect and escape chat-template control tokens, terminal control characters and invisible characters."""

import re

# turn markers and special tokens of common chat templates (ChatML, Llama 2 to 4, Gemma, Mistral, DeepSeek, Phi, GLM,
# T5), and characters that no reader sees: control characters (terminal escapes), direction marks, zero-width blanks,
# tags. A zero-width joiner is allowed where a script or an emoji needs it: between two non-ASCII characters
_CONTROL_TOKEN = re.compile(
    r"<[|｜][^|｜<>\n]{1,64}[|｜]>|<[|｜]\w{1,32}>|<\w{1,32}[|｜]>|\[[|｜]\w{1,32}[|｜]\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|think|tool_call|tool_response|(?:start|end)_of_(?:turn|image)|sop|eop)>"
    r"|<(?:unused|extra_id_|special_)\d{1,4}>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|THINK|gMASK)\]"
    r"|<</?SYS>>"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    r"\ufff0-\ufffb\U000e0000-\U000e0fff]"
    r"|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])",
    re.IGNORECASE,
)


def control_token(text: str) -> str | None:
    """The first chat-template control token, or control or invisible character, in `text`."""
    found = None if _is_plain(text) else _CONTROL_TOKEN.search(text)
    return found.group() if found else None


def escaped(json_text: str) -> str:
    """The same JSON with the first character of every control token as a `\\uXXXX` escape: a server that would take
    `<|im_end|>` for the end of a turn finds none, and hidden characters become visible."""
    if _is_plain(json_text):
        return json_text
    return _CONTROL_TOKEN.sub(lambda found: _escape(found.group()[0]) + found.group()[1:], json_text)


def _is_plain(text: str) -> bool:
    """A fast test that is true for most texts without a control token."""
    return (
        text.isascii()
        and "<" not in text
        and "[" not in text
        and text.replace("\n", " ").replace("\t", " ").isprintable()
    )


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
