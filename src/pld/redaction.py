"""Remove secrets from messages: values of the environment, and anything that looks like a key or a password."""

import os
import re
from functools import cache

_NAMED = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 8  # shortest value that counts as a secret
_TELLING = 12  # leading characters that identify one: a message may have cut off the rest
# keys as providers shape them
_SHAPED = re.compile(
    r"\bsk-[\w-]{12,}\S*|\b(?:hf|gh[a-z])_\w{16,}|\bgithub_pat_\w{16,}|\bAKIA[0-9A-Z]{12,}|\bxox[a-z]-[\w-]{10,}|\bglpat-[\w-]{12,}"
)
_IN_ADDRESS = re.compile(r"(://(?:[^/\s@:]*:)?)[^/\s@]+(?=@)")


@cache
def holds_secret(address: str) -> bool:
    """Whether `redacted` would change `address`; cached, because it is asked for every request."""
    return redacted(address) != address


def redacted(text: str) -> str:
    """`text` without the values of environment variables with names like KEY or TOKEN, anything shaped like a key, and
    passwords in addresses."""
    for name, value in sorted(os.environ.items()):
        value = value.strip()
        # the path of a file with a secret is not one itself
        if _NAMED.search(name) and len(value) >= _SHORTEST and not value.startswith(("/", ".", "~")):
            text = re.sub(re.escape(value[:_TELLING]) + r"[^\s'\"]*", f"<{name}>", text)
    return _IN_ADDRESS.sub(r"\1…", _SHAPED.sub("<withheld>", text))
