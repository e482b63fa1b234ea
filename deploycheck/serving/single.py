"""One artifact, served in a separate process and measured under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploycheck.serving import load_report
from deploycheck.serving.bench import Bench, describe_failures, histogram, model_name, processes_of
from deploycheck.serving.client import PEAK_MEMORY, Client, fast_loop, session
from deploycheck.serving.goals import REQUEST_SAMPLES, THROUGHPUT_SAMPLES, TIMED_SAMPLES, all_decided, goals_on
from deploycheck.serving.load import LoadGenerator, WarmUp
from deploycheck.serving.load_report import LoadReport
from deploycheck.serving.machine_state import conditions, read
from deploycheck.serving.process import ServerProcess
from deploycheck.serving.responses import Budget, Responses
from deploycheck.serving.throughput import BLOCK_S, Throughput
from deploycheck.store import Artifact

MOST_BLOCKS = 200
FEW_REQUESTS = 100
"""The requests of a load whose checks need no number of them: they only count what fails."""


def measure(variant: str, artifact: Artifact, in_memory: Mapping[str, np.ndarray], bench: Bench, out: Path) -> None:
    """Serve ``artifact``, measure it under load, and write the report into ``out``.

    ``in_memory`` is what the model in memory answers on the examples, ``[n, ...]`` by output name. Nothing else
    should be at work on the machine. Raises ``ServerFailed`` where the server doesn't start, or dies.
    """
    with ExitStack() as stack:
        server = bench.start(stack, artifact, variant)
        with asyncio.Runner(loop_factory=fast_loop()) as loop:
            report = loop.run(_measure(server, variant, model_name(artifact), in_memory, bench))
        server.check_alive()
        load_report.write({variant: report}, out)


async def _measure(
    server: ServerProcess, variant: str, model: str, in_memory: Mapping[str, np.ndarray], bench: Bench
) -> LoadReport:
    async with session() as http:
        client = Client(server.address, model, http)
        generator = bench.generator(client, [server])
        compiled = await client.compilations()
        served = await client.predict(bench.inputs, bench.serve.batching.max_size)
        warmed = await bench.warm_up(variant, client, generator)
        before = read(processes_of([server]))
        responses = await send_requests(generator, variant, bench)
        server.check_alive()
        throughput = await keep_busy(generator, variant, bench)
        after = read(processes_of([server]))
        metrics = await client.scrape()
        recompilations = int(await client.compilations() - compiled)
    failed = Counter(responses.failures) + Counter(throughput.failures)
    max_size = bench.serve.batching.max_size
    blocks = f"{len(throughput.rates)} blocks of about {BLOCK_S:g} s, over {throughput.lasted_s:.1f} s"
    schedule = bench.scenario.schedule(bench.load, len(responses.latencies_s))
    over = f"over {responses.lasted_s:.1f} s" if responses.latencies_s else ""
    busy = (replace(one, at_s=responses.lasted_s + one.at_s) for one in throughput.disturbed)
    return LoadReport(
        latencies_s=responses.latencies_s,
        schedule=", ".join(filter(None, [schedule, over, _describe(warmed)])),
        doubt=responses.doubt,
        requests_per_s=_samples_per_s(bench, throughput.rates),
        saturation=f"{blocks}, {bench.scenario.saturation(max_size)} kept in flight",
        sent=responses.sent + throughput.asked,
        failed=failed.total(),
        failures=describe_failures(failed),
        disturbed=(*responses.disturbed, *busy),
        disturbed_requests=responses.marks,
        disturbed_blocks=throughput.marks,
        disturbed_start=server.disturbed_start,
        lasted_s=responses.lasted_s,
        busy_s=throughput.lasted_s,
        largest_difference=largest_difference(served, in_memory),
        cold_start_s=server.cold_start_s,
        peak_memory_bytes=metrics[PEAK_MEMORY],
        recompilations=recompilations,
        histogram=histogram(responses.latencies_s),
        machine=conditions(before, after),
    )


def _describe(warmed: WarmUp) -> str:
    if not warmed.requests:
        return ""
    return f"after {warmed.requests} to warm up" + ("" if warmed.steady else ", not steady by then")


def largest_difference(served: Mapping[str, np.ndarray], in_memory: Mapping[str, np.ndarray]) -> float:
    """Return the largest absolute difference over all outputs, ``[n, ...]`` by name."""
    return max(float(np.abs(array.astype(np.float64) - in_memory[name]).max()) for name, array in served.items())


async def send_requests(generator: LoadGenerator, variant: str, bench: Bench) -> Responses:
    """Send requests as the scenario has them arrive, until the checks on them are decided.

    Where no check is on the requests themselves, ``FEW_REQUESTS`` are sent at most. The load's usual length is only for
    checks of latency; a check that counts needs none, unless the spec asks for it.
    """
    goals = goals_on(bench.goals, REQUEST_SAMPLES)

    def enough(seen: Responses) -> bool:
        report = LoadReport(latencies_s=seen.latencies_s, doubt=seen.doubt, disturbed_requests=seen.marks)
        return all_decided(goals, report)

    load = bench.load
    most = load.most_requests if goals else min(FEW_REQUESTS, load.most_requests)
    is_timed = bool(goals_on(goals, TIMED_SAMPLES))
    asked_for = load.min_duration or 0.0
    least_s, undecided_s = (load.least_s, load.undecided_s) if is_timed else (asked_for, asked_for)
    bench.progress(f"serve: {variant}, {bench.scenario.schedule(load, most)} at most")
    budget = Budget(most, enough, least_s, undecided_s)
    return await bench.scenario.send(generator, bench.requests(), load, budget)


async def keep_busy(generator: LoadGenerator, variant: str, bench: Bench) -> Throughput:
    """Keep the server busy, until the checks on its throughput are decided; for one block where there are none."""
    goals = goals_on(bench.goals, THROUGHPUT_SAMPLES)

    def enough(seen: Throughput) -> bool:
        report = LoadReport(requests_per_s=_samples_per_s(bench, seen.rates), disturbed_blocks=seen.marks)
        return all_decided(goals, report)

    bench.progress(f"serve: {variant}, kept busy")
    most = MOST_BLOCKS if goals else 1
    return await generator.closed_loop(bench.busy_requests(), bench.concurrency, most, enough, bench.load.undecided_s)


def _samples_per_s(bench: Bench, rates: tuple[float, ...]) -> tuple[float, ...]:
    """Return requests per second as samples per second."""
    samples = bench.scenario.samples_per_request(bench.serve.batching.max_size)
    return tuple(rate * samples for rate in rates)
