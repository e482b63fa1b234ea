"""The endpoints of a real server process, and what no client may do to them."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from deploycheck.serving.process import ServerProcess
from deploycheck.serving.protocol import decode_response, encode_request
from deploycheck.store import open_artifact
from tests.serving.asking import (
    INFER,
    Reply,
    as_json,
    ask,
    check_answers,
    connect,
    eventually,
    head,
    logits,
    reply_on,
    scrape,
    until_closed,
)
from tests.serving.bad_requests import BAD, LENGTH
from tests.serving.models import SIGNATURE, expected

LIMIT = 2**20
"""The server's ``--max-body-mb=1``."""


def check_refusal(reply: Reply, status: int) -> str:
    """Fail unless it is the protocol's error, and nothing of the server's inside; return its message."""
    assert reply.status == status, reply.body
    message = reply.json["error"]
    assert list(reply.json) == ["error"]
    assert isinstance(message, str)
    for inside in ("Traceback", "deploycheck/", ".py", "/tmp", "site-packages", "Error("):
        assert inside not in message
    return message


def test_health_says_live_and_ready(server: ServerProcess) -> None:
    assert ask(server, "/v2/health/live").json == {"live": True}
    assert ask(server, "/v2/health/ready").json == {"ready": True}


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_names_itself_its_extension_and_the_artifact_it_answers_with(
    server: ServerProcess, artifact: object, path: str
) -> None:
    found = ask(server, path)
    assert found.status == 200
    assert found.json["name"] == "deploycheck"
    assert found.json["extensions"] == ["binary_tensor_data"]
    assert found.json["artifact"] == open_artifact(artifact).digest  # type: ignore[arg-type]


@pytest.mark.parametrize("base", ["/v2/models/digits", "/v2/models/digits/versions/1"])
def test_the_model_answers_with_and_without_its_version(server: ServerProcess, images: np.ndarray, base: str) -> None:
    assert ask(server, base).json == SIGNATURE.metadata()
    assert ask(server, f"{base}/ready").json == {"name": "digits", "ready": True}
    reply = ask(server, f"{base}/infer", as_json(images, id="seven"))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert (reply.json["model_name"], reply.json["model_version"], reply.json["id"]) == ("digits", "1", "seven")
    (output,) = reply.json["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [8, 3])
    np.testing.assert_allclose(np.reshape(output["data"], (8, 3)), expected(images), rtol=1e-4, atol=1e-4)


def test_json_and_binary_give_the_same_answer(server: ServerProcess, images: np.ndarray) -> None:
    reply = ask(server, INFER, as_json(images))
    in_json = decode_response(reply.headers, reply.body)["logits"]
    np.testing.assert_array_equal(in_json, logits(server, images))


def test_a_content_type_is_not_required(server: ServerProcess, images: np.ndarray) -> None:
    with connect(server) as connection:
        body = as_json(images)
        connection.sendall(head(Content_Length=len(body)) + body)
        assert reply_on(connection).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v2/models",
        "/v2/models/other",
        "/v2/models/other/ready",
        "/v2/models/digits/versions/2",
        "/v2/models/digits/versions/2/ready",
        "/v2/models/digits/nothing",
        "/v2/models/..%2f..%2fetc%2fpasswd",
        "/v2/models/%00",
        "/v2/models/digits%00",
        "/v2/models/%c0%ae%c0%ae",
        "/v2/../../etc/passwd",
        "/docs",
    ],
)
def test_an_unknown_path_is_404(server: ServerProcess, path: str) -> None:
    check_refusal(ask(server, path), 404)


