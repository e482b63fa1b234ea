"""How each of MLPerf's scenarios asks a server; in virtual time."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from deploycheck.language.spec import Load
from deploycheck.serving import scenarios
from deploycheck.serving.protocol import Encoded
from deploycheck.serving.responses import Budget, Responses
from deploycheck.serving.scenarios import SCENARIOS, Scenario
from tests.serving.virtual_time import VirtualClock, generate

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
LOAD = Load(arrivals="constant", rate="10 /s", seed=3)
REQUESTS = [Encoded(b"%d" % index) for index in range(16)]


def sent(scenario: Scenario, count: int, load: Load = LOAD, turn: int = 0) -> tuple[Responses, list[float]]:
    """Have a scenario send to a server that takes half a second; return the responses, and when each request left."""
    left: list[float] = []

    async def answer(clock: VirtualClock, _: Encoded) -> str:
        left.append(clock())
        await asyncio.sleep(0.5)
        return ""

    budget = Budget(count)
    return generate(answer, lambda generator: scenario.send(generator, REQUESTS, load, budget, turn)), left


def test_there_are_mlperfs_four() -> None:
    assert list(BY_NAME) == ["server", "single_stream", "multi_stream", "offline"]
    assert all(isinstance(scenario, Scenario) for scenario in SCENARIOS)


def test_only_the_server_scenario_has_arrivals_and_a_rate() -> None:
    assert BY_NAME["server"].fields == {"arrivals", "rate"}
    assert all(not scenario.fields for scenario in SCENARIOS if scenario.name != "server")


def test_a_server_is_asked_on_the_schedule_whether_or_not_it_has_answered() -> None:
    responses, left = sent(BY_NAME["server"], 20)
    assert np.diff(left) == pytest.approx([0.1] * 19)
    assert responses.latencies_s == pytest.approx([0.5] * 20)


def test_each_turn_draws_other_arrivals_and_the_same_turn_the_same() -> None:
    poisson = Load(arrivals="poisson", rate="10 /s", seed=3)
    first, again, other = (sent(BY_NAME["server"], 5, poisson, turn)[1] for turn in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("name", "together"), [("single_stream", 1), ("multi_stream", 8)])
def test_a_stream_is_asked_once_it_has_answered(name: str, together: int) -> None:
    responses, left = sent(BY_NAME[name], 4)
    assert responses.latencies_s == pytest.approx([0.5] * 4)
    assert left == pytest.approx(sorted([0.0, 0.5, 1.0, 1.5] * together))


def test_offline_nothing_arrives() -> None:
    responses, left = sent(BY_NAME["offline"], 4)
    assert responses == Responses()
    assert left == []


@pytest.mark.parametrize(
    ("name", "schedule", "saturation"),
    [
        ("server", "40 requests, constant arrivals at 10 /s", "8 requests"),
        ("single_stream", "40 requests, one after the other", "8 requests"),
        ("multi_stream", "40 queries of 8 requests, one query after the other", "8 requests"),
        ("offline", "all samples at once", "batches of all samples"),
    ],
)
def test_a_scenario_describes_itself(name: str, schedule: str, saturation: str) -> None:
    assert BY_NAME[name].schedule(LOAD, 40) == schedule
    assert BY_NAME[name].saturation(4) == saturation


def test_a_server_is_kept_busy_by_two_batches_of_single_requests_and_offline_by_whole_batches() -> None:
    for name in ("server", "single_stream", "multi_stream"):
        assert (BY_NAME[name].samples_per_request(32), BY_NAME[name].concurrency(32)) == (1, 64)
    assert (BY_NAME["offline"].samples_per_request(32), BY_NAME["offline"].concurrency(32)) == (32, 4)


def test_a_turn_has_the_requests_of_half_a_second_and_not_too_few() -> None:
    assert BY_NAME["server"].requests_per_turn(Load(rate="1000 /s")) == 500
    assert BY_NAME["server"].requests_per_turn(Load(rate="2 /s")) == scenarios.FEWEST_PER_TURN
    assert BY_NAME["single_stream"].requests_per_turn(LOAD) == scenarios.QUERIES_PER_TURN
    assert BY_NAME["offline"].requests_per_turn(LOAD) == 0


def test_the_names_are_read_without_a_client_numpy_or_jax() -> None:
    code = "import sys, deploycheck.serving.scenarios; print({'aiohttp', 'numpy.linalg', 'jax'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
