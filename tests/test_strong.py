"""Strong augmentation: the same as torchvision under one seed, for every image alone, and every slot of a
schedule."""

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2
from toy_sets import noise_set

from genaug.classifier import train_classifier
from genaug.messages import GenaugError
from genaug.mixing.augmix import transform_each
from genaug.mixing.mixup import MixUp
from genaug.mixing.strong import POLICIES, StrongAugmentation, make_policy
from genaug.schedule import Showing, TrainingSchedule, epoch_plan
from genaug.training_presets import training_preset
from genaug.views import View

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
REFERENCES = {
    "rand": v2.RandAugment(2, 9, interpolation=InterpolationMode.BILINEAR),
    "trivial": v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR),
}


def mixed(policy, images=IMAGES, seeds=range(8)):
    return StrongAugmentation(policy=policy).mix(images, torch.eye(len(images)), None, None, seeds)[0]


@pytest.mark.parametrize("policy", REFERENCES)
def test_an_image_is_what_torchvision_makes_under_its_seed(policy):
    seeds = [3, 2**53 - 1, 7, 8, 9, 10, 11, 12]
    for image, seed, ours in zip(IMAGES, seeds, mixed(policy, seeds=seeds)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = REFERENCES[policy](image)
        assert torch.equal(ours, expected.clamp(0, 1))


@pytest.mark.parametrize("policy", POLICIES)
def test_order_and_company_do_not_matter(policy):
    order = [5, 2, 7, 0]
    whole, some = mixed(policy), mixed(policy, IMAGES[order], order)
    assert torch.equal(whole[order], some)
    assert torch.equal(whole[3:4], mixed(policy, IMAGES[3:4], np.array([3])))
    assert (
        len(
            {image.numpy().tobytes() for image in mixed(policy, IMAGES[:1].expand(30, -1, -1, -1), range(30))}
        )
        > 15
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_grey_images_and_other_shapes(policy):
    for images in (IMAGES[:, :1], IMAGES[:, :, :12], IMAGES[:0]):
        changed = mixed(policy, images, range(len(images)))
        assert changed.shape == images.shape
        assert not len(images) or (changed.min() >= 0 and changed.max() <= 1)


def test_a_mild_policy_stays_mild_and_a_wide_one_does_not():
    smooth = torch.linspace(0.2, 0.8, 32).expand(200, 3, 32, 32)
    inside = (slice(None), slice(None), slice(12, 20), slice(12, 20))
    change = {
        policy: (transform_each(smooth, range(200), make_policy(policy)) - smooth)[inside]
        .abs()
        .mean((1, 2, 3))
        for policy in POLICIES
    }
    assert change["affine-colour"].max() < 0.35 < change["trivial"].max()
    assert (
        (change["trivial"] < 1e-6).float().mean() > 0.05 > (change["affine-colour"] < 1e-6).float().mean()
    )  # identity is one of fourteen


def test_labels_are_copied_and_nothing_global_moves():
    labels, state, other = (
        torch.tensor([[0.3, 0.7]] * 8),
        torch.random.get_rng_state(),
        np.random.get_state()[1].copy(),
    )
    _, given = StrongAugmentation().mix(IMAGES, labels, None, None, range(8))
    given[0] = 9
    assert labels[0].tolist() == pytest.approx([0.3, 0.7])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == other).all()


def test_settings_name_the_policy_and_replacing_it_changes_the_transform():
    mixer = StrongAugmentation(policy="rand")
    again = dataclasses.replace(mixer, policy="trivial")
    assert mixer.settings() == {"name": "strong-augmentation", "policy": "rand"}
    assert again == StrongAugmentation()
    assert torch.equal(again.mix(IMAGES, IMAGES, None, None, range(8))[0], mixed("trivial"))
    assert StrongAugmentation(probability=0.5).settings()["probability"] == 0.5
    with pytest.raises(GenaugError, match="one of affine-colour"):
        StrongAugmentation(policy="auto")


def photographs(count=6):
    return noise_set(np.arange(count) % 2, ("a", "b"), ids="photo{}")


def test_every_slot_is_transformed_and_the_photographs_stay_in_their_order():
    real = photographs()
    plain, strong = (
        TrainingSchedule(real, seed=4, showing=Showing(mixer=mixer)) for mixer in (None, StrongAugmentation())
    )
    for left, right in zip(plain.plan(0).rows, strong.plan(0).rows):
        assert (left.real_id, left.shown, left.view_seed) == (right.real_id, right.shown, right.view_seed)
        assert right.mix == "strong-augmentation"
        assert right.mix_weight == 1.0
    preset = training_preset("tiny", weights=None, updates=4, batch_size=3, view=View(8, 8, 1))
    assert train_classifier(real, preset=preset, showing=Showing(mixer=StrongAugmentation())).shown == {
        "updates": 4,
        "epochs": 2,
        "rows": 12,
        "synthetic": 0,
        "mixed": 12,
    }


def test_the_mixers_own_probability_counts():
    real = photographs(200)

    def share(mixer=None):
        return np.mean(
            [
                row.partner is not None
                for row in epoch_plan(0, real, seed=1, showing=Showing(mixer=mixer)).rows
            ]
        )

    assert share(MixUp(probability=0.1)) < 0.2
    assert 0.4 < share(MixUp()) < 0.6
    assert share(MixUp(probability=1.0)) == 1
    assert share(MixUp(probability=0.0)) == share() == 0
    with pytest.raises(GenaugError, match="probability=1.5"):
        MixUp(probability=1.5)
