"""A client of one model on one server, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from deploycheck.errors import DeploycheckError
from deploycheck.serving.protocol import Encoded, decode_response, encode_request

TIMEOUT_S = 10.0
COMPILATIONS = "deploycheck_inference_compilations_total"
PEAK_MEMORY = "deploycheck_process_peak_resident_memory_bytes"


class Client:
    """Asks one model on the server at ``address``."""

    def __init__(self, address: str, model: str, session: aiohttp.ClientSession) -> None:
        self.url = f"{address}/v2/models/{model}/infer"
        self.metrics_url = f"{address}/metrics"
        self.session = session

    async def ask(self, request: Encoded) -> tuple[Mapping[str, str], bytes]:
        """Send one request and return its whole reply; raise ``DeploycheckError`` for any status but 200."""
        async with self.session.post(self.url, data=request.body, headers=request.headers) as reply:
            body = await reply.read()
            if reply.status != 200:
                raise DeploycheckError(f"{reply.status}: {body[:200].decode(errors='replace')}", where=self.url)
            return reply.headers, body

    async def failure_of(self, request: Encoded) -> str:
        """Send one request and return why it failed; empty where it was answered."""
        try:
            await self.ask(request)
        except DeploycheckError as error:
            return error.what
        except TimeoutError:
            return f"no answer within {TIMEOUT_S:g} s"
        except aiohttp.ClientError as error:
            return type(error).__name__
        return ""

    async def scrape(self) -> dict[str, float]:
        """Return those metrics of the server, by name, that have no labels but the model's."""
        with _deadline_named(self.metrics_url):
            async with self.session.get(self.metrics_url) as reply:
                text = await reply.text()
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if set(sample.labels) <= {"model", "version"}
        }

    async def compilations(self) -> float:
        """Return how many programs the server has compiled so far."""
        return (await self.scrape()).get(COMPILATIONS, 0.0)

    async def predict(self, inputs: Mapping[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        """Return the outputs by name for all examples, asked for ``batch`` at a time."""
        count = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, count, batch):
            with _deadline_named(self.url):
                parts.append(
                    await self.predict_once({name: array[start : start + batch] for name, array in inputs.items()})
                )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    async def predict_once(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name for inputs that are sent in one request; raise ``TimeoutError`` without a reply.

        Raises ``ValueError``, ``KeyError`` or ``TypeError`` for a reply that is not an answer.
        """
        headers, body = await self.ask(encode_request(inputs))
        return decode_response({key.lower(): value for key, value in headers.items()}, body)


@contextmanager
def _deadline_named(url: str) -> Iterator[None]:
    """Turn a timeout, which has no text of its own, into an error that names the server and the deadline."""
    try:
        yield
    except TimeoutError as error:
        raise DeploycheckError(f"the server did not answer within {TIMEOUT_S:g} s", where=url) from error


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop to measure with: uvloop's, where it is installed, as the server does."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory


def session() -> aiohttp.ClientSession:
    """Return an HTTP session for any number of requests at once; use it in an ``async with``."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        auto_decompress=False,
    )
