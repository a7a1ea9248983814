"""Read Contract-NLI in its authors' JSON (Koreeda and Manning 2021, https://stanfordnlp.github.io/contract-nli/)."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pld.data.readers.columns import checked_text
from pld.data.readers.passages import Shown, nearest_first, nearness_in, show
from pld.data.readers.source import locate, read_text
from pld.data.splits import RawExample
from pld.errors import DataError
from pld.params import ContractNliReader
from pld.progress import progress
from pld.records import Split

_AS_PUBLISHED = "use the file as published (docs/how-to/benchmarks.md)"


class _Shape(BaseModel):
    """The keys that are read; others are ignored, and nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Annotation(_Shape):
    choice: str
    spans: list[int]


class _AnnotationSet(_Shape):
    annotations: dict[str, _Annotation]


class _Contract(_Shape):
    id: int | str
    text: str
    spans: list[list[int]]
    annotation_sets: list[_AnnotationSet]


class _Hypothesis(_Shape):
    hypothesis: str


class _File(_Shape):
    documents: list[Any]  # checked one by one, so that messages can name the document
    labels: dict[str, _Hypothesis]


S = TypeVar("S", bound=_Shape)


def read_contract_nli(reader: ContractNliReader, files: Mapping[Split | None, str]) -> Iterator[RawExample]:
    """Each contract of `files` (split, or None to split by hash → file) with each hypothesis, id `<document
    id>:<hypothesis key>`. The group is the contract: the first document id with the same text. Raises DataError, naming
    file, document and hypothesis.

    Excerpts of contracts from one template can be the same; the later one then gets further passages until it differs,
    so that each stays an example of its own.
    """
    place_of: dict[str, str] = {}
    first_with: dict[str, str] = {}
    group_of: dict[tuple[str, str], str] = {}
    for split, name in files.items():
        file = _file(name)
        with progress("reading", len(file.documents)) as advance:
            for number, plain in enumerate(file.documents, 1):
                contract = _shaped(_Contract, plain, f"{name}: document {_name(plain, number)}")
                own = str(contract.id)
                if own in place_of:
                    raise DataError(
                        f"expected each document id once, got it as no. {number} here and as {place_of[own]} ({name}: "
                        f"document {own}); delete one of the two, because no contract may be in two splits"
                    )
                place_of[own] = f"no. {number} of {name}"
                group = first_with.setdefault(contract.text, own)

                def is_new(text: str, hypothesis: str, group: str = group) -> bool:
                    return group_of.setdefault((text, hypothesis), group) == group

                for example in _examples(reader, name, file.labels, contract, is_new):
                    yield RawExample(**example, group=group, split=split)
                advance(1)


def _examples(
    reader: ContractNliReader,
    name: str,
    hypotheses: Mapping[str, _Hypothesis],
    contract: _Contract,
    is_new: Callable[[str, str], bool],
) -> Iterator[dict[str, Any]]:
    """A contract's examples in the order of its annotations, without group and split. `is_new`: whether no other
    contract has the same excerpt with a hypothesis."""
    place = f"document {contract.id}"
    _check(contract, f"{name}: {place}")
    annotations = contract.annotation_sets[0].annotations
    for key in hypotheses:
        if key not in annotations:
            raise DataError(f"expected an annotation of hypothesis {key}, got none ({name}: {place}); {_AS_PUBLISHED}")
    shown_to = _excerpts(reader, contract)
    for key, annotation in annotations.items():
        where = f"{name}: {place}, hypothesis {key}"
        if key not in hypotheses:
            known = ", ".join(hypotheses)
            raise DataError(f"expected one of the file's labels ({known:.120}), got {key!r} ({where}); {_AS_PUBLISHED}")
        for at in annotation.spans:
            if not 0 <= at < len(contract.spans):
                raise DataError(
                    f"expected span numbers from 0 to {len(contract.spans) - 1}, got {at} ({where}); {_AS_PUBLISHED}"
                )
        hypothesis = hypotheses[key].hypothesis
        more = shown_to(hypothesis, annotation.spans)
        shown = next(more)
        while not is_new(shown.text, hypothesis) and (longer := next(more, None)):
            shown = longer
        yield {
            "file": name,
            "place": f"{place}, hypothesis {key}",
            "inputs": {"contract": shown.text, "hypothesis": hypothesis},
            "label": annotation.choice,
            "id": f"{contract.id}:{key}",
            "shortened": shown.cut,
        }


