"""The HTTP server as an ASGI application: the Open Inference Protocol's REST endpoints and ``/metrics``."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploycheck.serving.batching import Batcher
from deploycheck.serving.metrics import Metrics
from deploycheck.serving.protocol import BINARY, BadRequest, decode_request, encode_response
from deploycheck.serving.runtimes import Engine
from deploycheck.serving.signature import Signature

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may ask of the server."""

    max_batch: int = 32
    max_delay_s: float = 0.002
    max_queue: int = 1024
    max_body_bytes: int = 64 * 2**20
    body_timeout_s: float = 10.0
    header_timeout_s: float = 10.0
    drain_timeout_s: float = 30.0


class Service:
    """The model behind the endpoints. It is ready from when ``start`` has compiled it until ``drain`` is called."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine = engine
        self.signature: Signature = engine.signature
        self.limits = limits
        self.metrics = Metrics(self.signature.model, self.signature.version, engine.artifact.digest, engine.sizes)
        engine.on_compile = self.metrics.compilations.inc
        self.batcher = Batcher(engine, limits.max_delay_s, limits.max_queue, self.metrics)
        self.ready = False
        self.draining = False
        self._runner: asyncio.Task[None] | None = None

    async def start(self) -> float:
        """Compile every batch size, begin to answer, and return the seconds the compilation took."""
        seconds = await asyncio.get_running_loop().run_in_executor(None, self.engine.compile)
        self.metrics.load_seconds.set(seconds)
        self._runner = asyncio.create_task(self.batcher.run())
        self.ready = True
        self.metrics.ready.set(1)
        return seconds

    def drain(self) -> None:
        """Refuse further requests from now on; those that have begun are finished."""
        self.ready = False
        self.draining = True
        self.metrics.ready.set(0)
        self.metrics.draining.set(1)

    async def infer(self, request: Request) -> Response:
        """Answer one infer request."""
        if not self.ready:
            raise BadRequest("the model is not ready", 503, "draining" if self.draining else "rejected")
        with self.batcher.arriving():
            body = await read_body(request, self.limits.max_body_bytes, self.limits.body_timeout_s)
            started = time.monotonic()
            asked = decode_request(request.headers, body, self.signature, self.limits.max_batch)
        with self.metrics.in_flight.track_inprogress():
            outputs = await self.batcher.submit(asked.inputs, asked.batch)
        if not all(np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f"):
            self.metrics.nonfinite.inc()
            raise BadRequest("the model's answer is not finite", 500, "nonfinite")
        answer = encode_response(asked, outputs, self.signature)
        self.metrics.request_seconds.observe(time.monotonic() - started)
        return Response(answer.body, headers=dict(answer.headers))


async def read_body(request: Request, limit: int, timeout_s: float) -> bytes:
    """Read a request's body.

    It is refused with 413 over ``limit`` bytes, before any is read if its header announces more, and with 408 if it
    takes longer than ``timeout_s``.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadRequest("the body is compressed: send it as it is", 415)
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise BadRequest(f"the body is {announced} bytes, expected at most {limit}", 413, "too_large")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise BadRequest(f"the body is over {limit} bytes", 413, "too_large")
                chunks.append(chunk)
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {timeout_s:g} s", 408, "timeout") from None
    return b"".join(chunks)


def make_app(service: Service) -> Starlette:
    """Return the application that answers for ``service``."""
    signature, digest = service.signature, service.engine.artifact.digest

    def known(request: Request) -> None:
        name, version = request.path_params["model"], request.path_params.get("version", signature.version)
        if (name, version) != (signature.model, signature.version):
            raise BadRequest(
                f"unknown model, this server has {signature.model!r} version {signature.version!r}", 404, "not_found"
            )

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    async def server_metadata(_: Request) -> Response:
        return JSONResponse(
            {
                "name": "deploycheck",
                "version": version("deploycheck"),
                "extensions": [BINARY],
                "artifact": digest,
            }
        )

    async def model_metadata(request: Request) -> Response:
        known(request)
        return JSONResponse(signature.metadata())

    async def model_ready(request: Request) -> Response:
        known(request)
        return JSONResponse({"name": signature.model, "ready": service.ready}, 200 if service.ready else 503)

    async def infer(request: Request) -> Response:
        try:
            known(request)
            answer = await service.infer(request)
        except BadRequest as error:
            service.metrics.ended(error.status, error.reason)
            return refusal(error)
        except ClientDisconnect:
            service.metrics.ended(499, "cancelled")
            return Response(status_code=400)
        except Exception:
            service.metrics.ended(500, "backend")
            raise
        service.metrics.ended(200, "ok")
        return answer

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(service.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    routes = [
        Route("/v2", server_metadata),
        Route("/v2/", server_metadata),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/metrics", metrics),
    ]
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(base, model_metadata),
            Route(f"{base}/ready", model_ready),
            Route(f"{base}/infer", infer, methods=["POST"]),
        ]
    return Starlette(
        routes=routes,
        exception_handlers={BadRequest: _on_refusal, HTTPException: _on_http_error, Exception: _on_error},
    )


def refusal(error: BadRequest) -> Response:
    """Return the protocol's error: its status and ``{"error": message}``."""
    headers = {"retry-after": "1"} if error.status == 503 else {}
    if error.status != 400:
        headers["connection"] = "close"  # the body, or what is left of it, wasn't read
    return JSONResponse({"error": str(error)}, error.status, headers)


async def _on_refusal(_: Request, error: Exception) -> Response:
    return refusal(error if isinstance(error, BadRequest) else BadRequest(str(error)))


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {**((error.headers or {}) if isinstance(error, HTTPException) else {}), "connection": "close"}
    messages = {404: "there is nothing at this path", 405: f"{request.method} is not answered here"}
    return JSONResponse({"error": messages.get(status, "bad request")}, status, headers)


async def _on_error(_: Request, error: Exception) -> Response:
    """Log an error of the server's own; the client sees none of its details."""
    log.error("a request failed: %r", error)
    return JSONResponse({"error": "internal error"}, 500)
