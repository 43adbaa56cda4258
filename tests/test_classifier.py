"The feed plan and the classifier: pairing of arms, every use, refused diets, and what training must not depend on."
import dataclasses

import numpy as np
import pytest
import torch

from genaug.classifier import (USES, Feeder, ImageStore, TrainedClassifier, View, batches_of, choose, feed, make_network, slot_class, smoothed_target, train_classifier, train_judge,
                               training_preset, weighted_loss)
from genaug.core import GenaugError, LabeledImages
from genaug.mixing.cutmix import CutMix
from genaug.mixing.mixup import MixUp

QUICK = training_preset("tiny", weights=None, updates=3, batch_size=6, view=View(8, 8, 1))


def make(labels, prefix, info=None, task="single", classes=3, size=8, seed=0):
    pixels = list(np.random.default_rng(seed).integers(0, 256, (len(labels), size, size, 3)).astype(np.uint8))
    return LabeledImages(pixels, np.array(labels), tuple("abc"[:classes]), [f"{prefix}{i}" for i in range(len(labels))], task, info=info)


REAL = make([0, 0, 0, 1, 1, 2], "photo")
ANCHORS = [0, 0, 1, 2, 3, 4, 5, 5]
MADE = make([0, 0, 0, 0, 1, 1, 2, 2], "row", [{"sources": [[f"photo{i}", 1.0]]} for i in ANCHORS], seed=1)
LABEL = {f"real:{n}": t for n, t in zip(REAL.ids, REAL.targets)} | {f"synthetic:{n}": t for n, t in zip(MADE.ids, MADE.targets)}


@dataclasses.dataclass(kw_only=True)
class PoolMixUp(MixUp):
    "A mixer that reaches the synthetic set."
    partners: str = "pool"


def fitting(use, mixer):
    "The mixer, or one that the use cannot do without."
    return PoolMixUp() if use == "partners" else mixer


def tables(use, epochs=60, synthetic=MADE, **settings):
    feeder = Feeder(REAL, synthetic, 3, use, epochs=epochs, **settings)
    return [feeder.plan(epoch) for epoch in range(epochs)]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("mixer", [None, MixUp()], ids=("plain", "mixup"))
def test_all_arms_have_the_same_slots_coins_and_views(use, mixer):
    for base, plan in zip(tables("swap_class", synthetic=None, epochs=5), tables(use, mixer=fitting(use, mixer), epochs=5)):
        rows = [row for row in plan.rows if row.part != "synthetic"]
        assert [(row.slot, row.real_id, row.coin, row.view_seed) for row in rows] == [(row.slot, row.real_id, row.coin, row.view_seed) for row in base.rows]
        assert sorted(row.real_id for row in rows) == sorted(REAL.ids)


def test_swapped_slots_are_nested_in_the_replacement_probability():
    few, many = tables("swap_class", replace=0.3), tables("swap_class", replace=0.7)
    for one, two in zip(few, many):
        for low, high in zip(one.rows, two.rows):
            assert low.shown.startswith("real:") or low.shown == high.shown      # a sweep of p only adds swaps


def test_each_use_shows_what_it_says():
    rows = {use: [row for plan in tables(use, replace=1.0, mixer=fitting(use, None)) for row in plan.rows] for use in USES}
    anchors = {f"synthetic:{name}": f"photo{anchor}" for name, anchor in zip(MADE.ids, ANCHORS)}
    assert all(anchors[row.shown] == row.real_id for row in rows["swap_own"])
    assert all(LABEL[row.shown] == LABEL[f"real:{row.real_id}"] for row in rows["swap_class"])
    assert len({row.shown for row in rows["swap_pool"]}) == 8 and any(LABEL[row.shown] != LABEL[f"real:{row.real_id}"] for row in rows["swap_pool"])
    assert all(row.shown.startswith("synthetic:") for row in rows["only"])
    assert {row.part for row in rows["two_loss"]} == {"real", "synthetic"} and len(rows["two_loss"]) == 2 * 360
    assert all(row.shown == f"real:{row.real_id}" for row in rows["partners"])
    first, second = rows["two_stage"][:180], rows["two_stage"][180:]
    assert all(row.shown.startswith("synthetic:") for row in first) and all(row.shown == f"real:{row.real_id}" for row in second)


