"""The paid Teacher with settings for a local server: the one place of tests that names them all."""

from typing import Any

from pld.adapters.teachers.anthropic import AnthropicTeacher


def claude(**changes: Any) -> AnthropicTeacher:
    settings = {"way": "messages", "model": "claude-test", "max_tokens": 512, "effort": None, "temperature": None}
    transport = {"roles": {}, "max_concurrency": 4, "max_retries": 2, "timeout_s": 5.0, "poll_s": 0.05}
    return AnthropicTeacher(**{**settings, **transport, **changes})
