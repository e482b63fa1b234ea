"""What a load saw, and which of it counts."""

from __future__ import annotations

import pytest

from deploycheck.serving import quiet
from deploycheck.serving.taken import Amount, Sent, Taken


def test_what_was_on_its_way_while_the_machine_was_disturbed_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(["", "another program", "", ""])
    monkeypatch.setattr(quiet, "disturbance", lambda *_: next(told))
    taken = Taken(Amount(100), ())
    before, across, within, late, later, behind, after = range(7)

    for row in (before, across):
        assert taken.leave() == row
    taken.land(before, 0.1)
    taken.close_stretch()

    taken.leave()
    taken.land(within, 0.2)
    taken.land(across, 0.9)  # it left before the disturbance, and came back in it
    taken.leave()
    taken.leave()
    taken.close_stretch()

    taken.leave()  # behind two that the disturbance left waiting, where there was one before
    assert taken.known().latencies_s == (0.1,)
    for row in (late, later, behind):
        taken.land(row, 0.8)
    taken.close_stretch()

    taken.leave()
    taken.land(after, 0.1)
    assert taken.sent() == Sent((0.1, 0.1), (0.0, 0.0), {}, ("another program",))


def test_it_goes_on_once_no_more_are_waiting_than_before_a_disturbance(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(["", "another program", ""])
    monkeypatch.setattr(quiet, "disturbance", lambda *_: next(told))
    taken = Taken(Amount(100), ())
    held = [taken.leave() for _ in range(3)]  # three are on their way all the time
    taken.close_stretch()
    piled = [taken.leave() for _ in range(2)]
    taken.close_stretch()
    behind = taken.leave()
    for row in (*held, *piled):
        taken.land(row, 5.0)
    fine = [taken.leave() for _ in range(3)]
    for row in (behind, *fine):
        taken.land(row, 0.1)
    assert taken.sent().latencies_s == (0.1,) * 3


def test_a_client_on_time_is_not_in_doubt() -> None:
    assert Sent((0.01,) * 100, (0.0001,) * 100, {}).doubt == ""


def test_a_client_late_by_itself_is_in_doubt() -> None:
    lags = (0.0,) * 95 + (0.1,) * 5
    assert "p99 100.0 ms late, at most 2.0 ms" in Sent((0.01,) * 100, lags, {}).doubt


def test_a_lag_that_is_small_beside_the_latencies_is_no_doubt() -> None:
    assert Sent((1.0,) * 100, (0.05,) * 100, {}).doubt == ""


def test_a_single_late_request_in_a_thousand_is_no_doubt() -> None:
    assert Sent((0.01,) * 1000, (0.0,) * 999 + (5.0,), {}).doubt == ""


def test_a_load_that_began_in_a_disturbance_goes_on_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(["another program", "", ""])
    monkeypatch.setattr(quiet, "disturbance", lambda *_: next(told))
    taken = Taken(Amount(100), ())
    for _ in range(3):
        taken.leave()
    taken.close_stretch()
    fine = [taken.leave() for _ in range(5)]  # how many wait on a quiet machine isn't known yet
    for row in (*range(3), *fine):
        taken.land(row, 0.1)
    taken.close_stretch()
    assert taken.sent().latencies_s == (0.1,) * 5
