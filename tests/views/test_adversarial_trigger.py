"""The adversarial trigger: where it lies, how it moves, that it finds a planted trigger, that a resume keeps it."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_ta_cleaner.training.embedding import Embedder
from hf_ta_cleaner.training.objective import Progress
from hf_ta_cleaner.views.adversarial_trigger import (
    ALPHA,
    SEARCH_STEP,
    STATE,
    TILES,
    TILES_PER_BATCH,
    WINDOW,
    AdversarialTrigger,
    windows,
)


SIDE = 36


def images(n: int = 8) -> torch.Tensor:
    return torch.full((n, 3, SIDE, SIDE), 100.0)


def trigger(**options) -> AdversarialTrigger:
    return AdversarialTrigger(**{"patch": 0.5, "blend": 0.25, "step": 10.0, "seed": 0, **options})


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


# --- Where it shows --------------------------------------------------------------------------------------------------


def boxes(n: int, side: int, seed: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of each window, which must be one filled rectangle."""
    found = []
    for mask in windows(n, side, np.random.default_rng(seed))[:, 0].numpy():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left, height, width = rows[0], columns[0], len(rows), len(columns)
        assert mask.sum() == height * width and mask[top : top + height, left : left + width].all()
        found.append((top, left, height, width))
    return found


@pytest.mark.parametrize("side", [36, 72, 224, 37])
def test_windows_are_squares_in_a_few_tiles_and_reach_every_pixel(side):
    covered = np.zeros((side, side), bool)
    tile = math.ceil(side / TILES)
    starts = [k * (side - tile) // (TILES - 1) for k in range(TILES)]
    assert starts[-1] + tile == side
    for seed in range(60):
        tiles = set()
        for top, left, height, width in boxes(16, side, seed):
            assert height == width and round(WINDOW[0] * side) <= width <= tile
            own = [(y, x) for y in starts for x in starts if y <= top and x <= left
                   and top + height <= y + tile and left + width <= x + tile]  # fmt: skip
            assert own
            tiles |= {own[0]}
            covered[top : top + height, left : left + width] = True
        assert len(tiles) <= TILES_PER_BATCH
    assert covered.all()


def test_the_attacked_pictures_by_hand():
    """Half of eight show the canvas in a window, a quarter is blended, the rest and the second views stay."""
    own = trigger()
    before = images(12)
    before[8:] = 55.0
    after = own.attack(before, 8, lambda x: x / 2)
    changed = (after != before).flatten(1).any(1)
    assert changed[:8].sum() == 6 and not changed[8:].any()
    canvas, blend = (own.pictures[name].detach() / 2 for name in ("canvas", "blend"))
    kinds = {"window": 0, "blend": 0}
    for picture in after[:8][changed[:8]].detach():
        if (picture == 100).any():
            inside = picture != 100
            assert torch.equal(picture[inside], canvas[inside])
            kinds["window"] += 1
        else:
            alpha = ((picture - 100) / (blend - 100)).median().item()
            assert ALPHA[0] <= alpha <= ALPHA[1]
            assert torch.allclose(picture, 100 + alpha * (blend - 100), atol=1e-3)
            kinds["blend"] += 1
    assert kinds == {"window": 4, "blend": 2}


def test_a_search_attacks_every_picture_in_the_same_proportion():
    own = trigger(patch=0.25, blend=0.125)
    own.searching = True
    after = own.attack(images(36), 24, lambda x: x)
    changed = (after != 100).flatten(1)
    assert changed[:24].any(1).all() and not changed[24:].any()
    assert (changed[:24].float().mean(1) < 0.5).sum() == 16  # windows; the blend is everywhere


def test_nothing_of_the_batch_given_is_written_on():
    before = images()
    trigger().attack(before, 8, lambda x: x.mul_(0))
    assert torch.equal(before, images())


def test_draws_depend_on_seed_and_batch_alone():
    one, two, other = trigger(), trigger(), trigger(seed=1)
    first = one.attack(images(), 8, lambda x: x)
    torch.rand(5)
    assert torch.equal(first, two.attack(images(), 8, lambda x: x))
    assert not torch.equal(first, one.attack(images(), 8, lambda x: x))
    assert not torch.equal(first, other.attack(images(), 8, lambda x: x))


# --- Which way it moves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("searching", "step"), [(False, 10), (True, SEARCH_STEP)])
def test_pixels_climb_the_loss_where_they_were_seen(searching, step):
    own = trigger(patch=1.0, blend=0.0)
    own.searching = searching
    attacked = own.attack(images(), 8, lambda x: x)
    start = {name: picture.detach().clone() for name, picture in own.pictures.items()}
    slope = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    (attacked * slope).sum().backward()
    own.ascend()
    seen = (attacked != 100).any(0)
    wanted = (start["canvas"] + step * slope.sign() * seen).clamp(0, 255)
    assert torch.equal(own.pictures["canvas"], wanted) and (wanted != start["canvas"]).any()
    assert torch.equal(own.pictures["blend"], start["blend"])


def test_a_broken_gradient_moves_nothing():
    own = trigger(patch=1.0)
    attacked = own.attack(images(), 8, lambda x: x)
    start = own.pictures["canvas"].detach().clone()
    (attacked * float("nan")).sum().backward()
    own.ascend()
    assert torch.equal(own.pictures["canvas"], start)


def test_it_finds_a_planted_patch():
    """A loss that is high where a certain square is in the corner: the canvas becomes it, there and nowhere else."""
    square = 255.0 * (torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(5)) > 0.5)
    own = trigger(patch=1.0, blend=0.0)
    for _ in range(120):
        attacked = own.attack(images(), 8, lambda x: x)
        (-(attacked[:, :, -6:, -6:] - square).abs().mean()).backward()
        own.ascend()
    found = own.pictures["canvas"][:, -6:, -6:]
    assert (found - square).abs().mean() < 10
    assert (own.pictures["canvas"][:, :6, :6] - square).abs().mean() > 60


