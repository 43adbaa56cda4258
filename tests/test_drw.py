"DRW and oversampling: edge cases and references beyond their page."

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genaug.balance.drw import DRW, Oversampling, effective_number, effective_number_weights
from genaug.contracts import Balancer
from genaug.data.splits import long_tail_counts
from genaug.messages import GenaugError

TAIL = long_tail_counts([88] * 10, 100)


def weighted_loss(logits, smoothed, labels, weights, row_weights):
    "The loss of `losses`, written with loops."
    log_probabilities = F.log_softmax(logits, 1)
    above = sum(
        row_weights[i] * weights[c] * smoothed[i, c] * -log_probabilities[i, c]
        for i in range(len(logits))
        for c in range(logits.shape[1])
    )
    return above / sum(
        row_weights[i] * weights[c] * labels[i, c] for i in range(len(logits)) for c in range(logits.shape[1])
    )


@pytest.mark.parametrize("beta", [0, 0.5, 0.9, 0.99, 0.9999, 1 - 1e-9])
def test_effective_number_is_the_geometric_sum(beta):
    for count in (0, 1, 2, 7, 88):
        exact = sum(Fraction(beta) ** power for power in range(count))
        assert np.isclose(effective_number(count, beta), float(exact), rtol=1e-12, atol=0)


def test_effective_number_follows_its_recursion_and_bounds():
    counts = np.arange(1, 500)
    for beta in (0.1, 0.9, 0.999):
        numbers = effective_number(counts, beta)
        assert np.allclose(numbers[1:], 1 + beta * numbers[:-1])
        assert (numbers <= counts + 1e-9).all()
        assert (numbers < 1 / (1 - beta) + 1e-9).all()
    assert np.array_equal(effective_number([[0, 1], [5, 9]], 0), [[0, 1], [1, 1]])


def test_no_digits_are_lost_near_beta_one():
    assert np.allclose(effective_number(TAIL, 1 - 1e-14), TAIL, rtol=1e-9)
    assert np.allclose(effective_number_weights(TAIL, 1 - 1e-14), 10 / TAIL / (1 / TAIL).sum(), rtol=1e-9)


@pytest.mark.parametrize("beta", [0, 0.9, 0.999, 0.9999])
def test_weights_are_those_of_the_papers_formula(beta):
    for counts in (TAIL, np.array([1, 1, 1]), np.array([5000, 500, 50, 5]), np.array([3])):
        plain = np.array([(1 - beta) / (1 - beta ** int(count)) for count in counts])
        actual = effective_number_weights(counts, beta)
        assert np.allclose(actual, plain / plain.sum() * len(counts), rtol=1e-8)
        assert np.isclose(actual.sum(), len(counts))


def test_rarer_classes_weigh_more_and_equal_classes_the_same():
    weights = effective_number_weights(TAIL)
    assert (np.diff(weights) >= 0).all()
    assert (np.diff(weights)[:7] > 0).all()
    assert np.ptp(weights[-3:]) == 0
    assert np.allclose(effective_number_weights([6, 6, 6, 6], 0.99), 1)


@pytest.mark.parametrize("beta", [0, 0.9, 0.9999])
def test_a_class_without_photographs_gets_nothing_and_the_sum_stays(beta):
    weights = effective_number_weights([4, 0, 1, 0], beta)
    assert (weights[[1, 3]] == 0).all()
    assert np.isclose(weights.sum(), 4)
    assert np.allclose(weights[[0, 2]], 2 * effective_number_weights([4, 1], beta))


