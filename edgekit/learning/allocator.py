"""Keep freed memory in the process while a CPU trains.

A step frees and takes again some hundred tensors of tens of megabytes. glibc returns such blocks to the kernel at once
(mallopt(3), ``M_MMAP_THRESHOLD``), and the kernel hands them back page by page, zeroed: on a virtual machine with two
cores that was two fifths of the time of a step of 16 pictures. PyTorch caches freed tensors on GPUs, but not on CPUs.

Starting with ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1`` in the environment gains some more where the kernel has
transparent huge pages; that cannot be set from inside the process.
"""

from __future__ import annotations

from edgekit.glibc import M_ARENA_MAX, M_MMAP_MAX, M_TOP_PAD, M_TRIM_THRESHOLD, set_malloc

GROWTH_BYTES = 256 << 20
"""The heap grows by at least this much at a time; pages that are never written cost nothing."""

NEVER = -1


def keep_freed_memory() -> bool:
    """Make glibc keep what the process frees; ``False`` where there is another C library, which stays as it is.

    All threads share one heap from then on, because the heaps of further threads (autograd's among them) are limited to
    64 MB each and would go on asking the kernel.
    """
    return set_malloc({M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: GROWTH_BYTES})
