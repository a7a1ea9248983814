import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pld.adapters.students import transformers
from pld.adapters.students.engine.label_tree import common_length
from pld.adapters.students.engine.machine import exact_products, has_bfloat16
from pld.errors import AssetError, StudentError
from pld.records import Message

SYSTEM = [Message(role="system", content="Answer in one word: gender or religion.")]
LABELS = ["gender", "religion", "religious"]


@pytest.fixture(scope="module")
def tiny(tiny_folder, make_student):
    return make_student(model=tiny_folder("llama"))


def counted(student):
    """The token counts of all forwards from here on."""
    sizes, scorer = [], student._scorer
    forward = scorer._forward
    scorer._forward = lambda ids, run: sizes.append(len(ids)) or forward(ids, run)
    return sizes


def test_no_input_and_no_label_give_empty_scores(tiny):
    assert tiny.score(SYSTEM, [], LABELS).shape == (0, 3)
    assert tiny.score(SYSTEM, ["a"], []).shape == (1, 0)


def test_an_input_does_not_change_the_scores_of_another(tiny):
    alone = [tiny.score(SYSTEM, [text], LABELS)[0] for text in ("a", "", "longer than the others, by far")]
    np.testing.assert_allclose(
        tiny.score(SYSTEM, ["a", "", "longer than the others, by far"], LABELS), alone, atol=1e-4
    )


