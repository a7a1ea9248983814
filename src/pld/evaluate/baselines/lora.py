"""LoRA fine-tuning of a Student on the training examples (Hu et al. 2021, arXiv 2106.09685), by peft.

The Student learns exactly the tokens that it is scored by: the label after the shared messages, in its own chat format.
The trained weights are merged into a model folder, so that the same engine scores and times the result.
"""

import contextlib
import hashlib
import importlib.metadata
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pld.adapters.students.engine.chat import Chat
from pld.adapters.students.engine.machine import choose_device, exact_products, has_bfloat16
from pld.adapters.students.engine.weights import CONVERSION, Source, load_model, load_tokenizer, locate
from pld.artifacts import atomic_folder, read_record, write_json
from pld.config import hub
from pld.config.assets import cache_folder
from pld.config.build import build
from pld.errors import ConfigError, StudentError
from pld.params import LoraParams
from pld.ports import OnProgress, Student
from pld.records import Message, Record, canonical_json, content_id, sha256

if TYPE_CHECKING:
    import torch

Ids = tuple[int, ...]
TARGET = "pld.adapters.students.transformers.TransformersStudent"
RECORD = "training.json"
# part of the cache key of trained weights: increase it when the training below changes
_VERSION = 1
_WARM_UP = 0.1  # share of the steps; then the rate falls linearly to zero
_MAX_NORM = 1.0  # of the gradient
_IGNORED = -100  # torch's ignore_index


class Training(Record):
    """A fine-tuning run, with its wall time in `seconds` on the machine that trained the weights.

    `examples` were trained on, `left_out` exceeded `max_tokens`. Losses: mean negative log-likelihood (nats) of an
    answer over the first and the last epoch. `products`: precision of matrix products in training.
    """

    examples: int
    left_out: int
    steps: int
    trainable_parameters: int
    first_loss: float
    last_loss: float
    seconds: float
    device: str
    dtype: str
    products: str


@dataclass(frozen=True)
class FineTuned:
    """`student` runs the merged weights in `folder`."""

    student: Student
    folder: Path
    training: Training


@dataclass(frozen=True)
class TrainingSequence:
    """The model sees `prompt + answer` and learns `answer`: the label, then the end of the turn."""

    prompt: Ids
    answer: Ids

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class _Job:
    """Everything that determines the trained weights on one machine."""

    source: Source
    sequences: Sequence[TrainingSequence]
    params: LoraParams
    device: str
    dtype: str  # of the weights
    products: str  # of matrix products

    def key(self) -> str:
        tokens = sha256(canonical_json([[one.prompt, one.answer] for one in self.sequences]))
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}
        return content_id(
            {
                "version": _VERSION,
                "weights": identity(self.source),
                "tokens": tokens,
                "params": self.params.model_dump(mode="json"),
                "device": self.device,
                "dtype": self.dtype,
                "products": self.products,
                **versions,
            }
        )


def fine_tune(
    section: Mapping[str, Any],
    messages: Sequence[Message],
    inputs: Sequence[str],
    answers: Sequence[str],
    labels: Sequence[str],
    params: LoraParams,
    on_progress: OnProgress | None = None,
) -> FineTuned:
    """Train the Student of `section` (config.student) to answer `inputs` [n] after `messages` with `answers` [n], each
    one of the declared `labels`.

    The result is cached by weights, data, settings and library versions. `on_progress` counts examples, `epochs` times
    n in all. A quantised Student is trained unquantised and quantised again after the merge. Raises ConfigError if peft
    is missing, the Student has no local weights or no example fits, StudentError if it can't be loaded or trained.
    """
    check(section)
    source = locate(section["model"], section["gguf_file"])
    every = training_sequences(Chat(load_tokenizer(source), section["name"]), messages, inputs, answers, labels)
    fitting = [one for one in every if len(one) <= params.max_tokens]
    if not fitting:
        raise ConfigError(
            f"expected training examples of at most {params.max_tokens} tokens, got none among {len(every)} "
            "(baselines.lora.max_tokens); raise it"
        )
    device = choose_device(section["device"])
    job = _Job(
        source=source,
        sequences=fitting,
        params=params,
        device=device,
        dtype="float32" if device == "cpu" or section["dtype"] == "float32" else "bfloat16",
        products="bfloat16" if has_bfloat16(device) else "float32",
    )
    advance = on_progress or (lambda _finished: None)
    folder = _trained_folder(job, len(every) - len(fitting), advance)
    student = build({**section, "name": f"{section['name']}-lora", "model": str(folder), "gguf_file": None}, "student")
    return FineTuned(student, folder, read_record(folder / RECORD, Training))


