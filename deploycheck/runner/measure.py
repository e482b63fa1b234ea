"""The load steps: artifacts served in processes of their own, asked everything the serve checks look at."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploycheck.language.spec import Load, Serve
from deploycheck.runner.goals import ARRIVALS, BUSY, ROUNDS, Goal, all_settled, of_kind
from deploycheck.serving import report
from deploycheck.serving.protocol import Encoded, encode_request, read_signature
from deploycheck.serving.report import LoadReport
from deploycheck.store import Artifact
from deploycheck.verdict import Quotient

if TYPE_CHECKING:
    from deploycheck.serving.load import Client, Sustained
    from deploycheck.serving.taken import Sent

DISTINCT_REQUESTS = 256
"""How many different examples the load is made of; they are encoded beforehand."""
MOST_BLOCKS = 200
MOST_ROUNDS = 60
TURN_S, FEWEST_A_TURN, QUERIES_A_TURN = 0.5, 20, 100
"""How long requests arrive in a turn, how many of them at least, and how many queries where none waits for another."""
SAMPLES_A_QUERY = 8
"""Of a query in the multi-stream scenario (MLPerf Inference rules, section 3)."""
HIGHEST_S = 100
REASONS = 3
PEAK_MEMORY = "deploycheck_process_peak_resident_memory_bytes"


@dataclass(frozen=True)
class Bench:
    """What a load is taken with: the spec's section, the examples that are asked, what to stop at, where to say so."""

    serve: Serve
    inputs: Mapping[str, np.ndarray]
    goals: tuple[Goal, ...]
    runtime: Callable[..., Any]
    scratch: Path
    progress: Callable[[str], None]

    @property
    def options(self) -> list[str]:
        """The server's options."""
        batching = self.serve.batching
        return [f"--max-batch={batching.max_size}", f"--max-delay-ms={batching.max_delay * 1e3:g}"]

    def requests(self) -> list[Encoded]:
        """Return requests of one example each."""
        count = min(DISTINCT_REQUESTS, len(next(iter(self.inputs.values()))))
        return [
            encode_request({key: array[row : row + 1] for key, array in self.inputs.items()}) for row in range(count)
        ]

    def batches(self) -> list[Encoded]:
        """Return requests of a full batch each, as the offline scenario sends them."""
        size = self.serve.batching.max_size
        rows = len(next(iter(self.inputs.values())))
        starts = range(0, max(1, rows - size + 1), size)
        return [encode_request({key: array[at : at + size] for key, array in self.inputs.items()}) for at in starts]

    def start(self, stack: ExitStack, model: Artifact, variant: str) -> Any:
        """Start a server that ends with the stack."""
        import scipy.special  # noqa: F401 - what deciding needs, now: importing it under load would hold up the clock

        self.progress(f"serve: starting {variant}")
        return stack.enter_context(self.runtime(model.path, self.options, self.scratch / f"{variant}.log"))


def measure(variant: str, model: Artifact, in_memory: np.ndarray, bench: Bench, out: Path) -> None:
    """Serve ``model`` and write what that was like into ``out``.

    ``in_memory`` is what the model in memory answers on the examples, ``[n, ...]``. Nothing else should be at
    work on the machine.
    """
    from deploycheck.serving.load import fast_loop

    with ExitStack() as stack:
        server = bench.start(stack, model, variant)
        with asyncio.Runner(loop_factory=fast_loop()) as loop:
            taken = loop.run(
                _ask(server, variant, read_signature(model.file("signature.json")).model, in_memory, bench)
            )
        server.check_alive()
        report.write({variant: taken}, out)


async def _ask(server: Any, variant: str, name: str, in_memory: np.ndarray, bench: Bench) -> LoadReport:
    from deploycheck.serving.load import COMPILATIONS, Client, session
    from deploycheck.serving.quiet import conditions, read

    load = bench.serve.load
    async with session() as http:
        client = Client(server.address, name, http, [server.process.pid])
        before = await client.scrape()
        (served,) = (await client.predict(bench.inputs, bench.serve.batching.max_size)).values()
        warm = await client.warm_up(bench.requests(), load.rate)
        quiet = read(client.processes)
        sent = await _arrivals(client, variant, bench)
        server.check_alive()
        busy = await _busy(client, variant, bench)
        machine = conditions(quiet, read(client.processes))
        after = await client.scrape()
    failed = Counter(sent.failures) + Counter(busy.failures)
    warmed = f"after {warm.requests} to warm up" + ("" if warm.steady else ", not steady by then")
    return LoadReport(
        latencies_s=sent.latencies_s,
        schedule=f"{_schedule(bench.serve, len(sent.latencies_s))}, {warmed}",
        doubt=sent.doubt,
        requests_per_s=_samples_a_request(bench.serve, busy.rates),
        saturation=_saturation(bench.serve, len(busy.rates)),
        failed=failed.total(),
        failures=_failures(failed),
        disturbed=(*sent.disturbed, *busy.disturbed),
        largest_difference=float(np.abs(served.astype(np.float64) - in_memory).max()),
        cold_start_s=server.cold_start_s,
        peak_memory_bytes=after[PEAK_MEMORY],
        recompilations=int(after[COMPILATIONS] - before[COMPILATIONS]),
        histogram=histogram(sent.latencies_s),
        machine=machine,
    )


