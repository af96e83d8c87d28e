"""All losses, one line each, in the order in which logs, plots and help list them."""

from collections.abc import Mapping
from pkgutil import resolve_name
from types import MappingProxyType

from align_ti.losses.loss import Loss

REGISTERED = (
    "align_ti.losses.sft:SFT",
    "align_ti.losses.kd:KD",
    "align_ti.losses.iva:IVA",
    "align_ti.losses.tpa:TPA",
    "align_ti.losses.relational:RelationalLoss",
    "align_ti.losses.policy_gradient:PolicyGradientLoss",
    "align_ti.losses.topk:TopK",
)
"""The paper's losses in its own order, then losses to compare with."""

LOSSES: Mapping[str, type[Loss]] = MappingProxyType({loss.name: loss for loss in map(resolve_name, REGISTERED)})
"""All losses by name."""
