"""Energy counters of the machine, where it has any that we may read: RAPL of the processors, NVML of NVIDIA GPUs.

They count the whole machine, whoever uses it, so a step's energy is an upper bound of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
NO_COUNTER = "no counter"


@dataclass(frozen=True, kw_only=True, slots=True)
class Counter:
    """A reading: joules since some time; it begins again at 0 after `wraps_j`."""

    joules: float
    wraps_j: float


Readings = Mapping[str, Counter]


def read_counters(powercap: Path = POWERCAP) -> Readings:
    """Return a reading per counter, by names such as "RAPL package-0" and "NVML GPU 0"; empty where there is none."""
    return {**_rapl(powercap), **_nvml()}


def used(before: Readings, after: Readings) -> tuple[float | None, str]:
    """Return the joules between two readings and what counted them; None and "no counter" where nothing did."""
    names = sorted(before.keys() & after.keys())
    if not names:
        return None, NO_COUNTER
    joules = sum((after[name].joules - before[name].joules) % after[name].wraps_j for name in names)
    return round(joules, 3), ", ".join(names)


def _rapl(powercap: Path) -> Readings:
    """Read the packages: cores, and on some processors memory, are parts of them."""
    found = {}
    for zone in sorted(powercap.glob("*-rapl:[0-9]*")):
        with suppress(OSError, ValueError):  # newer kernels let only root read
            name = (zone / "name").read_text().strip()
            if name.startswith("package"):
                micro, most = (int((zone / part).read_text()) for part in ("energy_uj", "max_energy_range_uj"))
                found[f"RAPL {name}"] = Counter(joules=micro / 1e6, wraps_j=(most + 1) / 1e6)
    return found


def _nvml() -> Readings:
    """Read every GPU of the machine through the driver's own library; GPUs before Volta do not count."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:  # no driver
        return {}
    if nvml.nvmlInit_v2() != 0:
        return {}
    found, count = {}, ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for number in range(count.value):
        device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(device)) == 0:
            status = nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))
            if status == 0:
                found[f"NVML GPU {number}"] = Counter(joules=millijoules.value / 1e3, wraps_j=2**64 / 1e3)
    nvml.nvmlShutdown()
    return found
