"""Answers over HTTP: ``POST /answer``, ``GET /health``, a web page at ``/``.

Requests that arrive while the model is busy are answered together in its next batch. The model
runs in one thread of its own; the event loop only reads, waits and writes.

    {"questions": ["龙晶的繁体是什么？"], "n_best": 3}
    → {"answers": [[{"subject": …, "predicate": …, "meaning": …, "objects": […],
                     "probability": 0.97}, …]]}
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from bert_theseus.kgclue import Answerer
from bert_theseus.kgclue_page import PAGE
from bert_theseus.seq2seq import Answer

MAX_QUESTIONS, MAX_LENGTH, MAX_N_BEST, MAX_BODY = 64, 300, 10, 1 << 16
log = logging.getLogger(__name__)


class Batcher:
    """Gathers questions that wait into one call of the model."""

    def __init__(self, answerer: Answerer, limit: int = MAX_QUESTIONS):
        self.answerer, self.limit = answerer, limit
        self.waiting: asyncio.Queue = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1)

    async def answer(self, questions: list[str], n_best: int) -> list[list[Answer]]:
        """The answers, once the batch they were put into is done."""
        future = asyncio.get_running_loop().create_future()
        await self.waiting.put((questions, n_best, future))
        return await future

    async def run(self) -> None:
        """Until cancelled: takes what waits, answers it, hands it back."""
        while True:
            batch = [await self.waiting.get()]
            while not self.waiting.empty() and sum(len(q) for q, _, _ in batch) < self.limit:
                batch.append(self.waiting.get_nowait())
            await self._answer_batch(batch)

    async def _answer_batch(self, batch: list) -> None:
        questions = [question for own, _, _ in batch for question in own]
        n_best = max(n for _, n, _ in batch)
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self.thread, self.answerer.answer, questions, n_best)
        except Exception as error:  # handed to everyone who waits; the server goes on
            log.exception("a batch of %d questions failed", len(questions))
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for own, n, future in batch:
            mine, found = found[:len(own)], found[len(own):]
            if not future.done():
                future.set_result([answers[:n] for answers in mine])


class BadRequest(Exception):
    """A request that is answered with a 4xx status and one line."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


async def read_request(request: Request) -> tuple[list[str], int]:
    """Questions and n_best of a request; BadRequest says what is wrong with it."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise BadRequest(f"more than {MAX_BODY} bytes", 413)
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(record, dict):
        raise BadRequest('give {"questions": [...]}')
    questions, n_best = record.get("questions"), record.get("n_best", 1)
    if not isinstance(questions, list) or not 1 <= len(questions) <= MAX_QUESTIONS:
        raise BadRequest(f'"questions" must be a list of 1 to {MAX_QUESTIONS} texts')
    for question in questions:
        if not isinstance(question, str) or not question.strip():
            raise BadRequest("a question is no text or empty")
        if len(question) > MAX_LENGTH:
            raise BadRequest(f"a question is longer than {MAX_LENGTH} characters", 413)
        if not _is_unicode(question):
            raise BadRequest("a question holds half a surrogate pair")
    if type(n_best) is not int or not 1 <= n_best <= MAX_N_BEST:
        raise BadRequest(f'"n_best" must be an integer from 1 to {MAX_N_BEST}')
    return questions, n_best


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def make_app(answerer: Answerer) -> Starlette:
    """The application; runs under any ASGI server."""
    batcher = Batcher(answerer)

    async def answer(request: Request) -> JSONResponse:
        """``POST /answer``: questions in, answers out; 4xx and one line for a bad request."""
        try:
            questions, n_best = await read_request(request)
        except BadRequest as error:
            return JSONResponse({"error": str(error)}, error.status)
        found = await batcher.answer(questions, n_best)
        return JSONResponse({"answers": [[dataclasses.asdict(a) for a in one] for one in found]})

    async def health(request: Request) -> JSONResponse:
        """``GET /health``: the size of the tree and how it is searched."""
        return JSONResponse({"status": "ok", "keys": len(answerer.decoder.tree),
                             "rule": answerer.decoder.rule, "beam": answerer.decoder.beam_size})

    async def page(request: Request) -> HTMLResponse:
        """``GET /``: a page to type a question into."""
        return HTMLResponse(PAGE)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette):
        """The batcher runs as long as the application does."""
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        batcher.thread.shutdown()

    return Starlette(routes=[Route("/", page), Route("/health", health),
                             Route("/answer", answer, methods=["POST"])], lifespan=lifespan)


def serve(answerer: Answerer, host: str, port: int) -> None:
    """Serves until Ctrl-C, or SIGTERM, which ends the process with status 0.

    Requests under way are finished first, for at most 30 seconds.
    """
    with _sigterm_is_an_orderly_end():
        uvicorn.run(make_app(answerer), host=host, port=port, log_level="info", access_log=False,
                    timeout_graceful_shutdown=30)


@contextlib.contextmanager
def _sigterm_is_an_orderly_end():
    """Inside, SIGTERM exits with status 0.

    uvicorn shuts down, puts back the handler it found, and raises the signal once more for it:
    the default handler would then kill the process, which service managers take for a failure.
    Only the main thread can set handlers; in another one, uvicorn itself leaves signals alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
