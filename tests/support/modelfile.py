"""Ollama's Modelfile, read by the grammar of its parser (ollama/ollama, parser/parser.go, read in November 2026)."""

_NEWLINES = "\n\r"
_SPACES = " \t"


def parse_modelfile(text: str) -> list[tuple[str, str]]:
    """(name in small letters, value) of each instruction; a parameter's name stands for `parameter`, and a
    message's role follows `message`. Raises ValueError
    where Ollama refuses the file."""
    found, at = [], 0
    while at < len(text):
        if text[at] in _NEWLINES + _SPACES:
            at += 1
        elif text[at] == "#":
            while at < len(text) and text[at] not in _NEWLINES:
                at += 1
        else:
            name, at = _name(text, at)
            if name == "parameter":
                name, at = _name(text, at)
            if name == "message":
                role, at = _name(text, at)
                name = f"{name} {role}"
            value, at = _value(text, at)
            found.append((name, value))
    if "from" not in dict(found):
        raise ValueError("no FROM line")
    return found


def _name(text: str, at: int) -> tuple[str, int]:
    end = at
    while end < len(text) and text[end] not in _SPACES:
        if not (text[end].isascii() and (text[end].isalnum() or text[end] == "_")):
            raise ValueError(f"an instruction's name has {text[end]!r}")
        end += 1
    return text[at:end].lower(), end + 1


def _value(text: str, at: int) -> tuple[str, int]:
    """Ends at a line's end, unless a quote is open there; what is not printable is dropped."""
    kept = ""
    while at < len(text):
        character = text[at]
        if character in _NEWLINES and (value := _unquoted(kept.strip())) is not None:
            return value, at + 1
        if character.isprintable() or character in _NEWLINES + _SPACES:
            kept += character
        at += 1
    if (value := _unquoted(kept.strip())) is None:
        raise ValueError("a quote is not closed")
    return value, at


def _unquoted(value: str) -> str | None:
    """None: the quote is open."""
    for quote in ('"""', '"'):
        if value.startswith(quote):
            closed = len(value) >= 2 * len(quote) and value.endswith(quote)
            return value[len(quote) : -len(quote)] if closed else None
    return value
