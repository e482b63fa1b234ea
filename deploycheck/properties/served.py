"""A running server as something that a property can ask, by requests or by raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from deploycheck.errors import DeploycheckError
from deploycheck.properties.property import Inputs, NoAnswer, Outputs
from deploycheck.serving.client import TIMEOUT_S, Client, session
from deploycheck.serving.process import ServerProcess

MOST_HEADERS = 65536


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
            return self.loop.run(client.predict(inputs, len(next(iter(inputs.values())))))
        except DeploycheckError as error:
            raise NoAnswer(f"the server answered {error.what}") from error
        except TimeoutError as error:
            raise NoAnswer(f"the server gave no answer within {TIMEOUT_S:g} s") from error
        except aiohttp.ClientError as error:
            self.check_alive()
            raise NoAnswer(f"the server gave no answer: {type(error).__name__}") from error

    def exchange(self, request: bytes, timeout_s: float, *, ends: bool) -> Reply | None:
        """Send bytes as they are and return the reply, or None where the server closes the connection without one.

        ``ends`` closes our side of the connection after the request. Raises ``NoAnswer`` if the server doesn't reply
        within ``timeout_s``, or dies.
        """
        address = urlsplit(self.server.address)
        try:
            reply = self.loop.run(
                _exchange(str(address.hostname), int(address.port or 0), request, timeout_s, ends=ends)
            )
        except TimeoutError as error:
            self.check_alive()
            raise NoAnswer(f"the server gave no answer within {timeout_s:g} s") from error
        self.check_alive()
        return reply

    def check_alive(self) -> None:
        """Raise ``NoAnswer`` if the server has died; another one is started then."""
        process = self.server.process
        code = process.poll() if process else None
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


async def _read(reader: asyncio.StreamReader) -> Reply | None:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "")
    body = await reader.readexactly(int(length)) if length.isdigit() else await reader.read()
    return Reply(int(first.split()[1]), headers, body)