def test_weights_in_the_loss_are_torchs():
    random = np.random.default_rng(0)
    logits, classes = (
        torch.from_numpy(random.normal(size=(9, 10))),
        torch.from_numpy(random.integers(10, size=9)),
    )
    weights, labels = torch.from_numpy(effective_number_weights(TAIL)), F.one_hot(classes, 10).double()
    for smoothing in (0.0, 0.1):
        ours = weighted_loss(logits, (1 - smoothing) * labels + smoothing / 10, labels, weights, np.ones(9))
        assert torch.allclose(ours, F.cross_entropy(logits, classes, weights, label_smoothing=smoothing))
    chosen = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0.0])  # a row of weight 0 is as if it were not there
    assert torch.allclose(
        weighted_loss(logits, labels, labels, weights, chosen),
        F.cross_entropy(logits[chosen == 1], classes[chosen == 1], weights),
    )


@pytest.mark.parametrize("epochs", [1, 2, 4, 5, 7, 15, 30, 120, 128, 200, 333])
def test_weights_begin_at_four_fifths(epochs):
    late = [
        epoch
        for epoch in range(epochs)
        if not np.array_equal(DRW().loss_weights(TAIL, epoch / epochs), np.ones(10))
    ]
    assert late == [epoch for epoch in range(epochs) if 5 * epoch >= 4 * epochs]


def test_start_and_beta_have_their_limits():
    assert np.allclose(DRW(start=0).loss_weights(TAIL, 0.0), effective_number_weights(TAIL))
    assert np.array_equal(DRW(start=1).loss_weights(TAIL, 0.999), np.ones(10))
    assert np.allclose(DRW(beta=0, start=0).loss_weights(TAIL, 0), 1)
    assert np.allclose(DRW(beta=0.9).loss_weights(TAIL, 0.9), effective_number_weights(TAIL, 0.9))
    assert np.array_equal(DRW().loss_weights([3, 0], 0.1), [1, 1])
    assert np.array_equal(DRW().loss_weights([3, 0], 0.8), [2, 0])


def test_oversampling_gives_classes_the_same_and_photographs_one_over_n():
    for counts in (TAIL, [5, 0, 1], [2]):
        chances, present = Oversampling().slot_chances(np.asarray(counts), 0.3), np.asarray(counts) > 0
        assert np.isclose(chances.sum(), 1)
        assert np.allclose(chances[present], 1 / present.sum())
        assert (chances[~present] == 0).all()
    classes = np.repeat(np.arange(10), TAIL)
    weights = 1 / TAIL[classes]
    assert np.allclose((Oversampling().slot_chances(TAIL, 0) / TAIL)[classes], weights / weights.sum())


def test_each_balancer_does_one_thing():
    assert DRW().slot_chances(TAIL, 0.9) is None
    assert all(
        np.array_equal(Oversampling().loss_weights(TAIL, progress), np.ones(10)) for progress in (0, 0.9)
    )
    assert all(
        np.array_equal(Oversampling().slot_chances(TAIL, 0), Oversampling().slot_chances(TAIL, progress))
        for progress in (0.5, 0.99)
    )


def test_they_are_balancers_with_settings_and_leave_counts_alone():
    counts = TAIL.copy()
    for balancer, name in ((DRW(), "drw"), (Oversampling(), "oversampling")):
        assert isinstance(balancer, Balancer)
        assert balancer.name == name
        balancer.loss_weights(counts, 0.9), balancer.slot_chances(counts, 0.9)
    assert np.array_equal(counts, TAIL)
    assert DRW(beta=0.9).settings()["beta"] == 0.9
    assert DRW(beta=0.9).settings() != DRW().settings() != DRW(start=0).settings()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: DRW(beta=1), "below 1"),
        (lambda: DRW(beta=-0.1), "below 1"),
        (lambda: DRW(beta=float("nan")), "below 1"),
        (lambda: effective_number([1], 1.5), "below 1"),
        (lambda: DRW(start=1.2), "start=1.2"),
        (lambda: DRW(start=float("nan")), "start=nan"),
        (lambda: DRW().loss_weights([0, 0], 0.9), "No class has a photograph"),
        (lambda: Oversampling().slot_chances([0, 0], 0), "No class has a photograph"),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(make, words):
    with pytest.raises(GenaugError, match=words):
        make()
