"""Progress of work that takes over two seconds: a bar on a terminal, elsewhere a line every ten per cent."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

DELAY_S = 2.0


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], object]]:
    """Yields a function to call with the number of items just finished, out of `total`."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=label, delay=DELAY_S, disable=False) as bar:
            yield bar.update
        return
    started = time.monotonic()
    done, shown = 0, 0

    def advance(finished: int) -> None:
        nonlocal done, shown
        done += finished
        tenth = 10 * done // max(total, 1)
        if tenth > shown and time.monotonic() - started > DELAY_S:
            shown = tenth
            print(f"{label}: {done}/{total} ({10 * tenth} %)", file=sys.stderr, flush=True)

    yield advance
