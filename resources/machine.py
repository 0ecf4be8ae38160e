"""The machine, for what is told before a run: free memory, and how it multiplies.

torch is not loaded for it where no accelerator can be.
"""

import os
from pathlib import Path

import psutil

from pipeline.machine import Machine, this_machine

DRIVER = Path("/proc/driver/nvidia/version")


def look(threads: int | None = None) -> Machine:
    """threads: those that the study asks for, all cores where it asks for none."""
    from resources.doctor import bf16_in, cpu_flags

    if DRIVER.exists():
        return this_machine()
    free, workers = psutil.virtual_memory().available, threads or os.cpu_count() or 1
    return Machine(free, native=bf16_in(cpu_flags()), workers=workers)
