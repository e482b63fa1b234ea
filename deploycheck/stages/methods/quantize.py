"""``quantize``: numbers with fewer bits. The arithmetic is in ``stages/quantization.py``, which imports JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from deploycheck.language.fields import Section, Share

if TYPE_CHECKING:
    from deploycheck.stages.methods import Builder
    from deploycheck.stages.model import Model
    from deploycheck.stages.trainer import Trainer


class QuantizeOptions(Section):
    """Which numbers are stored and multiplied in fewer bits, and the share of the parameters that must be."""

    weights: Literal["int8"]
    activations: Literal["int8"] | None = None
    at_least: Share = 0.5


class Quantize:
    """Every weight of a matrix product or convolution in int8; activations too, where the options say so."""

    name = "quantize"
    options = QuantizeOptions
    trains = False

    def compress(self, source: Model, options: QuantizeOptions, trainer: Trainer | None) -> Model:
        """Return the model with int8 weights; raise ``DeploycheckError`` where too few can be quantised."""
        from deploycheck.stages.quantization import quantize_weights

        del trainer
        return quantize_weights(source, options)

    def structure(self, source: Model, options: QuantizeOptions, build: Builder) -> Model:
        """Return the form of the quantised model."""
        from deploycheck.stages.quantization import quantized_form

        del build
        return quantized_form(source, options)


QUANTIZE = Quantize()
