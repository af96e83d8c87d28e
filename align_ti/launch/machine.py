"""The machine that a training runs on: devices, nodes and rendezvous, from environment variables."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llava.errors import InputError

LAUNCHERS = ("deepspeed", "torchrun", "python")


@dataclass(frozen=True)
class Machine:
    """Where a training runs, read from the environment.

    Attributes:
        gpus: Number of GPUs per node (``NUM_GPUS``); None: all that torch sees.
        cpu_processes: Number of processes on a machine without GPUs (``CPU_PROCESSES``); None: not set.
        nodes: Number of nodes (``NUM_NODES``).
        launcher: ``deepspeed``, ``torchrun`` or ``python`` (``LAUNCHER``); None: it depends on the devices.
        visible: Devices in ``CUDA_VISIBLE_DEVICES``; None: the variable is not set.
        hostfile: DeepSpeed's host file (``HOSTFILE``).
        master_addr, master_port: Rendezvous address and port (``MASTER_ADDR``, ``MASTER_PORT``).
    """

    gpus: int | None = None
    cpu_processes: int | None = None
    nodes: int = 1
    launcher: str | None = None
    visible: tuple[str, ...] | None = None
    hostfile: str | None = None
    master_addr: str | None = None
    master_port: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Machine":
        """Read the variables; an empty one counts as not set, except ``CUDA_VISIBLE_DEVICES``.

        Raises:
            InputError: A value is not a number or out of range, or the launcher is unknown.
        """
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        launcher = environment.get("LAUNCHER") or None
        if launcher is not None and launcher not in LAUNCHERS:
            raise InputError(f"LAUNCHER is {launcher!r}; expected {', '.join(LAUNCHERS)}")
        return cls(
            gpus=_number(environment, "NUM_GPUS", 0),
            cpu_processes=_number(environment, "CPU_PROCESSES", 1),
            nodes=_number(environment, "NUM_NODES", 1) or 1,
            launcher=launcher,
            visible=None if visible is None else tuple(part.strip() for part in visible.split(",") if part.strip()),
            hostfile=environment.get("HOSTFILE") or None,
            master_addr=environment.get("MASTER_ADDR") or None,
            master_port=_number(environment, "MASTER_PORT", 1),
        )


def are_numbers(visible: tuple[str, ...] | None) -> bool:
    """Whether the visible devices are given by number; CUDA also accepts names."""
    return visible is None or all(part.isdecimal() for part in visible)


def visible_gpus() -> int:
    """Number of GPUs that torch sees; it respects ``CUDA_VISIBLE_DEVICES``."""
    import torch  # takes seconds: only where GPUs are counted

    return torch.cuda.device_count()


def free_port() -> int:
    """A free TCP port, so that two trainings on one machine do not interfere."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_hostfile(path: str, nodes: int, gpus: int) -> list[str]:
    """Check DeepSpeed's host file; without it, DeepSpeed would train only on this node.

    Returns:
        The hosts.

    Raises:
        InputError: The file is missing or malformed, or has another number of hosts or too few slots.
    """
    if not Path(path).is_file():
        raise InputError(f"HOSTFILE={path}: no such file; expected one line per node, like `node1 slots={gpus}`")
    slots: dict[str, int] = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not words[1].startswith("slots=") or not words[1][6:].isdigit():
            raise InputError(f"HOSTFILE={path}, line {number}: {line.strip()!r}; expected `node1 slots={gpus}`")
        slots[words[0]] = int(words[1][6:])
    if len(slots) != nodes:
        raise InputError(f"HOSTFILE={path} names {len(slots)} hosts ({', '.join(slots)}), but NUM_NODES is {nodes}")
    few = [f"{host} has {count}" for host, count in slots.items() if count < gpus]
    if few:
        raise InputError(f"HOSTFILE={path}: NUM_GPUS is {gpus} per node, but {', '.join(few)} slots")
    return list(slots)


def _number(environment: Mapping[str, str], name: str, least: int) -> int | None:
    value = environment.get(name)
    if not value:
        return None
    if not value.isdecimal() or int(value) < least:
        raise InputError(f"{name} is {value!r}; expected a whole number, {least} or more")
    return int(value)
