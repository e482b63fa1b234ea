"""Properties of a running server."""

from __future__ import annotations

import json
import socketserver
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from deploycheck.properties import NoAnswer
from deploycheck.properties.batch_invariant import BATCH_INVARIANT
from deploycheck.properties.deterministic import DETERMINISTIC
from deploycheck.properties.domain import Domain, make_domain
from deploycheck.properties.finite import FINITE
from deploycheck.properties.rejects_malformed import REJECTS_MALFORMED
from deploycheck.properties.search import Found, search
from deploycheck.properties.served import Reply, Served, serving
from deploycheck.serving.process import ServerProcess
from deploycheck.serving.protocol import BadRequest, decode_request
from deploycheck.serving.signature import Signature, TensorMetadata
from tests.serving.models import write_artifact

IMAGES = np.random.default_rng(0).normal(size=(20, 4, 4, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    artifact = folder / "artifact"
    artifact.mkdir()
    start = partial(ServerProcess, write_artifact(artifact), ["--max-batch=8", "--max-delay-ms=0"], folder / "log")
    with serving(start, "digits") as running:
        yield running


def domain() -> Domain:
    return make_domain({"image": IMAGES}, [], 8)


def tried(property: Any, served: Any, folder: Path, **settings: Any) -> Found:
    given = property.settings.model_validate({"examples": 20, **settings})
    return search(property, served, domain(), given, saved=folder, key="key")


@pytest.mark.parametrize("property", [BATCH_INVARIANT, DETERMINISTIC, FINITE], ids=lambda each: each.name)
def test_a_good_server_has_them(property: Any, served: Served, tmp_path: Path) -> None:
    assert tried(property, served, tmp_path).violation == ""


def test_a_good_server_refuses_whatever_is_malformed(served: Served, tmp_path: Path) -> None:
    found = tried(REJECTS_MALFORMED, served, tmp_path, examples=400)
    assert (found.violation, found.counterexample) == ("", "")


def test_what_a_server_answers_with_an_error_is_no_answer(served: Served) -> None:
    with pytest.raises(NoAnswer, match=r"the server answered 400: .*not finite"):
        served.predict({"image": np.full((1, 4, 4, 1), np.nan, np.float32)})


def test_a_server_that_died_is_started_again(served: Served) -> None:
    inputs = {"image": IMAGES[:1]}
    before = served.predict(inputs)
    assert served.server.process is not None
    served.server.process.kill()
    served.server.process.wait()
    with pytest.raises(NoAnswer, match="the server died"):
        served.predict(inputs)
    np.testing.assert_array_equal(served.predict(inputs)["logits"], before["logits"])


@dataclass
class Standing:
    """Has the place of a server process: an address where a test answers."""

    address: str
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Standing:
        return self

    def stop(self) -> None:
        pass


@contextmanager
def replying(reply: bytes) -> Iterator[Served]:
    """A server that replies to each request with these bytes, or with an empty reply never."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            if reply:
                self.request.sendall(reply)
            else:
                self.request.recv(65536)  # until the client gives up

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        start: Any = partial(Standing, f"http://127.0.0.1:{server.server_address[1]}")
        with serving(start, "digits") as running:
            yield running
        server.shutdown()


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"nonsense\r\n\r\n", "not HTTP: it begins with 'nonsense"),
        (b"\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "more than 65536 bytes of headers"),
    ],
)
def test_a_reply_that_is_not_http_is_no_answer(reply: bytes, says: str) -> None:
    with replying(reply) as served, pytest.raises(NoAnswer, match=says):
        served.exchange(b"GET / HTTP/1.1\r\n\r\n", 5.0, ends=False)


def test_a_body_that_is_not_an_answer_is_no_answer() -> None:
    with (
        replying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as served,
        pytest.raises(NoAnswer, match="a reply that is not an answer: KeyError: 'outputs'"),
    ):
        served.predict({"image": IMAGES[:1]})


def test_a_server_that_doesn_t_reply_in_time_gave_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploycheck.serving.client.TIMEOUT_S", 0.05)
    with replying(b"") as served:
        with pytest.raises(NoAnswer, match=r"^the server gave no answer within 10 s$"):
            served.predict({"image": IMAGES[:1]})
        with pytest.raises(NoAnswer, match=r"^the server gave no answer within 0\.05 s$"):
            served.exchange(b"GET / HTTP/1.1\r\n\r\n", 0.05, ends=False)


def test_a_server_that_accepts_no_connection_gave_no_answer() -> None:
    start: Any = partial(Standing, "http://127.0.0.1:1")
    with serving(start, "digits") as served, pytest.raises(NoAnswer, match="accepts no connection: ConnectionRefused"):
        served.exchange(b"", 5.0, ends=False)


@pytest.mark.parametrize(
    "ask",
    [lambda served: served.predict({"image": IMAGES[:1]}), lambda served: served.exchange(b"", 5.0, ends=False)],
    ids=["predict", "exchange"],
)
def test_a_server_that_is_dying_is_waited_for(ask: Callable[[Served], object]) -> None:
    def start() -> Any:
        return Standing("http://127.0.0.1:1", subprocess.Popen(["sh", "-c", "sleep 0.2; exit 3"]))

    with serving(start, "digits") as served, pytest.raises(NoAnswer, match="the server died with exit code 3"):
        ask(served)


@dataclass(frozen=True)
class Faulty:
    """A server with a fault: what it does with a request's bytes."""

    reply: Callable[[bytes], Reply | None]
    model: str = "digits"

    def exchange(self, request: bytes, timeout_s: float, *, ends: bool) -> Reply | None:
        return self.reply(request)

    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        return {"logits": np.ones((1, 3), np.float32)}


def refused_unless(fault: bytes, reply: Reply | None) -> Callable[[bytes], Reply | None]:
    return lambda request: reply if fault in request else Reply(400, {}, b"")


def hanging(request: bytes) -> Reply | None:
    raise NoAnswer("the server gave no answer within 5 s")


def filling(request: bytes) -> Reply | None:
    """Answer with ones as a server does whose model takes missing values; with others where there are some."""
    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").splitlines()[1:])
    signature = Signature(
        model="digits",
        inputs=(TensorMetadata("image", "FP32", (4, 4, 1), missing=True),),
        outputs=(TensorMetadata("logits", "FP32", (3,)),),
    )
    try:
        image = decode_request(headers, body, signature, 8).inputs["image"]
    except BadRequest:
        return Reply(400, {}, b"")
    data = [2, 2, 2] if np.isnan(image).any() else [1, 1, 1]
    return Reply(200, {}, json.dumps({"outputs": [{"name": "logits", "shape": [1, 3], "data": data}]}).encode())


@pytest.mark.parametrize(("takes_missing", "refused"), [((), True), (("image",), False)])
def test_a_missing_value_is_malformed_unless_the_model_takes_it(
    takes_missing: tuple[str, ...], refused: bool, tmp_path: Path
) -> None:
    data = make_domain({"image": IMAGES}, [], 8, takes_missing)
    given = REJECTS_MALFORMED.settings.model_validate({"examples": 2000})
    found = search(REJECTS_MALFORMED, Faulty(filling), data, given, saved=tmp_path, key="key")
    assert bool(found.violation) == refused, (found.violation, found.counterexample)


WRONG = b'{"outputs": [{"name": "logits", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'


@pytest.mark.parametrize(
    ("reply", "says", "shown"),
    [
        (refused_unless(b"NaN", Reply(500, {}, b"oops")), "the server answered 500: oops", "NaN"),
        (refused_unless(b"binary_data_size", Reply(200, {}, WRONG)), "wrongly: logits[0, 1] is 2", "binary_data_size"),
        (
            refused_unless(b'"datatype": {}', Reply(200, {}, b"<html>")),
            "a body that is not an answer",
            "datatype is {}",
        ),
        (refused_unless(b"PUT", None), "closed the connection without an answer", "PUT /v2/models/{model}/infer"),
        (hanging, "the server gave no answer within 5 s", "POST"),
    ],
)
def test_a_server_with_a_fault_is_refused_with_the_request(
    reply: Callable[[bytes], Reply | None], says: str, shown: str, tmp_path: Path
) -> None:
    found = tried(REJECTS_MALFORMED, Faulty(reply), tmp_path, examples=2000)
    assert says in found.violation
    assert shown in found.counterexample
