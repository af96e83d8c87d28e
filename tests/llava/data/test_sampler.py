import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler

from llava.data.sampler import ModalityLengthSampler, SetEpoch, ShuffleSampler
from llava.errors import InputError


def lengths_of(images, texts, seed=0):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.integers(1, 300, images), -rng.integers(1, 900, texts)])
    return rng.permutation(values)


@pytest.mark.parametrize(("images", "texts"), [(200, 90), (64, 0), (0, 70), (5, 3), (1, 0)])
def test_every_sample_once(images, texts):
    sampler = ModalityLengthSampler(lengths_of(images, texts), 4, 2)
    assert sorted(sampler) == list(range(images + texts)) and len(sampler) == images + texts


def test_mega_batches_have_one_modality_and_leftovers_come_last():
    lengths = lengths_of(203, 92)
    order = list(ModalityLengthSampler(lengths, 4, 4, seed=3))
    signs = np.sign(lengths[order])
    full = (203 // 16 + 92 // 16) * 16
    mega = signs[:full].reshape(-1, 16)
    assert (abs(mega.sum(axis=1)) == 16).all()
    assert signs[full:].tolist() == [1] * (203 % 16) + [-1] * (92 % 16)
    switches = (mega[1:, 0] != mega[:-1, 0]).sum()
    assert switches > 2, "text and image steps are interleaved at random"


def test_batches_of_a_step_cost_about_the_same():
    lengths = lengths_of(1600, 0)
    batches = list(BatchSampler(ModalityLengthSampler(lengths, 8, 4), 8, drop_last=False))
    steps = np.array([[lengths[batch].sum() for batch in batches[i : i + 4]] for i in range(0, len(batches), 4)])
    spread = (steps.max(axis=1) / steps.min(axis=1)).mean()
    shuffled = np.random.default_rng(0).permutation(1600).reshape(-1, 4, 8)
    random_steps = lengths[shuffled].sum(axis=2)
    assert spread < 1.15 < (random_steps.max(axis=1) / random_steps.min(axis=1)).mean()


def test_a_mega_batch_by_hand():
    """Lengths 80 ... 10 dealt to two batches of four, back and forth."""
    lengths = np.array([10, 20, 30, 40, 50, 60, 70, 80])
    order = list(ModalityLengthSampler(lengths, 4, 2))
    assert lengths[order].tolist() == [80, 50, 40, 10, 70, 60, 30, 20]


def test_order_depends_on_seed_and_epoch_alone():
    lengths = lengths_of(300, 100)

    def order(seed, epoch):
        sampler = ModalityLengthSampler(lengths, 4, 2, seed=seed)
        sampler.set_epoch(epoch)
        torch.manual_seed(seed + epoch)
        return tuple(sampler)

    orders = {(seed, epoch): order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    for key, value in orders.items():
        assert order(*key) == value
    state = torch.get_rng_state()
    list(ModalityLengthSampler(lengths, 4, 2))
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left alone"


def test_resumed_training_sees_the_same_batches(tmp_path):
    """Through transformers.Trainer: stopped in the second epoch, the rest of the run is the same."""
    from transformers import Trainer, TrainingArguments

    lengths = lengths_of(24, 12)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def forward(self, index):
            self.seen.append(index.tolist())
            return {"loss": (self.weight - index.float()).square().mean()}

    class GroupedTrainer(Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return ModalityLengthSampler(lengths, 3, 2, seed=5)

    def run(folder, resume=None):
        arguments = TrainingArguments(
            str(folder), per_device_train_batch_size=3, gradient_accumulation_steps=2, num_train_epochs=3,
            save_steps=7, report_to=[], use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        model = Model()
        dataset = [{"index": index} for index in range(len(lengths))]
        trainer = GroupedTrainer(model=model, args=arguments, train_dataset=dataset)
        trainer.train(resume_from_checkpoint=resume)
        return model.seen

    whole = run(tmp_path / "whole")
    assert len(whole) == 36
    assert sorted(sum(whole[:12], [])) == sorted(sum(whole[12:24], [])) == list(range(36))
    assert whole[:12] != whole[12:24]
    resumed = run(tmp_path / "whole", resume=str(tmp_path / "whole" / "checkpoint-7"))
    assert resumed == whole[14:]


@pytest.mark.parametrize("ranks", [1, 2])
def test_epoch_reaches_the_sampler_when_ranks_resume_within_it(ranks):
    """The loaders that accelerate makes for each rank, stopped after 3 batches of epoch 1 and made anew."""
    from accelerate.data_loader import prepare_data_loader, skip_first_batches
    from torch.utils.data import DataLoader
    from transformers import TrainerControl, TrainerState, TrainingArguments

    def loader_and_callback(rank):
        sampler = ShuffleSampler(48, seed=1)
        loader = DataLoader(range(48), batch_size=4, sampler=sampler)
        loader = prepare_data_loader(loader, num_processes=ranks, process_index=rank, put_on_device=False)
        return loader, SetEpoch(sampler)

    def epoch_1(loader, callback, fraction):
        state = TrainerState(epoch=1 + fraction)
        callback.on_epoch_begin(TrainingArguments(use_cpu=True), state, TrainerControl())
        loader.set_epoch(1)
        return [batch.tolist() for batch in loader]

    for rank in range(ranks):
        whole = epoch_1(*loader_and_callback(rank), fraction=0)
        loader, callback = loader_and_callback(rank)
        resumed = epoch_1(skip_first_batches(loader, 3), callback, fraction=3 / len(whole))
        assert resumed == whole[3:]
        assert whole != [batch.tolist() for batch in loader_and_callback(rank)[0]], "epoch 0 has another order"


def test_shuffle_sampler():
    sampler = ShuffleSampler(50, seed=2)
    first = list(sampler)
    assert sorted(first) == list(range(50)) == sorted(first) and first != list(range(50)) and len(sampler) == 50
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    with pytest.raises(InputError, match="at least one sample"):
        ShuffleSampler(0)


def test_ranks_take_turns_within_a_step():
    """As accelerate shards a batch sampler: two ranks never mix modalities within a step."""
    from accelerate.data_loader import BatchSamplerShard

    lengths = lengths_of(64, 32)
    ranks = []
    for rank in range(2):
        batches = BatchSampler(ModalityLengthSampler(lengths, 4, 2, seed=1), 4, drop_last=False)
        ranks.append(list(BatchSamplerShard(batches, num_processes=2, process_index=rank)))
    assert sorted(sum(ranks[0] + ranks[1], [])) == list(range(96))
    for first, second in zip(*ranks, strict=True):
        assert len({int(np.sign(lengths[index])) for index in first + second}) == 1


def test_wrong_arguments():
    with pytest.raises(InputError, match="at least one sample"):
        ModalityLengthSampler([], 4)
    with pytest.raises(InputError, match="sample 1 has length 0"):
        ModalityLengthSampler([3, 0], 4)
    with pytest.raises(InputError, match="batch_size 0"):
        ModalityLengthSampler([3], 0)


def test_a_window_makes_batches_alike_in_length_and_loses_no_sample():
    """Sixteen mega-batches sorted together: the spread of lengths within a batch shrinks, each sample comes once."""
    lengths = lengths_of(480, 160)
    plain = ModalityLengthSampler(lengths, 8, 1, seed=2).order()
    sorted_ = ModalityLengthSampler(lengths, 8, 1, seed=2, window=16).order()
    assert sorted(sorted_.tolist()) == list(range(640))

    def spread(order):
        batches = np.abs(np.asarray(lengths))[order].reshape(-1, 8)
        return (batches.max(axis=1) - batches.min(axis=1)).mean()

    assert spread(sorted_) < 0.3 * spread(plain)
    assert np.array_equal(ModalityLengthSampler(lengths, 8, 1, seed=2, window=1).order(), plain)
    with pytest.raises(InputError, match="window 0"):
        ModalityLengthSampler(lengths, 8, 1, window=0)
