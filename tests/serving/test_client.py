"""The client beside a real server, and beside what isn't one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.serving.client import Client, session
from deploycheck.serving.process import ServerProcess
from deploycheck.serving.protocol import Encoded, encode_request
from tests.serving.asking import DEADLINE_S
from tests.serving.models import expected

T = TypeVar("T")


def with_client(address: str, use: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        async with asyncio.timeout(DEADLINE_S), session() as http:
            return await use(Client(address, "digits", http))

    return asyncio.run(run())


@pytest.fixture
def request_(images: np.ndarray) -> Encoded:
    return encode_request({"image": images[:1]})


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_predictions_over_the_wire_are_the_models_own(server: ServerProcess, batch: int) -> None:
    images = np.random.default_rng(5).normal(size=(19, 4, 4, 1)).astype(np.float32)
    outputs = with_client(server.address, lambda client: client.predict({"image": images}, batch))
    assert list(outputs) == ["logits"]
    np.testing.assert_allclose(outputs["logits"], expected(images), rtol=1e-4, atol=1e-4)


def test_the_clients_scrape_reads_what_has_no_labels_but_the_models(server: ServerProcess) -> None:
    found = with_client(server.address, lambda client: client.scrape())
    assert found["deploycheck_inference_compilations_total"] == 4
    assert found["deploycheck_model_ready"] == 1
    assert "deploycheck_inference_requests_total" not in found
    assert with_client(server.address, lambda client: client.compilations()) == 4


@pytest.mark.parametrize("use", [Client.scrape, lambda client: client.predict({"image": np.zeros((1, 4, 4, 1))}, 1)])
def test_a_server_that_does_not_answer_is_named_with_the_deadline(
    use: Callable[[Client], Awaitable[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploycheck.serving.client.TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeploycheckError, match=r"the server did not answer within 0\.05 s") as caught:
            with_client(address, use)
    assert caught.value.where.startswith(address)


def test_a_request_that_is_answered_has_no_failure(server: ServerProcess, request_: Encoded) -> None:
    assert with_client(server.address, lambda client: client.failure_of(request_)) == ""


def test_a_request_that_is_refused_fails_for_the_servers_reason(server: ServerProcess) -> None:
    reason = with_client(server.address, lambda client: client.failure_of(Encoded(b"{}")))
    assert reason.startswith('400: {"error":"expected ')
    with pytest.raises(DeploycheckError, match="400"):
        with_client(server.address, lambda client: client.ask(Encoded(b"{}")))


def test_a_server_that_is_not_there_is_a_failure(request_: Encoded) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer here
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert with_client(address, lambda client: client.failure_of(request_)) == "ClientConnectorError"


def test_an_answer_that_is_cut_off_is_a_failure(request_: Encoded) -> None:
    async def cut_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")
        await writer.drain()
        writer.close()

    async def run() -> str:
        async with (
            asyncio.timeout(DEADLINE_S),
            await asyncio.start_server(cut_off, "127.0.0.1", 0) as listening,
            session() as http,
        ):
            host, port = listening.sockets[0].getsockname()
            return await Client(f"http://{host}:{port}", "digits", http).failure_of(request_)

    assert asyncio.run(run()) == "ClientPayloadError"
