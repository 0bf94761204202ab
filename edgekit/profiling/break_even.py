"""What a bundle is told about its own speed: up to which share of active cells its native engine wins."""

from __future__ import annotations

import logging
from typing import Any

from edgekit.backends.native import instruction_sets
from edgekit.bundle import Bundle
from edgekit.bundle.sparse_part import BreakEven
from edgekit.bundle.updating import store_break_even
from edgekit.errors import BundleError, StorageError
from edgekit.profiling.machine import cpu_model
from edgekit.profiling.share_curve import ShareCurve

log = logging.getLogger("edgekit")


def find_break_even(bundle: Bundle, curve: ShareCurve, *, threads: int, store: bool) -> dict[str, Any] | None:
    """The break-even as ``json`` can write it, with ``stored``: whether the bundle has it now.

    Args:
        bundle: which ``curve`` was measured on.
        curve: what was measured.
        threads: with how many threads.
        store: write it into the bundle; where that cannot be, a warning says why.

    Returns:
        ``None`` where there is nothing to compare with.
    """
    if curve.break_even is None or curve.dense_engine is None:
        reason = "no dense engine of it is installed" if bundle.manifest.sparse else "it has no dense graphs"
        log.warning("the bundle gets no break-even: %s", reason)
        return None
    known = BreakEven(cpu=cpu_model(), threads=threads, engine=curve.dense_engine, share=round(curve.break_even, 4))
    stored = False
    isa = instruction_sets()
    if store and isa.chosen != isa.usable[-1]:
        log.warning("the break-even is not stored: it is for %s, and usually %s runs", isa.chosen, isa.usable[-1])
    elif store:
        try:
            store_break_even(bundle, known)
            stored = True
        except (StorageError, BundleError) as error:  # what was measured is worth printing all the same
            log.warning("the break-even is not stored: %s", error)
    return {**known.to_json(), "stored": stored}
