"""Every setting of the objective with values that it cannot have, in Python and on the command line."""

import copy
import math
import pickle
import re
from dataclasses import fields

import pytest
import torch

from align_ti.attention.ribbon import backends
from align_ti.attention.ribbon.backends import BACKENDS
from align_ti.config import (
    FLAGS,
    RIBBON_BACKENDS,
    RIBBONS,
    SECTIONS,
    ObjectiveConfig,
    RibbonConfig,
    flag_name,
)
from align_ti.losses.divergences import DivergenceConfig
from align_ti.losses.iva import IVA_WEIGHTS, IVAConfig
from align_ti.losses.kd import KDConfig
from align_ti.losses.registry import LOSSES
from align_ti.losses.relational import SIMILARITIES
from align_ti.losses.tpa import TPAConfig
from align_ti.settings import SettingError
from align_ti.training.arguments import DistillArguments
from llava.errors import InputError
from llava.train.parsing import parse_arguments
from tests.align_ti.training.whole_objective import TEACHER_HIDDEN, settings, total

ON_OR_OFF = (["False", 1, None], "expected True or False")
CHOICES = {
    "iva.weights": tuple(IVA_WEIGHTS),
    "rel.similarity": SIMILARITIES,
    "tpa.sampling": ("nucleus", "multinomial", "greedy"),
    "tpa.draws_from": ("student", "teacher"),
    "ribbon.kind": RIBBONS,
    "ribbon.backend": RIBBON_BACKENDS,
}
BAD = {
    **{path: (["x", None, 1], f"expected one of {', '.join(names)}") for path, names in CHOICES.items()},
    **{f"{name}.weight": ([-1.0, math.nan, math.inf, "1", True], "expected a number, at least 0") for name in LOSSES},
    "iva.layer": ([-1, 1.5, "-1", "101%", "last", "", True, None], "expected a layer number from 0, a depth from 0%"),
    "iva.rows": ([-1, 1.5, "128", True, None], "expected a whole number of visual tokens, or 0 for all"),
    "divergence.name": (["chi2", "jsd:2", None], "forward_kl|between 0 and 1|name"),
    "divergence.temperature": ([0.0, -1.0, math.nan, math.inf, "1"], "expected a positive number"),
    "tpa.d": ([0, -1, 2.5, "4", True], "expected a whole number of candidates, at least 1"),
    "tpa.top_p": ([0.0, 1.1, -0.5, math.nan, "1"], "expected a probability"),
    "ribbon.merge_draws": ON_OR_OFF,
    "compile_losses": ON_OR_OFF,
    "packing": (["False", 1, None], "expected True, False or auto"),
    "end_of_turn_ids": ([2, "2", [None], [-1]], "expected a collection of token ids"),
    "seed": ([-1, 2**64, 0.5, None], "expected a whole number, 0 to"),
    "divergence": (["forward_kl", KDConfig()], "expected a DivergenceConfig"),
    "ribbon": (["prefix"], "expected a RibbonConfig"),
}
"""Values that settings cannot have, by path, and what the message says behind it."""


@pytest.mark.parametrize("path, value", [(path, value) for path, (values, _) in BAD.items() for value in values])
def test_in_python(path, value):
    section, _, field = path.rpartition(".")
    with pytest.raises(SettingError, match=f"^{re.escape(path)}( is|:) .*({BAD[path][1]})"):
        SECTIONS[section](**{field: value})


@pytest.mark.parametrize("flag", FLAGS)
def test_every_setting_checks_its_values(flag):
    """Also those of losses that are yet to be written."""
    section, field = FLAGS[flag].section, FLAGS[flag].field
    with pytest.raises(SettingError, match=f"^{re.escape(SECTIONS[section].path(field))} is .*; expected "):
        SECTIONS[section](**{field: object()})


@pytest.mark.parametrize("path", CHOICES)
def test_every_choice_is_taken(path):
    section, _, field = path.rpartition(".")
    for value in CHOICES[path]:
        assert getattr(SECTIONS[section](**{field: value}), field) == value
        (loss,) = {section} & LOSSES.keys() or {"kd"}
        found = parsed("--losses", loss, flag_name(path), value).objective
        assert found.flags()[flag_name(path)[2:]] == value


