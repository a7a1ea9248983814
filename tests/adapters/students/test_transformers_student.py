import json
import subprocess
import sys

import numpy as np
import pytest

from pld.adapters.students.machine import exact_products, has_bfloat16
from pld.errors import AssetError, StudentError
from pld.records import Message

SYSTEM = [Message(role="system", content="Answer in one word: gender or religion.")]
LABELS = ["gender", "religion", "religious"]


@pytest.fixture(scope="module")
def tiny(tiny_folder, make_student):
    return make_student(model=tiny_folder("llama"))


def counted(student):
    """The token counts of all forwards from here on."""
    sizes, scorer = [], student._ready_scorer()
    forward = scorer._forward
    scorer._forward = lambda ids, run: sizes.append(tuple(ids.shape)) or forward(ids, run)
    return sizes


def test_no_input_and_no_label_give_empty_scores(tiny):
    assert tiny.score(SYSTEM, [], LABELS).shape == (0, 3)
    assert tiny.score(SYSTEM, ["a"], []).shape == (1, 0)


def test_an_input_does_not_change_another_ones_scores(tiny):
    alone = [tiny.score(SYSTEM, [text], LABELS)[0] for text in ("a", "", "longer than the others, by far")]
    np.testing.assert_allclose(
        tiny.score(SYSTEM, ["a", "", "longer than the others, by far"], LABELS), alone, atol=1e-4
    )