async def _arrivals(client: Client, variant: str, bench: Bench) -> Sent:
    """Send requests as the scenario has them arrive, until the checks on them are decided."""
    from deploycheck.serving.load import arrivals
    from deploycheck.serving.taken import Amount, Sent

    load, goals = bench.serve.load, of_kind(bench.goals, ARRIVALS, LoadReport())
    if load.scenario == "offline":
        return Sent((), (), {})
    amount = Amount(load.requests, functools.partial(_decided, goals), load.min_duration)
    bench.progress(f"serve: {variant}, {_schedule(bench.serve, load.requests)} at most")
    requests = bench.requests()
    if load.scenario == "server":
        return await client.open_loop(requests, arrivals(load.arrivals, load.rate, load.seed), amount)
    return await client.one_by_one(requests, _together(bench.serve), amount)


def _decided(goals: tuple[Goal, ...], seen: Sent) -> bool:
    return all_settled(goals, LoadReport(latencies_s=seen.latencies_s, doubt=seen.doubt))


def _together(serve: Serve) -> int:
    return SAMPLES_A_QUERY if serve.load.scenario == "multi_stream" else 1


def _schedule(serve: Serve, count: int) -> str:
    load = serve.load
    match load.scenario:
        case "server":
            return f"{count} requests, {load.arrivals} arrivals at {load.rate:g} /s"
        case "single_stream":
            return f"{count} requests, one after the other"
        case "multi_stream":
            return f"{count} queries of {SAMPLES_A_QUERY} requests, one query after the other"
        case _:
            return "all samples at once"


async def _busy(client: Client, variant: str, bench: Bench) -> Sustained:
    """Keep the server busy, until the checks on its throughput are decided."""
    goals = of_kind(bench.goals, BUSY, LoadReport())
    bench.progress(f"serve: {variant}, kept busy")

    def enough(rates: tuple[float, ...]) -> bool:
        return all_settled(goals, LoadReport(requests_per_s=_samples_a_request(bench.serve, rates)))

    requests, concurrency = _load(bench)
    return await client.closed_loop(requests, concurrency, MOST_BLOCKS if goals else 1, enough)


def _load(bench: Bench) -> tuple[Sequence[Encoded], int]:
    """Return what keeps a server busy: the requests, and how many of them are in flight."""
    if bench.serve.load.scenario == "offline":
        return bench.batches(), 4
    return bench.requests(), 2 * bench.serve.batching.max_size


def _samples_a_request(serve: Serve, rates: tuple[float, ...]) -> tuple[float, ...]:
    """Return requests a second as samples a second, where a request holds a batch of them."""
    each = serve.batching.max_size if serve.load.scenario == "offline" else 1
    return tuple(rate * each for rate in rates)


def _saturation(serve: Serve, blocks: int) -> str:
    from deploycheck.serving.load import BLOCK_S

    what = "batches of all samples" if serve.load.scenario == "offline" else f"{2 * serve.batching.max_size} requests"
    return f"{blocks} blocks of about {BLOCK_S:g} s, {what} kept in flight"


def _failures(failed: Counter[str]) -> str:
    """Return how often requests failed for which reasons, the most frequent ones by name."""
    told = [f"{number} x {reason}" for reason, number in failed.most_common(REASONS)]
    others = failed.total() - sum(number for _, number in failed.most_common(REASONS))
    return "; ".join([*told, f"{others} for other reasons"] if others else told)


def histogram(latencies_s: Iterable[float]) -> str:
    """Return latencies as an HDR histogram of microseconds, to 3 digits, in its V2 encoding: one that merges."""
    from hdrh.histogram import HdrHistogram

    counts = HdrHistogram(1, HIGHEST_S * 1_000_000, 3)
    for latency in latencies_s:
        counts.record_value(max(1, round(min(latency, HIGHEST_S) * 1e6)))
    encoded: bytes = counts.encode()
    return encoded.decode()


# Two served at once, measured in turn


@dataclass
class _Side:
    """One of two that are measured in turn: its client, and what was seen of it so far."""

    variant: str
    client: Client
    latencies: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def report(self) -> LoadReport:
        """Return what was seen so far; the rates of a round are one."""
        return LoadReport(tuple(self.latencies), tuple(self.rounds), requests_per_s=tuple(self.rates))


@dataclass(frozen=True)
class _Turn:
    """What one turn of one side came to; it is whole where a part of it was undisturbed that counts."""

    sent: Sent
    busy: Sustained

    @property
    def is_whole(self) -> bool:
        return bool(self.busy.rates) and (bool(self.sent.latencies_s) or not self.sent.disturbed)


