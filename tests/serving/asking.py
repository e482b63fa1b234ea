"""Talking to a server: over ``http.client``, and over sockets for what a decent client never sends."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from deploycheck.serving.process import ServerProcess
from deploycheck.serving.protocol import decode_response, encode_request
from tests.serving.models import expected

DEADLINE_S = 20.0
INFER = "/v2/models/digits/infer"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    server: ServerProcess,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "",
) -> Reply:
    """Send one request on a new connection."""
    connection = http.client.HTTPConnection(*address(server), timeout=DEADLINE_S)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
        return _read(connection.getresponse())
    finally:
        connection.close()


def _read(reply: http.client.HTTPResponse) -> Reply:
    return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())


def address(server: ServerProcess) -> tuple[str, int]:
    parts = urlsplit(server.address)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(address(server), timeout=DEADLINE_S)


def reply_on(connection: socket.socket) -> Reply:
    """Read one reply from a socket."""
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    return _read(reply)


def until_closed(connection: socket.socket) -> bytes:
    """Read until the server closes the connection; past the deadline this raises ``TimeoutError``."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def head(path: str = INFER, **headers: str | int) -> bytes:
    """Return the head of a POST as bytes; ``_`` in the headers' names is ``-``."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def as_json(images: np.ndarray, **more: Any) -> bytes:
    """Return a request for these images as JSON."""
    tensor = {"name": "image", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
    return json.dumps({"inputs": [tensor], **more}).encode()


def logits(server: ServerProcess, images: np.ndarray) -> np.ndarray:
    """Ask in the binary extension, and return the answer."""
    request = encode_request({"image": images})
    reply = ask(server, INFER, request.body, request.headers)
    assert reply.status == 200, reply.body
    return decode_response(reply.headers, reply.body)["logits"]


def check_answers(server: ServerProcess, images: np.ndarray) -> None:
    """Fail unless the server is up and right about these images."""
    np.testing.assert_allclose(logits(server, images), expected(images), rtol=1e-4, atol=1e-4)


def scrape(server: ServerProcess) -> dict[str, float]:
    """Return the server's metrics; those of requests as ``requests/CODE_CLASS/REASON``."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(ask(server, "/metrics").body.decode()):
        for sample in family.samples:
            name = sample.name.removeprefix("deploycheck_").removeprefix("inference_")
            if name == "requests_total":
                name = f"requests/{sample.labels['code_class']}/{sample.labels['reason']}"
            if "le" not in sample.labels:
                found[name] = sample.value
    return found


def eventually(holds: Callable[[], bool]) -> bool:
    """Ask until it holds, or the deadline is over."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
    return True
