"""Single-threaded workers, one per core: on a CPU two of them finish more packs than one with two threads does.

They do not wait for each other inside every product, which also keeps them fast while something else is running.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """The results as they are finished.

    With one worker or one task the calling thread does it, with all of torch's threads. torch releases Python's lock
    inside its operators, so threads are enough, and they share the model and the held prefix.
    """
    import torch

    if workers < 2 or len(tasks) < 2:
        for task in tasks:
            yield work(task)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(min(workers, len(tasks)), initializer=torch.set_num_threads, initargs=(1,))
    try:
        for future in as_completed([pool.submit(_inferring, work, task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # a thread that sets its own number also changes what later threads begin with
        torch.set_num_threads(threads)


def _inferring(work: Callable[[T], R], task: T) -> R:
    import torch

    with torch.inference_mode():
        return work(task)
