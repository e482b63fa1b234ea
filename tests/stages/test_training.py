from __future__ import annotations

from pathlib import Path

from deploycheck.stages import training
from deploycheck.stages.training import Epoch, SeedReport, TrainingReport

REPORT = TrainingReport(
    (
        SeedReport(4, (Epoch(1.0, 0.9, {"accuracy": 0.5}), Epoch(0.5, 0.8, {"accuracy": 0.75})), 1),
        SeedReport(7, (Epoch(1.0, 0.7, {"accuracy": 0.9}), Epoch(0.1, 2.0, {"accuracy": 0.6})), 0),
    ),
    7,
)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    training.write(REPORT, tmp_path)
    assert training.read(tmp_path) == REPORT


def test_the_deployed_run_is_that_of_the_deployed_seed() -> None:
    assert REPORT.deployed is REPORT.seeds[1]
    assert REPORT.deployed.kept_epoch.scores == {"accuracy": 0.9}


def test_the_spread_is_from_the_worst_kept_epoch_to_the_best() -> None:
    assert REPORT.spread == "seed 7 of 2, from accuracy 75.0% to accuracy 90.0% on validation"


def test_one_seed_has_no_spread() -> None:
    assert TrainingReport(REPORT.seeds[:1], 4).spread == "seed 4"


def test_epochs_are_ranked_by_scores_before_loss() -> None:
    accurate, sure = Epoch(0, 2.0, {"accuracy": 0.9}), Epoch(0, 0.1, {"accuracy": 0.8})
    assert accurate.merit > sure.merit
    assert Epoch(0, 0.1, {"accuracy": 0.8}).merit > Epoch(0, 0.2, {"accuracy": 0.8}).merit


def test_without_scores_the_lower_loss_is_better_and_is_what_is_shown() -> None:
    assert Epoch(0, 1.0, {}).merit > Epoch(0, 2.0, {}).merit
    assert Epoch(0, 0.12345, {}).validation == "a loss of 0.1235"
