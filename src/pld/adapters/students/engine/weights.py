"""Locate and load a Student's model and tokenizer: an asset, a local folder or a Hugging Face id, GGUF or not."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pld.artifacts import atomic_folder, file_sha256
from pld.config import hub
from pld.config.assets import ASSET_PREFIX, asset, asset_folder_or_file, cache_folder
from pld.errors import StudentError

Quantization = Literal["none", "int8", "nf4"]
# part of the key of converted weights; raise it when `_convert` writes something else
CONVERSION = 1


@dataclass(frozen=True)
class Source:
    """What transformers loads: a folder or a Hugging Face id. `sha256`: of the original file, if known."""

    location: str
    local: bool
    sha256: str | None


def locate(model: str, gguf_file: str | None) -> Source:
    """`asset:<name>`, a local folder or a Hugging Face id; a GGUF file is dequantised once into the cache.

    Raises AssetError or StudentError.
    """
    if model.startswith(ASSET_PREFIX):
        sha256 = asset(model).sha256
        location = converted_folder(sha256)
        if not asset(model).file_name.endswith(".gguf"):
            location = asset_folder_or_file(model)
        elif not location.exists():
            _convert(asset_folder_or_file(model), sha256)
        return Source(str(location), local=True, sha256=sha256)
    folder = Path(model).expanduser()
    if gguf_file is None:
        return Source(str(folder) if folder.is_dir() else model, local=folder.is_dir(), sha256=None)
    file = folder / gguf_file if folder.is_dir() else _from_hub(model, gguf_file)
    if not file.is_file():
        raise StudentError(f"expected a GGUF file, got no such file ({file}); correct student.gguf_file")
    sha256 = file_sha256(file)
    return Source(str(_convert(file, sha256)), local=True, sha256=sha256)


def load_tokenizer(source: Source) -> Any:
    """The model's tokenizer. Raises StudentError."""
    from transformers import AutoTokenizer

    # mistral_format=False: mistral-common, where installed, has neither template nor tokenizer.json
    return _load(
        source, lambda **options: AutoTokenizer.from_pretrained(source.location, mistral_format=False, **options)
    )


def load_model(source: Source, dtype: Any, quantization: Quantization, device: str, attention: str | None) -> Any:
    """The model in evaluation mode on `device`. `dtype`: a torch dtype; `attention`: a name that transformers
    knows, or None for its own choice. Raises StudentError."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    settings: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if quantization != "none":
        settings |= {"quantization_config": _bitsandbytes(quantization, dtype), "device_map": {"": device}}
    config = _load(source, lambda **options: AutoConfig.from_pretrained(source.location, **options))
    kind = AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForImageTextToText
    model = _load(source, lambda **options: kind.from_pretrained(source.location, **settings, **options))
    return model.eval() if quantization != "none" else model.eval().to(device)


def _bitsandbytes(quantization: Quantization, dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    # bitsandbytes 0.50 warns at every matrix product that int8 casts its inputs to float16
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _load(source: Source, load_from: Any) -> Any:
    try:
        return hub.load(source.location, source.local, load_from)
    except hub.LoadError as error:
        raise _unloadable(source.location, error) from error


def _unloadable(location: str, reason: hub.LoadError) -> StudentError:
    return StudentError(
        f"expected a model that loads, got {reason} (student.model {location}); name a folder, a Hugging Face id "
        "that the network or the local cache has, or an asset"
    )


def _from_hub(model: str, gguf_file: str) -> Path:
    from huggingface_hub import hf_hub_download

    source = Source(model, local=False, sha256=None)
    return Path(_load(source, lambda **options: hf_hub_download(model, gguf_file, **options)))


def converted_folder(sha256: str) -> Path:
    return cache_folder() / "students" / f"{sha256[:16]}-v{CONVERSION}"


def _convert(file: Path, sha256: str) -> Path:
    """Dequantise a GGUF file into a cached folder of float32 safetensors; the first process that needs it does so."""
    from filelock import FileLock

    folder = converted_folder(sha256)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            print(f"student: dequantising {file.name} into {folder}, once", file=sys.stderr, flush=True)
            try:
                with hub.quiet(), atomic_folder(folder) as temporary:
                    _write_converted(file, temporary)
            except StudentError:
                raise
            except Exception as error:
                raise _unloadable(str(file), hub.LoadError(error)) from error
    return folder


def _write_converted(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    _fix_pre_tokenizer(tokenizer, file)
    tokenizer.save_pretrained(folder)
    # without dequantize=True transformers 5.23 keeps the weights packed, with kernels that are slow in bfloat16
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    _tie_weights(model)
    model.save_pretrained(folder)


def _tie_weights(model: Any) -> None:
    """Tie embedding and LM head where the file holds one matrix twice, quantised differently.

    transformers 5.23 treats any GGUF file with an output.weight as untied: 630M instead of 494M parameters for Qwen
    0.5B. Keeps the head's copy, which llama.cpp quantises less.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding.weight is head.weight or embedding.weight.shape != head.weight.shape:
        return
    difference = (embedding.weight - head.weight).norm() / head.weight.norm()
    if difference < 0.2:  # two quantisations differ by a few per cent, unrelated matrices by more than 1
        embedding.weight = head.weight
        model.config.tie_word_embeddings = True
        model.tie_weights()


def _fix_pre_tokenizer(tokenizer: Any, file: Path) -> None:
    """Set the pre-tokenizer that the file names.

    transformers 5.23 knows only some of llama.cpp's names and silently uses GPT-2's for all others; for SmolLM2's
    `smollm` that loses the `Digits` step, so that a newline before a digit is split differently.
    """
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf import read_gguf_metadata
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    metadata, _ = read_gguf_metadata(str(file))
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        return
    name = metadata.get("tokenizer.ggml.pre")
    if name == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    elif name not in GGUF_PRE_TOKENIZER_SPLITS and name not in ("gpt-2", "default"):
        raise StudentError(
            f"expected a known pre-tokenizer, got tokenizer.ggml.pre {name!r} ({file}); name the model's "
            "original folder or Hugging Face id instead of its GGUF file"
        )
