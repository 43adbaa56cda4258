"""Metrics of no image, one image, two images, of one class, of equal features and of numbers that are not
finite: a value, NaN, or a sentence."""

import math

import numpy as np
import pytest
import torch
from toy_sets import noise_set

from genaug.classifier import train_classifier
from genaug.evaluators import Evaluators, label_recall, measure_labels, measure_set, within_class_lpips
from genaug.features import ImageFeatures, cached_features
from genaug.judge import train_judge
from genaug.messages import GenaugError
from genaug.metrics import classification as rates
from genaug.metrics import images as distances
from genaug.networks import make_network
from genaug.trained_classifier import TrainedClassifier
from genaug.training_presets import training_preset
from genaug.views import View

pytestmark = pytest.mark.filterwarnings("error")


def pictures(count, classes=2, seed=0, task="single", equal=False):
    labels, (low, high) = np.arange(count) % classes, (90, 91) if equal else (0, 256)
    labels = np.eye(classes)[labels] if task == "multi" else labels
    names, ids = tuple("abcdefgh"[:classes]), f"{seed}-{{}}"
    return noise_set(labels, names, size=16, seed=seed, low=low, high=high, ids=ids, task=task)


@pytest.fixture(scope="module")
def evaluators():
    network = ImageFeatures(
        "letters", make_network("letters", 26, weights="embedded").eval(), View(padding=0)
    )
    judges = {}

    def of(classes, task="single"):
        pool = pictures(12, classes, 9, task)
        if (classes, task) not in judges:
            judges[classes, task] = Evaluators(
                train_classifier(pool, preset=training_preset("judge", updates=2)), network, pool
            )
        return judges[classes, task]

    return of


# a synthetic set


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("photographs", [1, 2, 6])
@pytest.mark.parametrize("classes, equal", [(2, False), (1, False), (2, True)])
def test_a_small_set_has_values_or_nan_and_says_of_how_many(count, photographs, classes, equal, evaluators):
    rows = measure_set(
        pictures(count, classes, 1, equal=equal), pictures(photographs, classes, 2), evaluators(classes)
    )
    assert all(not math.isinf(value) for _, _, value, _ in rows)
    assert all(number >= 1 for *_, number in rows)
    actual = {(metric, part): value for metric, part, value, _ in rows}
    assert math.isnan(actual["kid@letters", "reference=pool"]) == (count < 2)
    assert 0 <= actual["judge_accuracy", ""] <= 1


@pytest.mark.parametrize("task", ["single", "multi"])
def test_no_picture_is_a_sentence(task, evaluators):
    with pytest.raises(GenaugError, match="no image|at least 1 image"):
        measure_set(pictures(0, 2, 1, task), pictures(4, 2, 2, task), evaluators(2, task))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("photographs", [1, 2])
def test_a_small_set_with_several_labels(count, photographs, evaluators):
    rows = measure_labels(
        pictures(count, 3, 1, "multi"), pictures(photographs, 3, 2, "multi"), evaluators(3, "multi")
    )
    assert all(not math.isinf(value) for _, _, value, _ in rows)
    assert all(
        not math.isnan(value) or number == 0 or metric.startswith(("nearest", "judge"))
        for metric, _, value, number in rows
    )


def test_equal_photographs_give_no_ratio(evaluators):
    rows = {
        metric: value
        for metric, part, value, _ in measure_set(
            pictures(4, 2, 1), pictures(6, 2, equal=True), evaluators(2)
        )
        if not part
    }
    assert math.isnan(rows["nearest_ratio@letters"])


@pytest.mark.parametrize("count", [0, 1])
def test_lpips_of_no_pair_is_no_row(count):
    assert within_class_lpips(pictures(count)) == []


def test_recall_of_nothing_promised():
    value, number = label_recall(np.zeros((0, 2)), np.zeros((0, 2)), [0, 1])
    assert math.isnan(value)
    assert number == 0


def test_a_judge_answers_for_no_picture(evaluators):
    assert evaluators(2).judge.predict(pictures(0)).shape == (0, 2)
    assert len(evaluators(2).judge.features(pictures(0))) == 0


# distances