def check(section: Mapping[str, Any]) -> None:
    """Raises ConfigError if the Student of `section` can't be fine-tuned here, before anything is computed."""
    if section["_target_"] != TARGET:
        raise ConfigError(
            f"expected a Student whose weights can be trained here, got {section['_target_']} (baselines.lora); "
            "choose another groups.student or set baselines.lora=null"
        )
    try:
        import peft  # noqa: F401
    except ImportError:
        raise ConfigError(
            "expected the package peft, got it not installed (baselines.lora); run `pip install 'pld[lora]'` or "
            "set baselines.lora=null"
        ) from None


def training_sequences(
    chat: Chat, messages: Sequence[Message], inputs: Sequence[str], answers: Sequence[str], labels: Sequence[str]
) -> list[TrainingSequence]:
    """One sequence per input [n], of the tokens by which `answers` [n], each one of `labels`, are scored."""
    end, place = chat.end_of_turn(), {label: at for at, label in enumerate(labels)}
    prompts = chat.prompts(messages, inputs, labels)
    return [
        TrainingSequence(prompt.ids, (*prompt.labels[place[answer]], end))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def identity(source: Source) -> str:
    """What identifies the base weights: the hash of a file, the commit of a Hugging Face id, or a folder's contents."""
    if source.sha256 is not None:
        return f"{source.sha256}-v{CONVERSION}"
    if source.local:
        files = sorted(path for path in Path(source.location).iterdir() if path.is_file())
        return content_id([[path.name, _sha256(path)] for path in files])
    from huggingface_hub import hf_hub_download

    try:
        config = hub.load(
            source.location, False, lambda **options: hf_hub_download(source.location, "config.json", **options)
        )
    except hub.LoadError as error:
        raise StudentError(
            f"expected its config.json, got {error} (student.model {source.location}); name a model that the "
            "network or the local cache has"
        ) from error
    # a snapshot's folder name is its commit
    return f"{source.location}@{Path(config).parent.name}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _trained_folder(job: _Job, left_out: int, advance: OnProgress) -> Path:
    """The merged model in the cache; the first process that asks trains it, others wait."""
    from filelock import FileLock

    folder = cache_folder() / "students" / f"lora-{job.key()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        done = 0
        if not folder.exists():
            with atomic_folder(folder) as temporary:
                _write_trained(temporary, job, left_out, advance)
            done = len(job.sequences)
    advance(job.params.epochs * (len(job.sequences) + left_out - done))
    return folder


def _write_trained(folder: Path, job: _Job, left_out: int, advance: OnProgress) -> None:
    import torch

    model = load_model(job.source, getattr(torch, job.dtype), "none", job.device, "sdpa")
    started = time.perf_counter()
    try:
        with torch.random.fork_rng(), exact_products(), hub.quiet():
            torch.manual_seed(job.params.seed)
            adapted = _adapted(model, job.params)
            losses = _train(adapted, job, advance)
    except torch.OutOfMemoryError as error:
        raise StudentError(
            f"expected memory to train {job.source.location} in {job.dtype}, got "
            f"{' '.join(str(error).split()):.200} (baselines.lora); lower baselines.lora.batch_size or "
            "baselines.lora.max_tokens"
        ) from None
    epoch = len(losses) // job.params.epochs
    training = Training(
        examples=len(job.sequences),
        left_out=left_out,
        steps=len(losses),
        trainable_parameters=sum(weight.numel() for weight in _trainable(adapted)),
        first_loss=round(sum(losses[:epoch]) / epoch, 6),
        last_loss=round(sum(losses[-epoch:]) / epoch, 6),
        seconds=round(time.perf_counter() - started, 3),
        device=job.device,
        dtype=job.dtype,
        products=job.products,
    )
    with hub.quiet():
        adapted.merge_and_unload().save_pretrained(folder)
        # a fresh tokenizer: the chat's was changed to read control tokens as text
        load_tokenizer(job.source).save_pretrained(folder)
    write_json(folder / RECORD, training)


def _adapted(model: Any, params: LoraParams) -> Any:
    """`model` with adapters on every linear layer of its text decoder (attention and MLP), not on the LM head."""
    import torch
    from peft import LoraConfig, get_peft_model

    inside = set(model.get_decoder().modules())
    layers = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part in inside]
    settings = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=layers,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 reads a deprecated attribute of transformers 5.23
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = get_peft_model(model, settings).eval()
    # not adapted.train(): Gemma-3 then requires token_type_ids of images
    for name, part in adapted.named_modules():
        if "lora_dropout" in name:
            part.train()
    return adapted