def compare(first: tuple[str, Artifact], second: tuple[str, Artifact], bench: Bench, out: Path) -> None:
    """Serve two models at once and measure them in turn, A B B A; write a report of each into ``out``.

    What the machine does meanwhile it does to both: the ratio of the two is steadier than either.
    """
    from deploycheck.serving.load import fast_loop

    with ExitStack() as stack:
        servers = {name: bench.start(stack, model, name) for name, model in (first, second)}
        models = {name: read_signature(model.file("signature.json")).model for name, model in (first, second)}
        with asyncio.Runner(loop_factory=fast_loop()) as loop:
            taken = loop.run(_take_turns(servers, models, bench))
        for server in servers.values():
            server.check_alive()
        report.write(taken, out)


async def _take_turns(servers: Mapping[str, Any], models: Mapping[str, str], bench: Bench) -> dict[str, LoadReport]:
    from deploycheck.serving.load import COMPILATIONS, Client, session
    from deploycheck.serving.quiet import conditions, disturbance, read

    compared = of_kind(bench.goals, ROUNDS, LoadReport(), LoadReport())
    load = bench.serve.load if _looks_at_latency(compared) else Load(scenario="offline")  # in which nothing arrives
    disturbed: list[str] = []
    processes = [server.process.pid for server in servers.values()]
    async with session() as http:
        a, b = (_Side(name, Client(server.address, models[name], http, processes)) for name, server in servers.items())
        compiled = {side.variant: (await side.client.scrape())[COMPILATIONS] for side in (a, b)}
        for side in (a, b):
            await side.client.warm_up(bench.requests(), bench.serve.load.rate)
        began = read(a.client.processes)
        most = MOST_ROUNDS if compared or not bench.goals else 1
        while len(a.rates) < most and len(disturbed) < 2 * most:
            bench.progress(f"serve: {a.variant} against {b.variant}, round {len(a.rates) + 1} of {most} at most")
            before = read(a.client.processes)
            turns = [(side, await _turn(side.client, load, len(a.rates), bench)) for side in (a, b, b, a)]
            what = disturbance(before, read(a.client.processes))
            for side, turn in turns:
                side.failures.update(turn.sent.failures)
                side.failures.update(turn.busy.failures)
            if what or not all(turn.is_whole for _, turn in turns):
                disturbed.append(what or "a turn was disturbed")
                continue
            for side in (a, b):
                own = [turn for other, turn in turns if other is side]
                seen = [latency for turn in own for latency in turn.sent.latencies_s]
                side.latencies += seen
                side.rounds.append(len(seen))
                side.rates.append(sum(turn.busy.rates[0] for turn in own) / 2)
            is_dead = not all(turn.busy.rates[0] for _, turn in turns)
            if is_dead or all_settled(compared, a.report(), b.report()):
                break
        machine = conditions(began, read(a.client.processes))
        after = {side.variant: await side.client.scrape() for side in (a, b)}
    schedule = f"in turn A B B A, {len(a.rates)} rounds"
    return {
        side.variant: replace(
            side.report(),
            schedule=f"{len(side.latencies)} requests {schedule}",
            saturation=schedule,
            failed=side.failures.total(),
            failures=_failures(side.failures),
            cold_start_s=servers[side.variant].cold_start_s,
            peak_memory_bytes=after[side.variant][PEAK_MEMORY],
            recompilations=int(after[side.variant][COMPILATIONS] - compiled[side.variant]),
            disturbed=tuple(disturbed),
            histogram=histogram(side.latencies),
            machine=machine,
        )
        for side in (a, b)
    }


def requests_a_turn(load: Load) -> int:
    """Return how many requests one of two models is sent before it is the other's turn."""
    return max(FEWEST_A_TURN, round(load.rate * TURN_S)) if load.scenario == "server" else QUERIES_A_TURN


def _looks_at_latency(compared: tuple[Goal, ...]) -> bool:
    """Whether a comparison is of requests on a schedule too; where none is asked for, as for the noise, it is."""
    blank = LoadReport()
    return not compared or any(isinstance(goal.measure(blank, blank).sample, Quotient) for goal in compared)


async def _turn(client: Client, load: Load, seed: int, bench: Bench) -> _Turn:
    """Load one side for a moment: requests on the schedule, then as many as it answers."""
    from deploycheck.serving.load import arrivals
    from deploycheck.serving.taken import Amount, Sent

    amount = Amount(requests_a_turn(load))
    requests, concurrency = _load(bench)
    match load.scenario:
        case "server":
            sent = await client.open_loop(requests, arrivals(load.arrivals, load.rate, load.seed + seed), amount)
        case "offline":
            sent = Sent((), (), {})
        case _:
            sent = await client.one_by_one(requests, _together(bench.serve), amount)
    return _Turn(sent, await client.closed_loop(requests, concurrency, 1))
