"""What the processor is, as the system tells it."""

import platform
from pathlib import Path

_TELLING = ("model name", "flags", "Features", "CPU part")
"""How the lines of /proc/cpuinfo begin that say what a processor is and can do."""


def processor_lines() -> tuple[str, ...]:
    """Return the lines of /proc/cpuinfo that say what the processor is and can do, each once; none where the
    system has no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()
    return tuple(dict.fromkeys(line for line in lines if line.startswith(_TELLING)))


def processor_name() -> str:
    """Return the name of the processor, or what else the system calls it by."""
    names = (line.partition(":")[2].strip() for line in processor_lines() if line.startswith(_TELLING[0]))
    return next(names, platform.processor() or "unknown")
