"""Two artifacts, served at once and measured in turn.

Whatever the machine does meanwhile affects both: their ratio is steadier than either.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploycheck.serving import load_report, scenarios
from deploycheck.serving.bench import Bench, describe_failures, histogram, model_name, processes_of
from deploycheck.serving.client import PEAK_MEMORY, Client, fast_loop, session
from deploycheck.serving.goals import REQUEST_SAMPLES, THROUGHPUT_SAMPLES, Goal, all_decided, goals_on
from deploycheck.serving.load import LoadGenerator
from deploycheck.serving.load_report import Disturbance, LoadReport
from deploycheck.serving.machine_state import conditions, read
from deploycheck.serving.process import ServerProcess
from deploycheck.serving.responses import Budget, Responses
from deploycheck.serving.throughput import Throughput
from deploycheck.store import Artifact

MOST_DISTURBED = 20
"""A machine that disturbs this many rounds, and two of three, is too busy to compare two models on it."""


@dataclass(kw_only=True)
class Side:
    """One of the two: its server, what sends requests to it, and what was seen of it so far."""

    variant: str
    server: ServerProcess
    client: Client
    generator: LoadGenerator
    compiled: float = 0.0
    latencies: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    lasted_s: float = 0.0
    busy_s: float = 0.0
    sent: int = 0

    def report(self) -> LoadReport:
        """Return what was seen so far."""
        return LoadReport(
            latencies_s=tuple(self.latencies), rounds=tuple(self.rounds), requests_per_s=tuple(self.rates)
        )


@dataclass(frozen=True)
class _Turn:
    """What was seen in one turn of one side."""

    responses: Responses
    throughput: Throughput

    @property
    def is_whole(self) -> bool:
        """Whether each part of it has something that counts, because it was undisturbed.

        A disturbance may slow one of the two more than the other, so what it slowed can't even pass.
        """
        is_asked = not self.responses.disturbed or bool(self.responses.undisturbed().latencies_s)
        return is_asked and not any(self.throughput.marks)


def compare(first: tuple[str, Artifact], second: tuple[str, Artifact], bench: Bench, out: Path) -> None:
    """Serve two artifacts at once and measure them in turn, A B B A; write a report of each into ``out``.

    Each is given with its name in the reports. Requests on the scenario's schedule are sent only where a check
    needs them, or where there are no checks at all. Raises ``ServerFailed`` where a server does not start, or dies.
    """
    with ExitStack() as stack:
        servers = [bench.start(stack, artifact, name) for name, artifact in (first, second)]
        with asyncio.Runner(loop_factory=fast_loop()) as loop:
            reports = loop.run(_compare((first, second), servers, bench))
        for server in servers:
            server.check_alive()
        load_report.write(reports, out)


async def _compare(
    named: tuple[tuple[str, Artifact], ...], servers: list[ServerProcess], bench: Bench
) -> dict[str, LoadReport]:
    processes = processes_of(servers)
    async with session() as http:
        sides: list[Side] = []
        for (variant, artifact), server in zip(named, servers, strict=True):
            client = Client(server.address, model_name(artifact), http)
            generator = bench.generator(client, servers)
            compiled = await client.compilations()
            sides.append(Side(variant=variant, server=server, client=client, generator=generator, compiled=compiled))
            await bench.warm_up(variant, client, generator)
        before = read(processes)
        disturbed = await take_rounds(sides[0], sides[1], bench)
        after = read(processes)
        machine = conditions(before, after)
        return {side.variant: replace(await _finish(side, disturbed), machine=machine) for side in sides}


async def take_rounds(a: Side, b: Side, bench: Bench) -> list[Disturbance]:
    """Measure A B B A until every check is decided; return what disturbed rounds, which were repeated.

    It ends early where ``MOST_DISTURBED`` rounds were disturbed and fewer than half as many were not.
    """
    goals = goals_on(bench.goals, REQUEST_SAMPLES + THROUGHPUT_SAMPLES)
    most = scenarios.MOST_ROUNDS if goals or not bench.goals else 1
    disturbed: list[Disturbance] = []
    disturbance = a.generator.watch()
    clock = a.generator.clock
    began = clock()
    while len(a.rates) < most and len(disturbed) < max(min(MOST_DISTURBED, 2 * most), 2 * len(a.rates)):
        round_began = clock()
        bench.progress(f"serve: {a.variant} against {b.variant}, round {len(a.rates) + 1} of {most} at most")
        disturbance()  # begins the round
        turns = [(side, await _take_turn(side, goals, len(a.rates), bench)) for side in (a, b, b, a)]
        found = disturbance()
        for side, turn in turns:
            side.failures.update(turn.responses.failures)
            side.failures.update(turn.throughput.failures)
            side.sent += turn.responses.sent + turn.throughput.asked
        if found or not all(turn.is_whole for _, turn in turns):
            what = found or "a turn was disturbed"
            disturbed.append(Disturbance(round_began - began, clock() - round_began, what))
            continue
        for side in (a, b):
            _add_round(side, [turn for other, turn in turns if other is side])
        is_dead = not all(turn.throughput.rates[0] for _, turn in turns)
        if is_dead or all_decided(goals, a.report(), b.report()):
            break
    return disturbed


async def _take_turn(side: Side, goals: tuple[Goal, ...], turn: int, bench: Bench) -> _Turn:
    """Load one side for a moment: requests on the schedule if a check is on them, then as many as it answers."""
    responses = Responses()
    if not goals or goals_on(goals, REQUEST_SAMPLES):
        budget = Budget(bench.scenario.requests_per_turn(bench.load))
        responses = await bench.scenario.send(side.generator, bench.requests(), bench.load, budget, turn)
    return _Turn(responses, await side.generator.closed_loop(bench.busy_requests(), bench.concurrency, 1))


def _add_round(side: Side, turns: list[_Turn]) -> None:
    """Add a side's turns of a round to what was seen of it: all latencies, the mean of the rates, and the seconds."""
    latencies = [latency for turn in turns for latency in turn.responses.undisturbed().latencies_s]
    side.latencies += latencies
    side.rounds.append(len(latencies))
    side.rates.append(sum(turn.throughput.rates[0] for turn in turns) / len(turns))
    side.lasted_s += sum(turn.responses.lasted_s for turn in turns)
    side.busy_s += sum(turn.throughput.lasted_s for turn in turns)


async def _finish(side: Side, disturbed: list[Disturbance]) -> LoadReport:
    """Return the whole report of a side."""
    metrics = await side.client.scrape()
    rounds = f"in turn A B B A, {len(side.rates)} rounds"
    return replace(
        side.report(),
        schedule=f"{len(side.latencies)} requests {rounds}, over {side.lasted_s:.1f} s",
        saturation=f"{rounds}, over {side.busy_s:.1f} s",
        sent=side.sent,
        failed=side.failures.total(),
        failures=describe_failures(side.failures),
        cold_start_s=side.server.cold_start_s,
        disturbed_start=side.server.disturbed_start,
        lasted_s=side.lasted_s,
        busy_s=side.busy_s,
        peak_memory_bytes=metrics[PEAK_MEMORY],
        recompilations=int(await side.client.compilations() - side.compiled),
        disturbed=tuple(disturbed),
        histogram=histogram(side.latencies),
    )
