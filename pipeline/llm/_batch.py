"""Many answers from one model at once: the library's continuous batching, as one stream of tokens an answer.

Every step of the model makes the next token of each answer that is open, so calls take fair turns; prompts are read in
between, in portions. Blocks of the cache outlive their answers: a prompt that begins as an earlier one did is read
only from where they part.

    asking thread -> add_request -> (the library's thread: the model's steps) -> delivering thread -> the loop

The library's thread would die, and with it everybody's answer, of a token that the model does not have, and of a result
handler whose loop is closed: so prompts are checked before, and results fetched by a thread of ours.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import EngineError, Overloaded
from pipeline.threads import EngineThreads, run_in_thread

log = logging.getLogger(__name__)

RESULT_S = 0.5
"""How long the delivering thread waits before it looks whether the model's thread still lives."""

WAITING = 4
"""Answers that may be open at once, as a multiple of those that are computed at once."""

NUMBERS = itertools.count()

PAGE_TOKENS = 16
"""What is kept of a prompt is kept in pages of this many tokens."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``calls`` answers at once; ``cache_tokens`` of all of them; ``step_tokens`` of prompts are read in one step."""

    calls: int
    cache_tokens: int
    step_tokens: int


class _Answer:
    """One open answer. ``put`` is called by threads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[list[int] | EngineError | None] = asyncio.Queue()  # holds at most max_tokens
        self._tokens = 0
        self._ended = False

    def end(self) -> None:
        """Note that nobody listens any more."""
        self._ended = True

    def has_ended(self) -> bool:
        """Tell whether anybody listens."""
        return self._ended

    def put_output(self, output: Any) -> bool:
        """Pass on what is new in an output of the library, which has all tokens so far. True if it was the last."""
        new = output.generated_tokens[self._tokens :]
        self._tokens += len(new)
        if new:
            self.put(new)
        if output.error is not None:
            self.put(EngineError("llm transformers: the model failed while it answered; the log says how"))
        elif output.is_finished():
            self.put(None)
        return bool(output.is_finished())

    def put(self, item: list[int] | EngineError | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, item)

    async def next(self) -> list[int] | None:
        """Wait for tokens; None at the end. Raises EngineError. Cancel-safe."""
        item = await self._arrived.get()
        if isinstance(item, EngineError):
            raise item
        return item


class Batch:
    """A model that answers many prompts at once."""

    def __init__(self, model: Any, generation: Any, limits: Limits) -> None:
        """``generation`` is the library's configuration of sampling, stop tokens and length. Starts a thread."""
        self._model = model
        self._generation = generation
        self._limits = limits
        self._open: dict[str, _Answer] = {}
        self._answers = 0
        self._asking = EngineThreads("transformers")
        self._delivering = EngineThreads("transformers results")
        self._continuous = self._start()
        self._delivering.owns(self._end)

    def close(self) -> None:
        """Fail what is open, and end all threads: blocks for one step of the model. Idempotent."""
        self._asking.close()
        self._delivering.close()

    def _end(self) -> None:
        if self._continuous is not None:
            _stop(self._continuous)
        self._continuous = self._model = None
        self._fail(EngineError("llm transformers was closed"))

    def try_out(self, prompt: Sequence[int]) -> None:
        """Answer with two tokens, so that the first caller need not wait for what happens once. Blocks.

        Raises EngineError where the model cannot be run this way.
        """
        self._continuous.add_request(list(prompt), max_new_tokens=2)
        while (output := self._continuous.get_result(timeout=RESULT_S)) is None:
            if not self._continuous.is_running():
                raise EngineError(_cause(self._continuous))
        if output.error is not None:
            raise EngineError(output.error)

    async def tokens(self, make_prompt: Callable[[], list[int]]) -> AsyncIterator[int]:
        """Yield the tokens of an answer as they are made, without the one that ends it.

        ``make_prompt`` runs in a thread. Closing stops the model's work for it after the step it is in. Raises
        EngineError where the model fails, Overloaded where too many answers are open.
        """
        if self._answers >= WAITING * self._limits.calls:
            raise Overloaded("too many answers are being thought about: try again later")
        name, answer, stops = str(next(NUMBERS)), _Answer(), stop_tokens(self._generation)
        self._answers += 1
        try:
            await run_in_thread(self._asking, lambda: self._ask(name, answer, make_prompt))
            while (tokens := await answer.next()) is not None:
                for token in tokens:
                    if token not in stops:
                        yield token
        finally:
            self._answers -= 1
            answer.end()
            self._forget(name)

    def _ask(self, name: str, answer: _Answer, make_prompt: Callable[[], list[int]]) -> None:
        prompt = make_prompt()
        if max(prompt) >= (rows := self._model.get_input_embeddings().num_embeddings):
            raise EngineError(f"llm transformers: the tokenizer made token {max(prompt)}; the model has {rows}")
        if not self._continuous.is_running():
            self._restart()
        if answer.has_ended():
            return
        self._open[name] = answer
        if self._continuous.add_request(prompt, request_id=name, streaming=True) is None:
            self._open.pop(name, None)
            raise EngineError("llm transformers: the model has just failed; the log says how")
        self._delivering.submit(self._deliver)
        if answer.has_ended():  # while this ran: it was canceled before it was there
            self._open.pop(name, None)
            self._continuous.cancel_request(name)

    def _forget(self, name: str) -> None:
        """End an answer, if it has not ended."""
        if self._open.pop(name, None) is not None and (continuous := self._continuous) is not None:
            continuous.cancel_request(name)

    def _deliver(self) -> None:
        """Pass results on until no answer is open. One such job is queued for each answer: the last ends them all."""
        while self._open and (continuous := self._continuous) is not None:
            output = continuous.get_result(timeout=RESULT_S)
            if output is not None:
                answer = self._open.get(output.request_id)  # none: it was closed while the step ran
                if answer is not None and answer.put_output(output):
                    self._open.pop(output.request_id, None)
            elif not continuous.is_running():
                self._fail(EngineError("llm transformers: the model failed while it answered; the log says how"))

    def _fail(self, error: EngineError) -> None:
        for name in tuple(self._open):
            if (answer := self._open.pop(name, None)) is not None:
                answer.put(error)

    def _start(self) -> Any:
        from transformers import ContinuousBatchingConfig

        blocks = -(-self._limits.cache_tokens // PAGE_TOKENS)
        config = ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=blocks,
            max_batch_tokens=self._limits.step_tokens,
            max_requests_per_batch=self._limits.calls,
            # the attention below needs a mask, for which neither graphs nor double buffering pay
            use_cuda_graph=False,
            use_async_batching=False,
            # never switch to kernels that would be fetched from a hub
            auto_switch_to_flash=False,
        )
        continuous = self._model.init_continuous_batching(self._generation, config)
        continuous.start()
        return continuous

    def _restart(self) -> None:
        log.warning("llm transformers: the model failed (%s); starting it anew", _cause(self._continuous))
        _stop(self._continuous)
        self._continuous = self._start()


def stop_tokens(generation: Any) -> frozenset[int]:
    """Return the tokens that end an answer."""
    ends = generation.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [ends])


def _stop(continuous: Any) -> None:
    continuous.stop(block=True, hard_stop=True)
    continuous.destroy()


def _cause(continuous: Any) -> str:
    error = continuous.background_thread_status.fatal_error
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
