"""From messages to tokens: the model's own chat template, and contents that can't speak its control language.

The template is rendered once with a placeholder per content. What stands between the placeholders is markup, where
special tokens count; contents are tokenised with special tokens off, so that `<|im_end|>` in a user's data is plain
text. Text is cut only at the markup's special tokens, where every tokenizer cuts, so that the tokens are those of the
whole rendered text.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pld.adapters.students.engine.label_tree import Ids, common_length
from pld.errors import StudentError
from pld.records import Message

_PLACEHOLDER = re.compile(r"(\n )?\ue000(\d+)\ue001( \n)?")
# what a template would otherwise put as today's date: the same prompt on any day
_DATE = "26 Jul 2024"


@dataclass(frozen=True)
class Prompt:
    """One prompt's tokens, and each label's tokens as its continuation."""

    ids: Ids
    labels: tuple[Ids, ...]


@dataclass(frozen=True)
class _Content:
    """A content's place in the markup; `strip_*`: the template trims it."""

    index: int
    strip_left: bool
    strip_right: bool

    def text(self, contents: Sequence[str]) -> str:
        text = contents[self.index]
        text = text.lstrip() if self.strip_left else text
        return text.rstrip() if self.strip_right else text


@dataclass(frozen=True)
class _Special:
    """A control token of the markup; `strip_before`, `strip_after`: it swallows the space beside it."""

    id: int
    strip_before: bool
    strip_after: bool


_Segment = tuple[str | _Content, ...]


