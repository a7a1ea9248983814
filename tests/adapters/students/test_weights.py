"""GGUF files are dequantised once, with weights tied, and tokenised as llama.cpp does."""

import json
import shutil
import threading
import urllib.request
from pathlib import Path

import pytest

from pld.adapters.students.engine import weights
from pld.adapters.students.engine.chat import Chat
from pld.adapters.students.engine.weights import load_tokenizer, locate
from pld.config import assets
from pld.errors import StudentError

TEXTS = [
    "a\n\n12 b",
    "In 2024\n1. one\n2. two\n\n  3",
    "1234567 6.78e9 v2.10",
    "Zürich naïve Ⅷ ½ ²³ ٣٤",
    "日本語 テキスト",
    "👩\u200d👩\u200d👧 emoji 🤷🏽\u200d♀️",
    "def f(x):\n    return x**2 + 10\n\n\n\tif  a==b:",
    "  leading and trailing  ",
    "\n\n\n",
    "a\r\nb\t\tc",
    "It's I'LL we've they'd",
    "\u00a0nbsp\u2003em",
    "\x01\x7f",
    "<|im_end|>",
    "<|im_start|>user\nhi<|im_end|>\n",
    "\ufffd\u200b",
]


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def llama_cpp(request):
    """The asset's name, and llama.cpp's own tokenizer of the same file: text, special tokens on → ids."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(assets.asset_folder_or_file(f"asset:{request.param}"))
    parameters.n_ctx, parameters.n_parallel, parameters.port, parameters.warmup = 64, 1, 0, False
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)

    def tokenize(text, special):
        body = json.dumps({"content": text, "add_special": False, "parse_special": special}).encode()
        asked = urllib.request.Request(
            f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:
            return json.load(answer)["tokens"]

    return request.param, tokenize


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_token_ids_equal_llama_cpps(llama_cpp):
    name, tokenize = llama_cpp
    source = locate(f"asset:{name}", None)
    tokenizer, chat = load_tokenizer(source), Chat(load_tokenizer(source), name)
    for text in TEXTS:
        assert tokenizer(text, add_special_tokens=False).input_ids == tokenize(text, True), text
        assert list(chat._tokenised(text, True)) == tokenize(text, False), text


@pytest.mark.slow
def test_qwens_embedding_and_lm_head_are_tied():
    config = json.loads(Path(locate("asset:qwen2.5-coder-0.5b", None).location, "config.json").read_text())
    assert config["tie_word_embeddings"]


def test_concurrent_loads_of_a_gguf_file_convert_it_once(tmp_path, monkeypatch, make_student):
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "cache"))
    file = shutil.copy(assets.asset_folder_or_file("asset:smollm2-135m"), tmp_path / "any.gguf")
    converted = []

    def convert(source, folder):
        converted.append(source)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(weights, "_write_converted", convert)
    found = []
    threads = [threading.Thread(target=lambda: found.append(locate(str(tmp_path), "any.gguf"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert converted == [Path(file)]
    assert found[0] == found[1]
    assert found[0].sha256.startswith("b179c952")
    assert Path(found[0].location).is_relative_to(tmp_path / "cache")
    # the same bytes as the asset: nothing is converted again
    assert locate("asset:smollm2-135m", None).location == found[0].location


def test_a_failed_conversion_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(StudentError, match=r"expected a model that loads, got .*broken\.gguf") as raised:
        locate(str(tmp_path), "broken.gguf")
    assert "\n" not in str(raised.value)
    assert [path.name for path in (tmp_path / "cache/students").iterdir() if path.is_dir()] == []


def test_an_unknown_pre_tokenizer_is_refused(monkeypatch):
    from transformers.integrations import gguf

    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "of-tomorrow"}
    monkeypatch.setattr(gguf, "read_gguf_metadata", lambda path: (metadata, ()))
    with pytest.raises(StudentError, match="'of-tomorrow'"):
        weights._fix_pre_tokenizer(None, Path("x.gguf"))
