"MixUp and CutMix: edge cases beyond their pages."

import numpy as np
import pytest
import torch

from genaug.contracts import Mixer
from genaug.messages import GenaugError
from genaug.mixing.cutmix import CutMix, cut_box, kept_share
from genaug.mixing.mixup import MixUp, beta_weights

MIXERS = (MixUp(), CutMix())


def batch(count=5, classes=3, size=16, seed=0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.random((count, 3, size, size), np.float32)), torch.eye(classes)[
        random.integers(classes, size=count)
    ]


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.name)
def test_a_pair_does_not_depend_on_its_batch(mixer):
    images, labels = batch()
    others, other_labels = batch(seed=1)
    seeds = [11, 12, 13, 14, 15]
    together = mixer.mix(images, labels, others, other_labels, seeds)
    for i in range(5):
        alone = mixer.mix(
            images[i : i + 1], labels[i : i + 1], others[i : i + 1], other_labels[i : i + 1], seeds[i : i + 1]
        )
        assert torch.equal(together[0][i : i + 1], alone[0])
        assert torch.equal(together[1][i : i + 1], alone[1])


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.name)
def test_inputs_and_global_state_are_left_alone(mixer):
    images, labels = batch()
    copies, state = (
        (images.clone(), labels.clone()),
        (torch.random.get_rng_state(), np.random.get_state()[1].copy()),
    )
    mixed, rows = mixer.mix(images, labels, images.flip(0), labels.flip(0), range(5))
    assert torch.equal(images, copies[0])
    assert torch.equal(labels, copies[1])
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()
    assert mixed.min() >= 0
    assert mixed.max() <= 1
    assert torch.allclose(rows.sum(1), torch.ones(5))


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.name)
def test_an_image_mixed_with_itself_stays(mixer):
    images, labels = batch()
    mixed, rows = mixer.mix(images, labels, images, labels, range(5))
    assert torch.allclose(mixed, images, atol=1e-6)
    assert torch.allclose(rows, labels, atol=1e-6)


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.name)
def test_multi_label_rows_stay_within_their_ends(mixer):
    images, _ = batch()
    first, second = torch.tensor([[1.0, 1, 0, 0]] * 5), torch.tensor([[1.0, 0, 1, 0]] * 5)
    _, rows = mixer.mix(images, first, images.flip(0), second, range(5))
    assert (rows[:, 0] == 1).all()
    assert (rows[:, 3] == 0).all()
    assert torch.allclose(rows[:, 1] + rows[:, 2], torch.ones(5))


def test_weights_follow_the_beta_distribution():
    from scipy.stats import kstest

    for alpha in (0.3, 1.0, 4.0):
        assert kstest(beta_weights(range(2000), alpha).numpy(), "beta", (alpha, alpha)).pvalue > 1e-3


def test_boxes_have_the_drawn_area_unless_cut():
    for seed in range(300):
        top, left, bottom, right = cut_box(seed, 200, 300)
        share = 1 - np.random.default_rng(seed).beta(1, 1)
        area = (bottom - top) * (right - left) / 60000
        assert area <= share + 1e-9
        if top > 0 and left > 0 and bottom < 200 and right < 300:
            assert abs(area - share) < 0.03


def test_one_pixel_images_and_empty_boxes():
    assert all(
        cut_box(seed, 1, 1) == cut_box(seed, 1, 1) and kept_share(cut_box(seed, 1, 1), 1, 1) in (0.0, 1.0)
        for seed in range(20)
    )


def test_alpha_must_be_positive():
    for call in (
        lambda: beta_weights([0], 0),
        lambda: cut_box(0, 8, 8, -1.0),
        lambda: beta_weights([0], float("nan")),
    ):
        with pytest.raises(GenaugError, match="positive"):
            call()


def test_mixers_are_mixers_with_settings():
    assert all(isinstance(mixer, Mixer) for mixer in MIXERS)
    assert MixUp(alpha=0.4).settings() == {"name": "mixup", "alpha": 0.4}
    assert CutMix().settings()["name"] == "cutmix"