@pytest.mark.parametrize("path", ["/v2/models/other/infer", "/v2/models/digits/versions/2/infer"])
def test_an_unknown_model_or_version_is_404_with_what_there_is(
    server: ServerProcess, images: np.ndarray, path: str
) -> None:
    assert "'digits' version '1'" in check_refusal(ask(server, path, as_json(images)), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", INFER, {"POST"}),
        ("PUT", INFER, {"POST"}),
        ("DELETE", "/v2/models/digits", {"GET", "HEAD"}),
        ("POST", "/v2/health/live", {"GET", "HEAD"}),
        ("POST", "/metrics", {"GET", "HEAD"}),
        ("OPTIONS", INFER, {"POST"}),
    ],
)
def test_another_method_is_405_with_those_that_are_allowed(
    server: ServerProcess, method: str, path: str, allowed: set[str]
) -> None:
    reply = ask(server, path, method=method)
    check_refusal(reply, 405)
    assert set(reply.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_400_and_the_next_good_one_is_answered(
    server: ServerProcess, images: np.ndarray, case: str
) -> None:
    bad = BAD[case]
    assert bad.says in check_refusal(ask(server, INFER, bad.body, bad.headers), 400)
    check_answers(server, images[:3])


def test_bad_and_good_requests_take_turns_on_one_connection(server: ServerProcess, images: np.ndarray) -> None:
    good = as_json(images)
    with connect(server) as connection:
        for case in ("malformed JSON", "NaN", "100 000 brackets", "an unknown input"):
            bad = BAD[case]
            connection.sendall(head(Content_Length=len(bad.body)) + bad.body)
            check_refusal(reply_on(connection), 400)
            connection.sendall(head(Content_Length=len(good)) + good)
            reply = reply_on(connection)
            assert reply.status == 200
            found = decode_response(reply.headers, reply.body)["logits"]
            np.testing.assert_allclose(found, expected(images), rtol=1e-4, atol=1e-4)


def test_pipelined_requests_are_answered_in_order(server: ServerProcess, images: np.ndarray) -> None:
    with connect(server) as connection:
        sent = b""
        for index in range(4):
            body = as_json(images[index : index + 1], id=str(index))
            sent += head(Content_Length=len(body)) + body
        connection.sendall(sent + head("/v2/models/other/infer", Content_Length=0, Connection="close"))
        received = until_closed(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 4
    positions = [received.index(f'"id":"{index}"'.encode()) for index in range(4)]
    assert positions == sorted(positions)


def test_an_answer_that_is_not_finite_is_withheld_and_counted(server: ServerProcess, images: np.ndarray) -> None:
    before = scrape(server)["nonfinite_outputs_total"]
    huge = np.full((1, 4, 4, 1), 3e38, np.float32) * np.sign(expected(images)[0, 0])
    message = check_refusal(ask(server, INFER, as_json(huge)), 500)
    assert "not finite" in message
    assert scrape(server)["nonfinite_outputs_total"] == before + 1
    check_answers(server, images)


def test_a_body_over_the_limit_is_refused_before_it_is_read(server: ServerProcess, images: np.ndarray) -> None:
    for size in (LIMIT + 1, 10 * 2**30, 10**30):
        with connect(server) as connection:
            connection.sendall(head(Content_Length=size))  # and not a byte of it
            received = until_closed(connection)
        assert received.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400")), received
        assert size == 10**30 or str(LIMIT).encode() in received
    check_answers(server, images)


def test_a_body_at_the_limit_is_read(server: ServerProcess, images: np.ndarray) -> None:
    body = as_json(images)
    assert ask(server, INFER, body + b" " * (LIMIT - len(body))).status == 200


def test_a_chunked_body_over_the_limit_is_refused_and_its_connection_closed(
    server: ServerProcess, images: np.ndarray
) -> None:
    with connect(server) as connection:
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            connection.sendall(head(Transfer_Encoding="chunked") + chunk * (LIMIT // 0x10000 + 1))
            received = until_closed(connection)
        except (BrokenPipeError, ConnectionResetError):
            received = b"HTTP/1.1 413"  # it closed on us before we were through
    assert received.startswith(b"HTTP/1.1 413")
    check_answers(server, images)


def test_a_chunked_request_is_answered(server: ServerProcess, images: np.ndarray) -> None:
    body = as_json(images)
    with connect(server) as connection:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]))
        connection.sendall(head(Transfer_Encoding="chunked") + chunks + b"0\r\n\r\n")
        assert reply_on(connection).status == 200


def test_both_a_length_and_chunks_are_refused(server: ServerProcess, images: np.ndarray) -> None:
    with connect(server) as connection:
        connection.sendall(head(Content_Length=4, Transfer_Encoding="chunked") + b"0\r\n\r\n")
        assert until_closed(connection).startswith(b"HTTP/1.1 400")
    check_answers(server, images)


@pytest.mark.parametrize("length", ["-1", "ten", "1 2", "0x10"])
def test_a_content_length_that_is_none_is_refused(server: ServerProcess, images: np.ndarray, length: str) -> None:
    with connect(server) as connection:
        connection.sendall(head(Content_Length=length) + b"{}")
        assert until_closed(connection).startswith(b"HTTP/1.1 400")
    check_answers(server, images)


def test_bytes_that_are_not_http_are_refused(server: ServerProcess, images: np.ndarray) -> None:
    with connect(server) as connection:
        connection.sendall(bytes(range(256)) * 4)
        assert until_closed(connection).startswith(b"HTTP/1.1 400")
    check_answers(server, images)


@pytest.mark.parametrize("sent", [b"", b"POST", head()[:-2], head(X_Slow="yes")[:-4]])
def test_slow_headers_are_closed_by_the_deadline(server: ServerProcess, images: np.ndarray, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        assert not until_closed(connection).startswith(b"HTTP/1.1 200")
    check_answers(server, images)


def test_slow_headers_of_a_second_request_are_closed_too(server: ServerProcess, images: np.ndarray) -> None:
    with connect(server) as connection:
        body = as_json(images)
        connection.sendall(head(Content_Length=len(body)) + body)
        assert reply_on(connection).status == 200
        connection.sendall(head()[:-2])
        assert until_closed(connection) == b""


def test_headers_that_drip_do_not_move_the_deadline(server: ServerProcess, images: np.ndarray) -> None:
    with connect(server) as connection:
        connection.sendall(b"POST /v2 HTTP/1.1\r\n")
        connection.settimeout(0.05)

        def closed() -> bool:
            try:
                connection.sendall(b"X-More: 1\r\n")
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True

        assert eventually(closed)
    check_answers(server, images)


@pytest.mark.parametrize("sent", [b"", b'{"inputs": ['])
def test_a_slow_body_is_408_and_its_connection_closed(server: ServerProcess, images: np.ndarray, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(head(Content_Length=1000) + sent)
        reply = reply_on(connection)
        assert "within 0.5 s" in check_refusal(reply, 408)
        assert until_closed(connection) == b""
    check_answers(server, images)


def test_a_refusal_before_the_body_leaves_no_connection_that_a_slow_body_can_hold(
    server: ServerProcess, images: np.ndarray
) -> None:
    refused = {
        "/v2/models/other/infer": 404,
        "/nowhere": 404,
        "/v2/health/live": 405,
        INFER: 415,
    }
    connections = []
    for path, status in refused.items():
        connection = connect(server)
        connections.append(connection)
        connection.sendall(head(path, Content_Length=10**9, Content_Encoding="gzip"))
        check_refusal(reply_on(connection), status)
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b" ")  # the first of a billion, and then nothing
    for connection in connections:
        until_closed(connection)
        connection.close()
    check_answers(server, images)


def test_a_compressed_body_is_415(server: ServerProcess, images: np.ndarray) -> None:
    for body in (gzip.compress(as_json(images)), b"garbage"):
        check_refusal(ask(server, INFER, body, {"Content-Encoding": "gzip"}), 415)
    check_answers(server, images)


def test_a_client_that_goes_away_in_the_middle_of_its_body_harms_nobody(
    server: ServerProcess, images: np.ndarray
) -> None:
    cancelled = scrape(server).get("requests/4xx/cancelled", 0)
    body = as_json(images)
    for cut in (0, 1, len(body) - 1):
        with connect(server) as connection:
            connection.sendall(head(Content_Length=len(body)) + body[:cut])
    check_answers(server, images)
    assert eventually(lambda: scrape(server).get("requests/4xx/cancelled", 0) == cancelled + 3)
    check_answers(server, images)


def test_a_client_that_does_not_wait_for_its_answer_leaves_nothing_behind(
    server: ServerProcess, images: np.ndarray
) -> None:
    body = as_json(images)
    for _ in range(20):
        with connect(server) as connection:
            connection.sendall(head(Content_Length=len(body)) + body)
    check_answers(server, images)

    assert eventually(lambda: scrape(server)["in_flight_requests"] == 0)


def test_every_batch_size_is_answered_and_none_is_compiled_for(server: ServerProcess, images: np.ndarray) -> None:
    before = scrape(server)["compilations_total"]
    for count in range(1, 9):
        check_answers(server, images[:count])
    assert scrape(server)["compilations_total"] == before == 4


def test_good_requests_beside_bad_ones_are_all_right(server: ServerProcess) -> None:
    kinds = list(BAD.values())

    def client(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            images = rng.normal(size=(rng.integers(1, 9), 4, 4, 1)).astype(np.float32)
            if seed % 2:
                check_answers(server, images)
            else:
                bad = kinds[rng.integers(len(kinds))]
                check_refusal(ask(server, INFER, bad.body, bad.headers), 400)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))


def test_an_overflowing_neighbour_does_not_spoil_a_good_answer(server: ServerProcess, images: np.ndarray) -> None:
    huge = as_json(np.full((1, 4, 4, 1), 3e38, np.float32) * np.sign(expected(images)[0, 0]))

    def client(index: int) -> None:
        for _ in range(20):
            if index % 2:
                check_answers(server, images[:2])
            else:
                check_refusal(ask(server, INFER, huge), 500)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(client, range(4)))


