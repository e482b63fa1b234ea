from __future__ import annotations

import asyncio
import itertools
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.serving import load, quiet, report
from deploycheck.serving.load import BLOCK_S, Client, Sustained, arrivals, session
from deploycheck.serving.process import ServerProcess
from deploycheck.serving.protocol import Encoded, encode_request
from deploycheck.serving.quiet import Conditions
from deploycheck.serving.report import LoadReport
from deploycheck.serving.taken import Amount, Sent
from tests.serving.asking import DEADLINE_S, scrape
from tests.serving.models import expected

T = TypeVar("T")
FREEZE_S = 0.4


def with_client(address: str, use: Callable[[Client], Awaitable[T]], model: str = "digits") -> T:
    async def run() -> T:
        async with asyncio.timeout(DEADLINE_S), session() as http:
            return await use(Client(address, model, http))

    return asyncio.run(run())


async def within_the_deadline(awaited: Awaitable[T]) -> T:
    async with asyncio.timeout(DEADLINE_S):
        return await awaited


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the machine pass for quiet: other tests are at work on it."""
    monkeypatch.setattr(quiet, "disturbance", lambda *_: "")


@pytest.fixture
def requests(images: np.ndarray) -> Sequence[Encoded]:
    return [encode_request({"image": images[index : index + 1]}) for index in range(8)]


def first(count: int, kind: str, rate: float, seed: int) -> list[float]:
    return list(itertools.islice(arrivals(kind, rate, seed), count))


@given(st.integers(1, 200), st.floats(0.1, 1e4), st.integers(0, 2**32 - 1), st.sampled_from(["poisson", "constant"]))
def test_arrivals_are_in_order_and_the_same_for_the_same_seed(count: int, rate: float, seed: int, kind: str) -> None:
    drawn = first(count, kind, rate, seed)
    assert drawn == sorted(drawn)
    assert drawn[0] >= 0
    assert drawn == first(count, kind, rate, seed)


def test_another_seed_draws_other_arrivals() -> None:
    assert first(5, "poisson", 10, 0) != first(5, "poisson", 10, 1)


@pytest.mark.parametrize("seed", range(3))
def test_poisson_arrivals_have_their_rate_and_its_spread(seed: int) -> None:
    count, rate = 20_000, 50.0
    gaps = np.diff(first(count, "poisson", rate, seed), prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / rate, rel=5 / math.sqrt(count))
    assert gaps.std() == pytest.approx(1 / rate, rel=0.05)
    # No memory: of the gaps over one mean, those over two are as frequent as those over one are of all.
    assert (gaps > 1 / rate).mean() == pytest.approx(math.exp(-1), abs=0.02)
    assert (gaps > 2 / rate).mean() == pytest.approx(math.exp(-2), abs=0.02)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert first(3, "constant", 4, 0) == pytest.approx([0.25, 0.5, 0.75])


def test_a_freeze_of_the_server_shows_in_the_tail_and_not_in_the_median(
    server: ServerProcess, requests: Sequence[Encoded]
) -> None:
    assert server.process is not None
    pid = server.process.pid

    async def use(client: Client) -> Sent:
        await client.ask(requests[0])
        asyncio.get_running_loop().call_later(0.5, os.kill, pid, signal.SIGSTOP)
        waking = threading.Timer(0.5 + FREEZE_S, os.kill, (pid, signal.SIGCONT))
        waking.start()
        try:
            return await client.open_loop(requests, arrivals("poisson", 100, 0), Amount(200))
        finally:
            waking.join()

    try:
        sent = with_client(server.address, use)
    finally:
        os.kill(pid, signal.SIGCONT)
    latencies = np.array(sent.latencies_s)
    assert sent.failures == {}
    assert len(latencies) == 200
    assert np.quantile(latencies, 0.99) > FREEZE_S / 2
    # Each that was due in the freeze counts from when it was due: a fifth of them all, not one a connection.
    assert (latencies > FREEZE_S / 4).sum() >= 15
    assert np.median(latencies) < FREEZE_S / 4


def test_a_stall_of_the_client_counts_too_and_is_told(server: ServerProcess, requests: Sequence[Encoded]) -> None:
    async def use(client: Client) -> Sent:
        asyncio.get_running_loop().call_later(0.1, time.sleep, FREEZE_S)  # holds up the client's own loop
        return await client.open_loop(requests, arrivals("constant", 100, 0), Amount(50))

    sent = with_client(server.address, use)
    assert max(sent.lags_s) > FREEZE_S / 2
    assert all(latency >= lag for latency, lag in zip(sent.latencies_s, sent.lags_s, strict=True))
    assert "fell behind its own schedule" in sent.doubt


def test_each_request_of_the_schedule_is_sent_once(server: ServerProcess, requests: Sequence[Encoded]) -> None:
    before = scrape(server)["samples_total"]
    sent = with_client(
        server.address, lambda client: client.open_loop(requests, arrivals("constant", 200, 0), Amount(50))
    )
    assert scrape(server)["samples_total"] == before + 50
    assert len(sent.latencies_s) == len(sent.lags_s) == 50
    assert all(math.isfinite(latency) and latency > 0 for latency in sent.latencies_s)
    assert all(lag >= 0 for lag in sent.lags_s)


def test_requests_that_fail_are_infinitely_late_and_counted_by_reason(
    server: ServerProcess, requests: Sequence[Encoded]
) -> None:
    mixed = [requests[0], Encoded(b"{}"), requests[1], Encoded(b"[]")]
    sent = with_client(server.address, lambda client: client.open_loop(mixed, arrivals("constant", 200, 0), Amount(12)))
    assert [math.isinf(latency) for latency in sent.latencies_s] == [False, True] * 6
    assert sorted(sent.failures.values()) == [3, 3]
    assert all(reason.startswith('400: {"error":"expected ') for reason in sent.failures)


def test_a_server_that_is_not_there_fails_every_request(requests: Sequence[Encoded]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can come to answer here
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        sent = with_client(address, lambda client: client.open_loop(requests, arrivals("constant", 1000, 0), Amount(5)))
    assert sent.latencies_s == (math.inf,) * 5
    assert sum(sent.failures.values()) == 5


def test_an_answer_that_is_cut_off_is_a_failure(requests: Sequence[Encoded]) -> None:
    async def cut_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")
        await writer.drain()
        writer.close()

    async def run() -> Sent:
        async with (
            asyncio.timeout(DEADLINE_S),
            await asyncio.start_server(cut_off, "127.0.0.1", 0) as listening,
            session() as http,
        ):
            host, port = listening.sockets[0].getsockname()
            client = Client(f"http://{host}:{port}", "digits", http)
            return await client.open_loop(requests, arrivals("constant", 1000, 0), Amount(3))

    sent = asyncio.run(run())
    assert sent.latencies_s == (math.inf,) * 3
    assert sum(sent.failures.values()) == 3


def test_the_closed_loop_gives_a_rate_for_each_block(server: ServerProcess, requests: Sequence[Encoded]) -> None:
    before = scrape(server)["samples_total"]
    busy = with_client(server.address, lambda client: client.closed_loop(requests, 4, 3))
    answered = scrape(server)["samples_total"] - before
    assert busy.failures == {}
    assert len(busy.rates) + len(busy.disturbed) >= 3
    assert all(rate > 0 for rate in busy.rates)
    assert BLOCK_S * sum(busy.rates) <= 1.5 * answered


@pytest.mark.parametrize(("batch_s", "spread_s"), [(0.04, 0.0), (0.1, 0.0), (0.25, 0.0), (0.1, 0.03), (0.25, 0.03)])
def test_a_server_that_answers_in_batches_has_the_rate_it_has(
    batch_s: float, spread_s: float, requests: Sequence[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many whole batches fall into a block, and however long their answers take to come in."""
    batch, done_at = 4, []

    async def run() -> Sustained:
        async with session() as http:
            client, waiting = Client("http://none", "digits", http), asyncio.Queue[asyncio.Future[None]]()

            async def ask(_: Encoded) -> None:
                answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                waiting.put_nowait(answer)
                await answer

            async def serve() -> None:
                while True:
                    answers = [await waiting.get()]
                    answers += [waiting.get_nowait() for _ in range(min(batch - 1, waiting.qsize()))]
                    await asyncio.sleep(batch_s - spread_s)
                    done_at.append(time.perf_counter())
                    for answer in answers:
                        await asyncio.sleep(spread_s / batch)
                        answer.set_result(None)

            monkeypatch.setattr(client, "ask", ask)
            server = asyncio.create_task(serve())
            busy = await client.closed_loop(requests, 2 * batch, 8)
            server.cancel()
            return busy

    busy = asyncio.run(within_the_deadline(run()))
    true = batch / np.median(np.diff(done_at))
    assert np.mean(busy.rates) == pytest.approx(true, rel=0.15)
    assert max(busy.rates) < 1.5 * min(busy.rates)


