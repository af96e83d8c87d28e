"""A pytest plugin for machines with a CPU build of torch and a CUDA build of torchvision.

Such a torchvision lacks its compiled operators, fails to import, and takes transformers' model classes down
with it. Declaring the operators' schemas is enough for timm and open_clip, which never call them. It has to
happen before anything imports transformers, so the tests of the optional towers are run there with

    PYTHONPATH=tests/llava/model python -m pytest -p torchvision_operators -m towers tests/llava/model
"""

import sys

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # Kept in a module attribute: the declarations live as long as this object.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torchvision  # noqa: F401