@pytest.mark.parametrize("use, items", [("append", 14), ("only", 8)])
def test_passes_show_every_item_equally_often(use, items):
    shown = [row.shown for plan in tables(use, epochs=2 * items) for row in plan.rows]
    counts = np.unique(shown, return_counts=True)[1]
    assert len(counts) == items and (counts == 12).all()


def test_tail_weights():
    shown = [LABEL[row.shown] for plan in tables("swap_tail", 400, replace=1.0) for row in plan.rows]
    expected = np.array([1 / 4, 1 / 3, 1 / 2]) / (1 / 4 + 1 / 3 + 1 / 2)
    assert np.abs(np.bincount(shown) / len(shown) - expected).max() < 0.04


def test_share_of_synthetic_images_is_the_probability():
    for replace in (0.0, 0.1, 0.5, 1.0):
        share = np.mean([plan.synthetic_share for plan in tables("swap_pool", 1000, replace=replace)])
        assert abs(share - replace) <= 4 * np.sqrt(replace * (1 - replace) / 6000)


def test_a_photograph_without_variant_stays():
    some = MADE[[0, 1]]
    rows = [row for plan in tables("swap_own", synthetic=some, replace=1.0) for row in plan.rows]
    assert all((row.real_id == "photo0") == row.shown.startswith("synthetic:") for row in rows)


@pytest.mark.parametrize("weigh", ["loss", "sampling"])
@pytest.mark.parametrize("use", ["swap_class", "swap_pool", "swap_tail", "append", "only", "two_loss", "two_stage"])
def test_rows_of_weight_zero_are_never_shown(use, weigh):
    weighed = dataclasses.replace(MADE, info=[{"weight": float(i % 2)} for i in range(8)])
    shown = {row.shown for plan in tables(use, synthetic=weighed, replace=1.0, weigh=weigh) for row in plan.rows if row.shown.startswith("synthetic:")}
    assert shown == {f"synthetic:row{i}" for i in (1, 3, 5, 7)}


def test_weights_count_in_the_loss_or_in_the_sampling():
    weighed = dataclasses.replace(MADE, info=[{"weight": 3.0 if i == 0 else 1.0} for i in range(8)])
    loss = [row for plan in tables("swap_pool", 300, synthetic=weighed, replace=1.0) for row in plan.rows]
    assert {row.weight for row in loss if row.shown == "synthetic:row0"} == {3.0} and abs(np.mean([row.shown == "synthetic:row0" for row in loss]) - 1 / 8) < 0.03
    drawn = [row for plan in tables("swap_pool", 300, synthetic=weighed, replace=1.0, weigh="sampling") for row in plan.rows]
    assert {row.weight for row in drawn} == {1.0} and abs(np.mean([row.shown == "synthetic:row0" for row in drawn]) - 3 / 10) < 0.04


def test_choose_never_leaves_the_candidates():
    chances = np.array([0.0, 1.0, 0.0, 1e-12, 5.0, 0.0])
    for uniform in (0.0, 1e-9, 0.5, 1 - 2**-53):
        assert chances[choose(np.arange(6), chances, uniform)] > 0


def test_partners_are_other_slots_of_the_same_part():
    for plan in tables("two_loss", mixer=MixUp(), mixer_probability=1.0):
        slots = {row.shown: row.slot for row in plan.rows if row.part == "real"}
        for row in plan.rows:
            assert row.partner.split(":")[0] == ("real" if row.part == "real" else "synthetic") and row.mix == "mixup"
            if row.part == "real":
                assert slots[row.partner] != row.slot
    one = make([0], "photo")
    assert Feeder(one, mixer=MixUp(), mixer_probability=1.0).plan(0).rows[0].partner is None


def test_plan_describes_the_mixture():
    row = Feeder(REAL, mixer=CutMix(), mixer_probability=1.0, size=8).plan(0).rows[0]
    assert row.mix_weight == CutMix().describe(row.mix_seed, 8)["weight"]


@pytest.mark.parametrize("synthetic, settings, words", [
    (MADE, {"use": "swap"}, "choose one of"), (MADE, {"replace": 1.5}, r"\[0, 1\]"), (MADE, {"weigh": "both"}, "sampling"),
    (make([0], "row", classes=2), {}, "class names"), (MADE[[]], {}, "No synthetic image was used"), (None, {"use": "only"}, "give a synthetic set"),
    (dataclasses.replace(MADE, info=[{"weight": 0.0}] * 8), {}, "No synthetic image was used"),
    (dataclasses.replace(MADE, info=[{"sources": []}] * 8), {"use": "swap_own"}, "No synthetic image was used"),
    (dataclasses.replace(MADE, info=[{"weight": -1.0}] * 8), {}, "not negative"), (MADE, {"use": "two_stage"}, "epochs"), (MADE, {"mixer_probability": float("nan")}, "0, 1")])
