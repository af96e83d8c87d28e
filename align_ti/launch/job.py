"""The training command for one or several machines: ``python``, ``torchrun`` or ``deepspeed``.

It counts devices, computes the gradient accumulation, and rejects settings that would silently train a different model.
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
    """A training to run.

    Attributes:
        module: Module to run with ``python -m``.
        flags: Its flags.
        global_batch: Samples per optimizer step, over all processes.
        per_device: Samples per process and forward pass; None: an even share of the global batch.
        deepspeed_config: DeepSpeed's JSON file, if any.
        needs_gpu: Whether the models are too large to train on a CPU.
    """

    module: str
    flags: tuple[str, ...]
    global_batch: int
    per_device: int | None
    deepspeed_config: str | None = None
    needs_gpu: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> "Job":
        """The job of a recipe."""
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
    """The machine as a recipe uses it: a recipe for CPUs uses no GPUs unless ``NUM_GPUS`` is set."""
    if recipe.cpu_processes is None or machine.gpus:
        return machine
    return replace(machine, gpus=0, cpu_processes=machine.cpu_processes or recipe.cpu_processes)


def build_command(job: Job, machine: Machine, present: int | None = None) -> tuple[list[str], dict[str, str | None]]:
    """The training command, and changes of its environment (None: the variable must not be set).

    Args:
        job: The training to run.
        machine: The machine to run it on.
        present: Number of GPUs that torch sees on this machine; None if it does not matter (the command is only shown).

    Raises:
        InputError: Devices, nodes and batch do not fit together.
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
    if not gpus:  # else transformers looks only for accelerators, and several processes would each train separately
        flags += ["--use_cpu", "True"]
    if job.deepspeed_config and launcher != "python":
        flags += ["--deepspeed", job.deepspeed_config]
    if launcher == "deepspeed" and machine.nodes == 1 and not are_numbers(machine.visible):
        launcher = "torchrun"  # CUDA_VISIBLE_DEVICES has names, but DeepSpeed's launcher accepts only numbers
    if launcher == "python":
        return [sys.executable, "-m", job.module, *flags], environment
    if launcher == "torchrun":
        start = ["-m", "torch.distributed.run", *torchrun_flags(machine, processes // machine.nodes)]
        return [sys.executable, *start, "-m", job.module, *flags], environment
    environment["CUDA_VISIBLE_DEVICES"] = None  # --include selects the devices by number
    start = ["-m", "deepspeed.launcher.runner", *deepspeed_flags(machine, gpus)]
    return [sys.executable, *start, "--module", job.module, *flags], environment


def count_gpus(job: Job, machine: Machine, present: int | None) -> int:
    """GPUs per node that the job uses.

    Raises:
        InputError: There are fewer than requested, or none for a job that needs a GPU.
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
    """Batch flags, with accumulation steps that give the same global batch on any number of processes.

    Both flags may also be given explicitly: ``--gradient_accumulation_steps`` then sets another global batch.

    Raises:
        InputError: The batch cannot be split evenly; the message proposes alternatives.
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
    """Alternatives that divide evenly: another batch per process, fewer processes, or another global batch."""
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
    """torchrun's flags for nodes, processes and rendezvous.

    Raises:
        InputError: There are several nodes but no address.
    """
    count = ["--nnodes", str(machine.nodes), "--nproc_per_node", str(per_node)]
    if machine.nodes == 1:
        return [*count, "--standalone"]  # chooses a free port
    if machine.master_addr is None:
        raise InputError(
            f"NUM_NODES is {machine.nodes} and LAUNCHER is torchrun, but MASTER_ADDR is not set: the nodes cannot find "
            "each other. Set MASTER_ADDR to the first node's address, and give the same command on every node"
        )
    endpoint = f"{machine.master_addr}:{machine.master_port or 29500}"
    return [*count, "--rdzv_backend", "c10d", "--rdzv_endpoint", endpoint]


def deepspeed_flags(machine: Machine, gpus: int) -> list[str]:
    """DeepSpeed's flags for devices, nodes and rendezvous.

    Raises:
        InputError: There are several nodes but no host file or address, or the host file does not fit.
    """
    if machine.nodes == 1:
        # --num_gpus would make DeepSpeed ignore CUDA_VISIBLE_DEVICES and use the first GPUs of the machine.
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
    """The command that prints the plan; the devices need not exist.

    Raises:
        InputError: See :func:`build_command`.
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
    """The last value of a flag, written ``--name value`` or ``--name=value``; None if it is not given."""
    value = None
    for index, word in enumerate(flags):
        flag, equals, text = word.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == name:
            value = text if equals else next(iter(flags[index + 1 : index + 2]), "")
    return value
