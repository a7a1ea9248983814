from support.anthropic_server import anthropic_server

__all__ = ["anthropic_server"]