NAN = np.full((4, 3), np.nan)


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: distances.nearest_neighbours(bad),
        lambda bad: distances.nearest_neighbours(np.zeros((2, 3)), bad),
        lambda bad: distances.kernel_distance(np.zeros((4, 3)), bad),
        lambda bad: distances.frechet_distance(np.zeros((4, 3)), bad, 2),
        lambda bad: distances.diversity(bad, np.zeros(4)),
        lambda bad: distances.class_distance(bad, np.zeros(4), np.zeros((4, 3)), np.zeros(4)),
        lambda bad: distances.manifold_scores(bad, np.zeros((5, 3)), 2),
        lambda bad: distances.boundary_coverage(bad, np.zeros((12, 3)), np.zeros(12)),
        lambda bad: distances.boundary_coverage(np.zeros((1, 3)), bad, np.zeros(4), 2),
    ],
)
@pytest.mark.parametrize(
    "bad",
    [NAN, np.full((4, 3), np.inf), np.zeros(4), np.zeros((4, 0))],
    ids=["nan", "inf", "flat", "no column"],
)
def test_features_that_cannot_be_measured_are_a_sentence(call, bad):
    with pytest.raises(GenaugError, match="finite|shape|features of one network|columns"):
        call(bad)


def test_no_image_has_no_neighbour_and_no_error():
    actual, places = distances.nearest_neighbours(np.zeros((0, 3)), np.zeros((2, 3)))
    assert len(actual) == 0
    assert len(places) == 0
    assert math.isnan(distances.diversity(np.zeros((0, 3)), np.zeros(0)))
    assert math.isnan(distances.class_distance(np.zeros((0, 3)), np.zeros(0), np.zeros((2, 3)), np.zeros(2)))


def test_features_of_two_networks_are_refused():
    with pytest.raises(GenaugError, match="one network"):
        distances.nearest_neighbours(np.zeros((2, 3)), np.zeros((2, 4)))


@pytest.mark.parametrize("count", [2, 5, 9])
def test_a_frechet_distance_of_few_images_is_refused_with_the_remedy(count):
    "torchmetrics#1652: complex or NaN where there are fewer images than features."
    draw = np.random.default_rng(0)
    with pytest.raises(GenaugError, match=f"there are {count}; use the kernel distance"):
        distances.frechet_distance(draw.normal(size=(50, 9)), draw.normal(size=(count, 9)))
    assert math.isfinite(
        distances.frechet_distance(draw.normal(size=(50, 9)), draw.normal(size=(count, 9)), 2)
    )
    assert math.isfinite(distances.kernel_distance(draw.normal(size=(50, 9)), draw.normal(size=(count, 9))))


@pytest.mark.parametrize(
    "distance", [lambda *pair: distances.frechet_distance(*pair, 2), distances.kernel_distance]
)
def test_a_distance_that_overflows_is_a_sentence(distance):
    with pytest.raises(GenaugError, match="not a finite number"):
        distance(np.array([[1e200], [-1e200], [3e200]]), np.array([[1.0], [2.0], [3.0]]))


def test_equal_features_have_distance_zero():
    assert abs(distances.kernel_distance(np.ones((3, 2)), np.ones((4, 2)))) < 1e-9
    assert abs(distances.frechet_distance(np.ones((5, 2)), np.ones((6, 2)))) < 1e-6


def test_subsets_of_one_image_are_refused():
    with pytest.raises(GenaugError, match="at least two images"):
        distances.kernel_distance(np.zeros((3, 2)), np.zeros((3, 2)), subset_size=1)


def test_similarity_of_no_pair_of_constant_images_and_of_nan():
    assert len(distances.structural_similarity(torch.zeros(0, 3, 16, 16), torch.zeros(0, 3, 16, 16))) == 0
    assert distances.structural_similarity(
        torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.5)
    ).tolist() == [1.0]
    with pytest.raises(GenaugError, match="finite"):
        distances.structural_similarity(torch.full((1, 3, 16, 16), float("nan")), torch.zeros(1, 3, 16, 16))
    assert distances.pairwise_similarity(pictures(0)) == {}
    assert distances.pairwise_similarity(pictures(2)) == {}


def test_an_unknown_lpips_network_is_refused_with_the_known_ones():
    with pytest.raises(GenaugError, match="alex, vgg, squeeze"):
        distances.perceptual_distance(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), "inception")


# rates and intervals


@pytest.mark.parametrize(
    "task, value", [("single", np.array([[0.3, 0.7]])), ("multi", np.array([[0.3, 0.7]]))]
)
def test_one_test_image_of_one_class(task, value):
    rows = {
        (row.metric, row.part): row.value
        for row in rates.evaluate(value, np.array([[0, 1]]), task, ("a", "b"))
    }
    assert rows["macro_f1", ""] == 1
    assert math.isnan(rows["sensitivity", "class=a"])


def test_a_test_set_without_any_label_has_no_average_precision_and_no_warning():
    rows = {
        (row.metric, row.part): row.value
        for row in rates.evaluate(np.full((2, 2), 0.2), np.zeros((2, 2)), "multi", ("a", "b"))
    }
    assert math.isnan(rows["mean_average_precision", ""])
    assert rows["exact_match", ""] == 1


