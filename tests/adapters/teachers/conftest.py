from support.answer_store import store
from support.anthropic_server import anthropic_server
from support.asked_batches import no_long_waits, server
from support.openai_server import openai_server

__all__ = ["anthropic_server", "no_long_waits", "openai_server", "server", "store"]
