"""``prune``: weights that become zero, and channels that are cut out.

The arithmetic is in ``stages/pruning.py`` and ``stages/structure.py``, which import JAX.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, StrictStr, model_validator

from deploycheck.language.errors import Mistake, shorten
from deploycheck.language.fields import Positive, Section, Share, mistake, refuse, unique
from deploycheck.stages.methods import Open
from deploycheck.stages.methods.finetuning import Finetune

if TYPE_CHECKING:
    from deploycheck.stages.methods import Builder
    from deploycheck.stages.model import Model
    from deploycheck.stages.pruning import Criterion, Kernels
    from deploycheck.stages.trainer import Trainer

WAYS = ("sparsity", "pattern", "channels", "heads", "layers")
"""The options that say what is pruned; a variant has one of them."""
EXAMPLES = 512
"""On how many training examples the influence of layers is measured, at most."""
PATTERN = r"^[1-9][0-9]?:[1-9][0-9]?$"


def _check_share(value: float) -> float:
    if value == 0:
        raise mistake("0 % prunes nothing")
    if value == 1:
        raise mistake("100 % prunes everything", "give a share below 100 %")
    return value


def _read_layers(value: Any) -> Any:
    if type(value) is int and value >= 1:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return unique("layer")(tuple(value))
    raise mistake(f"expected how many layers, 1 or more, or a list of their names, found {shorten(value)}")


def _check_pattern(value: str) -> str:
    if not re.fullmatch(PATTERN, value):
        raise mistake(f"{value!r} is not a pattern N:M", "2:4 keeps the largest 2 of each 4 consecutive weights")
    kept, of = map(int, value.split(":"))
    if kept == of:
        raise mistake(f"{value} prunes nothing", "kept are N of each M: N must be smaller, as in 2:4")
    if kept > of:
        raise mistake(
            f"{value} keeps more weights than there are", f"kept are N of each M, so you may mean {of}:{kept}"
        )
    return value


Pruned = Annotated[Share, AfterValidator(_check_share)]
Names = Annotated[tuple[StrictStr, ...], Field(min_length=1)]
Layers = Annotated[
    StrictInt | tuple[StrictStr, ...], BeforeValidator(_read_layers, json_schema_input_type=Positive | Names)
]
Pattern = Annotated[StrictStr, AfterValidator(_check_pattern), Field(json_schema_extra={"pattern": PATTERN})]


class PruneOptions(Section):
    """Which weights become zero (``sparsity``, ``pattern``), or what is cut out (``channels``, ``heads``, ``layers``).

    ``layers`` is how many of the layers that a residual connection goes around, or their names.

    ``by: magnitude`` compares weights with all others, or with ``scope: layer`` with those of their own kernel. With
    ``by: energy`` a kernel keeps a number of its largest weights that is proportional to its energy, Σw² / max w².
    """

    sparsity: Pruned | None = None
    by: Literal["magnitude", "energy"] | None = None
    scope: Literal["global", "layer"] | None = None
    pattern: Pattern | None = None
    channels: Pruned | None = None
    heads: Pruned | None = None
    layers: Layers | None = None
    keep: Annotated[tuple[StrictStr, ...], AfterValidator(unique("pattern"))] = ()
    finetune: Finetune | None = None
    schedule: Literal["one-shot", "gradual"] = "one-shot"

    @property
    def looks_inside(self) -> bool:
        """Whether the source's program is looked into: what is pruned are the weights of its products."""
        return True

    @property
    def trains(self) -> bool:
        """Whether the pruned model is trained further, or its layers are chosen on training examples."""
        return self.finetune is not None or isinstance(self.layers, int)

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        ways = [name for name in WAYS if getattr(self, name) is not None]
        if len(ways) != 1:
            found = " and ".join(ways) or "none"
            words = ", ".join(f"`{name}`" for name in WAYS)
            raise mistake(f"one of {words} says what is pruned, found {found}", key=True)
        refuse(self._unfitting())
        return self

    def _unfitting(self) -> list[Mistake]:
        """Return a mistake for each option that doesn't go with the others."""
        if self.sparsity is None:
            given = [name for name in ("by", "scope") if getattr(self, name) is not None]
            given += ["schedule"] if self.schedule == "gradual" else []
            mistakes = [Mistake((name,), f"`{name}` is for `sparsity`", "leave it out", key=True) for name in given]
            if isinstance(self.layers, tuple) and self.keep:
                mistakes.append(Mistake(("keep",), "`layers` says by name what is cut out", "leave it out", key=True))
            return mistakes
        mistakes = []
        if self.by == "energy" and self.scope is not None:
            hint = "the energy decides how much each layer keeps: leave `scope` out"
            mistakes.append(Mistake(("scope",), "`scope` is for `by: magnitude`", hint, key=True))
        if self.schedule == "gradual" and self.finetune is None:
            what = "gradual pruning happens while the model is trained further"
            mistakes.append(Mistake(("schedule",), what, "add `finetune: {epochs: 2}`"))
        return mistakes


