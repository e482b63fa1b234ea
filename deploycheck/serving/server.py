"""The server's process: uvicorn around the application, from an artifact's folder to an orderly exit."""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deploycheck.errors import DeploycheckError
from deploycheck.serving.app import Limits, Service, make_app
from deploycheck.serving.batching import batch_sizes
from deploycheck.serving.opening import open_for_serving

DEFAULTS = Limits()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the server's options to a command line."""
    parser.add_argument("artifact", type=Path, help="the folder of an exported model")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one (default: 8000)")
    parser.add_argument("--max-batch", type=int, default=DEFAULTS.max_batch, help="examples in a batch at most")
    parser.add_argument("--max-delay-ms", type=float, default=1e3 * DEFAULTS.max_delay_s, help="wait to fill a batch")
    parser.add_argument(
        "--max-body-mb", type=float, default=DEFAULTS.max_body_bytes / 2**20, help="largest request, MiB"
    )
    parser.add_argument("--body-timeout", type=float, default=DEFAULTS.body_timeout_s, metavar="S")
    parser.add_argument("--header-timeout", type=float, default=DEFAULTS.header_timeout_s, metavar="S")
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow another address than this machine's: anyone who reaches it can ask",
    )
    parser.add_argument(
        "--extensions",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="a Python file that declares a runtime (pytest_deploycheck_extensions); may be given several times",
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input is closed")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it; return the exit code. Each event is one line of JSON on standard output."""
    try:
        _check_host(arguments.host, insecure=arguments.insecure)
        if arguments.max_batch < 1:
            raise DeploycheckError("a batch holds at least one example", where=f"--max-batch {arguments.max_batch}")
        limits = Limits(
            max_batch=arguments.max_batch,
            max_delay_s=arguments.max_delay_ms / 1e3,
            max_body_bytes=int(arguments.max_body_mb * 2**20),
            body_timeout_s=arguments.body_timeout,
            header_timeout_s=arguments.header_timeout,
        )
        started = time.monotonic()
        engine = open_for_serving(arguments.artifact, arguments.extensions, batch_sizes(limits.max_batch))
        service = Service(engine, limits)
        listening = _listen(arguments.host, arguments.port)
    except DeploycheckError as error:
        say(
            event="failed",
            error=f"{error.where}: {error.what}" if error.where else error.what,
            hint=error.hint,
        )
        return 1
    server = _Server(service, limits, started, listening)
    if arguments.exit_with_parent:
        threading.Thread(target=_when_parent_ends, args=(server,), daemon=True).start()
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:  # uvloop, where it is installed
        runner.run(server.serve(sockets=[listening]))
    return 1 if server.failed else 0


def say(**event: Any) -> None:
    """Print an event as one JSON line."""
    print(json.dumps(event), flush=True)


def _check_host(host: str, *, insecure: bool) -> None:
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and not insecure:
        hint = "put a gateway before it, or pass --insecure"
        raise DeploycheckError("it would answer anyone who can reach that address", where=f"--host {host}", hint=hint)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        hint = "another process has it: choose another --port, or 0 for a free one"
        raise DeploycheckError(
            f"can't listen: {getattr(error, 'strerror', None) or error}", where=f"{host}:{port}", hint=hint
        ) from error
    return listening


def _when_parent_ends(server: _Server) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if server.loop:
        server.loop.call_soon_threadsafe(server.finish)
    else:
        server.should_exit = True


class _Server(uvicorn.Server):
    """Uvicorn's server, which prints when the model is ready and finishes open requests when it is stopped."""

    def __init__(self, service: Service, limits: Limits, started: float, listening: socket.socket) -> None:
        self.service = service
        self.started_at = started
        self.failed = False
        self.loop: asyncio.AbstractEventLoop | None = None
        host, port = listening.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        config = uvicorn.Config(
            make_app(service),
            http=_protocol(limits.header_timeout_s),
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=int(limits.drain_timeout_s),
            server_header=False,
        )
        super().__init__(config)

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(list(sockets) if sockets else None)
        self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        loaded = time.monotonic() - self.started_at
        try:
            compiled = await self.service.start()
        except Exception as error:
            say(event="failed", error=f"the model can't be compiled: {type(error).__name__}: {error}", hint="")
            self.failed = self.should_exit = True
            return
        gc.collect()
        gc.freeze()  # what loading left is never garbage: later collections needn't visit it
        say(
            event="ready",
            address=self.address,
            digest=self.service.engine.artifact.digest,
            pid=os.getpid(),
            load_s=round(loaded, 3),
            compile_s=round(compiled, 3),
        )

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Finish the requests that have begun, then exit with 0; a second Ctrl-C exits at once.

        Uvicorn's own handler would raise the signal again afterwards. A signal may arrive in the middle of anything,
        so the work is left to the event loop.
        """
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        elif self.loop:
            self.loop.call_soon_threadsafe(self.finish)

    def finish(self) -> None:
        """Refuse further requests, finish those that have begun, and exit."""
        self.service.drain()
        self.should_exit = True


def _protocol(header_timeout_s: float) -> type[HttpToolsProtocol]:
    """Return uvicorn's HTTP protocol with a deadline for a request's headers, which uvicorn lacks."""

    class DeadlineProtocol(HttpToolsProtocol):
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._begin()

        def on_message_begin(self) -> None:
            self._begin()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._end()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def _begin(self) -> None:
            self._end()
            self.deadline = self.loop.call_later(header_timeout_s, self.transport.close)

        def _end(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    return DeadlineProtocol