# --- In the trainer --------------------------------------------------------------------------------------------------


PLUS = {"method": "ta-cleaner-plus", "adversarial_search": 3}


@pytest.mark.parametrize("parts", [{}, {"mini_batch_size": 2}])
def test_the_search_moves_the_trigger_and_no_weight(make_trainer, parts):
    trainer = make_trainer(**PLUS, **parts, max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))
    before = weights(trainer.model)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # as the loop of Trainer sets it
    trainer._search(trainer.model, trainer._prepare_inputs(batch))
    assert (
        trainer.perturbations.trigger.batches == 3
        and not trainer.perturbations.trigger.is_new
        and not trainer.perturbations.trigger.searching
    )
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert not trainer._term_log  # the log tells of training alone


def test_a_search_in_parts_finds_the_same(make_trainer, tiny_clip):
    found = []
    for parts in ({}, {"mini_batch_size": 2}):
        options = {**PLUS, "adversarial_search": 1, **parts, "max_steps": 1}
        trainer = make_trainer(model=copy.deepcopy(tiny_clip), **options)
        trainer.current_gradient_accumulation_steps = 1
        trainer._search(trainer.model, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader()))))
        found.append(trainer.perturbations.trigger.pictures["canvas"].detach())
    whole, parts = found
    assert (whole == parts).float().mean() > 0.99  # but where a gradient is zero to rounding


def test_the_search_raises_the_loss(make_trainer):
    trainer = make_trainer(method="ft", adversarial_patch=1.0, adversarial_search=30, max_steps=1)
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))

    def loss() -> float:
        """The mean over ten draws of windows, with the pictures as they are."""
        kept = trainer.perturbations.trigger.batches
        with torch.no_grad():
            values = []
            for i in range(10):
                trainer.perturbations.trigger.batches = 1000 + i
                attacked = trainer.perturbations(inputs, len(inputs["pixel_values"]), 0, 0)
                views = Embedder(trainer.family, trainer.processing_class.image_processor)(trainer.model, attacked)
                values.append(trainer.objective(views, Progress(0, 1))[0].item())
        trainer.perturbations.trigger.batches = kept
        return sum(values) / 10

    before = loss()
    trainer._search(trainer.model, inputs)
    assert loss() > before + 0.01


def test_it_searches_once_and_attacks_every_step_but_no_evaluation(make_trainer, cleaning_pairs):
    trainer = make_trainer(**PLUS, max_steps=4, eval_dataset=cleaning_pairs.select(range(8)))
    trainer.train()
    assert trainer.perturbations.trigger.batches == 3 + 4
    trainer.evaluate()
    with torch.no_grad():
        trainer.compute_loss(trainer.model, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader()))))
    assert trainer.perturbations.trigger.batches == 3 + 4


def test_without_shares_there_is_none(make_trainer):
    for method in ("ft", "ta-cleaner", "par"):
        assert make_trainer(method=method).perturbations.trigger is None
    assert (
        make_trainer(method="ta-cleaner-plus", adversarial_patch=0.0, adversarial_blend=0.0).perturbations.trigger
        is None
    )


def test_a_resumed_run_takes_the_same_steps(make_trainer, tmp_path, tiny_clip):
    # Resumed in the half that is rewound.
    options = {**PLUS, "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    whole = make_trainer(**options)
    whole.train()
    assert (tmp_path / "out" / "checkpoint-2" / STATE).is_file()
    resumed = make_trainer(model=copy.deepcopy(tiny_clip), folder="resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(resumed.model).items())
    assert resumed.perturbations.trigger.batches == whole.perturbations.trigger.batches == 9
    for name, picture in whole.perturbations.trigger.pictures.items():
        assert torch.equal(picture, resumed.perturbations.trigger.pictures[name])


def test_a_run_is_begun_anew_from_a_checkpoint_that_has_no_trigger(tmp_path):
    own = trigger()
    own.load(tmp_path, torch.device("cpu"))
    assert own.is_new and not own.pictures


def test_pixels_are_those_the_model_sees(make_trainer):
    """A white window is white to the model: the processor's own normalisation, also where it has none."""
    from hf_ta_cleaner.training.embedding import standardise

    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.2]
    processor = SimpleNamespace(
        do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_mean=mean, image_std=std
    )
    white = standardise(torch.full((1, 3, 2, 2), 255.0), processor)
    assert white[0, :, 0, 0].tolist() == pytest.approx([(1 - m) / s for m, s in zip(mean, std, strict=True)])
    bare = SimpleNamespace(do_rescale=False, do_normalize=False)
    assert torch.equal(standardise(torch.full((1, 3, 2, 2), 7.0), bare), torch.full((1, 3, 2, 2), 7.0))
