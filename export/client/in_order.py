"""Applies a function to many items at once, with the results in order and a bounded number of items under way."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, most: int) -> Iterator[Result]:
    """Yields the function's result for each item, in the order of the items, as soon as possible.

    Args:
        function: Called in threads. An exception from it ends the results.
        items: Advanced in the caller's thread, no further than needed.
        threads: Number of threads.
        most: How many items may be under way at once, including those whose results wait for an earlier one.
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
