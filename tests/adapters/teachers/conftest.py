from support.anthropic_server import anthropic_server
from support.openai_teacher_server import openai_server

__all__ = ["anthropic_server", "openai_server"]
