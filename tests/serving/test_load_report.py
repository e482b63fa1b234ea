from __future__ import annotations

import math
from pathlib import Path

from deploycheck.serving import load_report
from deploycheck.serving.load_report import Conditions, Disturbance, LoadReport, joined, summarise


def test_a_load_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = LoadReport(
        latencies_s=(0.001, math.inf, 0.1 + 0.2),
        schedule="3 requests",
        requests_per_s=(100.5, 99.0),
        saturation="4 at once",
        failed=1,
        failures="1 x 503",
        disturbed=(Disturbance(0.2, 1.5, "another program"),),
        disturbed_requests=(True, False, False),
        disturbed_blocks=(False, True),
        largest_difference=1e-7,
        cold_start_s=2.5,
        peak_memory_bytes=1e8,
        recompilations=0,
        machine=Conditions(others=0.01, stolen=0.0, load_average=(0.5, 1.25), frequency_hz=(2.5e9, 2.4e9)),
    )
    load_report.write({"int8": written, "trained": LoadReport()}, tmp_path)
    assert load_report.read(tmp_path) == {"int8": written, "trained": LoadReport()}


def test_many_disturbances_are_given_as_the_first_the_last_and_the_longest() -> None:
    many = joined(Disturbance(at, 0.2 if at < 30 else 2.5, f"at {at}") for at in range(0, 50, 5))
    assert summarise(many) == (
        "first after 0.0 s, for 0.2 s: at 0",
        "last after 45.0 s, for 2.5 s: at 45",
        "longest after 30.0 s, for 2.5 s: at 30",
    )
    assert summarise(many[:1]) == ("first and last and longest after 0.0 s, for 0.2 s: at 0",)
    assert summarise(()) == ()
