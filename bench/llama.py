"""llama.cpp with the Student's GGUF file and a cached shared prefix, through llama-cpp-python's low-level functions."""

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from engines import Answers, Engine, Scores, cores, milliseconds, student_section
from workload import Ids, Item, Job

ONE, MANY = "llama.cpp, prefix reuse", "llama.cpp, 16 sequences"
METHODS = (ONE, MANY)
_ROWS = {ONE: 1, MANY: 16}
_BATCH = 2048


def missing(option: str) -> str | None:
    """Why llama.cpp can't be measured with this Student here, or None."""
    if importlib.util.find_spec("llama_cpp") is None:
        return "not installed"
    return None if gguf_file(option) else "no GGUF file"


def gguf_file(option: str) -> Path | None:
    from pld.config.assets import ASSET_PREFIX, asset, asset_folder_or_file

    section = student_section(option, "auto", "cpu")
    model, file = str(section["model"]), section["gguf_file"]
    if model.startswith(ASSET_PREFIX):
        return asset_folder_or_file(model) if asset(model).file_name.endswith(".gguf") else None
    return found if file and (found := Path(model).expanduser() / str(file)).is_file() else None


class LlamaCpp(Engine):
    """Sequence 0 holds the prefix and each row is a sequence that shares it; logits of scoring tokens only."""

    def __init__(self, option: str) -> None:
        import llama_cpp

        file = gguf_file(option)
        self._cpp = llama_cpp
        # an attribute, because the library keeps no reference to its callback
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self._context: Any = None

    def probe(self) -> None:
        """Decode a few tokens: a build for another CPU crashes here."""
        self._prepare(1, tuple(range(64)))

    def prepare(self, method: str, job: Job) -> float:
        """A fresh context; milliseconds of the prefix alone."""
        return self._prepare(self._rows(method, job), job.prefix)

    def _prepare(self, rows: int, prefix: Ids) -> float:
        cpp = self._cpp
        if self._context is not None:
            cpp.llama_free(self._context)
        settings = cpp.llama_context_default_params()
        settings.n_ctx = len(prefix) + _BATCH
        settings.n_batch = _BATCH
        settings.n_seq_max = 1 + rows
        settings.kv_unified = True
        settings.n_threads = settings.n_threads_batch = cores()
        self._context = cpp.llama_init_from_model(self._model, settings)
        self._memory = cpp.llama_get_memory(self._context)
        return milliseconds(lambda: self._prefill(prefix))[0]

    def run(self, method: str, job: Job, items: Sequence[Item]) -> Answers:
        size = _ROWS[method]
        work = self._one_after_the_other if size == 1 else self._together
        taken, scores = 0.0, []
        for start in range(0, len(items), size):
            spent, found = milliseconds(lambda: work(job, items[start : start + size]))  # noqa: B023
            taken += spent
            scores.append(found)
        return Answers(taken, np.concatenate(scores))

    def _rows(self, method: str, job: Job) -> int:
        return _ROWS[method] * (len(job.labels) if job.rows_per_label and method == MANY else 1)

    def _one_after_the_other(self, job: Job, items: Sequence[Item]) -> Scores:
        """Label prefixes token by token, each computed once."""
        (item,) = items
        start, end = len(job.prefix), len(item.ids)
        self._forget(0, start)
        steps: dict[Ids, Any] = {(): self._decode([(item.ids[start:], start, 0, 1)])[0]}
        for node in sorted({label[:length] for label in job.label_ids for length in range(1, len(label))}):
            at = end + len(node) - 1
            self._forget(0, at)
            steps[node] = self._decode([(node[-1:], at, 0, 1)])[0]
        return np.array([[sum(steps[label[:at]][label[at]] for at in range(len(label))) for label in job.label_ids]])

    def _together(self, job: Job, items: Sequence[Item]) -> Scores:
        """One batch of a sequence per example, or per example and label where labels have several tokens."""
        start = len(job.prefix)
        endings = [label[:-1] for label in job.label_ids] if job.rows_per_label else [()]
        rows = [(item.ids[start:] + ending, start, len(ending) + 1) for item in items for ending in endings]
        for sequence in range(1, 1 + len(rows)):
            self._forget(sequence, 0)
            self._cpp.llama_memory_seq_cp(self._memory, 0, sequence, 0, start)
        steps = self._decode([(ids, at, sequence, last) for sequence, (ids, at, last) in enumerate(rows, 1)])
        for sequence in range(1, 1 + len(rows)):
            self._forget(sequence, 0)
        if not job.rows_per_label:
            return np.array([[row[label[0]] for label in job.label_ids] for row in steps])
        scores, at = np.zeros((len(items), len(job.labels))), 0
        for row in range(len(items)):
            for column, label in enumerate(job.label_ids):
                scores[row, column] = sum(steps[at + place][token] for place, token in enumerate(label))
                at += len(label)
        return scores

    def _prefill(self, ids: Ids) -> None:
        for start in range(0, len(ids), _BATCH):
            self._decode([(ids[start : start + _BATCH], start, 0, 1)])

    def _forget(self, sequence: int, start: int) -> None:
        self._cpp.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def _decode(self, rows: Sequence[tuple[Ids, int, int, int]]) -> list[Any]:
        """Rows (tokens, first position, sequence, number of scoring tokens at its end) → their log-probabilities."""
        if sum(len(ids) for ids, *_ in rows) > _BATCH:
            raise ValueError(f"expected at most {_BATCH} tokens in a batch, got more; shorten the inputs")
        batch, at, wanted = self._batch, 0, []
        for ids, position, sequence, last in rows:
            for place, token in enumerate(ids):
                batch.token[at], batch.pos[at] = token, position + place
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
                batch.logits[at] = scores = place >= len(ids) - last
                wanted += [at] if scores else []
                at += 1
        batch.n_tokens = at
        if code := self._cpp.llama_decode(self._context, batch):
            raise RuntimeError(f"expected 0 from llama_decode, got {code}")
        return [self._log_probabilities(place) for place in wanted]

    def _log_probabilities(self, place: int) -> Any:
        pointer = self._cpp.llama_get_logits_ith(self._context, place)
        logits = np.ctypeslib.as_array(pointer, shape=(self._vocabulary,))
        top = logits.max()
        return logits - (top + np.log(np.exp(logits - top).sum()))