def parsed(*flags: str) -> DistillArguments:
    (arguments,) = parse_arguments(DistillArguments, argv=["--teacher_path", "teacher", *flags])
    return arguments


TYPED = {
    **{path: ("x", f"is 'x'; expected one of {', '.join(names)}") for path, names in CHOICES.items()},
    "iva.layer": ("75 %", "is '75 %'; expected a layer number"),
    "divergence.name": ("chi2", "unknown divergence 'chi2'; there are forward_kl"),
    "divergence.temperature": ("nan", "is nan; expected a positive number"),
    "tpa.d": ("0", "is 0; expected a whole number of candidates, at least 1"),
    "tpa.top_p": ("1.5", "is 1.5; expected a probability"),
}
"""A bad value for a setting's flag, and the message behind the flag's name."""


@pytest.mark.parametrize("path", TYPED)
def test_on_the_command_line(path):
    value, message = TYPED[path]
    with pytest.raises(InputError, match=f"^{flag_name(path)}:? {message}"):
        parsed(flag_name(path), value)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if FLAGS[flag].type is bool])
def test_switches_on_the_command_line(flag):
    with pytest.raises(InputError, match=f"--{flag}.*perhaps"):
        parsed(f"--{flag}", "perhaps")


@pytest.mark.parametrize("loss", LOSSES)
def test_factors_on_the_command_line(loss):
    chosen = ("--losses", f"kd,{loss}" if loss != "kd" else "kd", "--on_policy_fraction", "0.5")
    for value in ("-1", "nan", "inf"):
        with pytest.raises(InputError, match=f"^--{loss}_weight is .*; expected a number, at least 0"):
            parsed(*chosen, f"--{loss}_weight", value)
    with pytest.raises(InputError, match="^all of --kd_weight, --tpa_weight are 0: nothing is trained"):
        parsed("--losses", "kd,tpa", "--kd_weight", "0", "--tpa_weight", "0")


def test_the_papers_losses_with_their_defaults():
    assert parsed().objective == ObjectiveConfig() == ObjectiveConfig(rel=None)
    assert list(ObjectiveConfig().losses) == ["sft", "kd", "iva", "tpa"]


def test_flags_and_configuration_are_two_faces_of_one_thing():
    """Every flag with a value that is not its default, there and back."""
    others = {str: "teacher", int: 7, float: 0.25, bool: True}
    given = {name: others.get(flag.type) for name, flag in FLAGS.items()} | {
        "tpa_sampling": "multinomial", "rel_similarity": "product", "ribbon_backend": "sdpa", "ribbon": "prefix",
        "merge_draws": False, "packing": True, "divergence": "jsd", "jsd_beta": 0.3, "skew_alpha": None,
        "iva_layer": "75%",
    }  # fmt: skip
    config = ObjectiveConfig.of_flags(LOSSES, given)
    assert config.flags() == {"losses": ",".join(LOSSES), **given}
    assert ObjectiveConfig.of_flags(LOSSES, config.flags()) == config
    assert config.divergence.full_name == "jsd:0.3" and config.ribbon == RibbonConfig(backend="sdpa", merge_draws=False)
    assert {name: loss.weight for name, loss in config.losses.items()} == dict.fromkeys(LOSSES, 0.25)


def test_flags_are_named_after_sections_and_fields():
    assert flag_name("tpa.d") == "--tpa_d" and flag_name("divergence.temperature") == "--kd_temperature"
    assert flag_name("seed") == "seed"  # none of its own: the training's


def test_changes():
    config = ObjectiveConfig(kd=KDConfig(weight=2.0), iva=IVAConfig(), tpa=TPAConfig(d=2), seed=3)
    other = config.replace(tpa=None, packing=True).at_layer(5)
    assert list(other.losses) == ["kd", "iva"] and other.packing and other.seed == 3
    assert other.attention is not None and other.attention.layer == 5 and other.attention.of == "teacher"
    assert other.losses["kd"] == KDConfig(weight=2.0) and config.losses["iva"] == IVAConfig()
    assert config.candidates is not None and config.candidates.d == 2 and other.candidates is None


