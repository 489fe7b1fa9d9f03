"""A function of many things at once, with the results in order and a bounded number of them under way."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, most: int) -> Iterator[Result]:
    """Yields the function's result for each item, in their order, as they come.

    Args:
        function: Called in threads; what it raises ends the results.
        items: Advanced in the caller's thread, no further than needed.
        threads: Number of threads.
        most: How many items are under way at once, those whose results wait for an earlier one included.
    """
    running: collections.deque[futures.Future[Result]] = collections.deque()
    pool = futures.ThreadPoolExecutor(threads)
    try:
        for item in items:
            running.append(pool.submit(function, item))
            while running and (len(running) == most or running[0].done()):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
