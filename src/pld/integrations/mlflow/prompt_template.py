"""A prompt of MLflow's registry as its optimisers are given it, and what its format() would act on."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pld.errors import ConfigError

_MARKUP = re.compile(r"\{\{|\}\}|\{%|%\}|\{#|#\}")


def has_markup(text: str) -> bool:
    """Whether `text`, put into a prompt, could be taken for a variable or for Jinja."""
    return _MARKUP.search(text) is not None


@dataclass(frozen=True)
class Template:
    """A prompt as MLflow hands it to an optimiser: plain text, or a chat's messages as JSON. `text` is what rules are
    put to: all of it, or the content of the chat's first system message (else of its first message of text)."""

    text: str
    messages: tuple[Mapping[str, Any], ...] = ()
    at: int = 0

    @classmethod
    def of(cls, serialised: str) -> "Template":
        """Raises ConfigError for a chat without a text (pictures alone)."""
        try:
            value = json.loads(serialised)
        except ValueError:
            return cls(serialised)
        if not isinstance(value, list) or not value or not all(map(_is_message, value)):
            return cls(serialised)
        texts = [place for place, item in enumerate(value) if isinstance(item.get("content"), str)]
        if not texts:
            raise ConfigError("expected a chat with a message of text to put rules to, got none (prompt)")
        at = next((place for place in texts if value[place]["role"] == "system"), texts[0])
        return cls(value[at]["content"], tuple(value), at)

    def with_text(self, text: str) -> str:
        """The prompt with `text`, which holds its own text, in that one's place."""
        if not self.messages:
            return text
        changed = [
            {**item, "content": text} if place == self.at else dict(item) for place, item in enumerate(self.messages)
        ]
        return json.dumps(changed)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "role" in value
