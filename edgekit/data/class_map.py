"""The class names of a data set beside those of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.data.annotations import Annotations
from edgekit.errors import DataError, UsageError

ClassMap = Mapping[str, str | None]
"""Name in the data -> name in the model, or ``None`` to drop its boxes."""


def parse_class_map(texts: Sequence[str]) -> dict[str, str | None]:
    """``["vehicle=car,pedestrian=person", "construction="]`` as a :data:`ClassMap`; an empty name drops.

    Raises:
        UsageError: an item has no ``=`` or no name before it, or a name is mapped twice.
    """
    pairs: dict[str, str | None] = {}
    for item in (item for text in texts for item in text.split(",")):
        old, equals, new = (part.strip() for part in item.partition("="))
        if not old or not equals:
            raise UsageError(f"--class-map expects OLD=NEW (rename) or OLD= (drop), got {item!r}")
        if old in pairs:
            raise UsageError(f"--class-map names {old!r} twice")
        pairs[old] = new or None
    return pairs


def match_classes(
    annotations: Annotations, classes: Sequence[str] | None, class_map: ClassMap
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The data set's final classes, and for each class of the data that is kept its index into them.

    Raises:
        DataError: ``class_map`` renames a class that the data does not have, or a class with boxes is not among
            ``classes``.
    """
    unknown = [name for name in class_map if name not in annotations.classes]
    if unknown:
        raise DataError(
            f"--class-map names {', '.join(map(repr, unknown))}, which {annotations.source} does not have.\n"
            f"Its classes: {', '.join(annotations.classes)}"
        )
    renamed = {name: class_map.get(name, name) for name in annotations.classes}
    kept = {old: new for old, new in renamed.items() if new is not None}
    names = tuple(dict.fromkeys(kept.values())) if classes is None else tuple(classes)
    used = {box.class_name for image in annotations.images for box in image.boxes}
    lacking = [old for old, new in kept.items() if old in used and new not in names]
    if lacking:
        raise DataError(_mismatch(annotations, names, kept, lacking))
    return names, {old: names.index(new) for old, new in kept.items() if new in names}


def _mismatch(annotations: Annotations, names: Sequence[str], kept: Mapping[str, str], lacking: Sequence[str]) -> str:
    return (
        f"{len(lacking)} classes of {annotations.source} are not among the model's: {', '.join(lacking)}.\n"
        f"Classes of the data: {', '.join(annotations.classes)}.\n"
        f"Classes of the model: {', '.join(names)}.\n"
        f"Rename what the model knows by another name, and drop the rest with an empty name, e.g. "
        f"--class-map {lacking[0]}={names[0]}" + (f",{lacking[1]}=" if len(lacking) > 1 else "")
    )
