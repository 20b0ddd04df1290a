"""Threads that run calls for an event loop: results, errors, order, and how they end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from service.runner import Runner


def test_results_and_errors_come_back() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def scenario() -> tuple[int, int]:
        runner = Runner(1, "test")
        try:
            with pytest.raises(ValueError, match="no"):
                await runner.run(fail)
            return await runner.run(lambda: 1), await runner.run(threading.get_ident)
        finally:
            runner.close()

    result, thread = asyncio.run(scenario())
    assert result == 1
    assert thread != threading.get_ident()


def test_calls_run_in_order_and_as_many_at_once_as_there_are_threads() -> None:
    order: list[int] = []

    async def scenario() -> None:
        runner = Runner(1, "test")
        await asyncio.gather(*(runner.run(lambda i=i: order.append(i)) for i in range(50)))  # type: ignore[misc]
        runner.close()
        both = threading.Barrier(2)
        pair = Runner(2, "test")
        await asyncio.gather(*(pair.run(lambda: both.wait(60)) for _ in range(2)))
        pair.close()

    asyncio.run(scenario())
    assert order == list(range(50))


def test_who_is_cancelled_does_not_disturb_the_next() -> None:
    async def scenario() -> int:
        runner, go = Runner(1, "test"), threading.Event()
        first = runner.run(lambda: go.wait(60))
        first.cancel()
        go.set()
        try:
            return await runner.run(lambda: 2)
        finally:
            runner.close()

    assert asyncio.run(scenario()) == 2


def test_a_call_whose_caller_has_gone_is_not_made() -> None:
    made: list[int] = []

    async def scenario() -> None:
        runner, busy, go = Runner(1, "test"), threading.Event(), threading.Event()
        first = runner.run(lambda: (busy.set(), go.wait(60)))
        await asyncio.to_thread(busy.wait, 60)
        waiting = [runner.run(lambda i=i: made.append(i)) for i in range(3)]  # type: ignore[misc]
        waiting[1].cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, waiting[0], waiting[2])
        runner.close()

    asyncio.run(scenario())
    assert made == [0, 2]


def test_after_the_end_no_call_runs_and_no_thread_is_left() -> None:
    ran: list[int] = []

    async def scenario() -> None:
        runner, begun, go = Runner(1, "test-end"), threading.Event(), threading.Event()
        first = runner.run(lambda: begun.set() or go.wait(60))  # type: ignore[func-returns-value]
        second = runner.run(lambda: ran.append(1))
        begun.wait(60)
        runner.close()
        go.set()
        assert await first
        with pytest.raises(asyncio.CancelledError):
            await second

    asyncio.run(scenario())
    for thread in threading.enumerate():
        if thread.name.startswith("test-end"):
            thread.join(60)
            assert not thread.is_alive()
    assert not ran
