"""The engines to compare: our Student as shipped, and plain transformers; each runs in a worker process.

An engine has `prepare(method, job)` (milliseconds to compute the shared prefix; None for a method without a cache) and
`run(method, job, items)`. Our time includes tokenising, the others get token ids. Heavy libraries are imported late,
after the worker has set up OpenMP.
"""

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import yaml
from workload import Ids, Item, Job

ROOT = Path(__file__).resolve().parent.parent
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """`scores` [n, k]: log-likelihoods of the labels; None for a method that generates only the `first` token [n]."""

    milliseconds: float
    scores: Scores | None
    first: Ids | None = None


def student_section(option: str, dtype: str, device: str) -> dict[str, Any]:
    """conf/student/<option>.yaml with one dtype for reporting and searching."""
    section: dict[str, Any] = yaml.safe_load((ROOT / "conf/student" / f"{option}.yaml").read_text(encoding="utf-8"))
    return section | {"dtype": dtype, "search_dtype": dtype, "device": device}


def cores() -> int:
    if given := os.environ.get("OMP_NUM_THREADS"):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Engine:
    def give_back(self) -> None:
        """Return freed memory to the system, so that the next peak is that of the next call."""
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)


class Ours(Engine):
    """`TransformersStudent` as conf/ builds it."""

    def __init__(self, option: str, dtype: str, device: str) -> None:
        from pld.config.build import build

        self.student = build(student_section(option, dtype, device), "student")
        self.student.score([], ["a"], ["b"])  # load now, while the other engines load

    def describe(self) -> Mapping[str, str]:
        return dict(self.student.describe())

    def prepare(self, _method: str, job: Job) -> float:
        return milliseconds(lambda: self.student.prefill(_beginning(job)))[0]

    def run(self, _method: str, job: Job, items: Sequence[Item]) -> Answers:
        texts = [item.text for item in items]
        return Answers(*milliseconds(lambda: self.student.score(_beginning(job), texts, job.labels)))

    def request(self, job: Job, texts: Sequence[str]) -> list[float]:
        """Milliseconds of each request, one at a time, with the prompt cached."""
        self.student.score(_beginning(job), [texts[0]], job.labels)
        return [milliseconds(partial(self.student.score, _beginning(job), [text], job.labels))[0] for text in texts]

    def request_uncached(self, job: Job, text: str) -> float:
        def answer() -> None:
            self.student.prefill(_beginning(job))
            self.student.score(_beginning(job), [text], job.labels)

        return milliseconds(answer)[0]

    def request_with_thoughts(self, job: Job, text: str, max_tokens: int) -> tuple[float, int]:
        """Milliseconds for a chain of thought and the label scores after it, and the tokens generated."""
        from pld.records import Message

        system = Message(role="system", content=f"Label the sentence with one of: {', '.join(job.labels)}.")
        question = f"{text} Explain in two or three sentences which label fits; do not give the bare answer yet."
        chat = [system, Message(role="user", content=question)]

        def answer() -> int:
            (thoughts,) = self.student.generate([chat], max_tokens)
            said = [Message(role="assistant", content=thoughts.text), Message(role="user", content="So which label?")]
            self.student.score_chats([[*chat, *said]], job.labels)
            return int(thoughts.tokens)

        return milliseconds(answer)


