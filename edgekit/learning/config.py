"""Everything that a training run can be told, in one frozen dataclass.

Precedence: the defaults here < the recipe (``training/recipes/NAME.toml``) < options on the command line. The resolved
configuration is saved beside the checkpoints and inside them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import UsageError
from edgekit.learning.recipe_file import check_entries, read_recipe

PARTS = ("both", "omg", "detector", "head")
SCHEDULES = ("cosine", "steps", "plateau", "plateau-loss")

SCALE_STEP = 64
"""Pixels between the sides of ``multi_scale``: what the mask network needs. PVANet was trained in steps of 32."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    model: str = "mobilenetv2-ssdlite-omg"
    """Registered name."""

    width_multiplier: float = 1.0
    """Channels of a PVANet over those of the published network."""

    token_share: float = 0.0
    """Share of the tokens that a DETR's encoder refines, above 0 to 1 (rho of Sparse DETR); 1 is all of them, without a
    network that scores them, and 0 stands for the model's own."""

    epochs: int = 60
    """Passes over the training pictures."""

    batch_size: int = 32
    """Pictures in a step, over all processes together: the same with 1 process as with 8."""

    sizes: tuple[tuple[float, int], ...] = ((0.0, 320),)
    """(share of the epochs from which it holds, input size). The last is the size that is evaluated and saved."""

    multi_scale: tuple[int, ...] = ()
    """(smallest, largest) side: each batch's is drawn from this range in steps of 64 pixels, whatever ``sizes`` says of
    training; empty for none. Inputs are letterboxed squares, so the side is a picture's *longer* one."""

    optimiser: str = "adamw"
    """``adamw`` or ``sgd`` (momentum .9)."""

    nesterov: bool = True
    """Whether sgd looks ahead (Nesterov's momentum)."""

    learning_rate: float = 1e-3
    """Peak, for the new layers."""

    backbone_rate: float = 0.1
    """Learning rate of layers with starting weights, relative to the others. AdamW moves every weight by about the rate
    a step, whatever its gradient, and so forgets: with .5 a linear classifier on the trunk's features of VOC objects
    fell from 88 % (ImageNet) to 62 %, and AP50 without masks was .42 after 22 epochs; with .1 it was .55 after 15."""

    sampling_rate: float = 0.1
    """Learning rate of the layers of a DETR that say where attention looks, relative to the others; as published."""

    base_batch: int = 0
    """Learning rates are for so many pictures in a step, and go with the root of the batch over it; 0: they are for
    any."""

    bias_rate: float = 1.0
    """Learning rate of a PVANet's biases, relative to its weights; 2 as published."""

    weight_decay: float = 0.05
    """On the weights of convolutions and linear layers."""

    decay_everything: bool = False
    """Weight decay on biases and norms as well, as DETRs are published."""

    schedule: str = "cosine"
    """``cosine``; ``steps``: a tenth after each ``drop_epochs``; ``plateau``: a tenth each time the score has not risen
    for ``plateau_epochs``; ``plateau-loss``: a tenth each time the loss has not fallen for one of the
    ``plateau_windows``."""

    warmup_steps: int = 200
    """Steps of linear warm-up."""

    drop_epochs: int = 40
    """Epochs between the drops of the schedule of steps."""

    plateau_epochs: int = 5
    """Patience of the plateau schedule, in epochs."""

    plateau_windows: tuple[int, ...] = (50000, 75000, 100000)
    """Patience of the plateau-loss schedule before each of its drops, in steps (``edgekit.learning.plateau``)."""

    clip_norm: float = 10.0
    """Largest gradient norm of a step."""

    ema_decay: float = 0.999
    """Exponential average of the weights; the average is what is evaluated and saved."""

    frozen_blocks: int = 6
    """Stem and this many first blocks of a trunk with starting weights stay as they are."""

    freeze_statistics: bool = True
    """Keep the trunk's batch norm statistics from the starting weights (usual when fine-tuning a detector)."""

    parts: str = "both"
    """``both`` networks learn, or only the ``omg`` or the ``detector``, or only the RoI ``head`` of a two-stage
    detector; what does not learn stays as it is."""

    masks: str = "joint"
    """``joint``: the detector learns under the objectness network's own masks; ``apart``: without masks."""

    mask_off_share: float = 0.25
    """Joint: share of pictures shown without a mask, so that one set of weights serves ``--mask off`` too."""

    mask_truth_share: float = 0.25
    """Joint: share of pictures under the dilated mask of their true boxes."""

    mask_warmup: float = 0.25
    """Joint: share of the epochs in which true boxes are added to the objectness network's masks."""

    omg_weight: float = 1.0
    """Weight of the objectness loss; the two networks share no layer, so it only scales a learning rate."""

    teacher: str = ""
    """A YOLOX in ncnn's format (``NAME.param`` beside ``NAME.bin``) whose features the networks learn to predict
    (``edgekit.learning.hints``); empty for none."""

    hint_weight: float = 2.0
    """Weight of the teacher's part of the detector's loss; that part starts near 1 and ends near a half."""

    opinion_weight: float = 0.5
    """Share of the teacher's class scores in what the detector is asked for at a true box; the rest is its label."""

    omg_hint_weight: float = 0.5
    """The same beside the objectness loss, which ends near .2."""

    mask_recall_target: float = 0.985
    """The mask threshold is set so that this share of validation boxes keeps 70 % of its area active."""

    token_answers: int = 1
    """DETR: so many tokens answer for each object before the decoder, whose queries are one for each; 1 as published.
    With more, the heads that choose where queries start learn from few pictures."""

    proposals_before_nms: int = 12000
    """Two-stage: how many of a training picture's best anchors enter suppression."""

    proposals: int = 2000
    """Two-stage: how many leave it at most; the head learns from some of them."""

    rois: int = 128
    """Two-stage: of how many of them, for each picture."""

    augmentation: float = 1.0
    """0 switches geometric augmentation off, 1 is SSD's."""

    mosaic: float = 0.3
    """Share of the pictures put together from parts of four, which shows every object among other neighbours."""

    sparse_scenes: float = 0.3
    """Share of the pictures shrunk onto an object-free part of another one. They teach the objectness network what
    fixed cameras see, at the price of fewer pictures in the style of the data."""

    footage: str = ""
    """Labelled frames of fixed cameras, a data set (``scripts/label_footage.py`` makes one); empty for none."""

    footage_share: float = 0.25
    """Share of the pictures that are scenes of the footage."""

    label_share: float = 1.0
    """Share of the training pictures whose labels are used, above 0 to 1; the seed says which. The others are not seen:
    what a pretraining of their pixels is worth shows when labels are few."""

    cutouts: str = ""
    """A data set in COCO's form with outlines, whose persons and vehicles are pasted into the footage."""

    seed: int = 0
    """Fixes initialisation, order and augmentation."""

    amp: bool = True
    """Mixed precision on a GPU (bfloat16 where it has it, else float16 with loss scaling); CPUs use float32."""

    workers: int = 2
    """Processes that read and augment pictures."""

    evaluate_every: int = 5
    """Epochs between evaluations; the last epoch is always evaluated."""

    early_stop: int = 0
    """Stop after this many evaluations without a better score; 0 never does."""

    save_minutes: float = 5.0
    """Minutes between saves of ``last.pt`` inside an epoch; every epoch's end is saved too."""

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "evaluate_every", "drop_epochs", "token_answers")
        for name in (*counts, "proposals_before_nms", "proposals", "rois"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("augmentation", "mosaic", "sparse_scenes", "footage_share", "opinion_weight", "token_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 < self.label_share <= 1:
            raise UsageError(f"label_share must be above 0 and at most 1, got {self.label_share}")
        if bool(self.footage) != bool(self.cutouts):
            raise UsageError("footage and cutouts go together: frames of fixed cameras, and objects to paste into them")
        choices = {
            "optimiser": ("adamw", "sgd"),
            "schedule": SCHEDULES,
            "parts": PARTS,
            "masks": ("joint", "apart"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        starts = [start for start, _ in self.sizes]
        if not starts or starts[0] != 0 or starts != sorted(starts) or starts[-1] >= 1:
            raise UsageError(f"sizes must start at share 0 and rise below 1, got {self.sizes}")
        if self.multi_scale and (
            len(self.multi_scale) != 2
            or not 0 < self.multi_scale[0] <= self.multi_scale[1]
            or any(side % SCALE_STEP for side in self.multi_scale)
        ):
            raise UsageError(
                f"multi_scale must be two rising multiples of {SCALE_STEP}, or empty, got {list(self.multi_scale)}"
            )
        if not self.plateau_windows or min(self.plateau_windows) < 1:
            raise UsageError(f"plateau_windows must be numbers of steps, got {list(self.plateau_windows)}")

    def size_at(self, epoch: int) -> int:
        """Input size of ``epoch`` (from 0)."""
        return [size for start, size in self.sizes if epoch >= round(start * self.epochs)][-1]

    def size_of_batch(self, epoch: int, batch: int) -> int:
        """Input size of one batch of ``epoch``, both from 0."""
        if not self.multi_scale:
            return self.size_at(epoch)
        smallest, largest = self.multi_scale
        drawn = np.random.default_rng((self.seed, epoch, batch)).integers((largest - smallest) // SCALE_STEP + 1)
        return smallest + SCALE_STEP * int(drawn)

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON and for the checkpoint."""
        return asdict(self)


def load_config(recipe: Path | None, overrides: dict[str, Any]) -> TrainConfig:
    """Defaults, then the recipe, then ``overrides`` (entries that are ``None`` are not given).

    Raises:
        UsageError: the recipe is missing, is not TOML or has an unknown entry or a value of the wrong type.
    """
    return config_from_json(read_recipe(recipe, overrides), where=str(recipe or "the command line"))


def config_from_json(values: dict[str, Any], *, where: str) -> TrainConfig:
    """A checked configuration from plain values; ``where`` names them in messages."""
    default = TrainConfig()
    checked = check_entries(default, {name: value for name, value in values.items() if name != "sizes"}, where=where)
    if "sizes" in values:
        try:
            checked["sizes"] = tuple((float(start), int(size)) for start, size in values["sizes"])
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where}: sizes must be pairs [share, size], got {values['sizes']!r}") from error
    return replace(default, **checked)
