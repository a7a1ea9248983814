"""The openai SDK's client for a server that need not be OpenAI's: no key, account or address of another service."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pld.redaction import holds_secret

if TYPE_CHECKING:
    import openai

URL_VARIABLE = "OPENAI_BASE_URL"


class NoClientError(Exception):
    """Its parts are for the error of the Student or Teacher that needs the client."""

    def __init__(self, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"expected {expected}, got {got}; {remedy}")
        self.expected, self.got, self.remedy = expected, got, remedy


def address(base_url: str | None, role: str) -> str:
    """`base_url`, or what the environment names, without a trailing slash. Raises NoClientError."""
    url = base_url or os.environ.get(URL_VARIABLE)
    if not url:
        raise NoClientError("an address", f"none in {role}.base_url and {URL_VARIABLE}", "set one, like http://host/v1")
    if holds_secret(url):  # the SDK logs addresses
        raise NoClientError("an address without user, password and key", "one with", "give the server's key instead")
    return url.rstrip("/")


def check_installed() -> None:
    """Raises NoClientError without the extra `openai`."""
    try:
        import openai  # noqa: F401
    except ImportError:
        raise NoClientError("the package openai", "none", "install pld's extra openai") from None


def open_client(*, url: str, role: str, api_key_variable: str, max_retries: int, timeout_s: float) -> openai.OpenAI:
    """Raises NoClientError."""
    check_installed()
    import openai

    try:
        client = openai.OpenAI(
            # a server that asks for no key gets this word, which the SDK needs; never another service's key
            api_key=os.environ.get(api_key_variable) or "none",
            base_url=url,
            max_retries=max_retries,
            timeout=timeout_s,
        )
    except Exception as error:  # a malformed URL or proxy, each with a class of its own
        remedy = f"check {role}.base_url and the environment's proxy settings"
        raise NoClientError("a client", f"{error!s:.200}", remedy) from None
    client.organization = client.project = None  # of another service
    return client
