"The classifier: views, losses, training, and what training must not depend on."

import dataclasses
import json

import numpy as np
import pytest
import torch
from toy_sets import noise_set

from genaug.classifier import ImageStore, prepare_training, train_classifier
from genaug.core import LabeledImages
from genaug.judge import train_judge
from genaug.losses import smoothed_target, weighted_loss
from genaug.messages import GenaugError
from genaug.methods.genmix import GenMix
from genaug.mixing.cutmix import CutMix
from genaug.networks import make_network
from genaug.schedule import USES, Showing, SwapClass, training_use
from genaug.trained_classifier import TrainedClassifier
from genaug.training_presets import training_preset
from genaug.views import View

QUICK = training_preset("tiny", weights=None, updates=3, batch_size=6, view=View(8, 8, 1))


def make(labels, prefix, info=None, task="single", classes=3, size=8, seed=0):
    names = tuple("abc"[:classes])
    return noise_set(labels, names, size=size, seed=seed, ids=prefix + "{}", task=task, info=info)


REAL = make([0, 0, 0, 1, 1, 2], "photo")
ANCHORS = [0, 0, 1, 2, 3, 4, 5, 5]
MADE = make([0, 0, 0, 0, 1, 1, 2, 2], "row", [{"sources": [[f"photo{i}", 1.0]]} for i in ANCHORS], seed=1)


def test_views_do_not_depend_on_the_batch_and_flip_only_when_asked():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for view in (View(8, 8, 2), View(6, 8, 1, "reflect", flip=True), View(8, 8, 0, strong=True)):
        together = view.train(images, [5, 6, 7, 8])
        assert torch.allclose(together[2], view.train(images[2:3], [7])[0], atol=1e-6)
        assert together.shape[-1] == view.size
    plain = View(8, 8, 0).train(images.expand(4, -1, -1, -1), range(4))
    assert torch.equal(plain, images)
    flips = View(8, 8, 0, flip=True).train(images[:1].expand(400, -1, -1, -1), range(400))
    mirrored = [torch.equal(image, images[0].flip(2)) for image in flips]
    assert 0.4 < np.mean(mirrored) < 0.6
    assert all(now or torch.equal(image, images[0]) for now, image in zip(mirrored, flips))


def test_the_target_has_mass_one_and_one_class_works():
    soft = torch.softmax(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), 1)
    assert torch.allclose(smoothed_target(soft, 0.1).sum(1), torch.ones(5))
    assert torch.equal(smoothed_target(torch.ones(2, 1), 0.0), torch.ones(2, 1))


def test_multi_label_loss_is_binary_cross_entropy():
    logits, labels = (
        torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[1.0, 0, 1]] * 4),
    )
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert torch.isclose(weighted_loss(logits, labels, torch.full((4,), 2.0), "multi"), expected)


@pytest.mark.parametrize("use", USES)
def test_every_use_trains_with_equal_updates(use):
    torch.manual_seed(7)
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    trained = train_classifier(
        REAL, MADE, QUICK, Showing(training_use(use), GenMix() if use == "partners" else CutMix())
    )
    assert trained.shown["updates"] == 3
    assert trained.shown["epochs"] == 3
    assert len(trained.losses) == 3
    assert trained.shown["mixed"] > 0
    assert torch.equal(state, torch.random.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


def test_the_same_seed_gives_the_same_classifier_and_another_does_not():
    runs = [train_classifier(REAL, MADE, QUICK, seed=seed) for seed in (0, 0, 1)]
    answers = [run.predict(REAL) for run in runs]
    assert np.array_equal(answers[0], answers[1])
    assert not np.allclose(answers[0], answers[2])


def test_no_replacement_is_the_baseline_bit_for_bit():
    answers = [
        train_classifier(REAL, synthetic, QUICK, Showing(SwapClass(replace=0.0))).predict(REAL)
        for synthetic in (None, MADE)
    ]
    assert np.array_equal(*answers)


def test_multi_label_training_and_metrics():
    scans = make([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]], "scan", task="multi")
    trained = train_classifier(
        scans, make([[1, 0, 1], [0, 1, 0]], "row", task="multi"), QUICK, Showing(SwapClass(replace=1.0))
    )
    actual = {row.metric for row in trained.evaluate(scans)}
    assert trained.shown["synthetic"] > 0
    assert {"mean_average_precision", "average_precision", "exact_match"} <= actual
    assert trained.predict(scans).shape == (6, 3)


def test_a_validation_set_chooses_the_epoch_and_test_classes_must_fit():
    trained = train_classifier(REAL, preset=QUICK, validation=MADE)
    assert trained.evaluate(MADE)[0].metric == "accuracy"
    with pytest.raises(GenaugError, match="class names"):
        trained.evaluate(make([0, 1], "other", classes=2))


