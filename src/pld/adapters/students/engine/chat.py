"""Render and tokenise chats with the model's own chat template; special tokens inside contents count as plain text.

The template is rendered once per sequence of roles, with a placeholder for each content. Special tokens are recognised
in the markup between the placeholders only, so `<|im_end|>` in a user's data can't end the turn. Text is split only at
the markup's special tokens, where every tokenizer splits, so the ids equal those of the whole rendered text.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pld.adapters.students.engine.label_tree import Ids, common_length
from pld.errors import StudentError
from pld.records import Message

# a content's number with a line of white space on either side, which is gone where the template trims contents
_PLACEHOLDER = re.compile(r"(\n )?\ue000(\d+)\ue001( \n)?")
# passed to templates that print today's date: the prompt must be the same on any day
_DATE = "26 Jul 2024"


@dataclass(frozen=True)
class Prompt:
    """One prompt's tokens, and the tokens of each label as its continuation."""

    ids: Ids
    labels: tuple[Ids, ...]


@dataclass(frozen=True)
class _Special:
    """A special token; with `strip_before` or `strip_after` it swallows the white space on that side."""

    id: int
    strip_before: bool
    strip_after: bool


# the markup split at its special tokens; the strings between them hold placeholders, and the last item is a string
_Items = Sequence[str | _Special]


