"""Contract-NLI in its authors' JSON (Koreeda and Manning 2021, https://stanfordnlp.github.io/contract-nli/)."""

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

_AS_PUBLISHED = "take the file as its authors publish it (docs/benchmarks.md)"


class _Shape(BaseModel):
    """What is read of the file; further keys are passed over, and nothing is converted."""

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
    documents: list[Any]  # each is checked when it is its turn, so that the message can name it
    labels: dict[str, _Hypothesis]


S = TypeVar("S", bound=_Shape)


def read_contract_nli(reader: ContractNliReader, files: Mapping[Split | None, str]) -> Iterator[RawExample]:
    """Each contract of `files` (by the split that they bring, or None) with each hypothesis, id `<document
    id>:<hypothesis key>`. The group is the contract: the first document id with the same text. Raises DataError, naming
    file, document and hypothesis.

    Contracts of one pattern can agree in what is shown of them; the later one then shows its next passages too, until
    it differs, so that each stays an example of its own.
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
                        f"{name}: document {own}: wanted an id that no other document has, found it as no. {number} "
                        f"here and as {place_of[own]}; delete one of the two: no contract may stand in two splits"
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
    contract shows the same text with a hypothesis."""
    place = f"document {contract.id}"
    _check(contract, f"{name}: {place}")
    annotations = contract.annotation_sets[0].annotations
    for key in hypotheses:
        if key not in annotations:
            raise DataError(f"{name}: {place}: wanted an annotation of hypothesis {key}, found none; {_AS_PUBLISHED}")
    shown_to = _excerpts(reader, contract)
    for key, annotation in annotations.items():
        where = f"{name}: {place}, hypothesis {key}"
        if key not in hypotheses:
            known = ", ".join(hypotheses)
            raise DataError(f"{where}: wanted one of the file's labels ({known:.120}), found {key!r}; {_AS_PUBLISHED}")
        for at in annotation.spans:
            if not 0 <= at < len(contract.spans):
                raise DataError(
                    f"{where}: wanted numbers of spans (0 to {len(contract.spans) - 1}), found {at}; {_AS_PUBLISHED}"
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
    """(hypothesis, its annotated spans) → what of the contract is shown, then the same with a passage more, and so
    on."""
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
            f"{name}: wanted a file of Contract-NLI, found no such file; download it and `dvc add` it as "
            "docs/benchmarks.md says, or correct reader in conf/task/"
        )
    text = read_text(locate(name), name)
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}: line {error.lineno}, column {error.colno}: wanted JSON, found {error.msg}; {_AS_PUBLISHED}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: wanted JSON, found {error!s:.80}; {_AS_PUBLISHED}") from None
    file = _shaped(_File, plain, name)
    if not file.documents:
        raise DataError(f"{name}: documents: wanted contracts, found none; {_AS_PUBLISHED}")
    for key, hypothesis in file.labels.items():
        _check_text(hypothesis.hypothesis, "hypothesis", f"{name}: label {key}")
    return file


def _shaped(shape: type[S], plain: object, where: str) -> S:
    try:
        return shape.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{where}: wanted the authors' shape, found {f'at {at}: ' if at else ''}{first['msg']}; {_AS_PUBLISHED}"
        ) from None


def _name(plain: object, number: int) -> str:
    """The document's id where it has one, else its number in the file."""
    identity = plain.get("id") if isinstance(plain, dict) else None
    return f"{identity!s:.60}" if isinstance(identity, int | str) else f"no. {number}"


def _check(contract: _Contract, where: str) -> None:
    _check_text(contract.text, "text", where)
    if len(contract.annotation_sets) != 1:
        raise DataError(
            f"{where}: wanted one annotation set, found {len(contract.annotation_sets)}; keep the one that counts"
        )
    length, above = len(contract.text), 0
    for number, span in enumerate(contract.spans):
        if len(span) != 2 or not above <= span[0] <= span[1] <= length:
            raise DataError(
                f"{where}: spans: wanted [start, end] from {above} to {length} (the text's end), each after the one "
                f"before it, found {span!s:.60} as span {number}; {_AS_PUBLISHED}"
            )
        above = span[1]
    if not any(contract.text[start:end].strip() for start, end in contract.spans):
        raise DataError(f"{where}: spans: wanted passages with text, found none; {_AS_PUBLISHED}")


def _check_text(text: str, key: str, where: str) -> None:
    if not checked_text(text, key, where).strip():
        raise DataError(f"{where}: {key}: wanted text, found none; {_AS_PUBLISHED}")
