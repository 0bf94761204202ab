"""A bundle's graphs in an engine: the one that was asked for, or the best that works here."""

from __future__ import annotations

import logging

from edgekit.backends import REGION, Engine, engine_problem, host_engine, load_engine, usable_engines
from edgekit.backends.by_share import ByShare
from edgekit.backends.joining import join
from edgekit.bundle import AnyBundle, Bundle, Manifest
from edgekit.bundle.sparse_part import NATIVE, BreakEven
from edgekit.errors import UsageError
from edgekit.profiling.machine import cpu_model, usable_cores
from edgekit.spec import graph_precision

log = logging.getLogger("edgekit")


def default_threads(bundle: AnyBundle) -> int:
    """What the bundle was made for, or the processors that this process may use, if they are fewer.

    More threads than processors wait for each other at every layer: four on two took three times as long as one.
    """
    return min(bundle.manifest.threads, usable_cores())


def load_graphs(bundle: Bundle, *, engine: str, threads: int) -> tuple[Engine, Engine]:
    """The engines (omg, detector) called ``engine``.

    Args:
        bundle: an open bundle.
        engine: one of ``bundle.manifest.choices``.
        threads: CPU threads.

    Raises:
        UsageError: the bundle has nothing for ``engine``.
        MissingDependencyError, EngineError, SparseProgramError: it cannot be used here, or refuses the file.
    """
    manifest = bundle.manifest
    if engine not in manifest.choices:
        kinds = f"{manifest.graph_format} graphs" + (" and sparse programs" if manifest.sparse else "")
        hint = "" if manifest.sparse else _how_to_add_programs(engine)
        raise UsageError(
            f"the bundle {manifest.name!r} has {kinds}, which {engine!r} does not run; its engines are: "
            f"{', '.join(manifest.choices)}{hint}"
        )
    loaded = {}
    for name in manifest.spec.graphs:
        runs = _engine_of(name, manifest, engine)
        # Settings are those of dense graphs: a region is one operator, which runs on the CPU whatever the provider.
        settings = manifest.engine_options.get(runs, {}) if runs in manifest.engines else {}
        options = {**settings, "precision": graph_precision(name, manifest.precision_of(runs))}
        loaded[name] = load_engine(runs, bundle.graph(name, runs), threads=threads, options=options)
    return loaded["omg"], join(loaded, manifest.spec)


def _engine_of(graph: str, manifest: Manifest, engine: str) -> str:
    """What runs ``graph`` where ``engine`` is asked for: a dense one where there is no program of it."""
    if engine in manifest.engines or graph in manifest.spec.sparse_graphs:
        return engine
    return next(usable_engines(manifest.engines)) if engine == NATIVE else host_engine(engine)


def load_best(bundle: Bundle, *, threads: int) -> tuple[Engine, Engine]:
    """The engines (omg, detector) that ``--engine auto`` means.

    Without sparse programs: the first of the bundle's engines that is installed. With them: the native engine, and for
    frames with more active cells than a break-even that was measured here (``edgekit bench sparse``) the dense one; if
    the native engine does not work here, as without them.

    Raises:
        MissingDependencyError, EngineError: no engine works here.
        SparseProgramError: a program is damaged.
    """
    manifest = bundle.manifest
    problem = engine_problem(NATIVE) if manifest.sparse else None
    if problem:
        log.warning("the dense graphs run instead of the sparse programs: %s", problem)
    if problem or not manifest.sparse:
        return load_graphs(bundle, engine=next(usable_engines(manifest.engines)), threads=threads)
    omg, detector = load_graphs(bundle, engine=NATIVE, threads=threads)
    known = manifest.sparse.break_even
    if known is None or not _holds_here(known, threads=threads):
        return omg, detector
    _, dense = load_graphs(bundle, engine=known.engine, threads=threads)
    return omg, ByShare(detector, dense, share=known.share, spec=manifest.spec)


def _holds_here(known: BreakEven, *, threads: int) -> bool:
    """Whether frames above the break-even should go to its dense engine."""
    if known.share >= 1:
        return False
    if (known.cpu, known.threads) != (cpu_model(), threads):
        log.debug("the break-even was measured on %s with %d threads, so it is not used", known.cpu, known.threads)
        return False
    problem = engine_problem(known.engine)
    if problem is not None:
        log.debug("the native engine runs every frame: %s", problem)
    return problem is None


def _how_to_add_programs(engine: str) -> str:
    if engine != NATIVE and not engine.endswith(REGION):
        return ""
    return ".\nMake one that has sparse programs, too, with: edgekit export CHECKPOINT --sparse"
