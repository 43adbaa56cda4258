"Metrics against scikit-learn, torchmetrics and scikit-image, and the cases in which those disagree."

import math

import numpy as np
import pytest
import torch
from toy_sets import noise_set

from genaug.messages import GenaugError
from genaug.metrics.classification import (
    bootstrap_interval,
    evaluate,
    mean_interval,
    paired_interval,
    part_of,
)
from genaug.metrics.images import (
    class_distance,
    diversity,
    frechet_distance,
    kernel_distance,
    nearest_neighbours,
    pixel_features,
    set_metrics,
    structural_similarity,
)

NAMES = ("ant", "bee", "cat", "dog")


def single(count=200, seed=0, classes=4):
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=count)
    scores = random.random((count, 4)) + 0.8 * np.eye(4)[truth]
    return scores / scores.sum(1, keepdims=True), np.eye(4)[truth]


def values(rows):
    return {(row.metric, row.part): row.value for row in rows}


def test_single_label_agrees_with_scikit_learn():
    from sklearn import metrics

    scores, labels = single()
    said, truth, actual = (
        scores.argmax(1),
        labels.argmax(1),
        values(evaluate(scores, labels, "single", NAMES)),
    )
    assert np.isclose(actual["accuracy", ""], metrics.accuracy_score(truth, said))
    assert np.isclose(actual["balanced_accuracy", ""], metrics.balanced_accuracy_score(truth, said))
    assert np.isclose(actual["macro_f1", ""], metrics.f1_score(truth, said, average="macro"))
    tables = metrics.multilabel_confusion_matrix(truth, said)
    for index, name in enumerate(NAMES):
        (tn, fp), (fn, tp) = tables[index]
        assert np.isclose(actual["sensitivity", f"class={name}"], tp / (tp + fn))
        assert np.isclose(actual["specificity", f"class={name}"], tn / (tn + fp))
    assert sum(value for (metric, _), value in actual.items() if metric == "confusion") == 200


def test_single_label_agrees_with_torchmetrics():
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_f1_score,
        multiclass_specificity,
    )

    scores, labels = single(seed=3)
    actual, said, truth = (
        values(evaluate(scores, labels, "single", NAMES)),
        torch.tensor(scores),
        torch.tensor(labels.argmax(1)),
    )
    assert np.isclose(
        actual["macro_f1", ""], multiclass_f1_score(said, truth, 4, average="macro").item(), atol=1e-6
    )
    assert np.isclose(
        actual["balanced_accuracy", ""],
        multiclass_accuracy(said, truth, 4, average="macro").item(),
        atol=1e-6,
    )
    each = multiclass_specificity(said, truth, 4, average="none")
    assert np.allclose([actual["specificity", f"class={name}"] for name in NAMES], each, atol=1e-6)


def test_a_class_without_test_images_takes_no_part_whatever_is_predicted():
    labels = np.eye(4)[[0, 0, 1, 1]]
    never, once = np.eye(4)[[0, 0, 1, 1]], np.eye(4)[[0, 0, 1, 3]]
    rows = evaluate(never, labels, "single", NAMES)
    assert values(rows)["macro_f1", ""] == 1
    assert math.isnan(values(rows)["sensitivity", "class=dog"])
    assert [row.n for row in rows if row.metric == "sensitivity"] == [2, 2, 0, 0]
    actual = values(evaluate(once, labels, "single", NAMES))
    assert np.isclose(actual["macro_f1", ""], (1 + 2 / 3) / 2)
    assert np.isclose(actual["balanced_accuracy", ""], 0.75)


def test_multi_label_agrees_with_scikit_learn():
    from sklearn import metrics

    random = np.random.default_rng(1)
    labels = (random.random((150, 4)) < (0.5, 0.2, 0.1, 0.0)).astype(float)  # no image has a dog
    scores = np.clip(0.3 * random.random((150, 4)) + 0.6 * labels + 0.2 * random.random((150, 4)), 0, 1)
    actual = values(evaluate(scores, labels, "multi", NAMES))
    for index, name in enumerate(NAMES[:3]):
        assert np.isclose(
            actual["average_precision", f"class={name}"],
            metrics.average_precision_score(labels[:, index], scores[:, index]),
        )
    assert np.isclose(
        actual["mean_average_precision", ""],
        metrics.average_precision_score(labels[:, :3], scores[:, :3], average="macro"),
    )
    assert np.isclose(
        actual["macro_f1", ""], metrics.f1_score(labels[:, :3], scores[:, :3] >= 0.5, average="macro")
    )
    assert math.isnan(actual["average_precision", "class=dog"])
    assert np.isclose(actual["exact_match", ""], metrics.accuracy_score(labels, scores >= 0.5))


def test_groups():
    scores, labels = np.eye(2)[[0, 0, 0, 1, 0]], np.eye(2)[[0, 0, 0, 1, 1]]
    actual = values(evaluate(scores, labels, "single", ("a", "b"), ["x", "x", "x", "y, 2", "y, 2"]))
    assert actual["accuracy", "group=x"] == 1
    assert actual["accuracy", "group=y%2C 2"] == 0.5
    assert actual["group_mean_accuracy", ""] == 0.75
    assert actual["worst_group_accuracy", ""] == 0.5
    assert actual["accuracy", ""] == 0.8


