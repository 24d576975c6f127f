"""explain_errors() on real failures of socket, asyncio, aiohttp, requests, urllib3, in a private namespace."""

from __future__ import annotations

import asyncio
import errno
import pickle
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from fourtuple import ConnectError, explain_errors
from fourtuple.doctor import explaining
from fourtuple.errors import ConnectRefused, LocalPortInUse, NoLocalPort, NoRoute
from tests.live.space import Space, needs_root

pytestmark = needs_root
AWAY = ("203.0.113.1", 80)
CLOSED = ("127.0.0.1", 9)
PATIENT = {"timeout": 10.0}


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        yield made


@pytest.fixture
def full(space: Space) -> Space:
    """No port is left to AWAY."""
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40003")
    for _ in range(4):
        space.try_connect(*AWAY)
    return space


def explained(space: Space, function: Callable[[], Any]) -> Any:
    """The exception that leaves explain_errors(), raised in the namespace."""
    return caught(space, explain_errors(**PATIENT)(function))


def caught(space: Space, function: Callable[[], Any]) -> Any:
    def run() -> BaseException | None:
        try:
            function()
        except Exception as error:
            return error
        return None

    return space.run(run)


def explained_async(space: Space, function: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with explain_errors(**PATIENT):
            return await function()

    return caught(space, lambda: asyncio.run(run()))


# ------------------------------------------------------------------------------------------ the standard library


def connect_away() -> None:
    with socket.socket() as client:
        client.settimeout(5)
        client.connect(AWAY)


def test_a_full_range(full: Space) -> None:
    error = explained(full, connect_away)
    assert type(error) is NoLocalPort
    assert type(error.__cause__) is OSError and error.__cause__.errno == errno.EADDRNOTAVAIL
    assert error.errno == errno.EADDRNOTAVAIL
    assert error.report["function"] == "__inet_hash_connect"
    assert error.report["is_certain"]
    assert error.report["four_tuple"]["daddr"] == "203.0.113.1"
    assert "4 of 4 ports cannot be had to 203.0.113.1:80" in str(error)
    assert "fix: " in error.__notes__[0]


def test_a_refused_connection_still_is_one(space: Space) -> None:
    def dial() -> None:
        socket.create_connection(CLOSED)

    error = explained(space, dial)
    assert type(error) is ConnectRefused and isinstance(error, ConnectionRefusedError)
    assert str(error) == "[Errno 111] Connection refused: nobody here listens on 127.0.0.1:9"


def test_no_route(space: Space) -> None:
    def dial() -> None:
        socket.create_connection(("198.51.100.1", 80))

    error = explained(space, dial)
    assert type(error) is NoRoute
    assert error.report["function"] == "ip_route_connect, ip6_dst_lookup_flow"


def test_ipv6_switched_off(space: Space) -> None:
    space.sysctl("net.ipv6.conf.all.disable_ipv6", 1)

    def dial() -> None:
        with socket.socket(socket.AF_INET6) as client:
            client.connect(("::1", 80))

    error = explained(space, dial)
    assert type(error) is NoLocalPort
    assert error.report["function"] == "ip6_dst_lookup"


def test_a_bound_socket_whose_pair_exists_is_not_taken_for_a_full_range(full: Space) -> None:
    def dial() -> None:
        client = full.keep(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("10.77.0.1", 45000))
        client.settimeout(1)
        client.connect(AWAY)

    first = full.socket()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind(("10.77.0.1", 45000))
    first.setblocking(False)
    first.connect_ex(AWAY)
    error = explained(full, dial)
    assert error.report["function"] == "__inet_check_established"
    assert error.report["four_tuple"] == {"saddr": "10.77.0.1", "sport": 45000, "daddr": "203.0.113.1", "dport": 80}


def test_a_listener_in_the_way_of_bind(space: Space) -> None:
    space.listen("127.0.0.1", 8080)

    def serve() -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 8080))

    error = explained(space, serve)
    assert type(error) is LocalPortInUse
    assert error.report["call"] == "bind"
    assert str(error).endswith("Address already in use: 127.0.0.1:8080 LISTEN")


def test_an_address_of_others(space: Space) -> None:
    def serve() -> None:
        socket.create_server(("10.1.1.1", 0)).close()

    error = explained(space, serve)
    assert error.report["function"] == "__inet_bind, __inet6_bind"


def test_the_destination_may_be_told(full: Space) -> None:
    def dial() -> None:
        address, _, port = "203.0.113.1:80".partition(":")
        with socket.socket() as client:
            client.connect((address, int(port)))

    assert not explained(full, dial).report["four_tuple"]
    error = caught(full, explain_errors(destination=AWAY, **PATIENT)(dial))
    assert error.report["four_tuple"]["daddr"] == AWAY[0]