def test_a_stall_counts_for_as_long_as_it_lasts_and_once(
    requests: Sequence[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second without an answer, again and again: the server is as slow as it is, on average over time."""
    answered, began, ended = 0, time.perf_counter(), 0.0

    async def run() -> Sustained:
        async with session() as http:
            client = Client("http://none", "digits", http)

            async def ask(_: Encoded) -> None:
                nonlocal answered, ended
                now = time.perf_counter() - began
                await asyncio.sleep(0.01 if now % 1.0 < 0.5 else 1.01 - now % 1.0)
                answered, ended = answered + 1, time.perf_counter()

            monkeypatch.setattr(client, "ask", ask)
            return await client.closed_loop(requests, 2, 26)

    busy = asyncio.run(within_the_deadline(run()))
    true = answered / (ended - began)
    assert np.mean(busy.rates) == pytest.approx(true, rel=0.25)


def test_a_server_that_hangs_is_given_up(requests: Sequence[Encoded], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "TIMEOUT_S", 0.4)

    async def run() -> Sustained:
        async with session() as http:
            client = Client("http://none", "digits", http)
            answers = iter(range(50))

            async def ask(_: Encoded) -> None:
                await asyncio.sleep(0.02 if next(answers, None) is not None else 1.5)

            monkeypatch.setattr(client, "ask", ask)
            return await client.closed_loop(requests, 2, 200)

    rates = asyncio.run(within_the_deadline(run())).rates
    assert len(rates) < 20
    assert rates[-1] < rates[0] / 2


def test_the_closed_loop_ends_as_soon_as_it_is_enough(server: ServerProcess, requests: Sequence[Encoded]) -> None:
    busy = with_client(
        server.address, lambda client: client.closed_loop(requests, 4, 50, lambda rates: len(rates) == 2)
    )
    assert len(busy.rates) == 2


def test_the_closed_loop_counts_failures_and_not_as_answers(server: ServerProcess) -> None:
    busy = with_client(server.address, lambda client: client.closed_loop([Encoded(b"{}")], 2, 2))
    assert set(busy.rates) <= {0.0}
    assert sum(busy.failures.values()) > 0


def test_a_load_ends_as_soon_as_it_is_enough(server: ServerProcess, requests: Sequence[Encoded]) -> None:
    seen: list[int] = []

    def enough(sent: Sent) -> bool:
        seen.append(len(sent.latencies_s))
        return len(sent.latencies_s) >= 20

    before = scrape(server)["samples_total"]
    sent = with_client(
        server.address, lambda client: client.open_loop(requests, arrivals("constant", 100, 0), Amount(1000, enough))
    )
    assert 20 <= len(sent.latencies_s) < 200
    assert seen == sorted(seen)
    assert scrape(server)["samples_total"] - before >= len(sent.latencies_s)


def test_a_load_lasts_at_least_as_long_as_it_is_asked_to(server: ServerProcess, requests: Sequence[Encoded]) -> None:
    amount = Amount(1000, lambda _: True, least_s=0.5)
    sent = with_client(server.address, lambda client: client.open_loop(requests, arrivals("constant", 100, 0), amount))
    assert len(sent.latencies_s) >= 45


def test_it_sends_more_than_the_most_where_it_has_to_last(server: ServerProcess, requests: Sequence[Encoded]) -> None:
    amount = Amount(10, least_s=0.5)
    sent = with_client(server.address, lambda client: client.open_loop(requests, arrivals("constant", 100, 0), amount))
    assert 45 <= len(sent.latencies_s) <= 60
    stream = with_client(server.address, lambda client: client.one_by_one(requests, 1, amount))
    assert sum(stream.latencies_s) >= 0.4


def test_what_was_sent_while_the_machine_was_disturbed_is_sent_again(
    server: ServerProcess, requests: Sequence[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter(["another program", "another program"])
    monkeypatch.setattr(quiet, "disturbance", lambda *_: next(told, ""))
    monkeypatch.setattr(load, "STRETCH_S", 0.1)
    before = scrape(server)["samples_total"]
    sent = with_client(
        server.address, lambda client: client.open_loop(requests, arrivals("constant", 100, 0), Amount(40))
    )
    assert sent.disturbed == ("another program",) * 2
    assert len(sent.latencies_s) == 40
    assert scrape(server)["samples_total"] - before >= 55


def test_a_load_too_fast_for_a_pause_is_looked_at_all_the_same(
    server: ServerProcess, requests: Sequence[Encoded]
) -> None:
    amount = Amount(5000, lambda sent: len(sent.latencies_s) >= 100)
    sent = with_client(server.address, lambda client: client.open_loop(requests, arrivals("constant", 900, 0), amount))
    assert len(sent.latencies_s) < 5000


def test_a_machine_that_is_never_quiet_ends_the_load_all_the_same(
    server: ServerProcess, requests: Sequence[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "disturbance", lambda *_: "another program")
    sent = with_client(
        server.address, lambda client: client.open_loop(requests, arrivals("constant", 200, 0), Amount(10))
    )
    assert sent.latencies_s == ()
    assert sent.disturbed
    assert sent.doubt == ""
    busy = with_client(server.address, lambda client: client.closed_loop(requests, 2, 1))
    assert busy == Sustained((), {}, ("another program",) * 3)


@pytest.mark.parametrize("together", [1, 8])
def test_a_stream_sends_one_query_after_the_other(
    server: ServerProcess, requests: Sequence[Encoded], together: int
) -> None:
    before = scrape(server)["samples_total"]
    sent = with_client(server.address, lambda client: client.one_by_one(requests, together, Amount(10)))
    assert len(sent.latencies_s) == 10
    assert all(0 < latency < math.inf for latency in sent.latencies_s)
    assert scrape(server)["samples_total"] - before == 10 * together


def test_a_server_is_warm_once_its_latency_is_steady(server: ServerProcess, requests: Sequence[Encoded]) -> None:
    warm = with_client(server.address, lambda client: client.warm_up(requests, 400))
    assert 150 <= warm.requests <= 1000


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


def test_a_load_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = LoadReport(
        latencies_s=(0.001, math.inf, 0.1 + 0.2),
        schedule="3 requests",
        requests_per_s=(100.5, 99.0),
        saturation="4 at once",
        failed=1,
        failures="1 x 503",
        disturbed=("another program",),
        largest_difference=1e-7,
        cold_start_s=2.5,
        peak_memory_bytes=1e8,
        recompilations=0,
        machine=Conditions(0.01, 0.0, (0.5, 1.25), (2.5e9, 2.4e9)),
    )
    report.write({"int8": written, "trained": LoadReport()}, tmp_path)
    assert report.read(tmp_path) == {"int8": written, "trained": LoadReport()}