def test_it_can_be_sent_to_another_process():
    config = ObjectiveConfig(kd=KDConfig(weight=2.0), ribbon=RibbonConfig(backend="sdpa"), end_of_turn_ids={2, 3})
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


@pytest.mark.parametrize(
    "losses, message",
    [
        ({"magic": KDConfig()}, "unknown loss 'magic'; expected one of sft, kd, iva, tpa"),
        ({"kd": 0.5}, r"kd is 0.5; expected its settings, for example KDConfig\(weight=1.0\)"),
        ({"kd": TPAConfig()}, "kd is TPAConfig.*; expected its settings, for example KDConfig"),
        ({"kd": KDConfig(weight=0.0), "iva": IVAConfig(weight=0)}, "all of kd.weight, iva.weight are 0: nothing is"),
    ],
)
def test_losses_that_cannot_be(losses, message):
    with pytest.raises(InputError, match=message):
        ObjectiveConfig(**losses)


@pytest.mark.parametrize("ribbon", ["prefix", "algorithm1"])
def test_samples_in_one_row_need_the_shared_prefix(ribbon):
    """Algorithm 1's mask would let them attend to each other."""
    flags = ("--packing", "True", "--ribbon", ribbon)
    if ribbon == "prefix":
        ObjectiveConfig(tpa=TPAConfig(), packing=True, ribbon=RibbonConfig(kind=ribbon))
        parsed(*flags)
        return
    with pytest.raises(InputError, match="^packing works with ribbon.kind prefix"):
        ObjectiveConfig(tpa=TPAConfig(), packing=True, ribbon=RibbonConfig(kind=ribbon))
    with pytest.raises(InputError, match="^--packing works with --ribbon prefix"):
        parsed(*flags)


def test_packing_is_automatic_where_flash_attention_runs(monkeypatch):
    """Here FlashAttention is said to run; it need not, since only the choice is tested."""
    flash = BACKENDS["flash"]
    monkeypatch.setattr(backends, "BACKENDS", {**BACKENDS, "flash": flash._replace(why_not=lambda: None)})
    config = ObjectiveConfig()
    assert config.packing == "auto" and config.packs(torch.bfloat16) and not config.packs(torch.float32)
    assert not config.replace(packing=False).packs(torch.bfloat16)
    assert config.replace(packing=True).packs(torch.float32)
    assert not config.replace(ribbon=RibbonConfig(backend="sdpa")).packs(torch.bfloat16)
    assert not config.replace(ribbon=RibbonConfig(kind="algorithm1")).packs(torch.bfloat16)
    monkeypatch.undo()
    if not torch.cuda.is_available():
        assert not config.packs(torch.bfloat16)


def test_packing_on_the_command_line():
    for words, packing in (((), "auto"), (("--packing",), True), (("--packing", "false"), False)):
        assert parsed(*words).objective.packing == packing
    assert parsed("--packing", "Auto", "--tpa_d", "2").objective.packing == "auto"
    with pytest.raises(InputError, match="packing.*perhaps"):
        parsed("--packing", "perhaps")


@pytest.mark.parametrize("whose, layers", [("teacher", 3), ("student", 2)])
def test_a_layer_that_the_model_does_not_have(whose, layers, tiny_model, make_batch):
    models = tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)
    chosen = settings(("iva",), iva_weights=whose, iva_layer=layers)
    with pytest.raises(InputError, match=f"iva.layer is {layers}, but the {whose} has {layers} layers, 0 to"):
        total(*models, make_batch(), chosen)


def test_sections_are_told_apart():
    """A parameter of one divergence under another is refused in the names of whoever gave it."""
    with pytest.raises(SettingError, match="^divergence.jsd_beta 0.5 is the parameter of divergence.name jsd, but"):
        DivergenceConfig(jsd_beta=0.5)
    with pytest.raises(InputError, match="^--jsd_beta 0.5 is the parameter of --divergence jsd, but --divergence is"):
        parsed("--jsd_beta", "0.5")


def test_all_fields_of_sections_are_settings():
    """So that each has a flag, a help text and a check."""
    for name, kind in SECTIONS.items():
        if name:
            assert all("rule" in field.metadata for field in fields(kind)), name
