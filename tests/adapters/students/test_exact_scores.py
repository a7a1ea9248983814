"""Scores against one plain forward pass of the stock model per example and label."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld.records import Message

# log-probabilities in float32: products are summed in another order
TOLERANCE = 1e-4
LABELS = ("gender", "profession", "race", "religion", "religious belief", "rel")
MESSAGES = (
    Message(role="system", content="Name the topic. Answer in one word."),
    Message(role="user", content="The plumber came late."),
    Message(role="assistant", content="profession"),
)


@pytest.fixture(scope="module")
def plainly():
    """A function: folder, messages, inputs, labels → scores, by the stock tokenizer, template and attention."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = {}

    def row(folder, messages, text, labels, end):
        if folder not in loaded:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            loaded[folder] = (AutoTokenizer.from_pretrained(folder), model.eval())
        tokenizer, model = loaded[folder]
        turns = [message.model_dump() for message in messages] + [{"role": "user", "content": text}]
        if turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": ""})
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = [tokenizer(prompt + label, add_special_tokens=False).input_ids for label in ("", *labels)]
        # the label's tokens begin where some label's first differs from the prompt's own last ones
        start = next((at for at in range(len(ids[0])) if len({tuple(one[: at + 1]) for one in ids}) > 1), len(ids[0]))
        scores = []
        for whole in ids[1:]:
            whole += tokenizer(end, add_special_tokens=False).input_ids
            with torch.no_grad():
                logits = (
                    model(input_ids=torch.tensor([whole]), use_cache=False)
                    .logits[0, start - 1 :]
                    .double()
                    .log_softmax(-1)
                )
            scores.append(sum(float(logits[at - start, whole[at]]) for at in range(start, len(whole))))
        return scores

    return lambda folder, messages, inputs, labels, end="": np.array(
        [row(folder, messages, text, labels, end) for text in inputs]
    )


def test_smollm_scores_equal_plain_forwards_with_labels_that_share_tokens_and_nest(smollm, smollm_folder, plainly):
    inputs = ["Nurses are kind.", "", "He prays\n\n5 times a day, 12 in all!", "x", "Nurses are kind.", "日本語 👩‍👩‍👧"]
    scores = smollm.score(MESSAGES, inputs, LABELS)
    assert scores.shape == (6, 6)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(
        scores, plainly(smollm_folder, MESSAGES, inputs, LABELS, end="<|im_end|>"), atol=TOLERANCE
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3", "mistral"])
def test_every_architecture_scores_as_plain_forwards_do(architecture, tiny_folder, make_student, plainly):
    folder = tiny_folder(architecture)
    student = make_student(model=folder, batch_size=3)

    @settings(
        max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
    )
    @given(
        system=st.one_of(st.none(), st.text(alphabet="ab 1\n", max_size=60)),
        inputs=st.lists(st.text(alphabet="abé 12\n.", max_size=40), min_size=1, max_size=5),
        labels=st.lists(st.text(alphabet="abc ", min_size=1, max_size=12), min_size=1, max_size=4, unique=True),
    )
    def check(system, inputs, labels):
        messages = [] if system is None else [Message(role="system", content=system)]
        scores = student.score(messages, inputs, labels)
        chat = student._ready_chat()
        tokens = chat.prompts(messages, ["x"], labels)[0].labels
        nested = any(a != b and b[: len(a)] == a for a in tokens for b in tokens)
        end = "<|im_end|>" if nested else ""
        np.testing.assert_allclose(scores, plainly(folder, messages, inputs, labels, end), atol=TOLERANCE, rtol=1e-5)

    check()


@pytest.mark.parametrize("architecture", ["gemma3", "mistral"])
def test_a_prefix_longer_than_the_sliding_window_is_masked_by_position(
    architecture, tiny_folder, make_student, plainly
):
    folder = tiny_folder(architecture)
    messages = [Message(role="system", content=" ".join(f"word{n}" for n in range(40)))]
    student = make_student(model=folder)
    inputs, labels = ["a b c", "one two three four five six seven eight nine ten"], ["gender", "religious belief"]
    scores = student.score(messages, inputs, labels)
    np.testing.assert_allclose(scores, plainly(folder, messages, inputs, labels), atol=TOLERANCE, rtol=1e-5)


def test_a_prefix_of_several_pieces_is_continued_exactly(tiny_folder, make_student, plainly):
    folder = tiny_folder("llama", max_position_embeddings=2048)
    student = make_student(model=folder)
    for words in (300, 330):
        messages = [Message(role="system", content=" ".join(f"w{n}" for n in range(words)))]
        scores = student.score(messages, ["a", "b c"], ["x", "yz"])
        np.testing.assert_allclose(
            scores, plainly(folder, messages, ["a", "b c"], ["x", "yz"]), atol=TOLERANCE, rtol=1e-5
        )
