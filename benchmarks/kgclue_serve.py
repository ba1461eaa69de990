"""The question-answering server under load, on 127.0.0.1.

    python benchmarks/kgclue_serve.py                                # the demo's knowledge
    python benchmarks/kgclue_serve.py --requests 10000

Starts the server in a process of its own with a small random model and lets 1, 8 and 32 clients
ask one question after the other: a twentieth, a fifth and three quarters of ``--requests``. The
server's memory is looked at after a warm-up and after every one of these.
"""

import argparse
import asyncio
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np

from bert_theseus.kgclue_demo import make_demo
from bert_theseus.published import format_table
from bert_theseus.results import write_results


def run_server(folder: Path, port: int) -> None:
    """The server's own process: builds the tree, loads the model, serves."""
    from bert_theseus.checkpoint import load_bert
    from bert_theseus.kgclue_server import Answerer, serve
    from bert_theseus.prefix_tree import PrefixTree
    from bert_theseus.seq2seq import ConstrainedDecoder
    from bert4keras.tokenizers import Tokenizer
    tokenizer = Tokenizer(str(folder / "bert" / "vocab.txt"), do_lower_case=True)
    tree = PrefixTree.build(folder / "knowledge.txt", tokenizer, folder / "knowledge.tree")
    model = load_bert(folder / "bert", "roformer", return_keras_model=True, application="unilm",
                      with_mlm="linear")
    serve(Answerer(ConstrainedDecoder(model, tokenizer, tree, 3, "look-ahead",
                                      batch_size=32)),
          "127.0.0.1", port)


def resident_mb(pid: int) -> float:
    """Memory a process holds now (Linux)."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def load(url: str, questions: list[str], clients: int, requests: int) -> dict:
    """``requests`` of one question each, shared among clients that each wait for the reply."""
    import httpx
    waiting, times, errors = list(range(requests)), [], 0

    async def client(http):
        """Asks as long as questions are left, one after the other."""
        nonlocal errors
        while waiting:
            question, start = questions[waiting.pop() % len(questions)], time.perf_counter()
            reply = await http.post(url + "/answer", json={"questions": [question]})
            times.append(time.perf_counter() - start)
            errors += reply.status_code != 200 or not reply.json()["answers"][0]

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=clients)) as http:
        start = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        seconds = time.perf_counter() - start
    p50, p95, p99 = 1000 * np.percentile(times, [50, 95, 99])
    return {"clients": clients, "requests": requests, "errors": errors,
            "requests per second": requests / seconds, "p50 ms": p50, "p95 ms": p95, "p99 ms": p99}


def wait_until_up(url: str) -> None:
    """Returns as soon as the server answers."""
    import httpx
    for _ in range(300):
        try:
            return httpx.get(url + "/health").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.3)
    raise RuntimeError("the server did not come up")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--port", type=int, default=18802)
    parser.add_argument("--folder", type=Path, default=Path("output/kgclue_serve"))
    parser.add_argument("--results", type=Path, default=Path("output/benchmarks"))
    args, start = parser.parse_args(), time.time()
    folder, url = make_demo(args.folder), f"http://127.0.0.1:{args.port}"
    names = [line.split("\t") for line in (folder / "knowledge.txt").read_text().splitlines()]
    questions = [f"{name}的{predicate}是什么？" for name, predicate, _ in names]
    server = multiprocessing.get_context("spawn").Process(target=run_server,
                                                          args=(folder, args.port))
    server.start()
    try:
        wait_until_up(url)
        asyncio.run(load(url, questions, 32, 300))  # traces, fills caches
        rows, warm = [], resident_mb(server.pid)
        for clients, share in ((1, 0.05), (8, 0.2), (32, 0.75)):
            rows.append(asyncio.run(load(url, questions, clients, round(share * args.requests))))
            rows[-1]["server MB"] = resident_mb(server.pid)
    finally:
        server.terminate()
        server.join()
    write_results(args.results / "kgclue_serve", 8802, {"requests": args.requests}, [],
                  time.time() - start, load=rows, warm_server_mb=warm, exit_code=server.exitcode)
    print(format_table([list(rows[0]), *([f"{v:.4g}" for v in row.values()] for row in rows)]))
    print(f"server memory after the warm-up: {warm:.0f} MB; exit code {server.exitcode}")


if __name__ == "__main__":
    main()
