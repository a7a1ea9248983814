"""LoRA on random models of test size; the data are made up."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from pld.adapters.students.engine.chat import Chat
from pld.adapters.students.engine.weights import Source, load_model, load_tokenizer, locate
from pld.errors import ConfigError, StudentError
from pld.evaluate.baselines.lora import (
    RECORD,
    TARGET,
    TrainingSequence,
    answer_loss,
    check,
    fine_tune,
    identity,
    training_sequences,
)
from pld.params import LoraParams
from pld.records import Message

SETTINGS = {
    "gguf_file": None, "dtype": "float32", "search_dtype": "float32", "quantization": "none", "device": "cpu",
    "pack_tokens": None, "batch_size": 4,
}  # fmt: skip
SYSTEM = [Message(role="system", content="Warm or cold?")]
LABELS = ["warm", "cold", "neither at all"]
WORDS = {"warm": ["fire", "sun", "summer"], "cold": ["ice", "snow", "winter"], "neither at all": ["stone", "tree"]}
INPUTS = [f"The {word} of {place}" for words in WORDS.values() for word in words for place in ("here", "the old town")]
ANSWERS = [label for label, words in WORDS.items() for _ in words for _ in range(2)]


@pytest.fixture(autouse=True)
def _one_thread_and_an_empty_cache(monkeypatch, tmp_path, tiny_folder):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny_folder("llama")  # before the cache is another
    monkeypatch.setenv("PLD_CACHE", str(tmp_path / "cache"))
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def section(tiny_folder):
    return {**SETTINGS, "_target_": TARGET, "name": "tiny", "model": tiny_folder("llama")}


def params(**changes):
    given = {"rank": 8, "alpha": 16, "dropout": 0.0, "learning_rate": 0.005, "epochs": 1, "batch_size": 4}
    return LoraParams(**{**given, "max_tokens": 64, "seed": 0, **changes})


def tuned(section, inputs=INPUTS, answers=ANSWERS, on_progress=None, **changes):
    return fine_tune(section, SYSTEM, inputs, answers, LABELS, params(**changes), on_progress)


def chosen(student):
    return [LABELS[best] for best in student.score(SYSTEM, INPUTS, LABELS).argmax(axis=1)]


def weights(folder):
    return (Path(folder) / "model.safetensors").read_bytes()


def test_the_student_learns_its_training_examples(section, make_student):
    before, finished = weights(section["model"]), []
    found = tuned(section, rank=32, alpha=32, epochs=30, on_progress=finished.append)
    untrained = make_student(model=section["model"])
    assert chosen(found.student) == ANSWERS
    assert chosen(untrained) != ANSWERS
    assert found.training.last_loss < found.training.first_loss / 3
    assert (found.training.examples, found.training.left_out, found.training.steps) == (16, 0, 30 * 4)
    assert sum(finished) == 30 * 16
    # the Student that is compared with it is as it was
    assert weights(section["model"]) == before


def test_the_trained_student_reads_the_same_tokens_under_a_name_of_its_own(section, make_student):
    found = tuned(section).student
    chat = [*SYSTEM, Message(role="user", content="an <|im_end|> in 42 words"), Message(role="assistant", content="x")]
    assert found.count_tokens(chat) == make_student(model=section["model"]).count_tokens(chat)
    assert found.name == "tiny-lora"


def test_adapters_are_on_all_linear_layers_of_the_decoder_and_nowhere_else(section):
    # 2 layers: q and o 32x32, k and v 32x16, gate and up 32x48, down 48x32; an adapter has rank * (in + out) weights
    wanted = 2 * 8 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert tuned(section).training.trainable_parameters == wanted


def test_the_answer_learned_is_the_label_and_the_end_of_turn(section):
    source = locate(section["model"], None)
    chat, tokenizer = Chat(load_tokenizer(source), "tiny"), load_tokenizer(source)
    found = training_sequences(chat, SYSTEM, ["The fire", "A stone"], ["cold", "neither at all"], LABELS)
    for one, text, label in zip(found, ["The fire", "A stone"], ["cold", "neither at all"], strict=True):
        turns = [*SYSTEM, Message(role="user", content=text), Message(role="assistant", content=label)]
        whole = tokenizer.apply_chat_template([turn.model_dump() for turn in turns], tokenize=False)
        assert whole.rstrip() == tokenizer.decode([*one.prompt, *one.answer])
        assert tokenizer.decode(one.answer) == f"{label}<|im_end|>"


def test_trained_weights_are_cached(section):
    first, finished = tuned(section, epochs=2), []
    written = (first.folder / RECORD).stat().st_mtime_ns
    second = tuned(section, epochs=2, on_progress=finished.append)
    assert (second.folder, second.training) == (first.folder, first.training)
    assert (first.folder / RECORD).stat().st_mtime_ns == written
    assert sum(finished) == 2 * 16


@pytest.mark.slow
def test_training_is_deterministic(section, monkeypatch, tmp_path):
    import torch

    first = tuned(section, epochs=2, dropout=0.1)
    torch.rand(7)  # whatever else draws random numbers
    monkeypatch.setenv("PLD_CACHE", str(tmp_path / "other"))
    second = tuned(section, epochs=2, dropout=0.1)
    assert first.folder != second.folder
    assert weights(first.folder) == weights(second.folder)


def test_training_leaves_the_global_random_state_alone(section):
    import torch

    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    tuned(section, epochs=1, dropout=0.1)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.slow
def test_other_settings_or_data_train_again(section):
    changes = [
        {},
        {"seed": 1},
        {"rank": 4},
        {"learning_rate": 0.01},
        {"answers": [*ANSWERS[1:], "warm"]},
        {"inputs": INPUTS[::-1]},
    ]
    assert len({tuned(section, **change).folder for change in changes}) == len(changes)


@pytest.mark.slow
def test_other_base_weights_train_again(section, tiny_folder):
    other = {**section, "model": tiny_folder("llama", hidden_size=16)}
    assert tuned(section).folder != tuned(other).folder


def test_another_commit_of_a_hugging_face_model_trains_again(tmp_path, monkeypatch):
    import huggingface_hub

    folder = tmp_path / "models--some--model"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = []
    for commit in ("a" * 40, "b" * 40):
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").write_text("{}")
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs/main").write_text(commit)
        found.append(identity(Source("some/model", local=False, sha256=None)))
    assert found == [f"some/model@{'a' * 40}", f"some/model@{'b' * 40}"]
    with pytest.raises(StudentError, match=r"expected its config\.json"):
        identity(Source("some/other", local=False, sha256=None))


@pytest.mark.slow
def test_examples_above_max_tokens_are_left_out_and_counted(section):
    finished = []
    found = tuned(section, ["long " * 80, *INPUTS], ["warm", *ANSWERS], finished.append, epochs=2)
    assert (found.training.examples, found.training.left_out) == (16, 1)
    assert sum(finished) == 2 * 17
    with pytest.raises(ConfigError, match=r"expected training examples of at most 5 tokens, got none"):
        tuned(section, max_tokens=5)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3", "mistral"])
def test_padding_does_not_change_the_loss(architecture, tiny_folder):
    import torch

    model = load_model(locate(tiny_folder(architecture), None), torch.float32, "none", "cpu", "sdpa")
    # longer than the sliding windows, and answers of several lengths
    batch = [
        TrainingSequence(tuple(range(40, 40 + size)), answer)
        for size, answer in ((30, (7, 8)), (9, (5,)), (17, (4, 9, 11, 2)))
    ]
    with torch.no_grad():
        alone = [answer_loss(model, [one]).item() for one in batch]
        assert answer_loss(model, batch).item() == pytest.approx(np.mean(alone), abs=1e-4)


def test_the_loss_equals_the_score_of_the_answer(section, make_student):
    import torch

    student = make_student(model=section["model"])
    (prompt,) = student._chat.prompts(SYSTEM, ["The fire"], LABELS)
    model = load_model(locate(section["model"], None), torch.float32, "none", "cpu", "sdpa")
    with torch.no_grad():
        losses = [answer_loss(model, [TrainingSequence(prompt.ids, label)]).item() for label in prompt.labels]
    np.testing.assert_allclose(losses, -student.score(SYSTEM, ["The fire"], LABELS)[0], atol=1e-3)


@pytest.mark.slow
def test_a_gemma_3_is_trained_too(section, tiny_folder):
    found = tuned({**section, "model": tiny_folder("gemma3")}, epochs=2)
    assert np.isfinite(found.student.score(SYSTEM, INPUTS, LABELS)).all()
    assert found.training.last_loss < found.training.first_loss


@pytest.mark.slow
def test_a_quantised_student_is_quantised_again_after_the_merge(section):
    found = tuned({**section, "quantization": "int8"})
    assert found.student.describe()["quantization"] == "int8"
    assert np.isfinite(found.student.score(SYSTEM, INPUTS[:2], LABELS)).all()


def test_diverging_training_raises_and_leaves_no_files(section, tmp_path):
    with pytest.raises(StudentError, match=r"expected a loss that falls, got (nan|inf) .*; lower it"):
        tuned(section, learning_rate=1e30)
    assert [path for path in (tmp_path / "cache/students").iterdir() if path.is_dir()] == []


def test_a_student_without_local_weights_is_refused():
    with pytest.raises(ConfigError, match=r"got pld\.adapters\.students\.other\.Other.*baselines\.lora=null"):
        check({"_target_": "pld.adapters.students.other.Other"})


def test_a_missing_package_names_its_extra(section, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'pld\[lora\]'"):
        check(section)


def test_training_prints_and_warns_nothing(section, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        tuned(section)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_record_beside_the_weights_describes_the_training(section):
    found = tuned(section)
    record = json.loads((found.folder / RECORD).read_text())
    assert record["seconds"] > 0
    assert (record["device"], record["dtype"]) == ("cpu", "float32")
