import ast
import asyncio
import inspect
import threading
from concurrent import futures

import grpc
import nst_client.aio
import pytest
from nst_client.transport import aio, threads

SOON = 10.0
"""Seconds after which a test that waits has failed."""

(NAMES,) = (
    [alias.name for alias in node.names]
    for node in ast.parse(inspect.getsource(nst_client.aio)).body
    if isinstance(node, ast.ImportFrom) and node.module == "nst_client.transport.aio"
)
"""What the clients use of their transports."""


def own_parameters(value):
    """The parameters of a function, or of each method that a class defines itself."""
    if inspect.isfunction(value):
        return list(inspect.signature(value).parameters)
    methods = {name: method for name, method in vars(value).items() if inspect.isfunction(method)}
    return {name: list(inspect.signature(method).parameters) for name, method in methods.items()}


@pytest.mark.parametrize("name", NAMES)
def test_both_transports_offer_what_the_clients_use(name):
    assert hasattr(aio, name)
    assert hasattr(threads, name)


@pytest.mark.parametrize(
    "name", ["Call", "Farewell", "Signal", "open_channel", "open_early", "run_all", "run_blocking"]
)
def test_both_transports_take_the_same_arguments(name):
    assert own_parameters(getattr(aio, name)) == own_parameters(getattr(threads, name))


class EndlessCall:
    """A call of `grpc.aio` that never gets a response."""

    def __init__(self):
        self.reading = asyncio.Event()
        self._reader = None

    async def read(self):
        self._reader = asyncio.get_running_loop().create_future()
        self.reading.set()
        await self._reader

    def cancel(self):
        # As gRPC does it: with the exception of a cancelled task.
        self._reader.set_exception(asyncio.CancelledError())


async def test_a_call_that_was_cancelled_is_no_cancelled_task():
    endless = EndlessCall()
    call = aio.Call(endless)
    reading = asyncio.create_task(call.read())
    await endless.reading.wait()
    call.cancel()
    with pytest.raises(grpc.RpcError):
        await reading


async def test_a_task_that_is_cancelled_while_it_reads_is_a_cancelled_task():
    endless = EndlessCall()
    reading = asyncio.create_task(aio.Call(endless).read())
    await endless.reading.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert reading.cancelled()


class Answer:
    """An answer that comes when the test says so."""

    def __init__(self):
        self.messages = []
        self.asked = asyncio.Event()
        self.may_come = asyncio.Event()
        self.came = False

    async def send(self, message):
        self.messages.append(message)
        self.asked.set()
        await self.may_come.wait()
        self.came = True


async def test_a_farewell_is_sent_to_its_end_though_its_task_is_cancelled():
    farewell, answer = aio.Farewell(), Answer()
    saying = asyncio.create_task(farewell.say(lambda: "bye", answer.send))
    await answer.asked.wait()
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying
    waiting = asyncio.create_task(farewell.say(lambda: None, answer.send))
    await asyncio.sleep(0)
    assert not waiting.done()
    answer.may_come.set()
    await waiting
    assert (answer.messages, answer.came) == (["bye"], True)


def test_whoever_asks_for_a_farewell_waits_until_it_was_answered():
    farewell, sent, asked, may_come = threads.Farewell(), [], threading.Event(), threading.Event()

    def send(message):
        asked.set()
        may_come.wait(SOON)
        sent.append(message)

    with futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(farewell.say, lambda: "bye", send)
        asked.wait(SOON)
        second = pool.submit(farewell.say, lambda: None, send)
        assert not futures.wait([second], timeout=0.05).done
        may_come.set()
        second.result(SOON)
        assert sent == ["bye"]
        first.result(SOON)


async def test_a_farewell_without_a_message_sends_nothing():
    sent = []
    await aio.Farewell().say(lambda: None, sent.append)
    threads.Farewell().say(lambda: None, sent.append)
    assert sent == []


async def test_a_signal_is_waited_for_no_longer_than_said():
    signal, other = aio.Signal(), threads.Signal()
    await signal.wait_for(0.01)
    other.wait_for(0.01)
    assert not signal.is_set()
    signal.set()
    other.set()
    await signal.wait_for(1e6)
    other.wait_for(1e6)


async def test_functions_run_together_with_asyncio_and_one_after_the_other_with_threads():
    turns = []

    async def together(number):
        turns.append(number)
        await asyncio.sleep(0)
        turns.append(number)

    await aio.run_all((lambda number=number: together(number)) for number in (1, 2))
    assert turns == [1, 2, 1, 2]
    turns.clear()
    threads.run_all((lambda number=number: turns.extend([number, number])) for number in (1, 2))
    assert turns == [1, 1, 2, 2]


def test_a_call_is_opened_at_once_with_threads_and_by_its_first_read_with_asyncio():
    opened = []
    aio.open_early(lambda: opened.append("asyncio"))
    threads.open_early(lambda: opened.append("threads"))
    assert opened == ["threads"]