class Chat:
    """Renders and tokenises for one tokenizer (a fast one, which becomes this object's own)."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._name = name
        self._tokenizer = tokenizer
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise StudentError(
                f"expected a tokenizer.json, got {type(tokenizer).__name__} ({name}); name another model"
            )
        if not tokenizer.chat_template:
            raise StudentError(f"expected a chat template, got none ({name}); name an instruction-tuned model")
        # a shared beginning is rendered and tokenised once, not for each request
        self._template = functools.lru_cache(64)(self._rendered_template)
        self._ids = functools.lru_cache(256)(self._tokenised)
        self._mark_control_tokens()
        self._text = tokenizer.backend_tokenizer
        self._text.encode_special_tokens = True
        self._later = _without_first_space(self._text)
        self._specials = {
            token.content: _Special(id, token.lstrip, token.rstrip)
            for id, token in self._text.get_added_tokens_decoder().items()
            if token.special
        }
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._empty_system = self._has_default_system()

    def prompts(self, messages: Sequence[Message], inputs: Sequence[str], labels: Sequence[str]) -> list[Prompt]:
        """One prompt per input as the last user turn, ending in the assistant's header."""
        contents, markup = self._render([*messages, Message(role="user", content="")], answer=True)
        items = self._items(markup)
        last = len(contents) - 1
        own = [at for at, item in enumerate(items) if isinstance(item, tuple) and _holds(item, last)]
        tail = _tail_start(items)
        fixed = {at: self._encode(items, at, contents) for at in range(tail) if at not in own}
        prompts: list[Prompt] = []
        endings: dict[str, tuple[Ids, tuple[Ids, ...]]] = {}
        for text in inputs:
            contents[last] = text
            head = [id for at in range(tail) for id in fixed.get(at) or self._encode(items, at, contents)]
            ending = self._segment_text(items, tail, contents)
            if ending not in endings:
                endings[ending] = self._ending(ending, labels, tail == 0)
            common, continuations = endings[ending]
            prompts.append(Prompt((*head, *common), continuations))
        return prompts

    def shared_ids(self, messages: Sequence[Message]) -> Ids:
        """The tokens that stand before any ordinary input after these messages."""
        # two texts that have no beginning in common, so that the cut is not inside a token of theirs
        one, other = (prompt.ids for prompt in self.prompts(messages, ("a", "0"), ()))
        return one[: common_length([one, other])]

    def end_of_turn(self) -> int:
        """The token that closes an assistant's turn."""
        turns = [Message(role="user", content=""), Message(role="assistant", content="")]
        contents, markup = self._render(turns, answer=False)
        items = self._items(markup)
        closing = [item.id for item in items[_position_of(items, len(contents) - 1) :] if isinstance(item, _Special)]
        if closing:
            return closing[0]
        if self._tokenizer.eos_token_id is None:
            raise StudentError(f"expected a token that ends a turn, got none ({self._name}); name another model")
        return int(self._tokenizer.eos_token_id)

    def ends(self) -> list[int]:
        """The tokens that end what is generated: a turn's end and the tokenizer's own."""
        own = self._tokenizer.eos_token_id
        return list(dict.fromkeys([self.end_of_turn(), *([] if own is None else [int(own)])]))

    def decode(self, ids: Ids) -> str:
        """Generated tokens as text, without control tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered messages, markup included; 0 for none."""
        if not messages:
            return 0
        try:
            return self._length(messages)
        except StudentError:
            # such a template shows a system message only together with a user's turn
            turn = Message(role="user", content="")
            return self._length([*messages, turn]) - self._length([turn])

    def count_text(self, text: str) -> int:
        return len(self._text.encode(text, add_special_tokens=False).ids)

    def _length(self, messages: Sequence[Message]) -> int:
        contents, markup = self._render(messages, answer=False)
        if len(_PLACEHOLDER.findall(markup)) < len(contents):
            raise StudentError(f"expected every message in the chat, got that its template drops one ({self._name})")
        items = self._items(markup)
        return sum(len(self._encode(items, at, contents)) for at in range(len(items)))

    def _render(self, messages: Sequence[Message], answer: bool) -> tuple[list[str], str]:
        """The contents, and the template's text with a placeholder for each."""
        if self._empty_system and (not messages or messages[0].role != "system"):
            messages = [Message(role="system", content=""), *messages]
        return [message.content for message in messages], self._template(
            tuple(message.role for message in messages), answer
        )

    def _rendered_template(self, roles: tuple[str, ...], answer: bool) -> str:
        import jinja2

        turns = [{"role": role, "content": f"\n \ue000{at}\ue001 \n"} for at, role in enumerate(roles)]
        try:
            text = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=answer, date_string=_DATE
            )
        except jinja2.TemplateError as error:
            raise StudentError(
                f"expected a chat of {', '.join(roles)}, got that its chat template refuses it ({error}) "
                f"({self._name}); change the messages or name another model"
            ) from None
        return str(text)

    def _has_default_system(self) -> bool:
        """Whether the template writes a system text of its own where none is given.

        An empty system turn then stands in its place: a prompt holds nothing that nobody wrote.
        """
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

    def _mark_control_tokens(self) -> None:
        """Tokens that the template writes are control tokens, whatever the tokenizer's file calls them."""
        from tokenizers import AddedToken

        plain = [
            AddedToken(token.content, special=True, normalized=False, lstrip=token.lstrip, rstrip=token.rstrip)
            for token in self._tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
            if not token.special and token.content.strip() and token.content in self._tokenizer.chat_template
        ]
        if plain:
            self._tokenizer.backend_tokenizer.add_special_tokens(plain)

    def _items(self, markup: str) -> list[_Special | _Segment]:
        """Special tokens, and between them segments of markup and contents."""
        items: list[_Special | _Segment] = []
        segment: list[str | _Content] = []
        for piece in _pieces(markup):
            if isinstance(piece, _Content):
                segment.append(piece)
                continue
            end = 0
            for match in self._special.finditer(piece) if self._special else ():
                segment.append(piece[end : match.start()])
                items += [tuple(segment), self._specials[match[0]]]
                segment, end = [], match.end()
            segment.append(piece[end:])
        return [*items, tuple(segment)]

    def _segment_text(self, items: Sequence[_Special | _Segment], at: int, contents: Sequence[str]) -> str:
        segment = items[at]
        assert isinstance(segment, tuple)
        text = "".join(part if isinstance(part, str) else part.text(contents) for part in segment)
        before, after = items[at - 1] if at else None, items[at + 1] if at + 1 < len(items) else None
        text = text.lstrip() if isinstance(before, _Special) and before.strip_after else text
        return text.rstrip() if isinstance(after, _Special) and after.strip_before else text

    def _encode(self, items: Sequence[_Special | _Segment], at: int, contents: Sequence[str]) -> Ids:
        item = items[at]
        if isinstance(item, _Special):
            return (item.id,)
        return self._ids(self._segment_text(items, at, contents), at == 0)

    def _tokenised(self, text: str, first: bool) -> Ids:
        if not text:
            return ()
        return tuple((self._text if first else self._later).encode(text, add_special_tokens=False).ids)

    def _ending(self, text: str, labels: Sequence[str], first: bool) -> tuple[Ids, tuple[Ids, ...]]:
        """The last segment's tokens that stand before every label, and each label's tokens after them."""
        alone = self._ids(text, first)
        whole = [self._ids(text + label, first) for label in labels]
        common = common_length([alone, *(ids for ids in whole)])
        return alone[:common], tuple(ids[common:] for ids in whole)


def _pieces(markup: str) -> list[str | _Content]:
    pieces: list[str | _Content] = []
    end = 0
    for match in _PLACEHOLDER.finditer(markup):
        pieces += [markup[end : match.start()], _Content(int(match[2]), match[1] is None, match[3] is None)]
        end = match.end()
    return [*pieces, markup[end:]]


def _holds(segment: _Segment, index: int) -> bool:
    return any(isinstance(part, _Content) and part.index == index for part in segment)


def _position_of(items: Sequence[_Special | _Segment], index: int) -> int:
    return next(at for at, item in enumerate(items) if isinstance(item, tuple) and _holds(item, index))


def _tail_start(items: Sequence[_Special | _Segment]) -> int:
    """Where the last segment stands: `_items` always ends in one."""
    return len(items) - 1


def _without_first_space(text: Any) -> Any:
    """The tokenizer for text that is not the prompt's first: SentencePiece's leading space stands there only."""
    if '"prepend_scheme":"first"' not in (state := text.to_str()):
        return text
    import tokenizers

    later = tokenizers.Tokenizer.from_str(state.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"'))
    later.encode_special_tokens = True
    return later
