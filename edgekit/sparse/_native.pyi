"""Types of the compiled module, which ``edgekit/native/binding.cpp`` makes; its docstrings say more."""

from typing import overload

import numpy as np
from numpy.typing import NDArray

class ProgramError(ValueError):
    """A program is damaged."""

class Engine:
    """One loaded program; not to be run by two threads at once."""

    def __init__(self, program: bytes, threads: int = 1, isa: str = "") -> None: ...
    @overload
    def run(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
    ) -> dict[str, NDArray[np.float32]]: ...
    @overload
    def run(
        self, image: NDArray[np.float32], mask: NDArray[np.uint8] | None = None
    ) -> dict[str, NDArray[np.float32]]: ...
    def start_clock(self) -> None: ...
    def seconds(self) -> list[float]: ...
    def steps(self) -> list[list[int]]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def mask_shape(self) -> tuple[int, int] | None: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...

def instruction_sets() -> list[str]: ...
def peak_gmacs(seconds: float = 0.5, isa: str = "") -> list[float]: ...
def find_objects(
    logits: NDArray[np.float32],
    offsets: NDArray[np.float32],
    anchors: NDArray[np.float32],
    active: NDArray[np.uint8],
    *,
    coding: tuple[float, float, float],
    letterbox: tuple[float, float, float],
    source: tuple[float, float],
    logit_limits: tuple[float, float],
    score: float,
    nms_iou: float,
    most: int,
    votes: bool,
    vote_iou: float,
    vote_score: float,
    supporters: int,
    own_weight: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]: ...
def find_region_objects(
    rois: NDArray[np.float32],
    logits: NDArray[np.float32],
    deltas: NDArray[np.float32],
    *,
    size: tuple[float, float],
    letterbox: tuple[float, float, float],
    source: tuple[float, float],
    most_log_size: float,
    candidate_score: float,
    score: float,
    nms_iou: float,
    most: int,
    votes: bool,
    vote_iou: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]: ...
def pool_rois(
    features: NDArray[np.float32], *, grid: tuple[int, int], rois: NDArray[np.float32], places: int
) -> NDArray[np.float32]: ...
def pool_rois_gradient(
    features: NDArray[np.float32],
    *,
    grid: tuple[int, int],
    rois: NDArray[np.float32],
    gradient: NDArray[np.float32],
) -> NDArray[np.float32]: ...
def propose(
    logits: NDArray[np.float32],
    deltas: NDArray[np.float32],
    mask: NDArray[np.uint8] | None,
    anchors: NDArray[np.float32],
    *,
    grid: tuple[int, int],
    size: tuple[float, float],
    smallest: tuple[float, float],
    stride: float,
    most_log_size: float,
    iou: float,
    before: int,
    after: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def resize(image: NDArray[np.uint8], place: NDArray[np.uint8], isa: str = "") -> None: ...