def test_diets_that_cannot_be_followed_are_refused(synthetic, settings, words):
    with pytest.raises(GenaugError, match=words):
        Feeder(REAL, synthetic, **settings).plan(0)


def test_soft_labels_are_kept_and_their_class_is_the_largest():
    soft = dataclasses.replace(MADE, labels=np.array([[0.3, 0.7, 0]] * 8, np.float32))
    rows = [row for plan in tables("swap_class", synthetic=soft, replace=1.0) for row in plan.rows]
    assert all(row.shown.startswith("synthetic:") == (row.real_id in ("photo3", "photo4")) for row in rows)
    assert np.allclose(ImageStore(REAL, soft, 8).labels(["synthetic:row0"]), [[0.3, 0.7, 0]])


def test_rarest_label():
    counts = np.array([5, 2, 2])
    assert slot_class(np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0.2]]), "multi", counts).tolist() == [1, 0, -1]


def test_batches_are_full_unless_there_is_none():
    plan = feed(0, 0, REAL)
    assert [len(batch) for batch in batches_of(plan, 4, 6)] == [4] and [len(batch) for batch in batches_of(plan, 9, 6)] == [6]
    assert [row.slot for row in batches_of(plan, 2, 6)[2]] == [4, 5]


def test_views_do_not_depend_on_the_batch_and_flip_only_when_asked():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for view in (View(8, 8, 2), View(6, 8, 1, "reflect", flip=True), View(8, 8, 0, strong=True)):
        together = view.train(images, [5, 6, 7, 8])
        assert torch.allclose(together[2], view.train(images[2:3], [7])[0], atol=1e-6) and together.shape[-1] == view.size
    plain = View(8, 8, 0).train(images.expand(4, -1, -1, -1), range(4))
    assert torch.equal(plain, images)
    flips = View(8, 8, 0, flip=True).train(images[:1].expand(400, -1, -1, -1), range(400))
    mirrored = [torch.equal(one, images[0].flip(2)) for one in flips]
    assert 0.4 < np.mean(mirrored) < 0.6 and all(now or torch.equal(one, images[0]) for now, one in zip(mirrored, flips))


def test_the_target_has_mass_one_and_one_class_works():
    soft = torch.softmax(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), 1)
    assert torch.allclose(smoothed_target(soft, 0.1).sum(1), torch.ones(5)) and torch.equal(smoothed_target(torch.ones(2, 1), 0.0), torch.ones(2, 1))


def test_multi_label_loss_is_binary_cross_entropy():
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0, 0, 1]] * 4)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert torch.isclose(weighted_loss(logits, labels, torch.full((4,), 2.0), "multi"), expected)


@pytest.mark.parametrize("use", USES)
def test_every_use_trains_with_equal_updates(use):
    torch.manual_seed(7)
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    trained = train_classifier(REAL, MADE, QUICK, use, mixer=fitting(use, CutMix()))
    assert trained.fed["updates"] == 3 and trained.fed["epochs"] == 3 and len(trained.losses) == 3 and trained.fed["mixed"] > 0
    assert torch.equal(state, torch.random.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()


def test_the_same_seed_gives_the_same_classifier_and_another_does_not():
    runs = [train_classifier(REAL, MADE, QUICK, seed=seed) for seed in (0, 0, 1)]
    answers = [run.predict(REAL) for run in runs]
    assert np.array_equal(answers[0], answers[1]) and not np.allclose(answers[0], answers[2])


def test_no_replacement_is_the_baseline_bit_for_bit():
    answers = [train_classifier(REAL, synthetic, QUICK, replace=0.0).predict(REAL) for synthetic in (None, MADE)]
    assert np.array_equal(*answers)


def test_multi_label_training_and_metrics():
    scans = make([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]], "scan", task="multi")
    trained = train_classifier(scans, make([[1, 0, 1], [0, 1, 0]], "row", task="multi"), QUICK, replace=1.0)
    found = {row.metric for row in trained.evaluate(scans)}
    assert trained.fed["synthetic"] > 0 and {"mean_average_precision", "average_precision", "exact_match"} <= found
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
        patch.setattr(classifier, "train_loop", lambda loss_at, parameters, settings, *rest, **named: original(
            loss_at, parameters, dataclasses.replace(settings, checkpoint_every=2), *rest, **named))
        from genaug.training import train_loop as original
        with pytest.raises(Stop):
            train_classifier(REAL, MADE, preset, checkpoint=tmp_path)
    resumed = train_classifier(REAL, MADE, preset, checkpoint=tmp_path)
    assert np.array_equal(whole.predict(REAL), resumed.predict(REAL)) and whole.fed == resumed.fed and whole.losses == resumed.losses