class Chat:
    """Renders and tokenises for one fast tokenizer, which this object takes over and modifies."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._name = name
        self._tokenizer = tokenizer
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise StudentError(
                f"expected a tokenizer.json, got {type(tokenizer).__name__} (student {name}); name another model"
            )
        if not tokenizer.chat_template:
            raise StudentError(f"expected a chat template, got none (student {name}); name an instruction-tuned model")
        # caches: consecutive requests share their first messages
        self._template = functools.lru_cache(64)(self._rendered_template)
        self._ids = functools.lru_cache(256)(self._tokenised)
        self._mark_special_tokens()
        self._first = tokenizer.backend_tokenizer
        self._first.encode_special_tokens = True
        self._later = _without_first_space(self._first)
        self._specials = {
            token.content: _Special(id, token.lstrip, token.rstrip)
            for id, token in self._first.get_added_tokens_decoder().items()
            if token.special
        }
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._special_or_placeholder = re.compile("|".join([_PLACEHOLDER.pattern, *map(re.escape, longest_first)]))
        self._empty_system = self._has_default_system()

    def prompts(self, messages: Sequence[Message], inputs: Sequence[str], labels: Sequence[str]) -> list[Prompt]:
        """One prompt per input: `messages`, the input as a user turn, and the assistant's header."""
        contents, markup = self._render([*messages, Message(role="user", content="")], answer=True)
        items = self._items(markup)
        last, tail = len(contents) - 1, len(items) - 1
        fixed = {at: self._encode(items, at, contents) for at in range(tail) if not _holds(items[at], last)}
        prompts: list[Prompt] = []
        endings: dict[str, tuple[Ids, tuple[Ids, ...]]] = {}
        for text in inputs:
            contents[last] = text
            head = [id for at in range(tail) for id in fixed.get(at) or self._encode(items, at, contents)]
            ending = self._filled(items, tail, contents)
            if ending not in endings:
                endings[ending] = self._ending(ending, labels, tail == 0)
            common, continuations = endings[ending]
            prompts.append(Prompt((*head, *common), continuations))
        return prompts

    def shared_ids(self, messages: Sequence[Message]) -> Ids:
        """The tokens that precede any ordinary input after these messages."""
        # the two texts begin differently, so no token of theirs is shared
        one, other = (prompt.ids for prompt in self.prompts(messages, ("a", "0"), ()))
        return one[: common_length([one, other])]

    def end_of_turn(self) -> int:
        """The token that closes an assistant's turn."""
        turns = [Message(role="user", content=""), Message(role="assistant", content="")]
        contents, markup = self._render(turns, answer=False)
        items = self._items(markup)
        answer = next(at for at, item in enumerate(items) if _holds(item, len(contents) - 1))
        closing = [item.id for item in items[answer:] if isinstance(item, _Special)]
        if closing:
            return closing[0]
        if self._tokenizer.eos_token_id is None:
            raise StudentError(
                f"expected a token that ends a turn, got none (student {self._name}); name another model"
            )
        return int(self._tokenizer.eos_token_id)

    def ends(self) -> list[int]:
        """The tokens that end a generation: the end of a turn, and the tokenizer's own end of text."""
        own = self._tokenizer.eos_token_id
        return list(dict.fromkeys([self.end_of_turn(), *([] if own is None else [int(own)])]))

    def decode(self, ids: Ids) -> str:
        """Generated tokens as text, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered messages, markup included; 0 for none."""
        if not messages:
            return 0
        try:
            return self._length(messages)
        except StudentError:
            # some templates render a system message only together with a user turn
            turn = Message(role="user", content="")
            return self._length([*messages, turn]) - self._length([turn])

    def count_text(self, text: str) -> int:
        return len(self._first.encode(text, add_special_tokens=False).ids)

    def _length(self, messages: Sequence[Message]) -> int:
        contents, markup = self._render(messages, answer=False)
        if len(_PLACEHOLDER.findall(markup)) < len(contents):
            raise StudentError(f"expected a template that renders every message, got one less (student {self._name})")
        items = self._items(markup)
        return sum(len(self._encode(items, at, contents)) for at in range(len(items)))

    def _render(self, messages: Sequence[Message], answer: bool) -> tuple[list[str], str]:
        """The contents, and the template's text with a placeholder for each."""
        if self._empty_system and (not messages or messages[0].role != "system"):
            messages = [Message(role="system", content=""), *messages]
        roles = tuple(message.role for message in messages)
        return [message.content for message in messages], self._template(roles, answer)

    def _rendered_template(self, roles: tuple[str, ...], answer: bool) -> str:
        import jinja2

        turns = [{"role": role, "content": f"\n \ue000{at}\ue001 \n"} for at, role in enumerate(roles)]
        try:
            text = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=answer, date_string=_DATE
            )
        except jinja2.TemplateError as error:
            raise StudentError(
                f"expected a chat template that takes {', '.join(roles)}, got its refusal: {error} (student "
                f"{self._name}); change the messages or name another model"
            ) from None
        return str(text)

    def _has_default_system(self) -> bool:
        """Whether the template adds a system text of its own when none is given. Such a template then gets an empty
        system message: a prompt holds nothing that the user didn't write."""
        try:
            given, silent = (self._template(roles, True) for roles in (("system", "user"), ("user",)))
        except StudentError:
            return False
        places, place = list(_PLACEHOLDER.finditer(given)), _PLACEHOLDER.search(silent)
        if place is None or [match[2] for match in places] != ["0", "1"]:
            return False
        opening, between = given[: places[0].start()], given[places[0].end() : places[1].start()]
        found = silent[: place.start()]
        return found.startswith(opening) and found.endswith(between) and len(found) > len(opening) + len(between)

    def _mark_special_tokens(self) -> None:
        """Added tokens that the template writes are special, even where the tokenizer's file doesn't say so."""
        from tokenizers import AddedToken

        plain = [
            AddedToken(token.content, special=True, normalized=False, lstrip=token.lstrip, rstrip=token.rstrip)
            for token in self._tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
            if not token.special and token.content.strip() and token.content in self._tokenizer.chat_template
        ]
        if plain:
            self._tokenizer.backend_tokenizer.add_special_tokens(plain)

    def _items(self, markup: str) -> _Items:
        items: list[str | _Special] = []
        end = 0
        for match in self._special_or_placeholder.finditer(markup):
            if special := self._specials.get(match[0]):
                items += [markup[end : match.start()], special]
                end = match.end()
        return [*items, markup[end:]]

    def _filled(self, items: _Items, at: int, contents: Sequence[str]) -> str:
        """The text of a string item, with contents for placeholders."""

        def content(match: re.Match[str]) -> str:
            text = contents[int(match[2])]
            text = text.lstrip() if match[1] is None else text
            return text.rstrip() if match[3] is None else text

        item = items[at]
        assert isinstance(item, str)
        text = _PLACEHOLDER.sub(content, item)
        before, after = items[at - 1] if at else None, items[at + 1] if at + 1 < len(items) else None
        text = text.lstrip() if isinstance(before, _Special) and before.strip_after else text
        return text.rstrip() if isinstance(after, _Special) and after.strip_before else text

    def _encode(self, items: _Items, at: int, contents: Sequence[str]) -> Ids:
        item = items[at]
        return (item.id,) if isinstance(item, _Special) else self._ids(self._filled(items, at, contents), at == 0)

    def _tokenised(self, text: str, first: bool) -> Ids:
        return tuple((self._first if first else self._later).encode(text, add_special_tokens=False).ids) if text else ()

    def _ending(self, text: str, labels: Sequence[str], first: bool) -> tuple[Ids, tuple[Ids, ...]]:
        """The last segment's tokens that come before every label, and each label's tokens after them."""
        alone = self._ids(text, first)
        whole = [self._ids(text + label, first) for label in labels]
        common = common_length([alone, *whole])
        return alone[:common], tuple(ids[common:] for ids in whole)


def _holds(item: str | _Special, number: int) -> bool:
    return isinstance(item, str) and f"\ue000{number}\ue001" in item


def _without_first_space(tokenizer: Any) -> Any:
    """The tokenizer for all but the prompt's first text: SentencePiece puts its leading space before that one only."""
    if '"prepend_scheme":"first"' not in (state := tokenizer.to_str()):
        return tokenizer
    import tokenizers

    later = tokenizers.Tokenizer.from_str(state.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"'))
    later.encode_special_tokens = True
    return later
