import json
import shlex

import anthropic
import httpx2
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pld.distill.render import prompt_messages
from pld.errors import ArtifactError, ConfigError
from pld.records import Calibration, Message, Task, prompt_sha256, sha256
from pld.serving.export import FORMATS, exported, label_tokens, logit_bias, notes
from pld.serving.model import Release, ServedSpec
from support.modelfile import parse_modelfile

LABELS = ("refund", "delivery", 'naïve "quote"')
TASK = Task(
    name="mail",
    labels=LABELS,
    fields=("subject", "body"),
    input_template="Subject: {{ subject }}\n{{ body }}",
    base_instruction="What is it about?",
)
FRAGMENTS = ['"', '""', '"""', '"""\n', '""" \t\r\n', "\\", "\\n", "{{ x }}", "{% raw %}", "\n", "\r\n", " ", "\t", "#"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PROMPTS = st.lists(st.one_of(TEXTS, st.sampled_from(FRAGMENTS))).map("".join)


def release(prompt="Be brief.", model=None, number=None, turns=(), **changes):
    student = {"_target_": "x", "model": "asset:tiny", "base_url": "http://elsewhere:8000/v1"}
    roles = ("user", "assistant") * (len(turns) // 2)
    messages = (*prompt_messages(prompt), *(Message(role=r, content=t) for r, t in zip(roles, turns, strict=True)))
    digest = prompt_sha256(messages)
    spec = {"task": TASK, "student": student, "calibration": None, "prompt_sha256": digest} | changes
    return Release(ServedSpec(**spec), messages, model, number)


def exported_or_refused(prompt, format, turns=()):
    try:
        return exported(release(prompt, turns=turns), format)
    except ArtifactError as error:
        return error


def received(client, call, answer):
    """What a server gets when the real SDK sends the body."""
    seen = []

    def handle(request):
        seen.append(json.loads(request.content))
        return httpx2.Response(200, json=answer)

    http = httpx2.Client(transport=httpx2.MockTransport(handle))
    call(client(api_key="none", http_client=http, max_retries=0))
    return seen[0]


def by_openai(text):
    body = json.loads(text)["body"]
    known = {key: value for key, value in body.items() if key not in ("structured_outputs", "repetition_penalty")}
    more = {key: value for key, value in body.items() if key not in known}
    answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": []}
    sent = received(openai.OpenAI, lambda sdk: sdk.chat.completions.create(**known, extra_body=more), answer)
    assert sent == body
    return sent["messages"][0]["content"]


def by_anthropic(text):
    body = json.loads(text)["body"]
    usage = {"input_tokens": 1, "output_tokens": 1}
    answer = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    sent = received(anthropic.Anthropic, lambda sdk: sdk.messages.create(**body), answer)
    assert sent == body
    return sent["system"][0]["text"]


READ_BACK = {
    "text": lambda text: text,
    "json": lambda text: json.loads(text)["prompt"],
    "openai": lambda text: json.loads(text)["body"]["messages"][0]["content"],
    "vllm": lambda text: json.loads(text)["body"]["messages"][0]["content"],
    "anthropic": lambda text: json.loads(text)["body"]["system"][0]["text"],
    "ollama": lambda text: dict(parse_modelfile(text))["system"],
}


@pytest.mark.parametrize("format", FORMATS)
@given(prompt=PROMPTS)
@example(prompt="")
@example(prompt=" leading, trailing newlines\n\n")
@example(prompt='"""')
@example(prompt='"quoted" \\ """ inside """ a line')
@example(prompt='"""\nat the beginning')
@example(prompt='a line that ends in """ \r\n')
@example(prompt="\ufeffBOM, zero\u200bwidth, no\u00a0break, \u2028, \U0001f468\u200d\U0001f469")
@example(prompt="Ünïcödé 漢字 \U0001f600 \t{{ a }} {% b %} ${c} `d`")
def test_a_prompt_comes_back_byte_for_byte_or_is_refused_in_one_line(format, prompt):
    found = exported_or_refused(prompt, format)
    if isinstance(found, ArtifactError):
        assert f" (export as {format}); nothing was written" in str(found)
        assert "\n" not in str(found)
        assert format not in ("text", "json")
    else:
        assert READ_BACK[format](found).encode() == prompt.encode()


def in_anthropic(text):
    body = json.loads(text)["body"]
    *turns, last, asked = body["messages"]
    (block,) = last["content"]
    assert asked["role"] == "user"
    assert "cache_control" in block
    assert "cache_control" not in body["system"][0]
    return [body["system"][0]["text"], *(turn["content"] for turn in turns), block["text"]]


TURNS_READ_BACK = {
    "json": lambda text: [message["content"] for message in json.loads(text)["messages"]],
    "openai": lambda text: [message["content"] for message in json.loads(text)["body"]["messages"]][:-1],
    "vllm": lambda text: [message["content"] for message in json.loads(text)["body"]["messages"]][:-1],
    "anthropic": in_anthropic,
    "ollama": lambda text: [value for name, value in parse_modelfile(text) if name.startswith(("system", "message"))],
}


@pytest.mark.parametrize("format", TURNS_READ_BACK)
@given(prompt=PROMPTS, asked=PROMPTS)
@example(prompt="Rules", asked='Subject: "x"\n\n {{ y }} """ in a line')
def test_example_turns_come_back_byte_for_byte_in_their_order_or_are_refused(format, prompt, asked):
    turns = (asked, "refund", "Subject: second", LABELS[2])
    found = exported_or_refused(prompt, format, turns)
    if isinstance(found, ArtifactError):
        assert format != "json"
        assert f" (export as {format}); nothing was written" in str(found)
    else:
        assert TURNS_READ_BACK[format](found) == [prompt, *turns]


def test_example_turns_pass_the_sdks_and_a_text_cannot_carry_them():
    chat = release(turns=("lost parcel", "delivery"))
    for format in ("openai", "vllm"):
        assert by_openai(exported(chat, format)) == chat.prompt
    assert by_anthropic(exported(chat, "anthropic")) == chat.prompt
    found = parse_modelfile(exported(release(turns=("x" * 3000, "delivery")), "ollama"))
    assert [name for name, _ in found if name.startswith("message")] == ["message user", "message assistant"]
    assert int(dict(found)["num_ctx"]) >= 3000 + 1024
    with pytest.raises(ArtifactError, match=r"expected a system prompt alone, got one with 1 example turns .*text"):
        exported(chat, "text")


@given(prompt=PROMPTS)
def test_a_modelfile_refuses_only_what_it_could_not_carry(prompt):
    if prompt and isinstance(exported_or_refused(prompt, "ollama"), ArtifactError):
        try:
            carried = dict(parse_modelfile(f'FROM x\nSYSTEM """{prompt}"""\n'))["system"]
        except ValueError:
            carried = None
        assert carried != prompt


@pytest.mark.parametrize("format", ["openai", "anthropic", "ollama", "vllm"])
def test_a_prompt_with_nul_is_refused_for_every_runtime(format):
    with pytest.raises(ArtifactError, match=rf"expected a prompt without NUL, got one \(export as {format}\)"):
        exported(release("a\0b"), format)


def test_bodies_are_what_the_sdks_send():
    prompt = 'Say "it" \\ {{ so }}\n'
    assert by_openai(exported(release(prompt), "openai")) == prompt
    assert by_openai(exported(release(prompt), "vllm")) == prompt
    assert by_anthropic(exported(release(prompt), "anthropic")) == prompt


def test_a_modelfile_decodes_as_it_was_measured_and_has_room_for_the_prompt():
    found = parse_modelfile(exported(release("x" * 5000), "ollama", "./weights of mine.gguf"))
    assert found[0] == ("from", "./weights of mine.gguf")
    settings = dict(found)
    assert settings["temperature"] == "0"
    assert settings["repeat_penalty"] == "1.0"  # Ollama's own default makes labels of the prompt less likely
    assert int(settings["num_predict"]) == 1 + len(LABELS[2].encode())
    assert int(settings["num_ctx"]) >= 5000 + 1024


@pytest.mark.parametrize("model", ["two\nlines", '"quoted"', " led"])
def test_a_model_s_name_that_a_modelfile_would_read_otherwise_is_refused(model):
    with pytest.raises(ConfigError, match="correct --model"):
        exported(release(), "ollama", model)


def test_every_format_says_how_to_render_an_input_and_read_the_label():
    inputs = {"subject": "Some made-up subject.", "body": "Some made-up body."}
    rendered = "Subject: Some made-up subject.\nSome made-up body."
    for format in ("json", "openai", "anthropic", "vllm"):
        found = json.loads(exported(release(), format))
        assert found["input"]["template"] == TASK.input_template
        assert found["input"]["example"] == {"inputs": inputs, "rendered": rendered}
        assert found["answer"]["labels"] == list(LABELS)
        if format != "json":
            assert found["body"]["messages"][-1] == {"role": "user", "content": TASK.input_template}
    told = [line for line in exported(release(), "ollama").splitlines() if line.startswith("# ")]
    for part in (json.dumps(TASK.input_template), json.dumps(rendered), json.dumps(LABELS)):
        assert any(part in line for line in told), part


def test_a_template_that_no_made_up_value_fits_has_no_example():
    task = TASK.model_copy(update={"input_template": "{{ body.split(':')[1] }}{{ subject }}"})
    assert json.loads(exported(release(task=task), "openai"))["input"]["example"] is None
    assert "{{ body.split" in exported(release(task=task), "ollama")


def test_vllm_is_started_with_the_model_and_held_to_the_labels():
    found = json.loads(exported(release(), "vllm", "org/it's 1B"))
    assert shlex.split(found["serve"]) == ["vllm", "serve", "org/it's 1B", "--enable-prefix-caching"]
    assert found["body"]["model"] == "org/it's 1B"
    assert found["body"]["structured_outputs"] == {"choice": list(LABELS)}


def test_json_has_all_that_answers_depend_on_and_no_address():
    calibration = Calibration(method="batch", labels=LABELS, scale=1.0, bias=(1.0, 2.0, 3.0), examples=9)
    whole = release(calibration=calibration, model="pld-mail", number=3, prompt_version="2")
    found = json.loads(exported(whole, "json"))
    assert found["prompt_sha256"] == sha256("Be brief.")
    assert Task(**found["task"]) == TASK
    assert Calibration(**found["calibration"]) == calibration
    assert found["student"] == {"_target_": "x", "model": "asset:tiny"}
    assert (found["model"], found["version"], found["prompt_version"]) == ("pld-mail", 3, "2")


AFFINE = Calibration(method="affine", labels=LABELS, scale=0.5, bias=(1.0, -2.0, 0.25), examples=9)


def test_notes_say_what_a_format_leaves_out():
    calibrated = release(calibration=AFFINE)
    for format, reason in {
        "openai": "a label is not a single token",
        "vllm": "a label is not a single token",
        "anthropic": "anthropic has no logit_bias",
        "ollama": "ollama has no logit_bias",
    }.items():
        assert any(line.startswith(f"calibration: lost, because {reason}") for line in notes(calibrated, format, "m"))
        assert not any(line.startswith("calibration: ") for line in notes(release(), format, "m"))
    assert notes(calibrated, "json") == []
    assert "--model" in notes(release(), "openai")[0]


@pytest.mark.parametrize("format", ["openai", "vllm"])
def test_a_calibration_becomes_logit_bias_where_every_label_is_one_token(format):
    calibrated = release(calibration=AFFINE)
    body = json.loads(exported(calibrated, format, tokens=(7, 8, 9)))["body"]
    assert body["logit_bias"] == {"7": 53.0, "8": 47.0, "9": 51.5}  # bias / scale, around 50
    assert body["max_tokens"] == 1  # the bias would repeat the label
    assert any("applied by logit_bias" in line for line in notes(calibrated, format, "m", (7, 8, 9)))
    assert by_openai(exported(calibrated, format, tokens=(7, 8, 9))) == "Be brief."


@pytest.mark.parametrize("format", sorted({*FORMATS} - {"openai", "vllm"}))
def test_formats_without_logit_bias_are_the_same_with_tokens(format):
    calibrated = release(calibration=AFFINE)
    assert exported(calibrated, format, tokens=(7, 8, 9)) == exported(calibrated, format)


def test_biases_that_a_server_would_cut_are_lost_and_said_to_be():
    wide = release(calibration=AFFINE.model_copy(update={"scale": 0.01}))
    assert "logit_bias" not in json.loads(exported(wide, "openai", tokens=(7, 8, 9)))["body"]
    assert any("more than logit_bias allows (100)" in line for line in notes(wide, "openai", "m", (7, 8, 9)))


@given(
    st.lists(st.floats(-10, 10), min_size=3, max_size=3),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.floats(0.2, 5),
)
def test_the_likeliest_biased_token_is_the_label_of_the_highest_calibrated_score(scores, biases, scale):
    own = AFFINE.model_copy(update={"scale": scale, "bias": tuple(biases)})
    calibrated = [scale * score + bias for score, bias in zip(scores, biases, strict=True)]
    biased = [score + bias for score, bias in zip(scores, logit_bias(own, (7, 8, 9)).values(), strict=True)]
    assert max(calibrated) - calibrated[biased.index(max(biased))] < 1e-3


def test_a_version_without_calibration_or_a_format_without_bias_loads_no_tokenizer():
    assert label_tokens(release(), "openai") is None
    assert label_tokens(release(calibration=AFFINE), "anthropic") is None


def test_without_the_students_tokenizer_the_calibration_is_lost_and_the_export_goes_on():
    assert label_tokens(release(calibration=AFFINE), "openai") is None  # no such Student here