def test_divergence_is_a_sentence():
    with pytest.raises(GenaugError, match="learning rate"):
        train_classifier(REAL, preset=dataclasses.replace(QUICK, learning_rate=1e30, updates=20))


def test_grey_images_and_other_sizes():
    grey = LabeledImages([np.full((5 + i, 9, 1), 40 * i, np.uint8) for i in range(4)], [0, 1, 0, 1], ("a", "b"), list("wxyz"))
    trained = train_classifier(grey, preset=QUICK, channels=1)
    assert np.allclose(trained.predict(grey).sum(1), 1) and np.allclose(trained.predict(torch.rand(2, 1, 20, 20)).sum(1), 1)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_networks_of_timm(name):
    network = make_network(name, 5, image_size=64)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 5) and network.features(torch.rand(2, 3, 64, 64)).ndim == 2


def test_local_weights_of_timm(tmp_path):
    import timm
    from safetensors.torch import save_file
    source = timm.create_model("test_resnet", num_classes=1000)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    network = make_network("test_resnet", 5, image_size=64, weights=str(tmp_path))
    assert torch.equal(network.network.state_dict()["conv1.0.weight" if "conv1.0.weight" in source.state_dict() else next(iter(source.state_dict()))],
                       source.state_dict()["conv1.0.weight" if "conv1.0.weight" in source.state_dict() else next(iter(source.state_dict()))])
    with pytest.raises(GenaugError, match="timm.list_models"):
        make_network("resnet5000", 5)


def test_saved_classifiers_answer_the_same(tmp_path):
    trained = train_classifier(REAL, preset=QUICK)
    trained.save(tmp_path)
    loaded = TrainedClassifier.load(tmp_path)
    assert np.array_equal(trained.predict(MADE), loaded.predict(MADE)) and loaded.fed == trained.fed and loaded.preset == trained.preset
    with pytest.raises(GenaugError, match="no finished classifier"):
        TrainedClassifier.load(tmp_path / "elsewhere")


def test_the_judge_is_read_back_for_the_same_pool_only(tmp_path):
    preset = training_preset("judge", updates=2, view=View(8, 8, 0))
    first = train_judge(REAL, cache=tmp_path, preset=preset)
    assert np.array_equal(train_judge(REAL, cache=tmp_path, preset=preset).predict(MADE), first.predict(MADE)) and len(list(tmp_path.iterdir())) == 1
    train_judge(REAL[[0, 1, 3, 5]], cache=tmp_path, preset=preset)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_store_decodes_again_when_memory_is_short():
    keys = [f"real:{name}" for name in REAL.ids] + ["synthetic:row1"]
    assert torch.equal(ImageStore(REAL, MADE, 4).images(keys), ImageStore(REAL, MADE, 4, megabytes=0).images(keys))


def test_the_stronger_student_differs_in_its_network_only():
    letters, wide = (make_network(name, 10, weights="embedded") for name in ("letters", "wide"))
    count = {network.name: sum(parameter.numel() for parameter in network.parameters()) for network in (letters, wide)}
    assert 3 * count["letters"] < count["wide"] < 1_100_000 and wide.network.num_features == 256
    assert dataclasses.replace(training_preset("tiny_wide"), name="tiny", network="letters", source=training_preset("tiny").source) == training_preset("tiny")
    trained = train_classifier(REAL, preset=dataclasses.replace(training_preset("tiny_wide"), updates=2))
    assert trained.name == "wide" and trained.features(REAL).shape == (6, 256) and not np.allclose(trained.predict(REAL)[0], 1 / 3, atol=1e-3)
