"""A colour for each class, the same in every picture that edgekit draws."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""


def class_colour(class_id: int) -> Colour:
    """A bright colour; neighbouring ids get hues that are far apart."""
    hue = (0.13 + class_id * 0.61803398875) % 1  # the golden ratio spreads any number of hues evenly
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
