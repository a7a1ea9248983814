from support.anthropic_server import anthropic_server
from support.shelf import fresh_database, store

__all__ = ["anthropic_server", "fresh_database", "store"]
