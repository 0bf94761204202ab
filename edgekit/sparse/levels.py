"""How the sites of a masked level follow from the cells of the mask, and which levels lie inside each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Path:
    """From the mask to a level, as ``edgekit.masks.pyramid.mask_at`` goes: halve, then repeat."""

    halvings: int
    """How often rows and columns are max-pooled 2x2, rounding up."""

    row_factor: int
    column_factor: int
    """How often every row and column is repeated after that."""

    def same_cells(self, coarse: Path, factor: int) -> bool:
        """Whether every active site of this level lies under an active site of ``coarse``, whatever the mask.

        Site (y, x) lies under (y // factor, x // factor). Where it holds, repeating a ``coarse`` feature map reads no
        inactive site, and a window of ``factor`` x ``factor`` sites under an inactive site is all inactive.
        """
        deeper = coarse.halvings - self.halvings
        return (
            deeper >= 0
            and factor * coarse.row_factor == self.row_factor << deeper
            and factor * coarse.column_factor == self.column_factor << deeper
        )


def path_to_level(*, mask_rows: int, mask_columns: int, rows: int, columns: int) -> Path | None:
    """The path from a mask of ``mask_rows`` x ``mask_columns`` cells to a level, or ``None`` where there is none."""
    halvings = 0
    while mask_rows > rows or mask_columns > columns:
        mask_rows, mask_columns, halvings = (mask_rows + 1) // 2, (mask_columns + 1) // 2, halvings + 1
    if rows % mask_rows or columns % mask_columns:
        return None
    return Path(halvings=halvings, row_factor=rows // mask_rows, column_factor=columns // mask_columns)