def _excerpts(reader: ContractNliReader, contract: _Contract) -> Callable[[str, list[int]], Iterator[Shown]]:
    """(hypothesis, its annotated spans) → the excerpt of the contract, then with one more passage, and so on."""
    text = contract.text
    places = [place for place, (start, end) in enumerate(contract.spans) if text[start:end].strip()]
    if reader.context == "whole" and (reader.max_words is None or len(text.split()) <= reader.max_words):
        whole = Shown(text, tuple(range(len(places))), cut=False)
        return lambda _hypothesis, _annotated: iter([whole])
    spans = [(contract.spans[place][0], contract.spans[place][1]) for place in places]
    near = nearness_in(text, spans)

    def excerpts(hypothesis: str, annotated: list[int]) -> Iterator[Shown]:
        evidence = [places.index(at) for at in annotated if at in places] if reader.context == "evidence" else []
        ranked = nearest_first(near(hypothesis), evidence)
        wanted = len(ranked) if reader.context == "whole" else max(reader.passages, len(set(evidence)))
        for count in range(min(wanted, len(ranked)), len(ranked) + 1):
            yield show(text, spans, ranked[:count], reader.max_words)

    return excerpts


def _file(name: str) -> _File:
    if not name.startswith("package:") and not os.path.lexists(name) and not os.path.lexists(f"{name}.dvc"):
        raise DataError(
            f"expected a file of Contract-NLI, got no such file ({name}); download it and run `dvc add` as in "
            "docs/how-to/benchmarks.md, or correct reader in conf/task/"
        )
    text = read_text(locate(name), name)
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"expected JSON, got {error.msg} ({name}: line {error.lineno}, column {error.colno}); {_AS_PUBLISHED}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected JSON, got {error!s:.80} ({name}); {_AS_PUBLISHED}") from None
    file = _shaped(_File, plain, name)
    if not file.documents:
        raise DataError(f"expected contracts, got none ({name}: documents); {_AS_PUBLISHED}")
    for key, hypothesis in file.labels.items():
        _check_text(hypothesis.hypothesis, "hypothesis", f"{name}: label {key}")
    return file


def _shaped(shape: type[S], plain: object, where: str) -> S:
    try:
        return shape.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join([where, ".".join(map(str, first["loc"]))]).removesuffix(": ")
        message = first["msg"][0].lower() + first["msg"][1:]
        raise DataError(
            f"expected the authors' JSON structure, got another, {message} ({where}); {_AS_PUBLISHED}"
        ) from None


def _name(plain: object, number: int) -> str:
    """The document's id where it has one, else its number in the file."""
    identity = plain.get("id") if isinstance(plain, dict) else None
    return f"{identity!s:.60}" if isinstance(identity, int | str) else f"no. {number}"


def _check(contract: _Contract, where: str) -> None:
    _check_text(contract.text, "text", where)
    if len(contract.annotation_sets) != 1:
        raise DataError(
            f"expected one annotation set, got {len(contract.annotation_sets)} ({where}); keep the right one"
        )
    length, above = len(contract.text), 0
    for number, span in enumerate(contract.spans):
        if len(span) != 2 or not above <= span[0] <= span[1] <= length:
            raise DataError(
                f"expected a span [start, end] between {above} and {length}, got {span!s:.60} as no. {number} "
                f"({where}: spans); {_AS_PUBLISHED}"
            )
        above = span[1]
    if not any(contract.text[start:end].strip() for start, end in contract.spans):
        raise DataError(f"expected passages with text, got none ({where}: spans); {_AS_PUBLISHED}")


def _check_text(text: str, key: str, where: str) -> None:
    if not checked_text(text, key, where).strip():
        raise DataError(f"expected text, got none ({where}: {key}); {_AS_PUBLISHED}")