def test_of_two_addresses_neither_is_taken(space: Space) -> None:
    def dial() -> None:
        ours, theirs = ("127.0.0.1", 8080), ("127.0.0.1", 9)
        with socket.socket() as client:
            assert ours
            client.connect(theirs)

    error = explained(space, dial)
    assert error.report["four_tuple"] is None
    assert not error.report["is_certain"]


def test_what_is_open_is_not_said_as_if_it_were_so(space: Space) -> None:
    class Theirs(OSError):
        pass

    def fail() -> None:
        raise Theirs(errno.EADDRNOTAVAIL, "no luck")

    error = explained(space, fail)
    assert not error.report["is_certain"]
    assert str(error) == f"[Errno {errno.EADDRNOTAVAIL}] no luck"


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), -1.0])
def test_a_timeout_that_is_none_is_refused_before_anything_fails(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        explain_errors(timeout=timeout)


def test_a_generator_function_is_not_decorated_in_vain() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="put `with explain_errors"):
        explain_errors(numbers)


# ------------------------------------------------------------------------------------------ asyncio


def test_asyncio_refused(space: Space) -> None:
    error = explained_async(space, lambda: asyncio.open_connection(*CLOSED))
    assert type(error) is ConnectRefused
    assert "127.0.0.1:9" in str(error)


def test_asyncio_with_both_addresses_of_localhost(space: Space) -> None:
    """It raises one OSError without an errno for both."""
    error = explained_async(space, lambda: asyncio.open_connection("localhost", 9))
    assert type(error) is ConnectRefused
    assert error.__cause__.errno in (None, errno.ECONNREFUSED)


def test_asyncio_server_on_a_taken_port(space: Space) -> None:
    space.listen("127.0.0.1", 8080)
    error = explained_async(space, lambda: asyncio.start_server(lambda r, w: None, "127.0.0.1", 8080))
    assert type(error) is LocalPortInUse
    assert "127.0.0.1:8080 LISTEN" in str(error)


def test_asyncio_with_a_full_range(full: Space) -> None:
    error = explained_async(full, lambda: asyncio.open_connection(*AWAY))
    assert error.report["function"] == "__inet_hash_connect"


def test_a_group_stays_a_group_with_the_explanation(full: Space) -> None:
    async def dial() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.open_connection(*AWAY))

    error = explained_async(full, dial)
    assert type(error) is ExceptionGroup
    assert type(error.exceptions[0]) is OSError
    assert error.explanation.report["function"] == "__inet_hash_connect"


def test_other_tasks_go_on_meanwhile(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading waits until another task has run: if it stood in the loop's way nothing would be explained."""
    ran = threading.Event()
    look = explaining.look_into
    monkeypatch.setattr(explaining, "look_into", lambda clues: ran.wait(5) and look(clues))

    async def both() -> None:
        async def other() -> None:
            await asyncio.sleep(0.01)
            ran.set()

        task = asyncio.create_task(other())
        try:
            async with explain_errors(**PATIENT):
                await asyncio.open_connection(*CLOSED)
        finally:
            await task

    assert isinstance(caught(space, lambda: asyncio.run(both())), ConnectError)


def test_a_cancelled_task_is_just_cancelled(space: Space) -> None:
    async def run() -> bool:
        @explain_errors
        async def wait() -> None:
            try:
                await asyncio.open_connection(*CLOSED)
            except OSError:
                await asyncio.sleep(60)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert space.run(lambda: asyncio.run(run()))


# ------------------------------------------------------------------------------------------ libraries


def test_aiohttp(space: Space) -> None:
    import aiohttp

    async def get() -> None:
        async with aiohttp.ClientSession() as session:
            await session.get("http://127.0.0.1:9/")

    error = explained_async(space, get)
    assert isinstance(error, aiohttp.ClientConnectorError) and isinstance(error, ConnectRefused)
    assert type(error.__cause__) is aiohttp.ClientConnectorError
    assert (error.host, error.port, error.errno) == ("127.0.0.1", 9, errno.ECONNREFUSED)
    assert str(error).startswith("Cannot connect to host 127.0.0.1:9")
    assert str(error).endswith("nobody here listens on 127.0.0.1:9")


def test_requests(space: Space) -> None:
    import requests

    def get() -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.get("http://127.0.0.1:9/")

    error = explained(space, get)
    assert isinstance(error, requests.ConnectionError) and isinstance(error, ConnectError)
    assert error.request.url == "http://127.0.0.1:9/"
    assert type(error.args[0]).__name__ == "MaxRetryError"  # what people look into
    assert error.report["function"] == "tcp_reset"


def test_requests_with_a_full_range(full: Space) -> None:
    import requests

    def get() -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.get("http://203.0.113.1/", timeout=5)

    error = explained(full, get)
    assert isinstance(error, requests.ConnectionError) and isinstance(error, NoLocalPort)
    assert error.report["function"] == "__inet_hash_connect"


def test_urllib3_stays_what_it_is(space: Space) -> None:
    import urllib3

    def get() -> None:
        with urllib3.PoolManager() as pool:
            pool.request("GET", "http://127.0.0.1:9/", retries=False)

    error = explained(space, get)
    assert type(error) is urllib3.exceptions.NewConnectionError
    assert error.explanation.report["function"] == "tcp_reset"
    assert "nobody here listens on 127.0.0.1:9" in error.__notes__[0]


class OwnError(OSError):
    """A library's, with a constructor of its own."""

    def __init__(self, where: str, cause: OSError) -> None:
        super().__init__(cause.errno, f"to {where}")
        self.where = where

    def __reduce__(self) -> Any:
        return OwnError, (self.where, OSError(self.errno, ""))


def test_a_class_with_its_own_constructor_goes_through_pickle(space: Space) -> None:
    def dial() -> None:
        try:
            socket.create_connection(CLOSED)
        except OSError as error:
            raise OwnError("there", error) from error

    error = explained(space, dial)
    assert isinstance(error, OwnError) and isinstance(error, ConnectRefused)
    assert (error.where, type(error).__name__) == ("there", "OwnError")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, OwnError) and isinstance(again, ConnectRefused)
    assert (again.where, again.errno, again.report) == ("there", errno.ECONNREFUSED, error.report)


