import time

import numpy as np

from pld.evaluate.latency import measure_latency, time_prefill
from pld.evaluate.systems import Replies, System
from pld.records import Example, Message

EXAMPLES = [Example(id=f"e{i}", inputs={"x": str(i)}, label="a", split="test") for i in range(4)]


class Recorder:
    """As much of a Student and of a system as is timed."""

    def __init__(self):
        self.prefilled, self.asked = [], []

    def prefill(self, messages):
        self.prefilled.append(messages)

    def answer(self, examples, on_progress=None):
        self.asked.append([example.id for example in examples])
        return Replies(np.zeros((1, 2)))


def test_requests_come_one_at_a_time_after_one_prefill_and_a_warm_up():
    recorder, beginning = Recorder(), (Message(role="system", content="P"),)
    system = System("s", recorder.answer, readable="", student=recorder, beginning=beginning)
    prefill_ms = time_prefill(system)
    found = measure_latency(system, EXAMPLES, 50, prefill_ms)
    assert recorder.prefilled[1:] == [beginning], "after one of other messages, which loads the model"
    assert found.prefill_ms == prefill_ms > 0
    assert recorder.asked == [[f"e{i % 4}"] for i in range(53)]
    assert found.requests == 50
    assert 0 < found.p50_ms <= found.p95_ms


def test_a_slow_system_is_timed_over_its_own_number_of_requests():
    recorder = Recorder()
    found = measure_latency(System("s", recorder.answer, readable="", requests=8), EXAMPLES, 50, 0)
    assert (found.requests, len(recorder.asked)) == (8, 9)


def test_without_an_llm_there_is_nothing_to_prefill():
    assert time_prefill(System("s", Recorder().answer, readable="")) == 0


def test_warm_up_requests_are_not_timed():
    recorder = Recorder()

    def answer(examples, on_progress=None):
        time.sleep(0 if recorder.asked else 0.5)
        return recorder.answer(examples)

    assert measure_latency(System("s", answer, readable="", requests=8), EXAMPLES, 50, 0).p95_ms < 100
