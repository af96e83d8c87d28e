"""Run by test_distributed.py under torchrun: two ranks, one of them without pictures, in every mode."""

import json
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from transformers.integrations import HfDeepSpeedConfig

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model import language_model_class, share_vision_tower
from llava.model.checkpoint import load_projector, save_projector

STEPS, LEARNING_RATE = 4, 0.1


def batch(rank: int, step: int) -> dict[str, torch.Tensor]:
    """Rank 0 sees a picture, rank 1 only text, in the last step without anything to learn from it."""
    if rank == 1:
        ids = torch.tensor([[5, 6, 7, 8 + step]])
        labels = ids if step < STEPS - 1 else torch.full_like(ids, IGNORE_INDEX)
        return {"input_ids": ids, "labels": labels}
    ids = torch.tensor([[IMAGE_TOKEN_INDEX, 9, 10, 11 + step]])
    pictures = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(step))
    return {"input_ids": ids, "labels": ids, "images": pictures}


def deepspeed_config(stage: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,  # DeepSpeed clips at 1 unless told otherwise
    }


def run(mode: str, folder: Path) -> None:
    """Train a student on a shared tower beside a teacher, and write losses and projector."""
    rank = dist.get_rank()
    model_class = language_model_class("qwen2")
    config = deepspeed_config(3 if "zero3" in mode else 2)
    kept_alive = HfDeepSpeedConfig(config) if mode == "zero3_sharded_teacher" else None
    teacher = model_class.from_pretrained(folder / "teacher").eval().requires_grad_(False)
    if mode == "zero3":
        kept_alive = HfDeepSpeedConfig(config)
    model = model_class.from_pretrained(folder / "student", load_tower=False).train()
    share_vision_tower(model, teacher)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=LEARNING_RATE)
    engine: Any
    if mode == "ddp":
        engine = torch.nn.parallel.DistributedDataParallel(model)
    else:
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if kept_alive is not None and mode == "zero3_sharded_teacher":
        teacher = deepspeed.initialize(model=teacher, config=config)[0].module

    record = []
    for number in range(STEPS):
        own = batch(rank, number)

        def step(student: Any, own: dict[str, torch.Tensor] = own) -> dict[str, Any]:
            """One engine forward that runs teacher and student, as distillation does."""
            features = student.vision_features(own.get("images"))
            with torch.no_grad():
                target = teacher(own["input_ids"], vision_features=features).logits
            loss = student(own["input_ids"], labels=own["labels"], vision_features=features).loss
            return {"loss": loss, "teacher": float(target.double().sum())}

        terms = engine(step=step)
        if mode == "ddp":
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        else:
            engine.backward(terms["loss"])
            engine.step()
        sums = torch.tensor([float(terms["loss"].detach()), terms["teacher"]], dtype=torch.float64)
        dist.all_reduce(sums)
        record.append(sums.tolist())
    save_projector(model, folder / mode)
    dist.barrier()
    load_projector(model, folder / mode)
    save_projector(model, folder / mode / "again")
    if rank == 0:
        (folder / mode / "losses.json").write_text(json.dumps(record))
    dist.barrier()


if __name__ == "__main__":
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else minutes of compiling
    deepspeed.init_distributed("gloo")
    for name in sys.argv[2:]:
        run(name, Path(sys.argv[1]))
    dist.destroy_process_group()