def test_duplicates_are_scored_once_and_progress_counts_them(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"), batch_size=2)
    sizes, finished = counted(student), []
    scores = student.score(SYSTEM, ["a", "b", "a", "c", "a"], LABELS, finished.append)
    assert sum(rows for rows, _ in sizes[1:]) == 3
    assert sum(finished) == 5
    assert (scores[0] == scores[2]).all()
    assert (scores[0] == scores[4]).all()


def test_a_prompt_longer_than_the_context_is_nan_and_the_others_are_not(tiny, tiny_folder, make_student):
    finished = []
    scores = tiny.score(SYSTEM, ["short", "long " * 300, "short too"], LABELS, finished.append)
    assert np.isnan(scores).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert sum(finished) == 3
    np.testing.assert_allclose(scores[[0, 2]], tiny.score(SYSTEM, ["short", "short too"], LABELS), atol=1e-4)
    small = make_student(model=tiny_folder("llama", max_position_embeddings=16))
    assert np.isnan(small.score(SYSTEM, ["a", "b"], LABELS)).all()


def test_the_longest_prompt_that_fits_is_scored(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"))
    (prompt,) = student._ready_chat().prompts(SYSTEM, ["a"], ["religious belief"])
    # a label's last token is foretold, never fed
    used = len(prompt.ids) + len(prompt.labels[0]) - 1
    assert len(prompt.labels[0]) > 1
    for extra, fits in ((256 - used, True), (257 - used, False)):
        scores = student.score(SYSTEM, ["a" + " a" * extra], ["religious belief"])
        assert np.isfinite(scores).all() == fits


def test_prefill_is_what_later_requests_reuse(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"))
    sizes = counted(student)
    student.prefill(SYSTEM)
    (prefilled,) = sizes
    for text in ("one request", "another"):
        sizes.clear()
        student.score(SYSTEM, [text], LABELS)
        assert [width < prefilled[1] for _, width in sizes] == [True]
    sizes.clear()
    student.score(SYSTEM, ["the same word first", "the other text"], LABELS)
    assert len(sizes) == 1


def test_the_two_prefixes_used_last_are_held(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"))
    others = [[Message(role="system", content=text)] for text in ("first", "second", "third")]
    sizes = counted(student)
    for messages in others:
        student.score(messages, ["a"], LABELS)
    sizes.clear()
    student.score(others[1], ["b"], LABELS)
    student.score(others[2], ["b"], LABELS)
    assert len(sizes) == 2
    student.score(others[0], ["b"], LABELS)
    assert len(sizes) == 4


def test_prompts_that_begin_alike_share_whole_pieces(tiny_folder, make_student):
    folder = tiny_folder("llama", max_position_embeddings=2048)
    rules = [f"rule {n}" for n in range(200)]
    fresh, used = make_student(model=folder), make_student(model=folder)
    used.prefill([Message(role="system", content="\n".join(rules))])
    sizes = counted(fresh), counted(used)
    for student in (fresh, used):
        student.prefill([Message(role="system", content="nothing in common")])
        student.score([Message(role="system", content="\n".join([*rules, "one more"]))], ["a", "b"], LABELS)
    del sizes[0][0], sizes[1][0]
    assert len(sizes[0]) > 3
    # not one held before: prefill forgets
    assert sizes[0] == sizes[1]
    sizes[1].clear()
    used.score([Message(role="system", content="\n".join([*rules, "one else"]))], ["a", "b"], LABELS)
    # the same pieces as from the beginning, only fewer: what was held before does not change a bit
    assert len(sizes[1]) < len(sizes[0])
    assert sizes[1] == sizes[0][-len(sizes[1]) :]


def test_scores_do_not_depend_on_what_was_scored_before(tiny_folder, make_student):
    folder = tiny_folder("llama", max_position_embeddings=2048)
    rules = "\n".join(f"rule {n}" for n in range(200))
    wanted = [Message(role="system", content=rules + "\none more")], ["a", "the b", "the c"], LABELS
    fresh, used = make_student(model=folder), make_student(model=folder)
    used.score([Message(role="system", content=rules)], ["x", "y"], LABELS)
    used.score(wanted[0], ["\nq", "the same beginning of both, to the end"], LABELS)
    assert used.score(*wanted).tobytes() == fresh.score(*wanted).tobytes()


def test_two_processes_give_the_same_bits(smollm):
    code = """
import sys
sys.path.insert(0, "tests/adapters/students")
from conftest import SETTINGS
from pld.adapters.students.transformers import TransformersStudent
from pld.records import Message
student = TransformersStudent(**SETTINGS)
for one in (student, student.for_search()):
    messages = [Message(role="system", content="Answer in one word: gender or religion.")]
    print(one.score(messages, ["Nuns pray.", "", "3 dresses"], ["gender", "religion", "religious"]).tobytes().hex())
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = [
        one.score(SYSTEM, ["Nuns pray.", "", "3 dresses"], LABELS).tobytes().hex()
        for one in (smollm, smollm.for_search())
    ]
    assert other == here


def test_for_search_is_bfloat16_where_the_machine_has_it_and_close_to_float32(smollm, make_student):
    assert make_student(search_dtype="float32").for_search().describe()["dtype"] == "float32"
    same = make_student(search_dtype="float32")
    assert same.for_search() is same
    search = smollm.for_search()
    assert search is smollm.for_search()
    assert search.describe()["dtype"] == ("bfloat16" if has_bfloat16("cpu") else "float32")
    inputs = ["Nuns pray.", "She sews."]
    np.testing.assert_allclose(search.score(SYSTEM, inputs, LABELS), smollm.score(SYSTEM, inputs, LABELS), atol=0.5)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_bitsandbytes_weights_score_near_the_full_ones(quantization, smollm, make_student, caplog):
    student = make_student(quantization=quantization, dtype="bfloat16")
    scores = student.score(SYSTEM, ["Nuns pray.", "She sews."], LABELS)
    np.testing.assert_allclose(scores, smollm.score(SYSTEM, ["Nuns pray.", "She sews."], LABELS), atol=3)
    assert student.describe()["quantization"] == quantization
    weight = student._ready_scorer()._body.layers[0].mlp.up_proj.weight
    assert weight.dtype.itemsize == 1
    assert "will be cast" not in caplog.text


def test_dtype_auto_is_what_the_model_was_saved_in(tiny_folder, make_student):
    assert make_student(model=tiny_folder("llama"), dtype="auto").describe()["dtype"] == "float32"


def test_describe_names_what_determines_the_scores(smollm):
    described = smollm.describe()
    assert described["model"] == "asset:smollm2-135m"
    assert described["sha256"].startswith("b179c952")
    assert (described["dtype"], described["quantization"], described["device"]) == ("float32", "none", "cpu")
    assert json.dumps(dict(described))


def test_float32_products_stay_float32_within_1e_5():
    import torch

    before = torch.get_float32_matmul_precision()
    a, b = torch.randn(300, 900), torch.randn(900, 500)
    with exact_products():
        product = a @ b
    exact = a.double() @ b.double()
    assert float((product - exact).norm() / exact.norm()) < 1e-5
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "./no/such/folder"}, StudentError, ["./no/such/folder", "no such folder"]),
        ({"model": "somebody/no-such-model"}, StudentError, ["somebody/no-such-model", "network or the local cache"]),
        ({"model": "asset:no-such"}, AssetError, ["asset:no-such", "smollm2-135m"]),
        ({"model": ".", "gguf_file": "no.gguf"}, StudentError, ["no.gguf", "no such file"]),
        ({"model": "docs"}, StudentError, ["docs", "wanted a model that loads"]),
    ],
)
def test_a_model_that_is_not_there_is_one_line(changes, error, words, make_student):
    with pytest.raises(error) as raised:
        make_student(**changes).score(SYSTEM, ["a"], LABELS)
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def test_cuda_that_is_not_there_is_one_line(make_student, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudentError, match=r"wanted a CUDA device, found none; .*device=auto"):
        make_student(device="cuda").score(SYSTEM, ["a"], LABELS)


def test_an_architecture_with_another_attention_is_refused(smollm_folder, tmp_path, make_student):
    from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

    BloomForCausalLM(BloomConfig(vocab_size=49152, hidden_size=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(smollm_folder).save_pretrained(tmp_path)
    with pytest.raises(StudentError) as raised:
        make_student(model=str(tmp_path)).score(SYSTEM, ["a"], LABELS)
    assert "not supported" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_soft_cap_inside_attention_is_refused(smollm_folder, tmp_path, make_student):
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=49152, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(smollm_folder).save_pretrained(tmp_path)
    with pytest.raises(StudentError, match="softcap"):
        make_student(model=str(tmp_path)).score(SYSTEM, ["a"], LABELS)
