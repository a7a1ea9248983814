"""What a chat template or a terminal would read as more than text, and what nobody would see."""

import re

# turn markers and special tokens of the chat templates in use (ChatML, Llama 2 to 4, Gemma, Mistral, DeepSeek, Phi,
# GLM, T5), and characters that no line of a prompt needs and no reader sees: control characters (a terminal's escapes),
# marks that turn the direction of writing, blanks of no width, tags. A joiner of no width stays where a script or an
# emoji needs it: between two characters that are not ASCII.
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
    """The same JSON with the first character of every control token written as JSON's `\\uXXXX`: a server that cuts
    `<|im_end|>` out of a message as the end of a turn finds none, and hidden characters are there to be seen."""
    if _is_plain(json_text):
        return json_text
    return _CONTROL_TOKEN.sub(lambda found: _escape(found.group()[0]) + found.group()[1:], json_text)


def _is_plain(text: str) -> bool:
    """Whether `text` surely holds no control token: most texts, and this is quicker to see."""
    return (
        text.isascii()
        and "<" not in text
        and "[" not in text
        and text.replace("\n", " ").replace("\t", " ").isprintable()
    )


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