class Prune:
    """The least important weights of a model's kernels become zero and stay so, or a part of it is cut out."""

    name = "prune"
    options = PruneOptions
    trains = False

    def choose(self, source: Model, options: PruneOptions, trainer: Trainer | None) -> PruneOptions:
        """Return the options with the names of the layers that are cut out, in place of their number."""
        from deploycheck.stages import layers, pruning

        if not isinstance(options.layers, int):
            return options
        if trainer is None:
            raise ValueError("layers are chosen on a trainer's examples")
        chosen = pruning.choose_kernels(source, options.keep)
        among = layers.layers_within(source, chosen)
        examples = trainer.examples["train"].take(slice(EXAMPLES)).inputs
        names = layers.least_influential(source, examples, options.layers, among)
        return options.model_copy(update={"layers": tuple(names), "keep": ()})

    def compress(self, source: Model, options: PruneOptions, trainer: Trainer | None) -> Model:
        """Return the pruned model; raise ``DeploycheckError`` where there is nothing to prune or too much."""
        from deploycheck.stages import pruning
        from deploycheck.stages.layers import drop_layers
        from deploycheck.stages.structure import CHANNELS, HEADS, cut_model

        options = self.choose(source, options, trainer)
        chosen = pruning.choose_kernels(source, options.keep)
        kernels = pruning.kernels_of(source.params, chosen)
        match options:
            case PruneOptions(schedule="gradual", sparsity=float(share)):
                return _prune_gradually(source, kernels, share, options, trainer)
            case PruneOptions(channels=float(share)):
                return _finetune(cut_model(source, CHANNELS, share, chosen), options, trainer)
            case PruneOptions(heads=float(share)):
                return _finetune(cut_model(source, HEADS, share, chosen), options, trainer)
            case PruneOptions(layers=tuple(names)):
                return _finetune(drop_layers(source, names), options, trainer)
            case PruneOptions(pattern=str(pattern)):
                masks = pruning.pattern_masks(kernels, chosen, *map(int, pattern.split(":")))
            case PruneOptions(sparsity=float(share)):
                masks = _criterion(options)(kernels, share)
        return _finetune(pruning.with_masks(source, masks), options, trainer)

    def structure(self, source: Model, options: PruneOptions, build: Builder) -> Model:
        """Return the form of the pruned model: zeros change no shape, what is cut out does."""
        from deploycheck.stages.layers import drop_layers
        from deploycheck.stages.pruning import choose_kernels
        from deploycheck.stages.structure import CHANNELS, HEADS, cut_form

        del build
        match options:
            case PruneOptions(channels=float(share)):
                return cut_form(source, CHANNELS, share, choose_kernels(source, options.keep))
            case PruneOptions(heads=float(share)):
                return cut_form(source, HEADS, share, choose_kernels(source, options.keep))
            case PruneOptions(layers=tuple(names)):
                return drop_layers(source, names)
            case PruneOptions(layers=int()):
                raise Open
        return source

    def check(self, source: Model, options: PruneOptions, build: Builder) -> None:
        """Raise ``DeploycheckError`` where there is nothing to prune, or where there aren't so many layers."""
        from deploycheck.stages import layers, pruning

        del build
        chosen = pruning.choose_kernels(source, options.keep)
        if isinstance(options.layers, int):
            layers.check_count(layers.layers_within(source, chosen), options.layers)
        if options.pattern is not None:
            kernels = pruning.kernels_of(source.params, chosen)
            pruning.pattern_kernels(kernels, chosen, int(options.pattern.partition(":")[2]))

    def describe(self, source: Model, result: Model) -> str:
        """Return how many weights are zero, or how many parameters are left, and which layers are gone."""
        from deploycheck.stages.layers import layer_names
        from deploycheck.stages.pruning import count_parameters, describe_zeros

        before, after = count_parameters(source), count_parameters(result)
        if before == after:
            return describe_zeros(result)
        there = layer_names(result)
        gone = ", ".join(name for name in layer_names(source) if name not in there)
        return f"{after:,} of {before:,} parameters are left" + (f", without {gone}" if gone else "")


def _finetune(pruned: Model, options: PruneOptions, trainer: Trainer | None) -> Model:
    from deploycheck.stages.pruning import hold_zeros

    if options.finetune is None or trainer is None:
        return pruned
    recipe = trainer.recipe_for(options.finetune, "prune")
    return trainer.fit(pruned, recipe, constraint=hold_zeros(pruned), name="prune")


def _prune_gradually(
    source: Model, kernels: Kernels, sparsity: float, options: PruneOptions, trainer: Trainer | None
) -> Model:
    import optax

    from deploycheck.stages import pruning

    if trainer is None:
        raise ValueError("gradual pruning needs a trainer")
    # Only the last epoch has the whole sparsity, so it is kept, whatever the spec watches.
    recipe = replace(trainer.recipe_for(options.finetune, "prune"), watch=None)
    more = pruning.prune_gradually(kernels, _criterion(options), sparsity, trainer.steps(recipe))
    pruned = trainer.fit(source, recipe, constraint=optax.chain(pruning.hold_zeros(source), more), name="prune")
    left = pruning.kernels_of(pruned.params, kernels)
    return pruning.with_masks(pruned, {name: kernel != 0 for name, kernel in left.items()})


def _criterion(options: PruneOptions) -> Criterion:
    """Return what says which weights are pruned first."""
    from deploycheck.stages import pruning

    if options.by == "energy":
        return pruning.energy
    return pruning.magnitude_by_layer if options.scope == "layer" else pruning.magnitude


PRUNE = Prune()