def test_a_killed_run_continues_with_the_same_result(tmp_path):
    class Stop(Exception):
        pass

    preset = dataclasses.replace(QUICK, updates=6)
    whole = train_classifier(REAL, MADE, preset)
    from genaug import classifier

    plain, calls = classifier._batch_loss, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 4:
            raise Stop
        return plain(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "_batch_loss", failing)
        patch.setattr(
            classifier,
            "train_loop",
            lambda loss_at, parameters, settings, *rest, **named: original(
                loss_at, parameters, dataclasses.replace(settings, checkpoint_every=2), *rest, **named
            ),
        )
        from genaug.training import train_loop as original

        with pytest.raises(Stop):
            prepare_training(REAL, MADE, preset).finish(tmp_path)
    resumed = prepare_training(REAL, MADE, preset).finish(tmp_path)
    assert np.array_equal(whole.predict(REAL), resumed.predict(REAL))
    assert whole.shown == resumed.shown
    assert whole.losses == resumed.losses


def test_divergence_is_a_sentence():
    with pytest.raises(GenaugError, match="learning rate"):
        train_classifier(REAL, preset=dataclasses.replace(QUICK, learning_rate=1e30, updates=20))


def test_grey_images_and_other_sizes():
    grey = LabeledImages(
        [np.full((5 + i, 9, 1), 40 * i, np.uint8) for i in range(4)], [0, 1, 0, 1], ("a", "b"), list("wxyz")
    )
    trained = train_classifier(grey, preset=dataclasses.replace(QUICK, channels=1))
    assert np.allclose(trained.predict(grey).sum(1), 1)
    assert np.allclose(trained.predict(torch.rand(2, 1, 20, 20)).sum(1), 1)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_networks_of_timm(name):
    network = make_network(name, 5, image_size=64)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 5)
    assert network.features(torch.rand(2, 3, 64, 64)).ndim == 2


def test_local_weights_of_timm(tmp_path):
    import timm
    from safetensors.torch import save_file

    source = timm.create_model("test_resnet", num_classes=1000)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    network = make_network("test_resnet", 5, image_size=64, weights=str(tmp_path))
    assert torch.equal(
        network.network.state_dict()[
            "conv1.0.weight" if "conv1.0.weight" in source.state_dict() else next(iter(source.state_dict()))
        ],
        source.state_dict()[
            "conv1.0.weight" if "conv1.0.weight" in source.state_dict() else next(iter(source.state_dict()))
        ],
    )
    with pytest.raises(GenaugError, match="timm.list_models"):
        make_network("resnet5000", 5)


def test_the_number_of_channels_is_stored_beside_the_preset(tmp_path):
    grey = LabeledImages(
        [np.full((8, 8, 1), 40 * i, np.uint8) for i in range(4)], [0, 1, 0, 1], ("a", "b"), list("wxyz")
    )
    trained = train_classifier(grey, preset=dataclasses.replace(QUICK, channels=1))
    trained.save(tmp_path)
    record = json.loads((tmp_path / "classifier.json").read_text())
    assert record["channels"] == 1
    assert "channels" not in record["preset"]
    assert TrainedClassifier.load(tmp_path).preset == trained.preset
    with pytest.raises(GenaugError, match="channels=2"):
        training_preset("tiny", channels=2)


def test_saved_classifiers_answer_the_same(tmp_path):
    trained = train_classifier(REAL, preset=QUICK)
    trained.save(tmp_path)
    loaded = TrainedClassifier.load(tmp_path)
    assert np.array_equal(trained.predict(MADE), loaded.predict(MADE))
    assert loaded.shown == trained.shown
    assert loaded.preset == trained.preset
    with pytest.raises(GenaugError, match="no finished classifier"):
        TrainedClassifier.load(tmp_path / "elsewhere")


def test_the_judge_is_read_back_for_the_same_pool_only(tmp_path):
    preset = training_preset("judge", updates=2, view=View(8, 8, 0))
    first = train_judge(REAL, cache=tmp_path, preset=preset)
    assert np.array_equal(train_judge(REAL, cache=tmp_path, preset=preset).predict(MADE), first.predict(MADE))
    assert len(list(tmp_path.iterdir())) == 1
    train_judge(REAL[[0, 1, 3, 5]], cache=tmp_path, preset=preset)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_store_decodes_again_when_memory_is_short():
    keys = [f"real:{name}" for name in REAL.ids] + ["synthetic:row1"]
    assert torch.equal(
        ImageStore(REAL, MADE, View(4, 4, 0)).images(keys),
        ImageStore(REAL, MADE, View(4, 4, 0), megabytes=0).images(keys),
    )


def test_the_stronger_student_differs_in_its_network_only():
    letters, wide = (make_network(name, 10, weights="embedded") for name in ("letters", "wide"))
    count = {
        network.name: sum(parameter.numel() for parameter in network.parameters())
        for network in (letters, wide)
    }
    assert 3 * count["letters"] < count["wide"] < 1_100_000
    assert wide.network.num_features == 256
    assert dataclasses.replace(
        training_preset("tiny_wide"), name="tiny", network="letters", source=training_preset("tiny").source
    ) == training_preset("tiny")
    trained = train_classifier(REAL, preset=dataclasses.replace(training_preset("tiny_wide"), updates=2))
    assert trained.name == "wide"
    assert trained.features(REAL).shape == (6, 256)
    assert not np.allclose(trained.predict(REAL)[0], 1 / 3, atol=1e-3)
