"""Training crops of captioned pictures: of one size, always the same for one key, broken pictures passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data.pair_crops import JITTER, PairCrops, jittered, random_crop
from edgekit.data.pairs import Pair, PairSet
from edgekit.data.training_set import SampleKey
from edgekit.errors import DataError
from edgekit.models.tcl.tokenizer import Tokenizer

pytest.importorskip("regex", reason="comes with the extra 'segment'")


@pytest.fixture
def crops(tmp_path: Path) -> PairCrops:
    pairs = []
    for index in range(3):
        shades = np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(shades).save(tmp_path / f"{index}.png")
        pairs.append(Pair(path=tmp_path / f"{index}.png", captions=tuple(f"text {k}" for k in range(index + 1))))
    return PairCrops(
        pairs=PairSet(name="x", pairs=tuple(pairs)), tokenizer=Tokenizer(), context=8, seed=3, smallest=0.2
    )


def test_a_crop_depends_on_its_key_alone(crops: PairCrops) -> None:
    key = SampleKey(epoch=1, index=2, size=32)
    one, again = crops[key], crops[key]
    other = crops[SampleKey(epoch=2, index=2, size=32)]
    assert one.image.shape == (32, 32, 3)
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.tokens, again.tokens)
    assert (one.image != other.image).any()


def test_the_text_is_one_of_the_captions(crops: PairCrops) -> None:
    wanted = crops.tokenizer.rows(["text 0", "text 1", "text 2"], context=8)
    drawn = set()
    for epoch in range(20):
        sample = crops[SampleKey(epoch=epoch, index=2, size=8)]
        np.testing.assert_array_equal(sample.captions[:3], wanted)
        assert not sample.captions[3:].any()
        drawn.add(int((wanted == sample.tokens).all(axis=1).argmax()))
    assert drawn == {0, 1, 2}


def test_a_broken_picture_is_replaced_and_logged(crops: PairCrops, caplog: pytest.LogCaptureFixture) -> None:
    crops.pairs.pairs[1].path.write_bytes(b"broken")
    with caplog.at_level("WARNING", logger="edgekit"):
        sample = crops[SampleKey(epoch=0, index=1, size=8)]
    assert sample.captions[:3].any(axis=1).all()  # the third picture's, which has three
    assert "left out" in caplog.text


def test_many_broken_pictures_stop_training(crops: PairCrops) -> None:
    for pair in crops.pairs.pairs:
        pair.path.write_bytes(b"broken")
    with pytest.raises(DataError, match="10 pictures in a row cannot be read; the last:"):
        crops[SampleKey(epoch=0, index=0, size=8)]


def test_crops_show_at_least_the_least_share() -> None:
    ramp = np.zeros((60, 90, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(90), np.arange(60)[:, None]
    for seed in range(40):
        crop = random_crop(ramp, np.random.default_rng(seed), side=64, smallest=0.5).astype(int)
        columns, rows = np.ptp(crop[..., 0]) + 1, np.ptp(crop[..., 1]) + 1
        assert rows * columns >= 0.85 * 0.5 * 60 * 90 * 0.8  # of a part whose ratio did not fit, some is cut
    assert random_crop(ramp[:1, :1], np.random.default_rng(0), side=4, smallest=0.1).shape == (4, 4, 3)


def test_half_of_the_crops_are_mirrored() -> None:
    ramp = np.broadcast_to(np.arange(80, dtype=np.uint8)[None, :, None], (80, 80, 3))
    mirrored = [
        bool(crop[0, 0, 0] > crop[0, -1, 0])
        for crop in (random_crop(ramp, np.random.default_rng(k), side=8, smallest=0.5) for k in range(200))
    ]
    assert 70 < sum(mirrored) < 130


def test_jitter_changes_colours_within_bounds() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = [float(jittered(grey, np.random.default_rng(k)).mean()) for k in range(50)]
    assert min(values) >= 100 * (1 - JITTER) - 1
    assert max(values) <= 100 * (1 + JITTER) + 1
    assert max(values) - min(values) > 30
    np.testing.assert_array_equal(jittered(grey, None), grey)


def test_length(crops: PairCrops) -> None:
    assert len(crops) == 3
    assert len(replace(crops, pairs=PairSet(name="y", pairs=crops.pairs.pairs[:1]))) == 1
