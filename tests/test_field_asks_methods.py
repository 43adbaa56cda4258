"""What users of class activation maps report (pytorch-grad-cam, issues 108 and 264), asked of the saliency
maps of feature-space fusion."""

import numpy as np
import pytest
import torch

from genaug.generators.sparse_codes import small_classifier
from genaug.methods.feature_space import relevance
from genaug.metrics.saliency import principal_projection, saliency


def min_max(maps):
    "Each map stretched to [0, 1], as pytorch-grad-cam does it."
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax((1, 2), keepdim=True))


KINDS = ("eigen", "gradcam", "eigengrad")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return small_classifier(4, 3, width=16).eval()


@pytest.fixture(scope="module")
def codes():
    return torch.softmax(3 * torch.randn(3, 4, 12, 12, generator=torch.Generator().manual_seed(1)), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_three_gives_the_maps_of_three_batches_of_one(network, codes, kind):
    targets = torch.tensor([0, 1, 2])
    together = saliency(network, codes, ("block3",), kind, targets)
    alone = torch.cat(
        [
            saliency(network, codes[index : index + 1], ("block3",), kind, targets[index : index + 1])
            for index in range(3)
        ]
    )
    assert (together - alone).abs().max() < 1e-5
    assert (together.amax((1, 2)) > 0.5).all()  # none but the first is empty


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_picture_twice_gives_the_same_map_twice(network, codes, kind):
    twice = saliency(network, codes[[1, 1]], ("block3",), kind, torch.tensor([2, 2]))
    assert torch.equal(twice[0], twice[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_without_any_positive_value_is_zero_and_finite(codes, kind):
    blind = torch.nn.Sequential(
        torch.nn.Conv2d(4, 2, 1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(2, 3),
    )
    (
        torch.nn.init.zeros_(blind[0].weight),
        torch.nn.init.ones_(blind[0].bias),
        torch.nn.init.constant_(blind[4].weight, -1.0),
    )
    maps = saliency(blind, codes, ("1",), kind, torch.tensor([0, 1, 2]))
    assert torch.equal(maps, torch.zeros(3, 12, 12))


def test_a_map_that_is_zero_lets_the_other_picture_and_the_coins_decide():
    nothing, something = torch.zeros(1, 4, 4), torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not relevance(nothing, something)[0].any()
    assert relevance(something, nothing)[1].all()


def test_an_empty_map_beside_a_full_one_does_not_disturb_it(network, codes):
    flat = torch.full((1, 4, 12, 12), 0.25)
    beside = saliency(network, torch.cat([flat, codes[:1]]), ("block3",), "gradcam", torch.tensor([0, 0]))
    assert (
        beside[1:] - saliency(network, codes[:1], ("block3",), "gradcam", torch.tensor([0]))
    ).abs().max() < 1e-5


def test_the_sign_is_not_the_linear_algebra_library_s(monkeypatch):
    activations, true_svd = (
        torch.randn(3, 5, 6, 6, generator=torch.Generator().manual_seed(0)).relu(),
        torch.linalg.svd,
    )
    first = principal_projection(activations)
    monkeypatch.setattr(
        torch.linalg,
        "svd",
        lambda *given, **more: (lambda left, strength, right: (-left, strength, -right))(
            *true_svd(*given, **more)
        ),
    )
    assert torch.equal(principal_projection(activations), first)


def test_a_bright_object_is_what_the_map_shows_and_not_its_background():
    activations = torch.zeros(2, 3, 8, 8)
    activations[:, :, 2:5, 3:6] = torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)
    maps = min_max(principal_projection(torch.stack([activations[0], -activations[1]])).clamp(min=0))
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:5, 3:6] = True
    assert (maps[:, inside] > 0.99).all()
    assert (maps[:, ~inside] == 0).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_map_does_not_depend_on_the_size_of_the_activations(scale):
    activations = torch.randn(2, 5, 6, 6, generator=torch.Generator().manual_seed(0)).relu()
    assert np.allclose(
        min_max(principal_projection(scale * activations)),
        min_max(principal_projection(activations)),
        atol=2e-4,
    )
