"""The command that trains on the devices of this machine, or of several: ``python``, ``torchrun`` or ``deepspeed``.

It counts devices, computes the gradient accumulation, and refuses what would otherwise train another model without a
word.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from align_ti.launch.machine import Machine, are_numbers, check_hostfile, free_port, visible_gpus
from align_ti.recipes.flags import words_of
from align_ti.recipes.resolve import Recipe
from llava.errors import InputError


@dataclass(frozen=True)
class Job:
    """What is to be run.

    Attributes:
        module: Run with ``python -m``.
        flags: Its flags.
        global_batch: Samples of one optimizer step, over all processes.
        per_device: Samples of one forward pass of one process; None: an even share of the global batch.
        deepspeed_config: DeepSpeed's JSON, if any.
        needs_gpu: Whether the recipe is of a size that nobody trains on a CPU.
    """

    module: str
    flags: tuple[str, ...]
    global_batch: int
    per_device: int | None
    deepspeed_config: str | None = None
    needs_gpu: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> "Job":
        """What a recipe asks for."""
        flags = dict(recipe.flags)
        deepspeed = " ".join(flags.pop("deepspeed", ()))
        return cls(
            recipe.module,
            tuple(words_of(flags)),
            recipe.global_batch,
            recipe.per_device,
            deepspeed or None,
            recipe.needs_gpu,
        )


def machine_for(recipe: Recipe, machine: Machine) -> Machine:
    """The machine as a recipe uses it: one for CPUs leaves the GPUs alone unless ``NUM_GPUS`` asks for them."""
    if recipe.cpu_processes is None or machine.gpus:
        return machine
    return replace(machine, gpus=0, cpu_processes=machine.cpu_processes or recipe.cpu_processes)


def build_command(job: Job, machine: Machine, present: int | None = None) -> tuple[list[str], dict[str, str | None]]:
    """The command that trains, and what it needs in its environment (None: a variable that must not be set).

    Args:
        job: What is run.
        machine: Where.
        present: GPUs that torch sees on this machine; None where they are not asked for (the command is only shown).

    Raises:
        InputError: Devices, nodes or batch that do not go together.
    """
    gpus = count_gpus(job, machine, present)
    processes = (gpus or machine.cpu_processes or 1) * machine.nodes
    flags = [*batch_flags(job, processes), *job.flags]
    launcher = machine.launcher or ("deepspeed" if gpus else "torchrun" if processes > 1 else "python")
    if launcher == "python" and processes > 1:
        raise InputError(f"LAUNCHER=python starts one process, but {processes} are needed; use torchrun")
    if launcher == "deepspeed" and not gpus:
        raise InputError("LAUNCHER=deepspeed needs a GPU, but there is none here; use LAUNCHER=torchrun on a CPU")
    flags += ["--expected_processes", str(processes)]
    environment: dict[str, str | None] = {} if gpus else {"DS_ACCELERATOR": "cpu"}
    if not gpus:  # without it transformers looks for accelerators only, and each of several processes would train alone
        flags += ["--use_cpu", "True"]
    if job.deepspeed_config and launcher != "python":
        flags += ["--deepspeed", job.deepspeed_config]
    if launcher == "deepspeed" and machine.nodes == 1 and not are_numbers(machine.visible):
        launcher = "torchrun"  # DeepSpeed's launcher knows devices by number only, and CUDA_VISIBLE_DEVICES has names
    if launcher == "python":
        return [sys.executable, "-m", job.module, *flags], environment
    if launcher == "torchrun":
        start = ["-m", "torch.distributed.run", *torchrun_flags(machine, processes // machine.nodes)]
        return [sys.executable, *start, "-m", job.module, *flags], environment
    environment["CUDA_VISIBLE_DEVICES"] = None  # --include has them, as numbers of this machine's devices
    start = ["-m", "deepspeed.launcher.runner", *deepspeed_flags(machine, gpus)]
    return [sys.executable, *start, "--module", job.module, *flags], environment


def count_gpus(job: Job, machine: Machine, present: int | None) -> int:
    """GPUs per node that the job uses.

    Raises:
        InputError: More are asked for than there are, or there are none for a job that needs one.
    """
    visible = None if machine.visible is None else len(machine.visible)
    known = visible if present is None else present
    if machine.gpus is None:
        found = known or 0
    else:
        found = machine.gpus
        if known is not None and found > known and not (machine.nodes > 1 and machine.hostfile):
            by = "" if machine.visible is None else f" (CUDA_VISIBLE_DEVICES={','.join(machine.visible)})"
            raise InputError(
                f"NUM_GPUS is {found}, but torch sees {known} on this machine{by}. Lower NUM_GPUS; if nvidia-smi "
                "lists more, torch may be a CPU build or the driver too old: "
                'python -c "import torch; print(torch.__version__, torch.cuda.device_count())"'
            )
    if not found and job.needs_gpu and machine.cpu_processes is None:
        raise InputError(
            "this recipe needs a GPU, but torch sees none. On a machine with GPUs check that torch is a CUDA "
            "build; to try the pipeline on a CPU use --pair mini; to train this recipe on a CPU anyway, set "
            "CPU_PROCESSES=1. `NUM_GPUS=8 align-ti plan RECIPE` shows the plan for 8 GPUs from here"
        )
    return found


def batch_flags(job: Job, processes: int) -> list[str]:
    """Accumulation steps such that the global batch is the same on any number of processes.

    Both flags may be given by hand as well: ``--gradient_accumulation_steps`` then sets another global batch.

    Raises:
        InputError: It cannot be split so; the message proposes what can.
    """
    share = job.global_batch // processes if job.global_batch % processes == 0 else 1
    per_device = job.per_device or share
    if _given(job.flags, "gradient_accumulation_steps") is not None:
        return ["--per_device_train_batch_size", str(per_device)]
    at_once = per_device * processes
    if job.global_batch % at_once:
        raise InputError(
            f"the global batch of {job.global_batch} cannot be split over {processes} processes with "
            f"{per_device} samples each: it is not a multiple of {at_once}. "
            f"{_proposal(job.global_batch, per_device, processes)}"
        )
    steps = job.global_batch // at_once
    return ["--per_device_train_batch_size", str(per_device), "--gradient_accumulation_steps", str(steps)]


def _proposal(global_batch: int, per_device: int, processes: int) -> str:
    """What would divide: another batch per process, fewer processes, or another global batch."""
    ways = []
    if global_batch % processes == 0:
        share = global_batch // processes
        fitting = [size for size in range(1, share + 1) if share % size == 0]
        near = sorted(fitting, key=lambda size: abs(size - per_device))[:3]
        ways.append(f"--per_device_train_batch_size {' or '.join(map(str, sorted(near)))}")
    fewer = [count for count in range(processes, 0, -1) if global_batch % (count * per_device) == 0][:2]
    if fewer:
        ways.append(f"{' or '.join(map(str, fewer))} process{'' if fewer == [1] else 'es'} (NUM_GPUS)")
    at_once = per_device * processes
    below, above = global_batch // at_once * at_once, (global_batch // at_once + 1) * at_once
    ways.append(
        f"--global_batch {' or '.join(str(size) for size in (below, above) if size)} (this trains another model)"
    )
    return "What fits: " + "; ".join(ways)


def torchrun_flags(machine: Machine, per_node: int) -> list[str]:
    """How torchrun's processes find each other.

    Raises:
        InputError: Several nodes without an address.
    """
    count = ["--nnodes", str(machine.nodes), "--nproc_per_node", str(per_node)]
    if machine.nodes == 1:
        return [*count, "--standalone"]  # takes a free port by itself
    if machine.master_addr is None:
        raise InputError(
            f"NUM_NODES is {machine.nodes} and LAUNCHER is torchrun, but MASTER_ADDR is not set: the nodes cannot find "
            "each other. Set MASTER_ADDR to the first node's address, and give the same command on every node"
        )
    endpoint = f"{machine.master_addr}:{machine.master_port or 29500}"
    return [*count, "--rdzv_backend", "c10d", "--rdzv_endpoint", endpoint]


def deepspeed_flags(machine: Machine, gpus: int) -> list[str]:
    """DeepSpeed's devices, nodes and meeting place.

    Raises:
        InputError: Several nodes without a host file or address, or a host file that does not fit.
    """
    if machine.nodes == 1:
        # --num_gpus would make DeepSpeed discard CUDA_VISIBLE_DEVICES and take the first GPUs of the machine.
        ids = (machine.visible or tuple(map(str, range(gpus))))[:gpus]
        port = machine.master_port or free_port()
        return ["--include", f"localhost:{','.join(ids)}", "--master_port", str(port)]
    if machine.hostfile is None or machine.master_addr is None:
        missing = " and ".join(
            name for name, value in (("HOSTFILE", machine.hostfile), ("MASTER_ADDR", machine.master_addr)) if not value
        )
        raise InputError(
            f"NUM_NODES is {machine.nodes}, but {missing} is not set. DeepSpeed needs HOSTFILE (lines like `node1 "
            f"slots={gpus}`) and MASTER_ADDR; or use LAUNCHER=torchrun on every node"
        )
    hosts = check_hostfile(machine.hostfile, machine.nodes, gpus)
    devices = ["--num_gpus", str(gpus)]
    if machine.visible is not None and are_numbers(machine.visible):
        chosen = ",".join(machine.visible[:gpus])
        devices = ["--include", "@".join(f"{host}:{chosen}" for host in hosts)]
    return [
        "--hostfile", machine.hostfile, *devices,
        "--master_addr", machine.master_addr, "--master_port", str(machine.master_port or 29500),
    ]  # fmt: skip


def plan_command(job: Job, machine: Machine) -> list[str]:
    """The command that prints the plan; devices need not be there.

    Raises:
        InputError: See ``build_command``.
    """
    gpus = visible_gpus() if machine.gpus is None else machine.gpus
    processes = (gpus or machine.cpu_processes or 1) * machine.nodes
    flags = [*batch_flags(job, processes), *job.flags]
    if not gpus and machine.cpu_processes is not None:
        flags += ["--use_cpu", "True"]
    if job.deepspeed_config:
        flags += ["--deepspeed", job.deepspeed_config]
    return [sys.executable, "-m", job.module, *flags, "--dry_run", "True", "--plan_gpus", str(processes)]


def _given(flags: Sequence[str], name: str) -> str | None:
    """The value of a flag, written ``--name value`` or ``--name=value``; the last one counts, None without any."""
    value = None
    for index, word in enumerate(flags):
        flag, equals, text = word.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == name:
            value = text if equals else next(iter(flags[index + 1 : index + 2]), "")
    return value
