"""Loading what may be a local folder or a Hugging Face id: the local cache first, then the network."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

_TIMEOUT_S = 10.0


class LoadError(Exception):
    """Why nothing was loaded, in one line; the caller says what was wanted."""

    def __init__(self, error: Exception) -> None:
        reason = " ".join(str(error).split())
        super().__init__(f"{type(error).__name__}: {reason[:300]}" if reason else type(error).__name__)


def load(location: str, local: bool, load_from: Callable[..., Any]) -> Any:
    """`load_from(local_files_only=True)`, and for a Hugging Face id that is not in the cache with False.

    Raises LoadError.
    """
    if not local and _is_path(location):
        raise LoadError(FileNotFoundError("no such folder"))
    with quiet():
        try:
            return load_from(local_files_only=True)
        except OSError as error:
            if local:
                raise LoadError(error) from error
        except Exception as error:
            raise LoadError(error) from error
        try:
            _reach(location)
            return load_from(local_files_only=False)
        except Exception as error:
            raise LoadError(error) from error


def _is_path(location: str) -> bool:
    return location.startswith((".", "/", "~")) or location.count("/") > 1


def _reach(model: str) -> None:
    """One question to the hub, so that a wrong id or no network is said at once: downloads try for minutes."""
    import huggingface_hub

    huggingface_hub.HfApi().model_info(model, timeout=_TIMEOUT_S)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers without its bars and warnings, also those of its GGUF reader."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