@pytest.mark.parametrize(
    "scores, labels, task, names, words",
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), "single", "ab", "empty"),
        (np.zeros((0, 0)), np.zeros((0, 0)), "single", "", "empty"),
        (np.zeros((2, 0)), np.zeros((2, 0)), "single", "", "fit together"),
        (np.zeros(2), np.zeros(2), "single", "ab", "fit together"),
        (np.full((1, 2), 0.5), np.zeros((1, 2)), "single", "ab", "no class or several"),
        (np.full((1, 2), 0.5), np.ones((1, 2)), "single", "ab", "no class or several"),
        (np.full((1, 2), 0.5), np.array([[0, 1]]), "sinlge", "ab", "'single' or 'multi'"),
        (np.full((1, 2), 3.5), np.array([[0, 1]]), "multi", "ab", "sigmoid"),
        (np.full((1, 2), np.inf), np.array([[0, 1]]), "single", "ab", "finite"),
    ],
)
def test_answers_that_cannot_be_judged_are_a_sentence(scores, labels, task, names, words):
    with pytest.raises(GenaugError, match=words):
        rates.evaluate(scores, labels, task, tuple(names))


def test_groups_of_another_length_are_refused():
    with pytest.raises(GenaugError, match="one group per image"):
        rates.evaluate(np.eye(2), np.eye(2), "single", ("a", "b"), ["x"])


@pytest.mark.parametrize(
    "call",
    [
        lambda: rates.size_rows(np.zeros((0, 2)), np.zeros((0, 2)), [1, 2]),
        lambda: rates.size_rows(np.full((1, 2), np.nan), np.array([[0, 1]]), [1, 2]),
        lambda: rates.size_rows(np.eye(2), np.eye(2), [1]),
        lambda: rates.size_groups([math.nan, 2]),
        lambda: rates.head_and_tail_rows([], ("a", "b"), [1, 2]),
        lambda: rates.head_and_tail_rows([], ("a", "b"), [1]),
        lambda: rates.mean_interval([]),
        lambda: rates.mean_interval(np.zeros((2, 0))),
        lambda: rates.mean_interval([math.nan, 1]),
        lambda: rates.mean_interval(3.0),
        lambda: rates.mean_interval([1, 2], 1.5),
        lambda: rates.paired_interval([], []),
        lambda: rates.paired_interval([math.inf], [math.inf]),
        lambda: rates.bootstrap_interval([]),
        lambda: rates.bootstrap_interval([1, math.nan]),
        lambda: rates.bootstrap_interval([1, 0], draws=0),
        lambda: rates.bootstrap_interval([1, 0], confidence=0),
        lambda: rates.share_interval(0, 0),
        lambda: rates.share_interval(math.nan, 3),
        lambda: rates.share_interval(1, 3, 2.0),
    ],
)
def test_nothing_to_average_is_a_sentence(call):
    with pytest.raises(GenaugError):
        call()


def test_one_and_two_equal_values():
    left, right = rates.mean_interval([0.5]), rates.mean_interval([0.5, 0.5])
    assert math.isnan(left.low)
    assert left.n == 1
    assert (right.low, right.high) == (0.5, 0.5)
    assert rates.bootstrap_interval([1.0])[:3] == (1.0, 1.0, 1.0)


# features that are kept


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-5], lambda data: b"[]" + data, lambda data: bytes(len(data))],
)
def test_damaged_features_are_computed_again(damage, evaluators, tmp_path):
    network, images = evaluators(2).network, pictures(3)
    expected = cached_features(network, images, tmp_path)
    (path,) = (tmp_path / "features").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(cached_features(network, images, tmp_path), expected)
    assert np.array_equal(cached_features(network, images, tmp_path), expected)


@pytest.mark.parametrize(
    "file, text",
    [
        ("classifier.json", "[]"),
        ("classifier.json", "{}"),
        ("classifier.json", "{"),
        ("residual.safetensors", ""),
        ("residual.safetensors", None),
    ],
)
def test_a_damaged_judge_is_a_sentence_and_is_trained_again(file, text, tmp_path):
    preset, pool = training_preset("judge", updates=2), pictures(6)
    first = train_judge(pool, cache=tmp_path, preset=preset)
    (home,) = tmp_path.iterdir()
    (home / file).unlink()
    if text is not None:
        (home / file).write_text(text)
    with pytest.raises(GenaugError, match="damaged|no finished"):
        TrainedClassifier.load(home)
    again = train_judge(pool, cache=tmp_path, preset=preset)
    assert np.array_equal(again.predict(pool), first.predict(pool))
    assert np.array_equal(TrainedClassifier.load(home).predict(pool), first.predict(pool))