def test_the_metrics_count_exactly(server: ServerProcess, images: np.ndarray) -> None:
    before = scrape(server)
    for count in (1, 2, 3, 8):
        check_answers(server, images[:count])
    for _ in range(3):
        ask(server, INFER, b"{}")
    ask(server, "/v2/models/other/infer", b"{}")
    with connect(server) as connection:
        connection.sendall(head(Content_Length=LIMIT + 1))
        check_refusal(reply_on(connection), 413)
    ask(server, INFER, b"{}", {"Content-Encoding": "gzip"})
    after = scrape(server)
    changed = {
        name: after[name] - before.get(name, 0)
        for name in after
        if after[name] != before.get(name, 0) and not name.endswith(("_sum", "_created", "_bytes"))
    }
    assert changed == {
        "requests/2xx/ok": 4,
        "requests/4xx/invalid": 4,
        "requests/4xx/not_found": 1,
        "requests/4xx/too_large": 1,
        "samples_total": 14,
        "executions_total": 4,
        "batch_size_count": 4,
        "queue_duration_seconds_count": 4,
        "compute_duration_seconds_count": 4,
        "request_duration_seconds_count": 4,
    }
    assert after["batch_size_sum"] - before["batch_size_sum"] == 14
    assert after["model_ready"] == 1
    assert after["server_draining"] == 0
    assert after["process_peak_resident_memory_bytes"] > 1e7


def test_the_metrics_come_in_prometheus_text_with_the_models_labels(server: ServerProcess) -> None:
    reply = ask(server, "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert 'deploycheck_model_ready{model="digits",version="1"} 1.0' in reply.body.decode().splitlines()


def test_a_binary_request_asked_for_in_json_is_answered_in_json(server: ServerProcess, images: np.ndarray) -> None:
    sent = encode_request({"image": images})
    text = json.loads(sent.body[: int(sent.headers[LENGTH])])
    text["outputs"] = [{"name": "logits", "parameters": {"binary_data": False}}]
    written = json.dumps(text).encode()
    tail = sent.body[int(sent.headers[LENGTH]) :]
    reply = ask(server, INFER, written + tail, {LENGTH: str(len(written))})
    assert LENGTH not in reply.headers
    found = np.reshape(reply.json["outputs"][0]["data"], (8, 3))
    np.testing.assert_allclose(found, expected(images), rtol=1e-4, atol=1e-4)
