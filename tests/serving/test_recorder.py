"""What a load saw, and which of it counts."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from deploycheck.serving.recorder import LoadRecorder
from deploycheck.serving.responses import Budget, Responses
from tests.serving.virtual_time import VirtualClock


def recorder_of(*disturbances: str, budget: Budget | None = None) -> LoadRecorder:
    """Return a recorder that sees these disturbances, one per interval; its clock doesn't move."""
    return LoadRecorder(budget or Budget(100), iter((*disturbances, *[""] * 100)).__next__, VirtualClock())


def finish(recorder: LoadRecorder, rows: Iterable[int], latency: float) -> None:
    """Have these requests, all of which were due at 0, answered after ``latency`` seconds."""
    clock, recorder.clock = recorder.clock, lambda: latency
    for row in rows:
        recorder.finish(row)
    recorder.clock = clock


def test_a_request_counts_from_when_it_was_due_and_its_lag_is_the_clients_own() -> None:
    clock = VirtualClock()
    recorder = LoadRecorder(Budget(10), lambda: "", clock)
    row = recorder.start(due=1.0)
    clock.advance(1.25)
    recorder.leave(row)
    clock.advance(0.5)
    recorder.finish(row)
    assert recorder.responses() == Responses((0.75,), (0.25,), marks=(False,), lasted_s=1.0, sent=1)


def test_a_request_that_fails_is_infinitely_late_and_counted_by_reason() -> None:
    recorder = recorder_of()
    recorder.finish(recorder.start(together=8), "503: busy", "503: busy", "400: bad")
    failures = {"503: busy": 2, "400: bad": 1}
    assert recorder.responses() == Responses((float("inf"),), (0.0,), failures, marks=(False,), sent=8)


def test_of_a_load_that_is_cut_short_all_that_was_sent_is_counted() -> None:
    recorder = recorder_of()
    for _ in range(5):
        recorder.finish(recorder.start(), "503: busy")
    seen = recorder.responses(3)
    assert (len(seen.latencies_s), seen.failures, seen.sent) == (3, {"503: busy": 5}, 5)


def test_what_was_in_flight_while_the_machine_was_disturbed_is_marked() -> None:
    recorder = recorder_of("", "", "another program")
    early, before, across, within, late, later, behind, after = range(8)

    recorder.start()
    finish(recorder, [early], 0.1)
    recorder.end_interval()
    assert [recorder.start(), recorder.start()] == [before, across]
    finish(recorder, [before], 0.1)
    recorder.end_interval()

    recorder.start()
    finish(recorder, [within], 0.2)
    finish(recorder, [across], 0.9)  # it left before the disturbance, and came back in it
    recorder.start()
    recorder.start()
    recorder.end_interval()

    recorder.start()  # behind two that the disturbance left waiting, where there was one before
    assert recorder.known().marks == (False, True, True, True), "the next is still in flight"
    finish(recorder, [late, later, behind], 0.8)
    recorder.end_interval()

    recorder.start()
    finish(recorder, [after], 0.1)
    seen = recorder.responses()
    assert seen.latencies_s == (0.1, 0.1, 0.9, 0.2, 0.8, 0.8, 0.8, 0.1)
    assert seen.marks == (False, *[True] * 6, False), "the intervals before and after it are doubtful too"
    assert [one.what for one in seen.disturbed] == ["another program"]
    assert seen.undisturbed().latencies_s == (0.1, 0.1)


def test_it_goes_on_once_no_more_are_in_flight_than_before_a_disturbance() -> None:
    recorder = recorder_of("", "another program")
    held = [recorder.start() for _ in range(3)]  # three are in flight all the time
    recorder.end_interval()
    piled = [recorder.start() for _ in range(2)]
    recorder.end_interval()
    behind = recorder.start()
    finish(recorder, [*held, *piled], 5.0)
    recorder.end_interval()
    fine = [recorder.start() for _ in range(3)]
    finish(recorder, [behind, *fine], 0.1)
    assert recorder.responses().undisturbed().latencies_s == (0.1,) * 3


