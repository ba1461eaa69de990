"""A list cut into chunks over forked processes, in order; ids come back as packed bytes.

Forking hands the tokenizer over for nothing (no pickling, no import of TensorFlow in the
child); packing the ids makes the way back cheap.
"""

import multiprocessing
import os
from array import array
from collections.abc import Callable, Sequence

MIN_CHUNK = 2_000  # pairs; below twice this a second process costs more than it brings


def map_chunks(work: Callable, items: Sequence, processes: int = 1) -> list:
    """``work(items)``, where ``work`` maps a list to a list of lists of ids.

    processes: 1 stays in this process, 0 means one for each core.

    >>> map_chunks(lambda items: [[item, 0] for item in items], [5, 6])
    [[5, 0], [6, 0]]
    """
    wanted = processes or usable_cores()
    chunks = _chunks(items, min(wanted, len(items) // MIN_CHUNK))
    if len(chunks) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return work(items)
    context = multiprocessing.get_context("fork")
    pipes = []
    for chunk in chunks[1:]:
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(target=_serve, args=(work, chunk, sender), daemon=True)
        worker.start()
        sender.close()
        pipes.append((receiver, worker))
    results = list(work(chunks[0]))
    for receiver, worker in pipes:
        results.extend(_receive(receiver))
        worker.join()
    return results


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _chunks(items: Sequence, count: int) -> list:
    count = max(count, 1)
    edges = [len(items) * i // count for i in range(count + 1)]
    return [items[start:end] for start, end in zip(edges, edges[1:])]


def _serve(work, chunk, sender) -> None:
    try:
        answer = _pack(work(chunk))
    except Exception as error:  # handed to the parent, which raises it
        answer = error
    sender.send(answer)
    sender.close()


def _pack(rows) -> tuple[bytes, bytes]:
    ids, lengths = array("i"), array("i")
    for row in rows:
        ids.extend(row)
        lengths.append(len(row))
    return ids.tobytes(), lengths.tobytes()


def _receive(receiver) -> list:
    answer = receiver.recv()
    if isinstance(answer, Exception):
        raise answer
    ids, lengths = (array("i", part).tolist() for part in answer)
    rows, start = [], 0
    for length in lengths:
        rows.append(ids[start:start + length])
        start += length
    return rows