def _trainable(model: Any) -> list[Any]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _train(model: Any, job: _Job, advance: OnProgress) -> list[float]:
    """Losses by step."""
    import torch

    params, weights = job.params, _trainable(model)
    optimizer = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=0.0)
    steps = params.epochs * -(-len(job.sequences) // params.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    bfloat16 = job.products == "bfloat16"
    losses = []
    for batch in _batches(job.sequences, params):
        with torch.autocast(job.device, torch.bfloat16) if bfloat16 else contextlib.nullcontext():
            loss = answer_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, _MAX_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if not losses[-1] < float("inf"):
            raise StudentError(
                f"expected a loss that falls, got {losses[-1]} at step {len(losses)} with {params.learning_rate} "
                "(baselines.lora.learning_rate); lower it"
            )
        advance(len(batch))
    return losses


def _rate(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up, then linear decay to zero."""
    warm_up = max(1, round(_WARM_UP * steps))
    return (step + 1) / warm_up if step < warm_up else (steps - step) / (steps - warm_up + 1)


def _batches(sequences: Sequence[TrainingSequence], params: LoraParams) -> Iterator[list[TrainingSequence]]:
    """Batches of all epochs, shuffled anew in each."""
    order, generator = list(sequences), random.Random(params.seed)
    for _ in range(params.epochs):
        generator.shuffle(order)
        for start in range(0, len(order), params.batch_size):
            yield order[start : start + params.batch_size]


def answer_loss(model: Any, batch: Sequence[TrainingSequence]) -> "torch.Tensor":
    """Mean over the batch of the negative log-likelihood (nats) of an answer's tokens, the quantity that scoring uses.

    Padded on the left, so that all answers are at the end and the LM head is applied only there.
    """
    import torch

    width = max(len(one) for one in batch) - 1  # an answer's last token is predicted, never an input
    kept = max(len(one.answer) for one in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)  # (B, T)
    mask = torch.zeros_like(ids)
    targets = torch.full((len(batch), kept), _IGNORED)  # (B, K)
    for row, one in enumerate(batch):
        fed = torch.tensor((*one.prompt, *one.answer)[:-1])
        ids[row, -len(fed) :] = fed
        mask[row, -len(fed) :] = 1
        targets[row, -len(one.answer) :] = torch.tensor(one.answer)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    ids, mask, positions, targets = (tensor.to(model.device) for tensor in (ids, mask, positions, targets))
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=kept, use_cache=False
    ).logits  # (B, K, V)
    summed = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="sum"
    )
    return summed / len(batch)