@pytest.mark.parametrize(
    "scores, labels, words",
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), "empty"),
        (np.ones((2, 3)), np.eye(2), "fit together"),
        (np.eye(2), np.full((2, 2), 0.5), "mixed"),
        (np.full((2, 2), np.inf), np.eye(2), "diverged"),
    ],
)
def test_bad_input_is_refused(scores, labels, words):
    with pytest.raises(GenaugError, match=words):
        evaluate(scores, labels, "single", ("a", "b"))


def test_parts_are_injective():
    names = ["a,b", "a=b", "a%2Cb", "a", "b"]
    parts = {part_of(true=name, pred=two) for name in names for two in names}
    assert len(parts) == 25
    assert all(part.count(",") == 1 and part.count("=") == 2 for part in parts)


def test_intervals_agree_with_scipy():
    from scipy import stats

    random = np.random.default_rng(0)
    first, second = random.normal(70, 3, (8, 2)), random.normal(68, 3, (8, 2))
    gain = (first - second).mean(1)
    low, high = stats.t.interval(0.95, 7, gain.mean(), stats.sem(gain))
    actual = paired_interval(first, second)
    assert np.allclose((actual.mean, actual.low, actual.high), (gain.mean(), low, high))
    assert actual.n == 8
    assert math.isnan(mean_interval([3.0]).low)
    assert mean_interval([3.0]).mean == 3
    for call in (
        lambda: mean_interval([]),
        lambda: paired_interval([1, 2], [1]),
        lambda: bootstrap_interval([]),
    ):
        with pytest.raises(GenaugError):
            call()


def test_bootstrap_is_repeatable_and_averages_runs():
    scores = np.random.default_rng(0).random((3, 50)) < 0.6
    assert (
        bootstrap_interval(scores, seed=1)
        == bootstrap_interval(scores.mean(0), seed=1)
        != bootstrap_interval(scores, seed=2)
    )


def test_frechet_distance_of_gaussians_has_the_closed_form():
    from scipy.linalg import sqrtm

    random = np.random.default_rng(0)
    left, right = random.normal(size=(300, 5)), random.normal(size=(200, 5)) @ random.normal(size=(5, 5)) + 1
    first, second = np.cov(left.T), np.cov(right.T)
    expected = ((left.mean(0) - right.mean(0)) ** 2).sum() + np.trace(
        first + second - 2 * sqrtm(first @ second).real
    )
    assert np.isclose(frechet_distance(left, right), expected)
    assert frechet_distance(left, left) < 1e-6
    assert np.isclose(frechet_distance(left, left + 2), 20)


def test_small_sets_are_refused():
    with pytest.raises(GenaugError, match="at least 9"):
        frechet_distance(np.zeros((8, 8)), np.zeros((20, 8)))
    for bad in (np.zeros((1, 3)), np.zeros((4, 2)), np.full((4, 3), np.nan)):
        with pytest.raises(GenaugError):
            kernel_distance(np.zeros((4, 3)), bad)


def test_kernel_distance_keeps_the_global_generator_and_uses_its_seed():
    random = np.random.default_rng(0)
    left, right, state = (
        random.normal(size=(40, 4)),
        random.normal(size=(25, 4)) + 1,
        torch.random.get_rng_state(),
    )
    assert (
        kernel_distance(left, right, 10, seed=1)
        == kernel_distance(left, right, 10, seed=1)
        != kernel_distance(left, right, 10, seed=2)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert kernel_distance(left, right) > 0.5


def test_structural_similarity_agrees_with_scikit_image():
    from skimage.metrics import structural_similarity as reference

    random = np.random.default_rng(0)
    left = np.kron(random.random((2, 1, 8, 8)), np.ones((1, 1, 5, 5)))
    two = (left + random.normal(0, 0.1, left.shape)).clip(0, 1)
    ours = structural_similarity(torch.tensor(left), torch.tensor(two))
    maps = [
        reference(
            a[0],
            b[0],
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )[1]
        for a, b in zip(left, two)
    ]
    # the mean of the whole map; scikit-image's own mean leaves out the border
    assert np.allclose(ours, [values.mean() for values in maps], atol=2e-3)
    with pytest.raises(GenaugError, match="resize"):
        structural_similarity(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_neighbours_distances_and_diversity():
    points = np.array([[0.0], [1.0], [5.0]])
    assert nearest_neighbours(points)[0].tolist() == [1, 1, 4]
    assert nearest_neighbours(points)[1].tolist() == [
        1,
        0,
        1,
    ]
    assert nearest_neighbours(np.array([[4.0]]), points) == (np.array([1.0]), np.array([2]))
    assert nearest_neighbours(np.zeros((2, 1)))[0].tolist() == [0, 0]
    with pytest.raises(GenaugError):
        nearest_neighbours(points[:1])
    assert math.isnan(class_distance(points, np.zeros(3), points, np.ones(3)))
    assert diversity(points, np.array([0, 0, 1])) == 1


def test_rows_of_a_set_carry_network_and_number():
    random = np.random.default_rng(0)

    def make(count):
        return noise_set(np.arange(count) % 2, ("a", "b"), seed=random, ids="{}")

    few = {metric for metric, *_ in set_metrics(make(20), make(9), pixel_features(2))}
    assert "kid@pixels2" in few
    assert not any(name.startswith("fid") for name in few)
    many = {
        (metric, part): count for metric, part, _, count in set_metrics(make(20), make(14), pixel_features(2))
    }
    assert many["fid@pixels2", ""] == 14
    assert many["nearest_distance@pixels2", "set=real"] == 20
