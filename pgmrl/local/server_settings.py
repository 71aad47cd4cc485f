"""Server settings for vector search, sized from this machine's memory and cores."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from pgmrl.local.programs import import_extra

__all__ = ["render"]

_MB: Final = 1 << 20
_CGROUP_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

# The reasons stand in the file that the operator opens.
_TEMPLATE: Final = """\
# Written by pgmrl at every start, from the memory and cores it found. Change a setting with ALTER SYSTEM:
# that is kept, and overrides this file.

# An HNSW search reads pages all over the index: what is not here costs a system call or a disk read.
shared_buffers = {shared_buffers}MB
# What the system caches besides; only the planner's estimate, nothing is allocated.
effective_cache_size = {effective_cache_size}MB
# The graph of an HNSW index is built in this much memory; a graph that outgrows it is built far more slowly.
maintenance_work_mem = {maintenance_work_mem}MB
# Every core takes part in a build.
max_parallel_maintenance_workers = {cores}
max_parallel_workers = {workers}
max_worker_processes = {worker_processes}
# A parallel build allocates maintenance_work_mem of shared memory at once: in /dev/shm while that has room,
# else (containers have 64 MB there) from a part reserved at start. 0 means that /dev/shm had room.
min_dynamic_shared_memory = {reserved}MB
# Compiling takes longer than a search: the planner's cost of a scan in TOAST or a graph misleads it.
jit = off
# Local disks and cached indexes: a random page costs about what a sequential one does.
random_page_cost = 1.1
max_connections = 100
"""


def render() -> str:
    """The text of the settings file for this machine as it is now."""
    memory, cores = _memory() // _MB, _cores()
    maintenance = min(1024, max(64, memory // 8))
    return _TEMPLATE.format(
        shared_buffers=min(4096, max(128, memory // 4)),
        effective_cache_size=max(256, memory * 5 // 8),
        maintenance_work_mem=maintenance,
        cores=cores,
        workers=max(8, cores),
        worker_processes=max(8, cores) + 4,
        reserved=_reserved(maintenance),
    )


def _memory() -> int:
    """Bytes of memory this process may use: the machine's, or less where a container has a limit."""
    limits = [int(import_extra("psutil").virtual_memory().total)]
    for path in _CGROUP_LIMITS:
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        if text.strip().isdecimal():  # "max" means no limit
            limits.append(int(text))
    return min(limits)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _reserved(maintenance: int) -> int:
    """Megabytes to reserve for a parallel build because /dev/shm has no room for it."""
    needed = maintenance + 64  # tuple queues and the tuplesort's own state beside the graph
    try:
        free = shutil.disk_usage("/dev/shm").free // _MB  # noqa: S108 - read, not written
    except OSError:  # macOS and Windows keep shared memory elsewhere
        return 0
    return 0 if free >= needed else needed