def test_duplicates_are_scored_once_and_progress_counts_them(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"))
    sizes, finished = counted(student), []
    scores = student.score(SYSTEM, ["a", "b", "a", "c", "a"], LABELS, finished.append)
    once = sizes.copy()
    student.score(SYSTEM, ["a", "b", "c"], LABELS)
    assert sizes[len(once) :] == once[1:]  # all but the prefix
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
    (prompt,) = student._chat.prompts(SYSTEM, ["a"], ["religious belief"])
    # a label's last token is predicted, never an input
    used = len(prompt.ids) + len(prompt.labels[0]) - 1
    assert len(prompt.labels[0]) > 1
    for extra, fits in ((256 - used, True), (257 - used, False)):
        scores = student.score(SYSTEM, ["a" + " a" * extra], ["religious belief"])
        assert np.isfinite(scores).all() == fits


def test_later_requests_reuse_the_prefilled_prefix(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"))
    sizes = counted(student)
    student.prefill(SYSTEM)
    (prefilled,) = sizes
    for text in ("one request", "another"):
        sizes.clear()
        student.score(SYSTEM, [text], LABELS)
        assert [size < prefilled for size in sizes] == [True]
    sizes.clear()
    student.score(SYSTEM, ["the same word first", "the other text"], LABELS)
    assert len(sizes) == 1


def test_the_prefix_cache_keeps_the_most_recently_used_prefixes_within_its_limit(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"))
    others = [[Message(role="system", content=text)] for text in ("first", "second", "third")]
    sizes = counted(student)

    def prefilled(messages):
        sizes.clear()
        student.score(messages, ["a"], LABELS)
        return len(sizes) == 2

    assert [prefilled(messages) for messages in others * 2] == [True] * 3 + [False] * 3
    student.prefill(others[0])
    layers = student._scorer.prefill(student._chat.shared_ids(others[0]))
    student._scorer._cache._limit = 2.5 * sum(tensor.nbytes for pair in layers.values() for tensor in pair)
    assert [prefilled(messages) for messages in others] == [False, True, True]
    assert [prefilled(messages) for messages in others[::-1]] == [False, False, True]


@pytest.mark.parametrize(("dtype", "piece"), [("float32", 128), ("bfloat16", 1)])
def test_an_edited_prompt_is_recomputed_from_the_edit_on(dtype, piece, tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama", max_position_embeddings=2048), dtype=dtype)
    rules = [f"rule {n}" for n in range(200)]
    before = [Message(role="system", content="\n".join(rules))]
    edited = [Message(role="system", content="\n".join([*rules[:150], "another one", *rules[151:]]))]
    chat = student._chat
    whole = chat.shared_ids(edited)
    common = common_length([chat.shared_ids(before), whole])
    assert 128 < common < len(whole) - 100
    student.prefill(before)
    sizes = counted(student)
    student.score(edited, ["a"], LABELS)
    assert sum(sizes[:-1]) == len(whole) - common // piece * piece


def test_scores_do_not_depend_on_what_was_scored_before(tiny_folder, make_student):
    folder = tiny_folder("llama", max_position_embeddings=2048)
    rules = "\n".join(f"rule {n}" for n in range(200))
    wanted = [Message(role="system", content=rules + "\none more")], ["a", "the b", "the c"], LABELS
    fresh, used = make_student(model=folder), make_student(model=folder)
    used.score([Message(role="system", content=rules)], ["x", "y"], LABELS)
    used.score(wanted[0], ["\nq", "the same beginning of both, to the end"], LABELS)
    assert used.score(*wanted).tobytes() == fresh.score(*wanted).tobytes()


@pytest.mark.slow
def test_two_processes_give_the_same_bits():
    code = """
import sys
sys.path.insert(0, "tests")
from support.small_students import SETTINGS
from pld.adapters.students.transformers import TransformersStudent
from pld.records import Message
student = TransformersStudent(**SETTINGS)
for one in (student, student.for_search()):
    messages = [Message(role="system", content="Answer in one word: gender or religion.")]
    print(one.score(messages, ["Nuns pray.", "", "3 dresses"], ["gender", "religion", "religious"]).tobytes().hex())
"""
    first, second = (subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in "12")
    assert first == second
    assert first.count(b"\n") == 2


def test_the_student_for_search_uses_bfloat16_where_the_machine_has_it_and_scores_close_to_float32(tiny, make_student):
    same = make_student(search_dtype="float32")
    assert same.for_search() is same
    search = tiny.for_search()
    assert search is tiny.for_search()
    assert search.for_search() is search
    assert search.describe()["dtype"] == ("bfloat16" if has_bfloat16("cpu") else "float32")
    inputs = ["Nuns pray.", "She sews."]
    np.testing.assert_allclose(search.score(SYSTEM, inputs, LABELS), tiny.score(SYSTEM, inputs, LABELS), atol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_bitsandbytes_weights_score_near_the_full_ones(quantization, smollm, make_student, caplog):
    student = make_student(quantization=quantization, dtype="bfloat16")
    scores = student.score(SYSTEM, ["Nuns pray.", "She sews."], LABELS)
    np.testing.assert_allclose(scores, smollm.score(SYSTEM, ["Nuns pray.", "She sews."], LABELS), atol=3)
    assert student.describe()["quantization"] == quantization
    weight = student._loaded[0].get_decoder().layers[0].mlp.up_proj.weight
    assert weight.dtype.itemsize == 1
    assert "will be cast" not in caplog.text


def test_the_student_for_search_loads_the_weights_at_its_own_dtype(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"), search_dtype="bfloat16")
    exact = student.score(SYSTEM, ["Nuns pray."], LABELS)
    search = student.for_search()
    np.testing.assert_allclose(search.score(SYSTEM, ["Nuns pray."], LABELS), exact, atol=0.5)
    assert (search._scorer.dtype, student._scorer.dtype) == ("bfloat16", "float32")
    assert set(search.timings()) == {"load", "render", "prefill", "score"}


@pytest.mark.parametrize(("hardware", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_dtype_auto_is_bfloat16_in_hardware_that_has_it(hardware, dtype, tiny_folder, make_student, monkeypatch):
    monkeypatch.setattr(transformers, "has_bfloat16", lambda _device: hardware)
    student = make_student(model=tiny_folder("llama"), dtype="auto", search_dtype="auto")
    assert (student.describe()["dtype"], student._scorer.dtype) == (dtype, dtype)
    assert student.for_search() is student


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
        ({"model": "docs"}, StudentError, ["docs", "expected a model that loads"]),
    ],
)
def test_a_missing_model_is_a_one_line_error(changes, error, words, make_student):
    with pytest.raises(error) as raised:
        make_student(**changes).score(SYSTEM, ["a"], LABELS)
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def test_missing_cuda_is_a_one_line_error(make_student, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudentError, match=r"expected a CUDA device, got none .*; .*device=auto"):
        make_student(device="cuda").score(SYSTEM, ["a"], LABELS)


def saved(model, smollm_folder, folder):
    from transformers import AutoTokenizer

    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm_folder).save_pretrained(folder)
    return str(folder)


def test_an_architecture_whose_cache_cannot_be_extended_is_refused(smollm_folder, tmp_path, make_student):
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=49152, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(StudentError) as raised:
        make_student(model=saved(model, smollm_folder, tmp_path)).score(SYSTEM, ["a"], LABELS)
    assert "mamba is not supported" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_generated_text_equals_plain_greedy_decoding_and_says_whether_it_ended(tiny, tiny_folder):
    import torch
    from transformers import AutoModelForCausalLM

    chats = [
        [Message(role="user", content="Say hello.")],
        [Message(role="system", content="Count."), Message(role="user", content="Count from one to twenty in words.")],
    ]
    finished = []
    written = tiny.generate(chats, 12, finished.append)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"), dtype=torch.float32).eval()
    chat = tiny._chat
    for one, found in zip(chats, written, strict=True):
        (prompt,) = chat.prompts(one[:-1], [one[-1].content], ())
        ids = list(prompt.ids)
        while len(ids) - len(prompt.ids) < 12:
            with torch.inference_mode():
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token in chat.ends():
                break
            ids.append(token)
        new = ids[len(prompt.ids) :]
        assert (found.text, found.tokens, found.finished) == (chat.decode(tuple(new)), len(new), len(new) < 12)
    assert sum(finished) == 2
    assert not written[1].finished


def test_concurrent_requests_get_the_same_scores_as_sequential_ones(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"), pack_tokens=16)
    student._scorer._cache._limit = 0
    asked = [([Message(role="system", content=f"prompt {n % 3}")], [f"input {n}", "b", "c"], LABELS) for n in range(12)]
    alone = [student.score(*one) for one in asked]
    watched = Counted(student._scorer)
    student._scorer = watched
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda one: student.score(*one), asked * 3))
    for one, found in zip(alone * 3, together, strict=True):
        assert one.tobytes() == found.tobytes()
    assert watched.most == 1


class Counted:
    """A scorer that notes how many score at once."""

    def __init__(self, scorer):
        self._scorer, self._now, self.most = scorer, 0, 0

    def __getattr__(self, name):
        return getattr(self._scorer, name)

    def score(self, *arguments):
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            return self._scorer.score(*arguments)
        finally:
            self._now -= 1


def test_a_chat_that_leaves_no_room_for_an_answer_gets_an_empty_one(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"))
    long, short = ([Message(role="user", content=text)] for text in ("word " * 250, "word"))
    written = student.generate([long, short], 4)
    assert (written[0].text, written[0].tokens, written[0].finished) == ("", 0, False)
    assert written[1].tokens > 0


def test_timings_cover_every_kind_of_work(tiny_folder, make_student):
    student = make_student(model=tiny_folder("llama"))
    student.score(SYSTEM, ["a", "b"], LABELS)
    assert set(student.timings()) == {"load", "render", "prefill", "score"}
    assert all(seconds > 0 for seconds in student.timings().values())


def test_labels_of_one_token_each_have_ids_and_others_have_none(smollm):
    assert smollm.label_tokens(["yes", "no"]) == tuple(
        smollm._chat._first.encode(word).ids[0] for word in ("yes", "no")
    )
    assert smollm.label_tokens(["gender", "religion"]) is None
    assert smollm.label_tokens(["yes", "yes"]) is None
