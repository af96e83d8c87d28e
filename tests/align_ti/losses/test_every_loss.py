"""What holds for every loss of the registry, those yet to be written included."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from matplotlib.axes import Axes
from PIL import Image

from align_ti.config import ObjectiveConfig
from align_ti.losses.batch import Counts, Denominator
from align_ti.losses.loss import Loss, Reads, Steps
from align_ti.losses.registry import LOSSES, REGISTERED
from align_ti.objective import Objective
from align_ti.studies.loss_curves import plot_losses
from align_ti.training.arguments import DistillArguments
from align_ti.training.plan_facts import planned_method
from align_ti.training.trainer import AlignTITrainer
from llava.export.card import write_card
from llava.export.history import read_history
from llava.train.parsing import FlagParser
from llava.train.plan import PlanArguments
from llava.train.run_record import describe_run, write_record
from tests.align_ti.conftest import Batch
from tests.align_ti.training.whole_objective import TEACHER_HIDDEN, add, assert_same, settings, total

ROOT = Path(__file__).resolve().parents[3]
COUNTS = (11.0, 3.0, 5.0)

pytestmark = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def models(tiny_model):
    return tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)


def on_policy(name: str) -> bool:
    return LOSSES[name].steps is Steps.SAMPLED


def loss_of(name: str) -> Loss:
    return LOSSES[name](LOSSES[name].Config())


def test_it_says_what_it_is(name):
    kind = LOSSES[name]
    assert kind.name == kind.Config.section == name and kind.title and kind.unit and kind.__doc__
    assert isinstance(loss_of(name).denominator, Denominator) and isinstance(kind.reads, Reads)
    assert len(LOSSES) == len(REGISTERED), "a line and a name of its own for each"


def test_every_setting_is_a_flag_with_help_and_stands_in_the_sites_table(name):
    parser = FlagParser(DistillArguments)
    spec = importlib.util.spec_from_file_location("flag_tables", ROOT / "docs/_ext/flag_tables.py")
    flag_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flag_tables)
    table = {row.flag: row for row in flag_tables.flag_rows("align_ti.training.arguments.DistillArguments")}
    for field in dataclasses.fields(LOSSES[name].Config):
        flag = f"--{name}_{field.name}"
        assert flag in parser.flags and table[flag].help and table[flag].default == str(field.default)


def test_its_term_and_its_weight(name, models, make_batch):
    """``loss`` is the weighted term; the teacher takes no gradient; a step on the wrong responses has no such term."""
    terms, gradients = total(*models, make_batch(), settings((name,)), COUNTS, on_policy=on_policy(name))
    value = terms[name]
    assert value.isfinite() and value.abs() > 1e-3 and terms["loss"] == value
    assert LOSSES[name].signed or value > 0
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    assert all(parameter.grad is None for parameter in models[1].parameters())
    weighted = settings((name,), **{f"{name}_weight": 0.25})
    half, smaller = total(*models, make_batch(), weighted, COUNTS, on_policy=on_policy(name))
    assert half[name] == value and half["loss"].item() == pytest.approx(0.25 * value.item(), rel=1e-12)
    for ours, theirs in zip(smaller, gradients, strict=True):
        torch.testing.assert_close(ours, 0.25 * theirs, rtol=1e-9, atol=1e-12)
    for sampled in (False, True):
        beside = settings(dict.fromkeys(("kd", name)))
        defined = name in total(*models, make_batch(), beside, COUNTS, on_policy=sampled)[0]
        assert defined == loss_of(name).defined(sampled)


def test_its_denominator(name, models, make_batch):
    """Only that one counts, in the objective and where the trainer takes means over a held-out set."""
    its = loss_of(name).denominator.value
    value = total(*models, make_batch(), settings((name,)), COUNTS, on_policy=on_policy(name))[0][name].item()
    for field in Counts._fields:
        counts = Counts(*COUNTS)._replace(**{field: 2 * getattr(Counts(*COUNTS), field)})
        found = total(*models, make_batch(), settings((name,)), counts, on_policy=on_policy(name))[0][name].item()
        assert found == pytest.approx(value / (2 if field == its else 1), rel=1e-12)
    trainer = AlignTITrainer.__new__(AlignTITrainer)
    trainer.objective = Objective(models[1], settings((name,)))
    assert trainer.denominator(name, torch.tensor(COUNTS)) == getattr(Counts(*COUNTS), its)
    assert trainer.denominator("candidate_rows", torch.tensor(COUNTS)) == COUNTS[0]


def padded_left(batch: Batch) -> Batch:
    """The same samples at the other end of their rows."""
    empty = [int((~row).sum()) for row in batch.attention_mask]
    return Batch(
        *(torch.stack([row.roll(by) for row, by in zip(value, empty, strict=True)]) for value in vars(batch).values())
    )


@pytest.mark.parametrize("beside", [(), ("sft", "kd", "iva", "tpa")])
def test_padding_packing_and_micro_batches_change_nothing(beside, name, models, make_batch):
    losses = tuple(dict.fromkeys((*beside, name)))
    batch, chosen, sampled = make_batch("right"), settings(losses), on_policy(name)
    expected = total(*models, batch, chosen, COUNTS, on_policy=sampled)
    assert_same(total(*models, padded_left(batch), chosen, COUNTS, on_policy=sampled), expected)
    assert_same(total(*models, batch, settings(losses, packing=True), COUNTS, on_policy=sampled), expected)
    rows = range(len(batch.ids))
    parts = [total(*models, batch, chosen, COUNTS, rows=[row], on_policy=sampled) for row in rows]
    assert_same(add(parts), expected)


def test_its_panel(name, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    history = [{"step": 5, name: 2.0}, {"step": 10, name: 1.0}]
    (run / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    drawn = []
    title = Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda axes, text, **look: (drawn.append(text), title(axes, text, **look)))
    plot_losses({"run": run}, tmp_path / "losses.png")
    assert drawn == [f"{LOSSES[name].title}\n${LOSSES[name].equation}$"]
    assert Image.open(tmp_path / "losses.png").size[0] > 100  # mathtext could set the equation


def test_its_lines_in_the_model_card(name, tmp_path):
    flags = {f"{name}_weight": 0.5, "iva_layer": 2}
    config = ObjectiveConfig.of_flags((name,), flags)
    losses = ",".join(dict.fromkeys((name, "sft", "kd")))  # the record of what took part goes before the flags
    distill = DistillArguments("teacher", losses=losses, on_policy_fraction=0.5, **flags)
    write_record(tmp_path, describe_run(1, distill=distill, losses=config.record()))
    assert write_card(tmp_path, read_history(tmp_path)) is not None
    text = ModelCard.load(tmp_path / "README.md").text
    assert f"| losses (Eq. 8) | 0.5 x {LOSSES[name].title} |" in text
    others = dataclasses.asdict(config.losses[name])
    others.pop("weight")
    line = ", ".join(f"{key} {value}" for key, value in others.items())
    assert (f"| {LOSSES[name].title} | {line} |" in text) == bool(others)


def test_its_plan(name):
    """What a plan has to know follows from what the loss reads."""
    distill = DistillArguments("teacher", losses=name, on_policy_fraction=float(on_policy(name)))
    method = planned_method(distill, PlanArguments(use_cpu=True))
    found = (method.response_rows, method.visual_rows, method.relations)
    assert found == tuple(LOSSES[name].reads is kind for kind in Reads)
    assert (method.candidates > 0) == (loss_of(name).candidates is not None)
    assert method.attention_map == (loss_of(name).attention is not None)
