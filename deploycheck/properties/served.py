"""A running server as something that a property can ask, by requests or by raw bytes."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from deploycheck.errors import DeploycheckError
from deploycheck.properties.property import Inputs, NoAnswer, Outputs, describe_exception
from deploycheck.serving.client import TIMEOUT_S, Client, session
from deploycheck.serving.process import DYING_S, ServerProcess

MOST_HEADERS = 65536
STATUS_LINE = re.compile(r"HTTP/\d\.\d ([1-5]\d\d)(?: |\r)")


@dataclass(frozen=True)
class Reply:
    """A reply of the server: its status, its headers by their names in small letters, and its body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """A server that answers for one model, and is started again when an input has ended it.

    ``start`` returns a new server process. Requests are sent one by one.
    """

    def __init__(self, start: Callable[[], ServerProcess], model: str, loop: asyncio.Runner) -> None:
        self.start = start
        self.model = model
        self.loop = loop
        self.server = self._started()
        self.http = loop.run(_session())

    def _started(self) -> ServerProcess:
        return self.start().__enter__()  # it is stopped by ``close``, or where it is found dead

    def close(self) -> None:
        """End the server."""
        self.loop.run(self.http.close())
        self.server.stop()

    def predict(self, inputs: Inputs) -> Outputs:
        """Return the served outputs; raise ``NoAnswer`` where the server refuses, doesn't answer, or dies."""
        client = Client(self.server.address, self.model, self.http)
        try:
            return self.loop.run(client.predict_once(inputs))
        except DeploycheckError as error:
            raise NoAnswer(f"the server answered {error.what}") from error
        except TimeoutError as error:
            self.check_alive()
            raise NoAnswer(f"the server gave no answer within {TIMEOUT_S:g} s") from error
        except aiohttp.ClientError as error:
            self.check_alive(DYING_S)
            raise NoAnswer(f"the server gave no answer: {type(error).__name__}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise NoAnswer(f"the server gave a reply that is not an answer: {describe_exception(error)}") from error

    def exchange(self, request: bytes, timeout_s: float, *, ends: bool) -> Reply | None:
        """Send bytes as they are and return the reply, or None where the server closes the connection without one.

        ``ends`` closes our side of the connection after the request. Raises ``NoAnswer`` if the server doesn't reply
        within ``timeout_s``, replies with what is not HTTP, accepts no connection, or dies.
        """
        address = urlsplit(self.server.address)
        try:
            reply = self.loop.run(
                _exchange(str(address.hostname), int(address.port or 0), request, timeout_s, ends=ends)
            )
        except TimeoutError as error:
            self.check_alive()
            raise NoAnswer(f"the server gave no answer within {timeout_s:g} s") from error
        except OSError as error:
            self.check_alive(DYING_S)
            raise NoAnswer(f"the server accepts no connection: {type(error).__name__}") from error
        self.check_alive(DYING_S if reply is None else 0.0)
        return reply

    def check_alive(self, dying_s: float = 0.0) -> None:
        """Raise ``NoAnswer`` if the server has died, or dies within ``dying_s``; another one is started then."""
        process = self.server.process
        if process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(dying_s)
        code = process.returncode
        if code is not None:
            self.server.stop()
            self.server = self._started()
            raise NoAnswer(f"the server died with exit code {code}")


@contextmanager
def serving(start: Callable[[], ServerProcess], model: str) -> Iterator[Served]:
    """Have a server within the block."""
    with asyncio.Runner() as loop:
        served = Served(start, model, loop)
        try:
            yield served
        finally:
            served.close()


async def _session() -> aiohttp.ClientSession:
    return session()


async def _exchange(host: str, port: int, request: bytes, timeout_s: float, *, ends: bool) -> Reply | None:
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port, limit=MOST_HEADERS)
        try:
            writer.write(request)
            if ends:
                writer.write_eof()
            return await _read(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Reply:
    """Read a reply; raise ``NoAnswer`` for what is not HTTP."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        raise NoAnswer(f"the server's reply has more than {MOST_HEADERS} bytes of headers") from error
    status = STATUS_LINE.match(head)
    if status is None:
        raise NoAnswer(f"the server's reply is not HTTP: it begins with {head[:80]!r}")
    _, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "")
    body = await reader.readexactly(int(length)) if length.isdecimal() else await reader.read()
    return Reply(int(status[1]), headers, body)
