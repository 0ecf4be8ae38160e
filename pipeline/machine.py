"""What a machine has left for a stage, and what a stage foretells that it will take of it.

settings + inputs + machine -> Forecast -> told before a run, and refused where it does not fit
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """Where a stage will compute.

    free: bytes that it may take, of the accelerator's memory where there is one; device: as manifests name it;
    native: multiplies bfloat16 in hardware; workers: batches that are read side by side.
    """

    free: int
    device: str = "cpu"
    accelerator: bool = False
    native: bool = True
    workers: int = 1


@dataclass(frozen=True)
class Forecast:
    """What a stage will take.

    memory: bytes at its peak, on top of what the process holds already; parts: what they are for; seconds: None
    where nothing is known of the machine's pace; paced_by: what the pace was taken from; cures: settings that
    would take less, as `batch_tokens: 256`, with the bytes that are left then.
    """

    memory: int
    parts: Mapping[str, int] = field(default_factory=dict)
    seconds: float | None = None
    paced_by: str = ""
    cures: Mapping[str, int] = field(default_factory=dict)

    def measures(self) -> dict[str, Any]:
        """For a manifest, beside what was measured."""
        seconds = None if self.seconds is None else round(self.seconds, 1)
        return {"expected_memory_mb": round(self.memory / 2**20, 1), "expected_seconds": seconds}

    def too_much(self, machine: Machine) -> str:
        """Why it does not fit into what is free, and what would; empty where it fits."""
        if self.memory <= machine.free:
            return ""
        largest = sorted(self.parts.items(), key=lambda part: -part[1])
        held = ", ".join(f"{name} {gib(size)}" for name, size in largest if size > self.memory / 50)
        where = f"on {machine.device}" if machine.accelerator else "of memory"
        cures = "; ".join(f"`{setting}` takes {gib(size)}" for setting, size in self.cures.items())
        return (
            f"about {gib(self.memory)} will be needed ({held}), and {gib(machine.free)} are free {where}. "
            f"What takes less: {cures or 'a smaller language model'}. To start all the same: budget.fit: try"
        )


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def this_machine() -> Machine:
    """The machine as torch finds it, once a stage is about to compute."""
    import psutil
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Machine(free, torch.cuda.get_device_name(), accelerator=True, native=native)
    can = torch.cpu.get_capabilities()
    native = bool(can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16"))
    free = psutil.virtual_memory().available
    return Machine(free, native=native, workers=torch.get_num_threads())
