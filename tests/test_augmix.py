"""AugMix: the same image as torchvision under one seed, the same loss as timm, and labels of every kind left
alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from timm.loss import JsdCrossEntropy
from torchvision.transforms import v2

from genaug.contracts import Mixer
from genaug.identity import seed_from
from genaug.messages import GenaugError
from genaug.mixing.augmix import AugMix, jensen_shannon, transform_each

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.2, 0.3, 0.5], [1, 1, 0], [0, 0, 0], [0.5, 1, 0.5]])


def logits(count=3, rows=5, classes=4, scale=2.0):
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(rows, classes, generator=generator) for _ in range(count)]


def under(seed, transform, image):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transform(image).clamp(0, 1)


@pytest.mark.parametrize(
    "fields, settings",
    [
        ({}, {}),
        ({"severity": 10}, {"severity": 10}),
        ({"width": 1, "depth": 2}, {"mixture_width": 1, "chain_depth": 2}),
        ({"alpha": 0.3}, {"alpha": 0.3}),
        ({"all_ops": True}, {"all_ops": True}),
    ],
    ids=str,
)
def test_an_image_is_what_torchvision_makes_under_its_seed(fields, settings):
    reference, seeds = v2.AugMix(**{"all_ops": False, **settings}), [3, 2**53 - 1, 7, 8, 9, 10]
    ours, _ = AugMix(jsd=False, **fields).mix(IMAGES, LABELS, None, None, seeds)
    assert all(
        torch.equal(image, under(seed, reference, photograph))
        for image, seed, photograph in zip(ours, seeds, IMAGES)
    )
    assert not torch.equal(ours, IMAGES)


def test_views_have_their_own_seeds_and_differ_from_each_other():
    mixer, seeds = AugMix(), [5, 6, 7, 8, 9, 10]
    views = mixer.views(IMAGES, seeds)
    expected = [
        transform_each(
            IMAGES, [seed_from(seed, "augmix view", number) for seed in seeds], v2.AugMix(all_ops=False)
        )
        for number in range(2)
    ]
    assert len(views) == 2
    assert all(torch.equal(left, right) for left, right in zip(views, expected))
    assert not torch.equal(*views)
    # company does not matter
    assert all(
        torch.equal(left[2:4], right)
        for left, right in zip(views, mixer.views(IMAGES[2:4], np.array(seeds[2:4])))
    )


def test_with_the_loss_images_stay_and_without_it_there_are_no_views():
    images, labels = AugMix().mix(IMAGES, LABELS, None, None, range(6))
    assert torch.equal(images, IMAGES)
    assert images.data_ptr() != IMAGES.data_ptr()
    assert AugMix(jsd=False).views(IMAGES, range(6)) == []


@pytest.mark.parametrize("jsd", (True, False))
def test_labels_are_copied_and_nothing_global_or_given_moves(jsd):
    state, other, before = (
        torch.random.get_rng_state(),
        np.random.get_state()[1].copy(),
        (IMAGES.clone(), LABELS.clone()),
    )
    mixer = AugMix(jsd=jsd)
    images, labels = mixer.mix(IMAGES, LABELS, None, None, range(6))
    mixer.views(IMAGES, range(6))
    assert torch.equal(labels, LABELS)
    labels[0], images[0] = 9, 9
    assert torch.equal(IMAGES, before[0])
    assert torch.equal(LABELS, before[1])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == other).all()


def test_grey_images_other_shapes_and_no_image():
    mixer = AugMix(jsd=False)
    for images in (IMAGES[:, :1], IMAGES[:, :, :12], IMAGES[:0]):
        changed, _ = mixer.mix(images, LABELS[: len(images)], None, None, range(len(images)))
        assert changed.shape == images.shape
        assert changed.dtype == torch.float32
        assert not len(images) or (
            changed.min() >= 0 and changed.max() <= 1 and torch.isfinite(changed).all()
        )
    assert [view.shape for view in AugMix().views(IMAGES[:0], [])] == [IMAGES[:0].shape] * 2


def test_with_all_weight_on_the_photograph_nothing_changes(monkeypatch):
    monkeypatch.setattr(
        v2.AugMix, "_sample_dirichlet", lambda self, alphas: torch.eye(alphas.shape[-1])[:1].expand_as(alphas)
    )
    assert torch.equal(AugMix(jsd=False, severity=10).mix(IMAGES, LABELS, None, None, range(6))[0], IMAGES)
    monkeypatch.undo()
    assert not torch.equal(
        AugMix(jsd=False, severity=10).mix(IMAGES, LABELS, None, None, range(6))[0], IMAGES
    )


@pytest.mark.parametrize("count", (2, 3, 5))
def test_divergence_is_zero_for_equal_answers_and_at_most_the_logarithm(count):
    equal, disjoint = logits()[:1] * count, [1000 * torch.eye(count)[[index]] for index in range(count)]
    assert jensen_shannon(equal).abs().max() < 1e-6
    assert jensen_shannon(disjoint).item() == pytest.approx(math.log(count), abs=1e-6)
    several = jensen_shannon(logits(count, scale=5.0))
    assert (several > 0).all()
    assert (several < math.log(count)).all()
    assert several.shape == (5,)


def test_divergence_of_two_is_the_squared_distance_of_scipy():
    left, right = logits(2)
    assert np.allclose(
        jensen_shannon([left, right]),
        [
            jensenshannon(*pair) ** 2
            for pair in zip(left.double().softmax(1).numpy(), right.double().softmax(1).numpy())
        ],
        atol=1e-6,
    )


@pytest.mark.parametrize("task", ("single", "multi"))
def test_divergence_does_not_depend_on_the_order(task):
    left, right, three = logits()
    values = [
        jensen_shannon(order, task)
        for order in ((left, right, three), (three, left, right), (right, left, three))
    ]
    assert all(torch.allclose(values[0], value, atol=1e-6) for value in values)


def test_several_labels_are_the_mean_of_yes_or_no_divergences():
    answers = logits()
    # softmax(z, 0) = sigmoid(z)
    per_class = [
        jensen_shannon([torch.stack([answer[:, index], torch.zeros(5)], 1) for answer in answers])
        for index in range(4)
    ]
    assert torch.allclose(jensen_shannon(answers, "multi"), torch.stack(per_class).mean(0), atol=1e-6)
    repeated = [answer.repeat(1, 10) for answer in answers]
    # forty classes cost what four do
    assert torch.allclose(jensen_shannon(repeated, "multi"), jensen_shannon(answers, "multi"), atol=1e-6)


@pytest.mark.parametrize("scale", (0.5, 3.0, 30.0))
def test_loss_and_gradient_equal_timm(scale):
    targets = torch.tensor([0, 1, 2, 3, 0])
    ours, theirs = ([value.clone().requires_grad_() for value in logits(scale=scale)] for _ in range(2))
    mine = F.cross_entropy(ours[0], targets) + AugMix().consistency(ours, "single").mean()
    reference = JsdCrossEntropy(num_splits=3, alpha=12, smoothing=0)(torch.cat(theirs), targets)
    assert mine.item() == pytest.approx(reference.item(), rel=1e-5, abs=1e-5)
    mine.backward(), reference.backward()
    assert all(torch.isfinite(value.grad).all() for value in ours)
    # beyond, timm's clamp cuts gradients off
    assert scale > 10 or all(
        torch.allclose(left.grad, right.grad, atol=1e-5) for left, right in zip(ours, theirs)
    )


@pytest.mark.parametrize("task", ("single", "multi"))
def test_extreme_answers_give_finite_losses_and_gradients(task):
    answers = [
        torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True),
        torch.tensor([[-1e4, 1e4, 0.0]], requires_grad=True),
        torch.zeros(1, 3, requires_grad=True),
    ]
    value = AugMix().consistency(answers, task).mean()
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(answer.grad).all() for answer in answers)


def test_consistency_counts_the_weight_and_is_zero_for_one_answer():
    answers = logits()
    assert torch.allclose(AugMix(weight=3.0).consistency(answers, "single"), 3 * jensen_shannon(answers))
    assert AugMix(weight=0).consistency(answers, "single").abs().max() == 0
    assert AugMix(jsd=False).consistency(answers[:1], "single").abs().max() < 1e-5


def test_settings_and_replacing():
    mixer = AugMix(jsd=False, severity=5)
    assert isinstance(mixer, Mixer)
    assert mixer.probability == 1.0
    assert mixer.describe(0)["weight"] == 1.0
    assert AugMix().settings() == {
        "name": "augmix",
        "jsd": True,
        "weight": 12.0,
        "severity": 3,
        "width": 3,
        "depth": -1,
        "alpha": 1.0,
        "all_ops": False,
    }
    again = dataclasses.replace(mixer, severity=3)
    assert again == AugMix(jsd=False)
    assert torch.equal(
        again.mix(IMAGES, LABELS, None, None, range(6))[0],
        AugMix(jsd=False).mix(IMAGES, LABELS, None, None, range(6))[0],
    )


@pytest.mark.parametrize(
    "wrong",
    (
        {"severity": 0},
        {"severity": 11},
        {"width": 0},
        {"depth": 0},
        {"depth": -2},
        {"alpha": 0},
        {"alpha": math.inf},
        {"alpha": math.nan},
        {"weight": -1},
        {"weight": math.nan},
    ),
    ids=str,
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(GenaugError, match=f"{next(iter(wrong))}="):
        AugMix(**wrong)