class Transformers(Engine):
    """Plain transformers with scaled-dot-product attention, a thread per core, and our float32 precision."""

    METHODS: ClassVar = ("generate", "generate, batched", "full forward", "prefix cache, batched")
    BATCH: ClassVar = {"generate, batched": 8, "prefix cache, batched": 16}

    def __init__(self, option: str, dtype: str, device: str) -> None:
        import torch

        torch.set_num_threads(cores())
        from transformers import GenerationConfig

        from pld.adapters.students.engine.machine import choose_device
        from pld.adapters.students.engine.weights import load_model, load_tokenizer, locate

        section = student_section(option, dtype, device)
        source = locate(section["model"], section["gguf_file"])
        self._device = choose_device(device)
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        self._model = load_model(source, kind, section["quantization"], self._device, "sdpa")
        self._end = load_tokenizer(source).eos_token_id
        self._model.generation_config = GenerationConfig(
            max_new_tokens=8, do_sample=False, eos_token_id=self._end, pad_token_id=self._end
        )
        self._body, self._head = self._model.get_decoder(), self._model.get_output_embeddings()
        self._held: list[tuple[Any, Any]] = []

    def shape(self) -> dict[str, int]:
        """Sizes from which the floating-point operations of a token are counted."""
        import torch

        text = self._model.config.get_text_config()
        linears = [module for module in self._body.modules() if isinstance(module, torch.nn.Linear)]
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return {
            "linear": sum(module.in_features * module.out_features for module in linears),
            "attention": text.num_hidden_layers * text.num_attention_heads * size,
            "head": text.hidden_size * text.vocab_size,
        }

    def prepare(self, method: str, job: Job) -> float | None:
        self._held = []
        if method != "prefix cache, batched":
            return None

        def prefill() -> Any:
            return self._body(input_ids=self._tensor([job.prefix]), use_cache=True).past_key_values

        taken, cache = self._timed(prefill)
        self._held = [(layer.keys, layer.values) for layer in cache.layers]
        return taken

    def run(self, method: str, job: Job, items: Sequence[Item]) -> Answers:
        works: dict[str, Callable[[Job, Sequence[Item]], tuple[Scores | None, Ids | None]]] = {
            "generate": self._generate,
            "generate, batched": self._generate,
            "full forward": self._full_forward,
            "prefix cache, batched": self._prefix_cache,
        }
        size = self.BATCH.get(method, 1)
        # examples of similar length share a batch: the least padding
        order = sorted(range(len(items)), key=lambda at: len(items[at].ids))
        taken, scores, first = 0.0, np.full((len(items), len(job.labels)), np.nan), [0] * len(items)
        for start in range(0, len(items), size):
            batch = order[start : start + size]
            spent, (found, tokens) = self._timed(works[method], job, [items[at] for at in batch])
            taken += spent
            for row, at in enumerate(batch):
                if found is not None:
                    scores[at] = found[row]
                if tokens is not None:
                    first[at] = tokens[row]
        generated = method.startswith("generate")
        return Answers(taken, None if generated else scores, tuple(first) if generated else None)

    def reference(self, job: Job, items: Sequence[Item]) -> tuple[Scores, Ids, list[float]]:
        """One plain forward pass per example and label: label scores, likeliest next token, its lead in nats."""
        scores, first, lead = np.zeros((len(items), len(job.labels))), [], []
        for row, item in enumerate(items):
            for column, label in enumerate(job.label_ids):
                _, steps = self._timed(self._whole, [*item.ids, *label[:-1]], len(label))
                scores[row, column] = sum(float(steps[at, token]) for at, token in enumerate(label))
            best = steps[0].topk(2)
            first.append(int(best.indices[0]))
            lead.append(float(best.values[0] - best.values[1]))
        return scores, tuple(first), lead

    def _generate(self, _job: Job, items: Sequence[Item]) -> tuple[None, Ids]:
        longest = max(len(item.ids) for item in items)
        ids = self._tensor([(self._end,) * (longest - len(item.ids)) + item.ids for item in items])
        mask = self._tensor([(0,) * (longest - len(item.ids)) + (1,) * len(item.ids) for item in items])
        written = self._model.generate(input_ids=ids, attention_mask=mask)
        return None, tuple(written[:, longest].tolist())

    def _full_forward(self, job: Job, items: Sequence[Item]) -> tuple[Scores, None]:
        """Only the label's first token: all that one forward pass predicts."""
        (item,) = items
        logits = self._whole(item.ids, 1)[0]
        return logits[[label[0] for label in job.label_ids]].cpu().double().numpy()[None], None

    def _whole(self, ids: Sequence[int], last: int) -> Any:
        """Log-probabilities [last, vocabulary] after each of the `last` tokens."""
        hidden = self._body(input_ids=self._tensor([ids]), use_cache=False).last_hidden_state
        return self._head(hidden[0, -last:]).float().log_softmax(dim=1)

    def _prefix_cache(self, job: Job, items: Sequence[Item]) -> tuple[Scores, None]:
        """A row per example, or per example and label where labels have several tokens; padded on the right."""
        import torch
        from transformers import DynamicCache

        start = len(job.prefix)
        endings = [label[:-1] for label in job.label_ids] if job.rows_per_label else [()]
        rows = [item.ids[start:] + ending for item in items for ending in endings]
        width = max(map(len, rows))
        ids = self._tensor([row + (self._end,) * (width - len(row)) for row in rows])
        mask = self._tensor([(1,) * (start + len(row)) + (0,) * (width - len(row)) for row in rows])
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._held):
            cache.update(keys.expand(len(rows), -1, -1, -1), values.expand(len(rows), -1, -1, -1), layer)
        hidden = self._body(
            input_ids=ids,
            attention_mask=mask,
            position_ids=torch.arange(start, start + width, device=self._device)[None].expand(len(rows), -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        scores = np.zeros((len(items), len(job.labels)))
        for row, item in enumerate(items):
            end = len(item.ids) - start - 1
            if not job.rows_per_label:
                steps = self._head(hidden[row, end]).float().log_softmax(dim=0)
                scores[row] = steps[[label[0] for label in job.label_ids]].cpu().double().numpy()
                continue
            for column, label in enumerate(job.label_ids):
                at = row * len(endings) + column
                steps = self._head(hidden[at, end : end + len(label)]).float().log_softmax(dim=1)
                scores[row, column] = float(steps[torch.arange(len(label)), list(label)].sum())
        return scores, None

    def _timed(self, work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
        import torch

        from pld.adapters.students.engine.machine import exact_products

        with torch.inference_mode(), exact_products():
            return milliseconds(lambda: work(*arguments))

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Any:
        import torch

        return torch.tensor([list(row) for row in rows], device=self._device)


class Gemm:
    """The machine's peak throughput, by bare matrix products."""

    # [m, k] · [k, n]: large squares, and a few hundred tokens through a wide layer
    SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (1024, 4096, 4096), (384, 896, 9728))

    def __init__(self, dtype: str, device: str) -> None:
        import torch

        torch.set_num_threads(cores())
        from pld.adapters.students.engine.machine import choose_device

        self._device, kind = choose_device(device), getattr(torch, dtype)
        self._products: list[tuple[int, Callable[[], Any]]] = []
        for m, k, n in self.SHAPES:
            a, b = torch.randn(m, k, device=self._device).to(kind), torch.randn(k, n, device=self._device).to(kind)
            self._products.append((2 * m * k * n, partial(torch.mm, a, b)))
            if self._device == "cpu" and torch.backends.mkldnn.is_available():
                # weights in oneDNN's own layout, as in our Student
                packed = torch.ops.mkldnn._reorder_linear_weight(b.T.contiguous(), m)
                linear = torch.ops.mkldnn._linear_pointwise
                self._products.append((2 * m * k * n, partial(linear, a, packed, None, "none", [], "")))

    def best(self) -> float:
        """Floating-point operations per second for the best shape."""
        import torch

        from pld.adapters.students.engine.machine import exact_products

        with torch.inference_mode(), exact_products():
            return max(
                operations / min(milliseconds(product)[0] for _ in range(2)) * 1000
                for operations, product in self._products
            )


def milliseconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long `work` took, with everything it started on a GPU, and its value."""
    started = time.perf_counter()
    value = work()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started), value


def _beginning(job: Job) -> list[Any]:
    from pld.records import Message

    return [Message(role="system", content=job.system)]
