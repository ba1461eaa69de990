"""Batches made ahead of time by a second thread, so that a step finds its input ready."""

import queue
import threading
from collections.abc import Iterator

_END = object()


class Ahead:
    """Iterates ``source`` in a thread, at most ``depth`` items ahead.

    An error in the source is raised by :meth:`next`, where it would have been without the thread.

    >>> ahead = Ahead(iter("ab"))
    >>> ahead.next(), ahead.next()
    ('a', 'b')
    """

    def __init__(self, source: Iterator, depth: int = 4):
        self._queue: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True)
        self._thread.start()

    def _run(self, source: Iterator) -> None:
        try:
            for item in source:
                if not self._put((item, None)):
                    return
            self._put((_END, None))
        except BaseException as error:  # noqa: BLE001  (it is raised again by next)
            self._put((_END, error))

    def _put(self, pair: tuple) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(pair, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def next(self):
        """The next item; StopIteration after the last, or the source's own error."""
        item, error = self._queue.get()
        if item is _END:
            raise error if error is not None else StopIteration
        return item

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._thread.join()
