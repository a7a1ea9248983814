"""The results as Markdown, and their place in a document."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import llama
from latency import ZERO_SHOT, Requests
from measure import OURS, Agreement, Row, Table
from worker import BenchError

# what was promised for a 2,000-token prompt on 2 cores with the 0.5B Student, bfloat16: ours is faster by at least
BARS = {"generate": 40.0, "prefix cache, batched": 1.8, llama.ONE: 1.0, llama.MANY: 1.0}
LATENCY_BAR = 1.15
BAR_TOKENS = 2000


@dataclass(frozen=True)
class Section:
    """All that was measured at one dtype. `peak`: floating-point operations a second."""

    dtype: str
    peak: float
    describe: Mapping[str, str]
    tables: Sequence[Table]
    requests: Sequence[Requests]


def markdown(heading: str, agreements: Sequence[Agreement], sections: Sequence[Section]) -> str:
    parts = [heading]
    for section in sections:
        parts += [f"### {section.dtype}", _peak(section), _bars(section)]
        parts += [_table(table, section.peak) for table in section.tables]
        parts += [_requests(section.requests)] if section.requests else []
    parts += [_agreements(agreements)] if agreements else []
    return "\n\n".join(part for part in parts if part)


def put(document: Path, name: str, text: str) -> None:
    """Replace what stands in `document` between `<!-- name:start -->` and `<!-- name:end -->`."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    found = document.read_text(encoding="utf-8") if document.exists() else ""
    if start not in found or end not in found:
        raise BenchError(f"expected the lines {start} and {end}, got neither or one ({document}); add them")
    before, rest = found.split(start, 1)
    document.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in [columns, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def spread(values: Sequence[float], digits: int = 1, unit: str = "") -> str:
    """Median (least–most)."""
    if not values:
        return "–"
    least, most = (f"{value:,.{digits}f}" for value in (min(values), max(values)))
    return f"{statistics.median(values):,.{digits}f}{unit} ({least}–{most})"


def ratios(row: Row, ours: Row) -> list[float]:
    """Per round: how many times as long as ours."""
    return [other / own for other, own in zip(row.per_example_ms, ours.per_example_ms, strict=True)]


def peak_shares(table: Table, peak: float) -> list[float]:
    """Per round: our operations a second over the machine's peak, from the least work there is."""
    return [table.flops / (taken / 1000) / peak for taken in _row(table, OURS).per_example_ms]


def request_ratios(requests: Sequence[Requests]) -> dict[str, list[float]]:
    """Per system and round: its block's median over zero-shot's."""
    base = [statistics.median(block) for block in _system(requests, ZERO_SHOT).blocks]
    return {
        item.system: [statistics.median(block) / one for block, one in zip(item.blocks, base, strict=True)]
        for item in requests
    }


def _peak(section: Section) -> str:
    said = {key: value for key, value in section.describe.items() if key not in ("model", "sha256", "dtype")}
    settings = ", ".join(f"{key} {value}" for key, value in said.items())
    peak = f"The machine's peak in matrix products, measured in the same run: {section.peak / 1e9:,.0f} GFLOP/s."
    return f"{peak} Our Student: {settings}." if settings else peak


def _bars(section: Section) -> str:
    """What was promised beside what was found, where a prompt of that length was measured."""
    near = [table for table in section.tables if abs(table.prompt_tokens - BAR_TOKENS) < 50]
    rows = []
    for table in near[:1]:
        ours = _row(table, OURS)
        for row in table.rows:
            if row.method in BARS and row.per_example_ms and ours.per_example_ms:
                faster = statistics.median(ratios(row, ours))
                rows.append([f"times faster than {row.method}", f"≥ {BARS[row.method]:g}", f"{faster:.2f}"])
    for system, values in request_ratios(section.requests).items() if section.requests else ():
        tokens = _system(section.requests, system).prompt_tokens
        if abs(tokens - BAR_TOKENS) < 50 and system.endswith(", cached"):
            found = statistics.median(values)
            rows.append(["p50 of a request over zero-shot's, cached", f"≤ {LATENCY_BAR:g}", f"{found:.2f}"])
    return grid([f"at {BAR_TOKENS:,} tokens", "bar", "measured"], rows) if rows else ""


def _table(table: Table, peak: float) -> str:
    ours = _row(table, OURS)
    rows = []
    for row in table.rows:
        if row.missing is not None:
            rows.append([row.method, row.missing, "", "", "", ""])
            continue
        faster = "" if row.method == OURS else spread(ratios(row, ours), 2)
        memory = "–" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
        prefill = spread(row.prefill_ms, 0)
        rows.append([row.method, spread(row.per_example_ms), faster, str(row.examples), prefill, memory])
    columns = ["method", "ms per example", "ours is faster by", "examples a round", "prefill, ms", "peak memory, MiB"]
    shares = [100 * share for share in peak_shares(table, peak)]
    share = "" if table.flops != table.flops else f" Ours reaches {spread(shares, 0)} % of the peak."
    return (
        f"**Prompt of {table.prompt_tokens:,} tokens, labels: {table.kind}.** {table.input_tokens:.1f} tokens per "
        f"example after the prompt; {table.tokens:.1f} computed when none is computed twice, "
        f"{table.flops / 1e9:.1f} GFLOP.{share}\n\n{grid(columns, rows)}"
    )


def _requests(requests: Sequence[Requests]) -> str:
    over = request_ratios(requests)
    rows = []
    for item in requests:
        taken = [value for block in item.blocks for value in block]
        wrote = f", {statistics.mean(item.tokens):.0f} written" if item.tokens else ""
        rows.append(
            [
                item.system,
                f"{item.prompt_tokens:,}{wrote}",
                f"{statistics.median(taken):,.0f}",
                "1" if item.system == ZERO_SHOT else spread(over[item.system], 2),
                str(len(taken)),
            ]
        )
    columns = ["one request at a time", "tokens", "p50, ms", "over zero-shot's", "requests"]
    return f"**Latency.**\n\n{grid(columns, rows)}"


def _agreements(agreements: Sequence[Agreement]) -> str:
    rows = [
        [
            item.method,
            item.kind,
            f"{item.equal} of {item.examples}",
            "first token only" if item.largest is None else f"{item.largest:.1e}",
        ]
        for item in agreements
    ]
    columns = ["method", "labels", "same choice", "largest difference, nats"]
    return f"**Against plain forwards in float32**, before anything is timed.\n\n{grid(columns, rows)}"


def _row(table: Table, method: str) -> Row:
    return next(row for row in table.rows if row.method == method)


def _system(requests: Sequence[Requests], name: str) -> Requests:
    return next(item for item in requests if item.system == name)