def test_a_load_that_began_in_a_disturbance_goes_on_after_it() -> None:
    recorder = recorder_of("another program")
    first = [recorder.start() for _ in range(3)]
    recorder.end_interval()
    finish(recorder, first, 0.1)
    recorder.end_interval()
    fine = [recorder.start() for _ in range(5)]  # how many wait on a quiet machine isn't known yet
    finish(recorder, fine, 0.1)
    recorder.end_interval()
    assert recorder.responses().marks == (True,) * 3 + (False,) * 5


@pytest.mark.parametrize(("sent", "elapsed", "full"), [(9, 5.0, False), (10, 5.0, True), (10, 4.9, False)])
def test_a_budget_is_spent_by_its_number_and_its_time(sent: int, elapsed: float, full: bool) -> None:
    recorder = recorder_of(budget=Budget(10, least_s=5.0))
    for _ in range(sent):
        recorder.start()
    assert recorder.is_full(elapsed) is full


def test_a_machine_that_is_never_quiet_gets_no_more_than_the_budget() -> None:
    recorder = recorder_of(*["another program"] * 30, budget=Budget(10))
    for _ in range(10):
        assert not recorder.is_full(1.0)
        finish(recorder, [recorder.start()], 0.1)
        recorder.end_interval()
    assert recorder.is_full(1.0)
    assert recorder.responses().marks == (True,) * 10


def test_disturbances_that_follow_one_another_are_one() -> None:
    clock = VirtualClock()
    recorder = LoadRecorder(Budget(10), iter(["one program", "another", "", "a third"]).__next__, clock)
    recorder.start()  # in flight all the time
    for _ in range(4):
        clock.advance(0.2)
        recorder.end_interval()
    first, second = recorder.known().disturbed
    assert (first.at_s, first.lasted_s, first.what) == (0.0, pytest.approx(0.4), "another")
    assert (second.at_s, second.lasted_s) == (pytest.approx(0.6), pytest.approx(0.2))


def test_it_is_asked_whether_it_is_enough_of_what_is_known() -> None:
    asked: list[int] = []

    def enough(seen: Responses) -> bool:
        asked.append(len(seen.latencies_s))
        return len(seen.latencies_s) >= 300

    recorder = recorder_of(budget=Budget(1000, enough))
    sent = 0
    while not recorder.is_enough(1.0):
        finish(recorder, [recorder.start()], 0.1)
        sent += 1
    assert 300 <= sent < 400
    assert asked == sorted(asked)
    assert len(asked) < sent / 2, "it is costly: not after each request"


def of_client(latencies_s: tuple[float, ...], lags_s: tuple[float, ...]) -> Responses:
    """Return what was seen on an undisturbed machine."""
    return Responses(latencies_s, lags_s, marks=(False,) * len(lags_s))


def test_a_client_on_time_is_not_in_doubt() -> None:
    assert of_client((0.01,) * 100, (0.0001,) * 100).doubt == ""


def test_a_client_late_by_itself_is_in_doubt() -> None:
    lags = (0.0,) * 95 + (0.1,) * 5
    assert "p99 100.0 ms late, at most 2.0 ms" in of_client((0.01,) * 100, lags).doubt


def test_a_client_that_was_late_only_on_a_disturbed_machine_is_not_in_doubt() -> None:
    marks = (False,) * 95 + (True,) * 5
    assert Responses((0.01,) * 100, (0.0,) * 95 + (0.1,) * 5, marks=marks).doubt == ""


def test_a_lag_that_is_small_beside_the_latencies_is_no_reason_for_doubt() -> None:
    assert of_client((1.0,) * 100, (0.05,) * 100).doubt == ""


def test_a_single_late_request_in_a_thousand_is_no_reason_for_doubt() -> None:
    assert of_client((0.01,) * 1000, (0.0,) * 999 + (5.0,)).doubt == ""
