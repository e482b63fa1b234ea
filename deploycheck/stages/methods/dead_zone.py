"""``dead_zone``: weights as small integers, of which many are zero. The arithmetic is in ``stages/dead_zone.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StrictInt

from deploycheck.language.fields import Section, Share

if TYPE_CHECKING:
    from deploycheck.stages.methods import Builder
    from deploycheck.stages.model import Model
    from deploycheck.stages.trainer import Trainer


class DeadZoneOptions(Section):
    """``range``: codes are integers of a magnitude below it. ``threshold``: what is less is zero.

    The threshold is a share of an array's largest magnitude. If it is left out, scale and threshold are chosen for
    each array by the least squared error.
    """

    range: Annotated[StrictInt, Field(ge=2, le=2**15)]
    threshold: Annotated[Share, Field(lt=1)] | None = None


class DeadZone:
    """Every weight array of two axes or more as integer codes and one scale; they are multiplied in the program."""

    name = "dead_zone"
    options = DeadZoneOptions
    trains = False

    def compress(self, source: Model, options: DeadZoneOptions, trainer: Trainer | None) -> Model:
        """Return the quantised model; raise ``DeploycheckError`` where there is nothing to quantise."""
        from deploycheck.stages.dead_zone import quantize_with_dead_zone

        del trainer
        return quantize_with_dead_zone(source, levels=options.range, threshold=options.threshold)

    def structure(self, source: Model, options: DeadZoneOptions, build: Builder) -> Model:
        """Return the form of the quantised model."""
        from deploycheck.stages.dead_zone import dead_zone_form

        del build
        return dead_zone_form(source, levels=options.range)

    def describe(self, source: Model, result: Model) -> str:
        """Return how many of the parameters are codes."""
        from deploycheck.stages.quantization import describe_share

        del source
        return describe_share(result.weights)


DEAD_ZONE = DeadZone()
