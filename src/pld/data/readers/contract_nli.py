"""Read Contract-NLI in its authors' JSON (Koreeda and Manning 2021, https://stanfordnlp.github.io/contract-nli/)."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pld.data.readers.passages import Shown, nearest_first, nearness_in, show
from pld.data.readers.source import locate, read_text
from pld.data.splits import RawExample
from pld.errors import DataError
from pld.progress import progress
from pld.records import Split
from pld.task_params import ContractNliReader


def _checked_text(text: str) -> str:
    if not text.strip() or "\x00" in text:
        raise ValueError("no text, or a NUL character in it")
    return text


_Text = Annotated[str, AfterValidator(_checked_text)]


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
    text: _Text
    spans: list[tuple[int, int]]
    annotation_sets: Annotated[list[_AnnotationSet], Field(min_length=1, max_length=1)]

    @property
    def annotations(self) -> Mapping[str, _Annotation]:
        return self.annotation_sets[0].annotations

    @model_validator(mode="after")
    def _check_spans(self) -> "_Contract":
        bounds = [bound for span in self.spans for bound in span]
        if bounds != sorted(bounds) or not all(0 <= bound <= len(self.text) for bound in bounds):
            raise ValueError("spans that overlap or end behind the text")
        if not any(self.text[start:end].strip() for start, end in self.spans):
            raise ValueError("no span with text")
        if not all(0 <= at < len(self.spans) for own in self.annotations.values() for at in own.spans):
            raise ValueError("an annotation of a span that is not there")
        return self


class _Hypothesis(_Shape):
    hypothesis: _Text


class _File(_Shape):
    documents: Annotated[list[_Contract], Field(min_length=1)]
    labels: dict[str, _Hypothesis]

    @model_validator(mode="after")
    def _check_annotations(self) -> "_File":
        for contract in self.documents:
            if set(contract.annotations) != set(self.labels):
                raise ValueError(f"document {contract.id} with annotations of other hypotheses than those of labels")
        return self


def read_contract_nli(reader: ContractNliReader, files: Mapping[Split | None, str]) -> Iterator[RawExample]:
    """Each contract of `files` (split, or None to split by hash → file) with each hypothesis, id `<document
    id>:<hypothesis key>`. The group is the contract: the first document id with the same text. Raises DataError.

    Excerpts of contracts from one template can be the same; the later one then gets further passages until it differs,
    so that each stays an example of its own.
    """
    file_of: dict[str, str] = {}
    first_with: dict[str, str] = {}
    group_of: dict[tuple[str, str], str] = {}
    for split, name in files.items():
        file = _file(name)
        with progress("reading", len(file.documents)) as advance:
            for contract in file.documents:
                own = str(contract.id)
                if own in file_of:
                    raise DataError(
                        f"expected each document id once, got it here and in {file_of[own]} ({name}: document {own}); "
                        "delete one of the two, because no contract may be in two splits"
                    )
                file_of[own] = name
                group = first_with.setdefault(contract.text, own)
                excerpts = _excerpts(reader, contract)
                for key, annotation in contract.annotations.items():
                    hypothesis = file.labels[key].hypothesis
                    more = excerpts(hypothesis, annotation.spans)
                    shown = next(more)
                    while group_of.setdefault((shown.text, hypothesis), group) != group and (
                        longer := next(more, None)
                    ):
                        shown = longer
                    yield RawExample(
                        file=name,
                        place=f"document {own}, hypothesis {key}",
                        inputs={"contract": shown.text, "hypothesis": hypothesis},
                        label=annotation.choice,
                        id=f"{own}:{key}",
                        group=group,
                        split=split,
                        shortened=shown.cut,
                    )
                advance(1)


def _excerpts(reader: ContractNliReader, contract: _Contract) -> Callable[[str, list[int]], Iterator[Shown]]:
    """(hypothesis, its annotated spans) → the excerpt of the contract, then with one more passage, and so on."""
    text = contract.text
    places = [place for place, (start, end) in enumerate(contract.spans) if text[start:end].strip()]
    if reader.context == "whole" and (reader.max_words is None or len(text.split()) <= reader.max_words):
        whole = Shown(text, tuple(range(len(places))), cut=False)
        return lambda _hypothesis, _annotated: iter([whole])
    spans = [contract.spans[place] for place in places]
    near = nearness_in(text, spans)

    def excerpts(hypothesis: str, annotated: list[int]) -> Iterator[Shown]:
        evidence = [places.index(at) for at in annotated if at in places] if reader.context == "evidence" else []
        ranked = nearest_first(near(hypothesis), evidence)
        fewest = len(ranked) if reader.context == "whole" else max(reader.passages, len(set(evidence)))
        for count in range(min(fewest, len(ranked)), len(ranked) + 1):
            yield show(text, spans, ranked[:count], reader.max_words)

    return excerpts


def _file(name: str) -> _File:
    try:
        return _File.model_validate_json(
            read_text(locate(name, "reader in conf/task/ (docs/how-to/benchmarks.md)"), name)
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join([name, ".".join(map(str, first["loc"]))]).removesuffix(": ")
        raise DataError(
            f"expected the authors' JSON, got {first['msg'].removeprefix('Value error, ')} ({where}); use the file as "
            "published (docs/how-to/benchmarks.md)"
        ) from None