# ------------------------------------------------------------------------------------------ what is left alone

LEFT_ALONE = [
    ValueError("no"),
    KeyError("k"),
    FileNotFoundError(errno.ENOENT, "no such file"),
    TimeoutError("timed out"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError(errno.ETIMEDOUT, "of recv()"),
    socket.gaierror(socket.EAI_NONAME, "no name"),
    ConnectRefused(errno.ECONNREFUSED, "explained already"),
    KeyboardInterrupt(),
    SystemExit(3),
    OSError(),
    OSError("text alone"),
]


@pytest.mark.parametrize("error", LEFT_ALONE, ids=repr)
def test_other_exceptions_pass_untouched(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "look_into", lambda clues: pytest.fail("nothing is to be read"))
    with pytest.raises(type(error)) as raised, explain_errors():
        raise error
    assert raised.value is error
    assert not getattr(error, "__notes__", None)


def test_what_happened_before_is_not_what_failed() -> None:
    """An error of the handler has the refusal as its context; it is no refusal."""
    with pytest.raises(FileNotFoundError) as raised, explain_errors(**PATIENT):
        try:
            socket.create_connection(CLOSED)
        except OSError:
            open("/nonexistent/file")  # noqa: SIM115
    assert type(raised.value) is FileNotFoundError


@pytest.mark.parametrize("trouble", [OSError("cannot read"), ValueError("a bug of ours"), MemoryError()])
def test_when_nothing_can_be_read_the_original_goes_on(
    space: Space, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def fail(clues: object) -> None:
        raise trouble

    monkeypatch.setattr(explaining, "look_into", fail)
    error = explained(space, lambda: socket.create_connection(CLOSED))
    assert type(error) is ConnectionRefusedError
    assert not getattr(error, "__notes__", None)


def test_a_reading_that_takes_too_long_is_not_waited_for(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(explaining, "look_into", lambda clues: go_on.wait(30))
    before = time.monotonic()
    error = caught(space, explain_errors(timeout=0.05)(lambda: socket.create_connection(CLOSED)))
    taken = time.monotonic() - before
    go_on.set()
    assert type(error) is ConnectionRefusedError
    assert taken < 20  # not the 30 s


def test_no_thread_to_be_had(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def run() -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with explain_errors():
                socket.create_connection(CLOSED)

    assert type(caught(space, run)) is ConnectionRefusedError


def test_values_come_back_and_names_stay() -> None:
    @explain_errors
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    @explain_errors(timeout=1)
    async def double(a: int) -> int:
        return 2 * a

    assert (add(1), add.__name__, add.__doc__) == (3, "add", "Adds.")
    assert asyncio.run(double(4)) == 8
    assert asyncio.iscoroutinefunction(double)
