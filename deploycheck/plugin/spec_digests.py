"""The files that specs were collected from, by digest: all processes of a run must have read the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploycheck.plan import Plan


def file_id_of(plan: Plan) -> str:
    """Return the id of the spec file that a plan is from."""
    return plan.id.partition("::")[0]


def digests_of(plans: Iterable[Plan]) -> dict[str, str]:
    """Return by file id one digest of each spec file and of the standards that it extends, as they were read."""
    return {file_id_of(plan): _digest(plan) for plan in plans}


def _digest(plan: Plan) -> str:
    whole = hashlib.sha256()
    for document in plan.spec.cell.chain:
        whole.update(hashlib.sha256(document.text.encode()).digest())
    return whole.hexdigest()
