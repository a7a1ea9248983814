"""Scores equal those of one plain forward pass of the stock model per example and label."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld.adapters.students.engine import trie_scorer
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


@pytest.mark.slow
def test_smollm_scores_labels_that_share_tokens_or_nest_as_plain_forward_passes_do(smollm, smollm_folder, plainly):
    inputs = ["Nurses are kind.", "", "He prays\n\n5 times a day, 12 in all!", "x", "Nurses are kind.", "日本語 👩‍👩‍👧"]
    scores = smollm.score(MESSAGES, inputs, LABELS)
    assert scores.shape == (6, 6)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(
        scores, plainly(smollm_folder, MESSAGES, inputs, LABELS, end="<|im_end|>"), atol=TOLERANCE
    )


@pytest.fixture
def use_cascade(monkeypatch):
    """A function that turns cascade attention on or off."""
    return lambda wanted: monkeypatch.setattr(trie_scorer, "can_cascade", lambda device: wanted)


# every pair of architecture, attention and pack size; fast: each architecture and each combination of the other two
@pytest.mark.parametrize(
    ("architecture", "cascade", "pack_tokens"),
    [
        ("llama", True, None),
        ("qwen2", False, 9),
        ("qwen3", True, 9),
        ("gemma3", True, 9),
        ("mistral", False, None),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("llama", False, 9),
                ("qwen2", True, None),
                ("qwen3", False, None),
                ("gemma3", False, None),
                ("mistral", True, 9),
            ]
        ),
    ],
)
def test_every_architecture_scores_as_plain_forward_passes_do(
    architecture, cascade, pack_tokens, tiny_folder, make_student, plainly, use_cascade
):
    use_cascade(cascade)
    folder = tiny_folder(architecture)
    student = make_student(model=folder, pack_tokens=pack_tokens)
    assert student.describe()["engine"] == "packed token trie"

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
    @given(
        system=st.one_of(st.none(), st.text(alphabet="ab 1\n", max_size=60)),
        inputs=st.lists(
            st.one_of(st.text(alphabet="abé 12\n.", max_size=40), st.integers(0, 90).map(lambda n: "word " * n)),
            min_size=1,
            max_size=6,
        ),
        labels=st.lists(st.text(alphabet="abc ", min_size=1, max_size=12), min_size=1, max_size=4, unique=True),
    )
    def check(system, inputs, labels):
        messages = [] if system is None else [Message(role="system", content=system)]
        scores = student.score(messages, inputs, labels)
        chat = student._chat
        tokens = chat.prompts(messages, ["x"], labels)[0].labels
        nested = any(a != b and b[: len(a)] == a for a in tokens for b in tokens)
        end = "<|im_end|>" if nested else ""
        np.testing.assert_allclose(scores, plainly(folder, messages, inputs, labels, end), atol=TOLERANCE, rtol=1e-5)

    check()


@pytest.mark.parametrize(("architecture", "cascade"), [("gemma3", True), ("mistral", False)])
def test_a_prefix_longer_than_the_sliding_window_is_masked_by_position(
    architecture, cascade, tiny_folder, make_student, plainly, use_cascade
):
    use_cascade(cascade)
    folder = tiny_folder(architecture)
    messages = [Message(role="system", content=" ".join(f"word{n}" for n in range(40)))]
    student = make_student(model=folder)
    inputs, labels = ["a b c", "one two three four five six seven eight nine ten"], ["gender", "religious belief"]
    scores = student.score(messages, inputs, labels)
    np.testing.assert_allclose(scores, plainly(folder, messages, inputs, labels), atol=TOLERANCE, rtol=1e-5)


def test_a_prefix_of_several_prefill_pieces_is_computed_exactly(tiny_folder, make_student, plainly):
    folder = tiny_folder("llama", max_position_embeddings=2048)
    student = make_student(model=folder)
    for words in (300, 330):
        messages = [Message(role="system", content=" ".join(f"w{n}" for n in range(words)))]
        scores = student.score(messages, ["a", "b c"], ["x", "yz"])
        np.testing.assert_allclose(
            scores, plainly(folder, messages, ["a", "b c"], ["x", "yz"]), atol=TOLERANCE, rtol=1e-5
        )


@pytest.mark.parametrize("architecture", [pytest.param("qwen3", marks=pytest.mark.slow), "gemma3"])
def test_questions_about_shared_documents_are_scored_exactly(architecture, tiny_folder, make_student, plainly):
    folder = tiny_folder(architecture, max_position_embeddings=2048)
    student = make_student(model=folder, pack_tokens=64)
    documents = [" ".join(f"{name}{n}" for n in range(60)) for name in ("clause", "article", "term")]
    inputs = [f"{document}\n{question}" for document in documents for question in ("May it?", "Must it?", "", "May")]
    messages, labels = [Message(role="system", content="Yes or no?")], ["yes", "no", "not said"]
    scores = student.score(messages, inputs, labels)
    np.testing.assert_allclose(scores, plainly(folder, messages, inputs, labels), atol=TOLERANCE, rtol=1e-5)


def test_chats_with_different_first_messages_are_scored_exactly(tiny_folder, make_student, plainly):
    folder = tiny_folder("llama")
    chats = [
        [Message(role="system", content="Name the topic."), Message(role="user", content="Nurses are kind.")],
        [*MESSAGES, Message(role="user", content="She prays.")],
        [Message(role="user", content="Nurses are kind.")],
        [*MESSAGES, Message(role="user", content="He sews.")],
    ]
    wanted = [plainly(folder, chat[:-1], [chat[-1].content], LABELS, end="<|im_end|>")[0] for chat in chats]
    np.testing.assert_allclose(make_student(model=folder).score_chats(chats, LABELS), wanted, atol=TOLERANCE, rtol=1e-5)


# bfloat16 moves a log-probability by up to 0.4 (docs/explanation/performance.md), and of two labels each its own way
MARGIN = 0.8


@pytest.mark.slow
def test_bfloat16_chooses_the_same_label_wherever_float32_is_clear_about_it(smollm, make_student):
    coarse = make_student(dtype="bfloat16")
    who, does = (
        ("nurses", "priests", "my aunt", "plumbers", "Danes", "she"),
        ("pray", "sew", "sing.", "lie, they say", ""),
    )
    inputs = [f"{one} {other}{end}" for one in who for other in does for end in ("", " a lot")]
    labels = ["gender", "profession", "race", "religion"]
    exact, found = (student.score(MESSAGES, inputs, labels) for student in (smollm, coarse))
    two = np.sort(exact, axis=1)
    clear = two[:, -1] - two[:, -2] > MARGIN
    assert clear.sum() > 10
    assert (exact.argmax(axis=1) == found.argmax(axis=1))[clear].all()


@pytest.mark.parametrize("architecture", ["bloom", "gemma2"])
def test_an_unknown_architecture_is_scored_exactly_by_the_padded_scorer_with_a_message(
    architecture, tiny_folder, make_student, plainly, capsys
):
    folder = tiny_folder(architecture)
    student = make_student(model=folder)
    inputs = ["a b c", "", "one two three four five six seven eight nine ten", "a b"]
    scores = student.score(MESSAGES, inputs, LABELS)
    np.testing.assert_allclose(
        scores, plainly(folder, MESSAGES, inputs, LABELS, end="<|im_end|>"), atol=TOLERANCE, rtol=1e-5
    )
    assert student.describe()["engine"] == "plain prefix cache"
    assert architecture in capsys.readouterr().err
