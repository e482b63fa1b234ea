"""The load step: an artifact served in a process of its own, asked everything the serve checks look at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deploycheck.language.spec import Serve
from deploycheck.serving import report
from deploycheck.serving.protocol import encode_request, read_signature
from deploycheck.store import Artifact, Building

WARMUP_REQUESTS = 200
ATTEMPTS = 3
"""How often the load is sent where the client can't keep its own schedule: something else kept the machine busy."""
BLOCKS, BLOCK_S = 10, 0.3
DISTINCT_REQUESTS = 256
"""How many different examples the load is made of; they are encoded beforehand."""


def measure(
    model: Artifact,
    outputs: Artifact,
    data: Artifact,
    serve: Serve,
    runtime: Callable[..., Any],
    building: Building,
    progress: Callable[[str], None],
) -> None:
    """Serve ``model`` and write what that was like into ``building.out``.

    ``outputs`` holds what the model in memory answers on the test split of ``data``. Nothing else should be at
    work on the machine.
    """
    from safetensors.numpy import load_file

    from deploycheck.serving.load import fast_loop
    from deploycheck.stages import examples

    test = examples.read(data.file("test.safetensors"))
    reference = load_file(outputs.file("logits.safetensors"))["in_memory"]
    name = read_signature(model.file("signature.json")).model
    options = [f"--max-batch={serve.batching.max_size}", f"--max-delay-ms={serve.batching.max_delay * 1e3:g}"]
    progress(f"serve: starting {name}")
    with runtime(model.path, options, building.scratch / "server.log") as server:
        with asyncio.Runner(loop_factory=fast_loop()) as loop:
            taken = loop.run(_ask(server, name, test.inputs, reference, serve, progress))
        server.check_alive()
        report.write(taken, building.out)


async def _ask(
    server: Any,
    name: str,
    inputs: Mapping[str, np.ndarray],
    reference: np.ndarray,
    serve: Serve,
    progress: Callable[[str], None],
) -> report.LoadReport:
    from deploycheck.serving.load import Client, Sent, arrivals, session, undisturbed

    count = min(DISTINCT_REQUESTS, len(reference))
    requests = [encode_request({key: array[row : row + 1] for key, array in inputs.items()}) for row in range(count)]
    load = serve.load
    async with session() as http:
        client = Client(server.address, name, http)
        before = await client.scrape()
        served = (await client.predict(inputs, serve.batching.max_size))["logits"]
        await client.open_loop(requests, arrivals("constant", load.rate, WARMUP_REQUESTS, load.seed))
        schedule = arrivals(load.arrivals, load.rate, load.requests, load.seed)

        async def send() -> Sent:
            progress(f"serve: {name}, {schedule.text}, {schedule.seconds[-1]:.0f} s")
            return await client.open_loop(requests, schedule)

        taken = await undisturbed(send, ATTEMPTS)
        server.check_alive()
        concurrency = 2 * serve.batching.max_size
        progress(f"serve: {name}, {concurrency} requests kept in flight, {BLOCKS * BLOCK_S:.0f} s")
        rates, failures = await client.closed_loop(requests, concurrency, BLOCKS, BLOCK_S)
        after = await client.scrape()
    failed = sum((Counter(sent.failures) for sent in taken), Counter(failures))
    compiled = "deploycheck_inference_compilations_total"
    return report.LoadReport(
        latencies_s=taken[-1].latencies_s,
        schedule=schedule.text + (f"; run {len(taken)} times, the client fell behind before" if taken[1:] else ""),
        doubt=taken[-1].doubt,
        requests_per_s=rates,
        saturation=f"{BLOCKS} blocks of {BLOCK_S:g} s, {concurrency} requests kept in flight",
        failed=failed.total(),
        failures="; ".join(f"{number} x {reason}" for reason, number in failed.items()),
        largest_difference=float(np.abs(served.astype(np.float64) - reference).max()),
        cold_start_s=server.cold_start_s,
        peak_memory_bytes=after["deploycheck_process_peak_resident_memory_bytes"],
        recompilations=int(after[compiled] - before[compiled]),
    )
