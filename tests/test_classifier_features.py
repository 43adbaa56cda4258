"""Features of pretrained networks: which networks are refused, what features depend on, and what is kept on
disk."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toy_sets import noise_set

from genaug.core import LabeledImages
from genaug.features import cached_features, feature_network
from genaug.messages import GenaugError
from genaug.metrics.images import pixel_features
from genaug.networks import make_network


def pictures(count=6, seed=0, edge=32, channels=3):
    ids = f"{seed}-{{}}"
    return noise_set(np.arange(count) % 2, ("a", "b"), size=edge, channels=channels, seed=seed, ids=ids)


@pytest.fixture(scope="module")
def letters():
    return feature_network("letters")


def test_it_is_the_pretrained_network_before_its_head(letters):
    images = pictures()
    network = make_network("letters", 3, weights="embedded", seed=5).eval()
    with torch.inference_mode():
        expected = network.features(images.batch())
    features = letters.features(images)
    assert features.shape == (6, 128)
    assert features.dtype == np.float64
    assert np.allclose(features, expected.numpy(), atol=1e-5)
    assert not letters.network.training


def test_features_do_not_depend_on_the_company(letters):
    images = pictures(7)
    assert np.allclose(letters.features(images), letters.features(images, batch_size=2), atol=1e-5)
    assert np.allclose(letters.features(images[[4]]), letters.features(images)[4:5], atol=1e-5)


def test_other_sizes_grey_images_and_none(letters):
    mixed = LabeledImages(
        [np.full((9, 14, 3), 7, np.uint8), np.full((40, 32), 90, np.uint8)], [0, 1], ("a", "b"), ["x", "y"]
    )
    assert letters.features(mixed).shape == (2, 128)
    assert letters.features(mixed[[]]).shape == (0, 128)
    assert letters.features(pictures(3, channels=1)).shape == (3, 128)


def test_the_fingerprint_is_of_the_weights(letters, tmp_path):
    other = feature_network("letters", device="cpu")
    state = other.network.network.state_dict()
    save_file(
        {name: value + 0.1 if name == "body.0.0.weight" else value for name, value in state.items()},
        tmp_path / "other.safetensors",
    )
    changed = feature_network("letters", str(tmp_path / "other.safetensors"))
    assert (
        letters.fingerprint()
        == other.fingerprint()
        == feature_network("letters", "embedded").fingerprint()
        != changed.fingerprint()
    )
    assert not np.allclose(letters.features(pictures()), changed.features(pictures()))


@pytest.mark.parametrize(
    "name, weights, words",
    [
        ("residual", None, "judge"),
        ("residual", "embedded", "judge"),
        ("test_resnet", None, "name its weights"),
        ("no_such.tag", None, "no network"),
        ("no_such", "file", "no network"),
        ("test_resnet", "no_such_tag", "cannot be loaded"),
    ],
)
def test_networks_that_are_refused(name, weights, words):
    with pytest.raises(GenaugError, match=words):
        feature_network(name, weights)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_network_of_timm_from_a_file(name, tmp_path):
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = timm.create_model(name)
    path = tmp_path / "model.safetensors"
    save_file({key: value.contiguous() for key, value in made.state_dict().items()}, path)
    state = torch.random.get_rng_state()
    network = feature_network(name, str(path))
    assert torch.equal(torch.random.get_rng_state(), state)
    edge = made.pretrained_cfg["input_size"][-1]
    features = network.features(pictures(2, edge=20))
    with torch.inference_mode():
        view = network.view.test(pictures(2, edge=20).batch(size=network.view.resize))
        expected = made.eval().forward_head(
            made.forward_features(network.network.prepared(view)), pre_logits=True
        )
    assert view.shape[-1] == edge
    assert np.allclose(features, expected.numpy(), atol=1e-4)


def test_kept_features_are_read_back_without_the_network(letters, tmp_path):
    images, calls = pictures(), []

    class Counting:
        name = "counting"

        def features(self, given):
            return calls.append(len(given)) or letters.features(given)

        def fingerprint(self):
            return letters.fingerprint()

    first, second = (cached_features(Counting(), images, tmp_path) for _ in range(2))
    renamed = dataclasses.replace(images, ids=list("uvwxyz"), labels=np.zeros(6, int))
    assert calls == [6]
    assert np.array_equal(first, second)
    assert np.array_equal(first, cached_features(letters, renamed, tmp_path))
    assert np.array_equal(first, cached_features(letters, images, None))
    assert first.dtype == np.float64
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_a_changed_image_another_order_and_another_network_are_other_files(letters, tmp_path):
    images = pictures()
    whole = cached_features(letters, images, tmp_path)
    turned = cached_features(letters, images[[5, 4, 3, 2, 1, 0]], tmp_path)
    assert np.allclose(turned[::-1], whole, atol=1e-5)
    cached_features(letters, pictures(seed=1), tmp_path)
    cached_features(
        dataclasses.replace(letters, view=dataclasses.replace(letters.view, resize=36)), images, tmp_path
    )
    assert len(list((tmp_path / "features").iterdir())) == 4


def test_a_network_without_fingerprint_cannot_be_kept(tmp_path):
    images = pictures()
    with pytest.raises(GenaugError, match="fingerprint"):
        cached_features(pixel_features(4), images, tmp_path)
    assert cached_features(pixel_features(4), images, None).shape == (6, 48)
    assert not list(tmp_path.iterdir())
