"""Work on many tasks in several processes, each result handed over when it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_workers(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    start: Callable[..., object],
    given: tuple[Any, ...],
) -> Iterator[tuple[Task, Result]]:
    """Does work task by task, as many at once as there are workers.

    Args:
        work: on a task; to be pickled, like tasks and results, where there are several workers.
        tasks: the next one is taken when a worker is free for it.
        workers: processes; for one the work is done in this process, to which another would bring nothing but
            its start.
        start: called in each process of its own before its first task.
        given: arguments of ``start``.

    Yields:
        A task and what came of it, in the order in which they are finished. Whoever takes no more of them
        ends the processes.
    """
    if workers == 1:
        for task in tasks:
            yield task, work(task)
        return
    left = iter(tasks)
    under_way: dict[Future[Result], Task] = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), start, given) as pool:
        try:
            while True:
                for task in islice(left, workers - len(under_way)):
                    under_way[pool.submit(work, task)] = task
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way.pop(future), future.result()
        finally:
            for child in active_children() if under_way else ():
                child.terminate()
