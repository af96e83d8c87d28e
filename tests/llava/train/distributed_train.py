"""Run under torchrun by test_distributed.py: ``llava.train.train`` without DeepSpeed's minutes of compilation."""

import deepspeed.ops

from llava.train.train import main

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

if __name__ == "__main__":
    main()
