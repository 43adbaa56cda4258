"CMO: edge cases and references beyond its page."

import numpy as np
import pytest
import torch

from genaug.balance.cmo import CMO, RareClasses, minority_chances, mixed_epochs
from genaug.contracts import Mixer
from genaug.data.splits import long_tail_counts
from genaug.messages import GenaugError
from genaug.mixing.cutmix import cut_box, kept_share

TAIL = long_tail_counts([88] * 10, 100)


def pairs(count=6, classes=4, size=16, seed=0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.random((count, 3, size, size), np.float32)), torch.eye(classes)[
        random.integers(classes, size=count)
    ]


@pytest.mark.parametrize("power", [0, 0.25, 0.5, 1, 1.5, 2, 3])
def test_chances_are_those_of_torchs_sampler_over_photographs(power):
    classes = np.repeat(np.arange(10), TAIL)
    sampler = torch.utils.data.WeightedRandomSampler(
        TAIL[classes] ** -float(power), len(classes), generator=torch.Generator().manual_seed(0)
    )
    exact = np.bincount(classes, (sampler.weights / sampler.weights.sum()).numpy())
    assert np.allclose(minority_chances(TAIL, power), exact, atol=1e-12)
    drawn = np.bincount(classes[np.concatenate([list(sampler) for _ in range(50)])], minlength=10) / (
        50 * len(classes)
    )
    assert np.abs(drawn - exact).max() < 5 * np.sqrt(0.25 / (50 * len(classes)))


def test_power_one_is_uniform_and_power_plus_one_is_the_reading_per_class():
    assert np.array_equal(minority_chances(TAIL, 1), np.full(10, 0.1))
    for power in (0.5, 1, 2):
        assert np.allclose(
            minority_chances(TAIL, power + 1), TAIL ** -float(power) / (TAIL ** -float(power)).sum()
        )


@pytest.mark.parametrize("power", [0, 1, 2, 50, 1e4])
def test_chances_stay_finite_and_skip_empty_classes(power):
    chances = minority_chances([0, 1000, 1242, 0, 1242], power)
    assert np.isfinite(chances).all()
    assert np.isclose(chances.sum(), 1)
    assert (chances[[0, 3]] == 0).all()
    assert np.isclose(chances[2], chances[4])
    assert power <= 1 or chances[1] > chances[2]


def test_a_single_class_or_photograph_gets_everything():
    assert minority_chances([7]).tolist() == [1]
    assert minority_chances([0, 1, 0], 5).tolist() == [0, 1, 0]


def test_counts_are_left_alone_and_may_be_any_number_type():
    counts = TAIL.copy()
    for kind in (np.int64, np.int32, np.float32):
        assert np.allclose(
            CMO(power=0.5).partner_rule.chances(counts.astype(kind)),
            minority_chances(TAIL.tolist(), 0.5),
            atol=1e-6,
        )
    assert np.array_equal(counts, TAIL)


@pytest.mark.parametrize("epochs", [40, 41, 100, 120, 200, 400])
@pytest.mark.parametrize("warm", [1, 2, 3])
def test_epochs_follow_the_rule_of_the_code(epochs, warm):
    assert [epoch for epoch in range(epochs) if CMO(warm=warm).active(epoch, epochs)] == [
        epoch for epoch in range(epochs) if warm < epoch < epochs - warm
    ]


def test_short_runs_are_mixed_too_and_margins_are_at_most_a_tenth():
    for warm in (0, 1, 3, 50):
        for epochs in range(1, 120):
            mixed = mixed_epochs(epochs, warm)
            assert len(mixed)
            assert mixed.start <= epochs / 10
            assert epochs - mixed.stop <= epochs / 10
    assert all(mixed_epochs(epochs, 0) == range(epochs) for epochs in (1, 5, 200))
    assert mixed_epochs(9) == range(9)
    assert mixed_epochs(10) == range(1, 9)
    assert mixed_epochs(39) == range(3, 36)


def test_pixels_and_rows_come_from_the_rectangle_of_the_seed():
    images, labels = pairs()
    others, other_labels = pairs(seed=1)
    mixed, rows = CMO().mix(images, labels, others, other_labels, range(6))
    for i in range(6):
        top, left, bottom, right = cut_box(i, 16, 16)
        inside = torch.zeros(16, 16, dtype=bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(mixed[i][:, inside], others[i][:, inside])
        assert torch.equal(mixed[i][:, ~inside], images[i][:, ~inside])
        share = inside.float().mean()
        assert torch.allclose(rows[i], (1 - share) * labels[i] + share * other_labels[i], atol=1e-6)


def test_a_pair_does_not_depend_on_its_batch_and_inputs_are_left_alone():
    images, labels = pairs()
    others, other_labels = pairs(seed=1)
    copies, state = (
        [item.clone() for item in (images, labels, others, other_labels)],
        torch.random.get_rng_state(),
    )
    together = CMO().mix(images, labels, others, other_labels, range(10, 16))
    alone = CMO().mix(images[3:4], labels[3:4], others[3:4], other_labels[3:4], [13])
    assert torch.equal(together[0][3:4], alone[0])
    assert torch.equal(together[1][3:4], alone[1])
    assert all(torch.equal(item, copy) for item, copy in zip((images, labels, others, other_labels), copies))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_soft_rows_keep_their_sum_and_multi_label_rows_their_common_findings():
    images, _ = pairs(2)
    soft = torch.tensor([[0.7, 0.3, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    _, rows = CMO().mix(images, soft, images.flip(0), soft.flip(0), [0, 1])
    assert torch.allclose(rows.sum(1), torch.ones(2))
    _, rows = CMO().mix(
        images, torch.tensor([[1.0, 1, 0, 0]] * 2), images.flip(0), torch.tensor([[0.0, 1, 1, 0]] * 2), [0, 1]
    )
    assert (rows[:, 1] == 1).all()
    assert (rows[:, 3] == 0).all()
    assert torch.allclose(rows[:, 0] + rows[:, 2], torch.ones(2))


def test_description_is_the_share_kept():
    for seed in range(20):
        assert CMO().describe(seed, 32)["weight"] == kept_share(cut_box(seed, 32, 32), 32, 32)


def test_it_is_a_mixer_with_rare_partners_and_settings():
    mixer = CMO(power=0.5)
    assert isinstance(mixer, Mixer)
    assert mixer.partner_rule == RareClasses(0.5)
    assert mixer.name == "cmo"
    assert mixer.probability == 0.5
    assert mixer.settings()["power"] == 0.5
    assert CMO().settings() != mixer.settings()
    assert CMO(power=0.5) == mixer


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: CMO(power=-0.1), "at least 0"),
        (lambda: CMO(power=float("nan")), "at least 0"),
        (lambda: CMO(power=float("inf")), "at least 0"),
        (lambda: CMO(warm=-1), "warm=-1"),
        (lambda: minority_chances([0, 0]), "No class has a photograph"),
        (lambda: minority_chances([]), "No class has a photograph"),
        (lambda: CMO(alpha=0).mix(*pairs(1), *pairs(1), [0]), "alpha"),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(make, words):
    with pytest.raises(GenaugError, match=words):
        make()
