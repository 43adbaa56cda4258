"""SMOTE: the neighbours and the distribution of imbalanced-learn, plans that grow by prefix, tiny classes,
label rules, and the mixer."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from imblearn.over_sampling import SMOTE
from scipy.stats import chisquare, kstest
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug.balance.smote import (
    DISTANCE_EDGE,
    LABEL_RULES,
    NearNeighbours,
    Smote,
    SmoteMixer,
    blend_pixels,
    combine_labels,
    majority_label,
    memberships,
    nearest_of_class,
    neighbour_table,
    points_of,
)
from genaug.contracts import Mixer
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.plans import Budget, PlanRow
from genaug.synthesis import synthesize

CLASSES = ("wren", "owl", "kite")


def photographs(counts=(7, 4, 1), size=(6, 6), seed=0):
    targets = np.repeat(np.arange(len(counts)), counts)
    return noise_set(targets, CLASSES[: len(counts)], size=size, seed=seed, ids="p{}")


def several(labels, seed=0):
    return noise_set(labels, CLASSES, size=5, seed=seed, ids="p{}", task="multi")


def rows_of(real, copies=3, seed=0, **fields):
    smote = Smote(**fields).fit(real)
    return smote, smote.plan(real, Budget(copies=copies), seed)


def marked_samples(points, classes, index, count):
    "Samples of imbalanced-learn for one class, and the share of every point in each (see the notebook)."
    wanted = {index: int((classes == index).sum()) + count}
    made, _ = SMOTE(sampling_strategy=wanted, random_state=0).fit_resample(
        np.hstack([points, np.eye(len(points))]), classes
    )
    return made[len(points) :, : points.shape[1]], made[len(points) :, points.shape[1] :]


@pytest.fixture(scope="module")
def cloud():
    draw = np.random.default_rng(1)
    return draw.standard_normal((30, 6)), np.repeat([0, 1], (18, 12))


def test_neighbours_equal_a_search_by_hand(cloud):
    points, classes = cloud
    for count in (1, 5, 40):
        for index, row in enumerate(nearest_of_class(points, classes, count)):
            others = [other for other in range(30) if other != index and classes[other] == classes[index]]
            assert (
                row.tolist()
                == sorted(others, key=lambda other: np.linalg.norm(points[other] - points[index]))[:count]
            )


def test_copies_of_a_point_are_neighbours_and_a_point_never_its_own():
    near = nearest_of_class(np.zeros((6, 3)), np.array([0, 0, 0, 0, 1, 2]), count=2)
    assert all(index not in row for index, row in enumerate(near))
    assert [len(row) for row in near] == [
        2,
        2,
        2,
        2,
        0,
        0,
    ]


def test_imbalanced_learn_draws_from_our_neighbours_on_our_lines(cloud):
    points, classes = cloud
    made, shares = marked_samples(points, classes, 1, 3000)
    near = nearest_of_class(points, classes, 5)
    assert np.allclose(made, shares @ points)
    assert np.allclose(shares.sum(1), 1)
    assert (shares >= 0).all()
    pairs = [frozenset(np.flatnonzero(row > 1e-9).tolist()) for row in shares]
    chances = {}
    for index in np.flatnonzero(classes == 1):
        for other in near[index]:
            pair = frozenset((int(index), int(other)))
            chances[pair] = chances.get(pair, 0) + 1 / 60  # twelve images, five neighbours each
    counted = {pair: pairs.count(pair) for pair in set(pairs) if len(pair) == 2}
    assert set(counted) == set(chances)
    assert sum(counted.values()) == 3000
    assert chisquare(list(counted.values()), [3000 * chances[pair] for pair in counted]).pvalue > 1e-3
    assert kstest(2 * np.sort(shares, 1)[:, -2], "uniform").pvalue > 1e-3


def test_our_neighbours_and_weights_have_the_same_distribution():
    real = photographs((2, 12))
    smote, rows = rows_of(real, copies=200, neighbours=5)
    owls = [row for row in rows if row.settings["shared"] == "owl"]
    counted = [
        sum(row.inputs[0][0] == anchor and row.inputs[1][0] == other for row in owls)
        for anchor, group in smote.near[1].items()
        for other in group
    ]
    assert len(counted) == 60
    assert sum(counted) == len(owls) == 2400
    assert chisquare(counted, [40] * 60).pvalue > 1e-3
    assert kstest([row.inputs[1][1] for row in owls], "uniform").pvalue > 1e-3


def test_rows_name_their_inputs_and_the_label_is_the_class():
    real = photographs()
    smote, rows = rows_of(real)
    for row in rows:
        anchor = row.inputs[0][0]
        assert anchor == row.settings["anchor"]
        assert sum(weight for _, weight in row.inputs) == pytest.approx(1)
        assert all(real.targets[real.index([name])[0]] == int(np.argmax(row.label)) for name, _ in row.inputs)
        assert sum(row.label) == 1
        assert row.prompts == ()
        assert row.method == "smote"
        assert row.fitted_on == real.fingerprint()
    assert all(
        row.inputs[1][0] in smote.near[int(np.argmax(row.label))][row.inputs[0][0]]
        for row in rows
        if len(row.inputs) == 2
    )


def test_tiny_classes():
    real = photographs((3, 2, 1))
    smote, rows = rows_of(real, copies=6)
    by_class = {name: [row for row in rows if row.settings["shared"] == name] for name in CLASSES}
    assert {name: {row.settings["neighbours"] for row in chosen} for name, chosen in by_class.items()} == {
        "wren": {2},
        "owl": {1},
        "kite": {0},
    }
    assert len(by_class["kite"]) == 6
    assert all(row.inputs == (("p5", 1.0),) for row in by_class["kite"])
    assert len({row.id for row in rows}) == len(rows)
    assert all(np.array_equal(image, real.image("p5")) for image in smote.paint(by_class["kite"], real))


@pytest.mark.parametrize("space", ("pixels", "latents"))
def test_a_plan_depends_on_its_seed_and_grows_by_prefix(space):
    real = toy_photographs((5, 3))
    smote = Smote(space=space, backbone=toy_backbone()).fit(real)
    rows, more, other = (
        smote.plan(real, Budget(copies=copies), seed) for copies, seed in ((2, 0), (5, 0), (2, 1))
    )
    assert more[: len(rows)] == rows
    assert rows != other
    assert {row.id for row in rows}.isdisjoint(row.id for row in other)
    assert rows == Smote(space=space, backbone=toy_backbone()).fit(real).plan(real, Budget(copies=2), 0)
    assert [PlanRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows] == rows


@pytest.mark.parametrize(
    "budget", (Budget(per_class={"owl": 5, "kite": 2}), Budget(fill=True)), ids=("per class", "fill")
)
def test_aimed_budgets_get_images_of_the_class(budget):
    real = photographs()
    rows = Smote().fit(real).plan(real, budget, 0)
    assert [int(np.argmax(row.label)) for row in rows] == [slot.class_index for slot in budget.slots(real)]


def test_pixels_are_the_weighted_mean_and_painting_is_pure():
    real = photographs()
    smote, rows = rows_of(real)
    images, state = smote.paint(rows, real), torch.random.get_rng_state()
    for row, image in zip(rows, images):
        exact = sum(weight * real.image(name).astype(float) for name, weight in row.inputs)
        assert image.dtype == np.uint8
        assert np.abs(image - exact).max() <= 0.501
    assert all(
        np.array_equal(left, right) for left, right in zip(images[::-1], smote.paint(rows[::-1], real))
    )
    assert torch.equal(torch.random.get_rng_state(), state)


def test_latents_are_the_weighted_mean_decoded():
    real, backbone = toy_photographs((4, 3)), toy_backbone()
    smote = Smote(space="latents", backbone=backbone).fit(real)
    rows = smote.plan(real, Budget(copies=2), 0)
    images = smote.paint(rows, real)
    for row, image in zip(rows, images):
        mean = sum(weight * backbone.encode(real.batch([name])) for name, weight in row.inputs)
        assert (
            np.abs(image / 255 - backbone.decode(mean)[0].clamp(0, 1).permute(1, 2, 0).numpy()).max()
            <= 0.501 / 255
        )
    assert smote.paint([], real) == []
    assert len(images) == 14
    assert all(
        np.abs(left.astype(int) - right).max() <= 1
        for left, right in zip(images, [smote.paint([row], real)[0] for row in rows])
    )


def test_sizes_and_channels_may_differ():
    real = noise_set(
        [0] * 4, ("wren",), shapes=((6, 8, 3), (12, 5), (70, 90, 3), (9, 9, 1)), ids=list("abcd")
    )
    smote, rows = rows_of(real, copies=4)
    assert points_of(real).shape == (4, 3 * DISTANCE_EDGE**2)
    assert points_of(real[[0]]).shape == (1, 3 * 6 * 8)
    for row, image in zip(rows, smote.paint(rows, real)):
        assert image.shape[:2] == real.image(row.inputs[0][0]).shape[:2]
        assert image.shape[2] == max(real.image(name).shape[2] for name, _ in row.inputs)
    flat = blend_pixels([np.full((4, 4, 1), 100, np.uint8), np.full((9, 3, 1), 200, np.uint8)], (0.5, 0.5))
    assert flat.shape == (4, 4, 1)
    assert (flat == 150).all()


def test_label_rules():
    base, other, weights = (
        torch.tensor([[1.0, 1, 0, 0]]),
        torch.tensor([[1.0, 0, 1, 0]]),
        torch.tensor([0.25]),
    )
    results = {rule: combine_labels(base, other, weights, rule)[0].tolist() for rule in LABEL_RULES[:4]}
    assert results == {
        "own": [1, 1, 0, 0],
        "union": [1, 1, 1, 0],
        "intersection": [1, 0, 0, 0],
        "blend": [1, 0.75, 0.25, 0],
    }
    assert majority_label([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]).tolist() == [
        1,
        0,
        0,
    ]
    assert majority_label([[1, 0]]).tolist() == [1, 0]
    with pytest.raises(GenaugError, match="not by 'majority'"):
        combine_labels(base, other, weights, "majority")


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_rules_in_a_plan_of_several_labels(rule):
    labels = [[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1], [1, 1, 1]]
    real = several(labels)
    smote, rows = rows_of(real, copies=4, label_rule=rule, neighbours=3)
    assert len(rows) == 24
    for row in rows:
        (anchor, _), (other, weight) = row.inputs
        left, right = (real.labels[real.index([name])[0]] for name in (anchor, other))
        shared = real.class_names.index(row.settings["shared"])
        crowd = [left, *(real.labels[real.index([name])[0]] for name in smote.near[shared][anchor])]
        expected = {
            "own": left,
            "union": np.maximum(left, right),
            "intersection": np.minimum(left, right),
            "blend": (1 - weight) * left + weight * right,
            "majority": np.mean(crowd, 0) >= 0.5,
        }[rule]
        assert np.allclose(row.label, expected, atol=1e-6)
        assert left[shared] == right[shared] == row.label[shared] == 1
        counts = real.labels.sum(0)
        assert all(
            counts[shared] <= counts[index] for index in np.flatnonzero(left)
        )  # the rarest label of the photograph


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_aimed_at_a_label_all_ends_have_it(rule):
    real = several([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1]])
    rows = Smote(label_rule=rule).fit(real).plan(real, Budget(per_class={"wren": 7, "kite": 3}), 0)
    for row in rows:
        index = real.class_names.index(row.settings["shared"])
        assert row.label[index] == 1
        assert all(real.labels[real.index([name])[0]][index] == 1 for name, _ in row.inputs)
    assert [row.settings["shared"] for row in rows].count("kite") == 3


def test_images_without_a_label_have_each_other():
    real = several([[0, 0, 0], [0, 0, 0], [1, 0, 0]])
    smote, rows = rows_of(real, copies=2)
    blank = [row for row in rows if row.settings["anchor"] != "p2"]
    assert all(
        {name for name, _ in row.inputs} == {"p0", "p1"}
        and sum(row.label) == 0
        and row.settings["shared"] is None
        for row in blank
    )
    assert len(blank) == 4
    assert all(row.inputs == (("p2", 1.0),) for row in rows if row.settings["anchor"] == "p2")


def test_soft_rows_of_one_label_sets_still_sum_to_one():
    labels = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]], np.float32)
    real = LabeledImages(photographs((4,)).pixels, labels, ("wren", "owl"), list("abcd"))
    for rule in LABEL_RULES:
        _, rows = rows_of(real, label_rule=rule)
        assert all(sum(row.label) == pytest.approx(1, abs=1e-5) for row in rows)
        assert (
            all(np.allclose(row.label, labels[real.index([row.inputs[0][0]])[0]]) for row in rows)
            or rule == "blend"
        )


def test_table_and_memberships():
    real = several([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert memberships(real).astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert neighbour_table(np.arange(3)[:, None], memberships(real), real.ids) == {
        0: {"p0": ["p1"], "p1": ["p0"]},
        1: {"p0": []},
        3: {"p2": []},
    }


@pytest.mark.parametrize("space", ("pixels", "latents"))
def test_saving_and_loading_changes_nothing(space, tmp_path):
    real = toy_photographs((4, 2))
    smote = Smote(space=space, neighbours=2, backbone=toy_backbone()).fit(real)
    smote.save(tmp_path)
    again = Smote(space=space, neighbours=2, backbone=toy_backbone()).load(tmp_path)
    rows = smote.plan(real, Budget(copies=2), 0)
    assert again.plan(real, Budget(copies=2), 0) == rows
    assert again.fingerprint() == smote.fingerprint()
    assert all(
        np.array_equal(left, right) for left, right in zip(smote.paint(rows, real), again.paint(rows, real))
    )


def test_a_set_is_painted_to_disk(tmp_path):
    real = photographs((4, 2, 1), size=(8, 8))
    made = synthesize(Smote().fit(real), real, tmp_path / "set", Budget(copies=2), seed=0, progress=False)
    assert made.counts() == {"wren": 8, "owl": 4, "kite": 2}
    assert set(made.origins) == {"smote"}
    assert [len(entry["sources"]) for entry in made.info].count(1) == 2


def test_mistakes_are_explained():
    real = photographs()
    with pytest.raises(GenaugError, match="has not been fitted"):
        Smote().plan(real, Budget(), 0)
    for others in (photographs(seed=3), real[[0, 1, 2]]):
        with pytest.raises(GenaugError, match="other photographs"):
            Smote().fit(real).plan(others, Budget(), 0)
    for wrong in ({"neighbours": 0}, {"space": "features"}, {"label_rule": "vote"}):
        with pytest.raises(GenaugError, match=f"{next(iter(wrong))}="):
            Smote(**wrong)
    for wrong in ({"neighbours": 0}, {"label_rule": "majority"}):
        with pytest.raises(GenaugError, match=f"{next(iter(wrong))}="):
            SmoteMixer(**wrong)


def test_settings_tell_plans_apart_and_a_backbone_counts_for_latents_only():
    real = toy_photographs((4, 3))
    plain = Smote()
    assert (
        plain.settings()
        == {"name": "smote", "neighbours": 5, "space": "pixels", "label_rule": "own"}
        == Smote(backbone=toy_backbone()).settings()
    )
    assert (
        Smote(space="latents", backbone=toy_backbone()).settings()["backbone"] == toy_backbone().fingerprint()
    )
    plans = [
        smote.fit(real).plan(real, Budget(copies=1), 0)
        for smote in (
            plain,
            Smote(neighbours=2),
            Smote(label_rule="union"),
            Smote(space="latents", backbone=toy_backbone()),
        )
    ]
    assert all(
        {row.id for row in left}.isdisjoint(row.id for row in right)
        for left, right in itertools.combinations(plans, 2)
    )
    assert dataclasses.replace(plain, neighbours=2) == Smote(neighbours=2)


def test_the_mixer_moves_towards_its_partner_by_a_uniform_share():
    generator = torch.Generator().manual_seed(0)
    images, partners, labels = (
        torch.rand(4, 3, 8, 8, generator=generator),
        torch.rand(4, 3, 8, 8, generator=generator),
        torch.eye(4),
    )
    mixer = SmoteMixer()
    moved, rows = mixer.mix(images, labels, partners, labels.roll(1, 0), [5, 6, 7, 8])
    shares = torch.tensor([mixer.describe(seed)["weight"] for seed in (5, 6, 7, 8)]).view(-1, 1, 1, 1)
    assert torch.allclose(moved, shares * images + (1 - shares) * partners, atol=1e-6)
    assert torch.equal(rows, labels)
    assert rows.data_ptr() != labels.data_ptr()
    assert torch.equal(mixer.mix(images[2:3], labels[2:3], partners[2:3], labels[2:3], [7])[0], moved[2:3])
    assert torch.equal(mixer.mix(images, labels, images, labels, range(4))[0], images)
    assert kstest([mixer.describe(seed)["weight"] for seed in range(1000)], "uniform").pvalue > 1e-3
    assert isinstance(mixer, Mixer)
    assert SmoteMixer(neighbours=3).partner_rule == NearNeighbours(3)
    assert mixer.probability == 0.5
    assert mixer.settings() == {"name": "smote", "neighbours": 5, "label_rule": "own"}


@pytest.mark.parametrize("rule", LABEL_RULES[:4])
def test_the_mixer_follows_the_label_rule(rule):
    images, base, other = (
        torch.zeros(2, 1, 4, 4),
        torch.tensor([[1.0, 1, 0], [1, 0, 0]]),
        torch.tensor([[1.0, 0, 1], [1, 1, 1]]),
    )
    mixer = SmoteMixer(label_rule=rule)
    _, rows = mixer.mix(images, base, images, other, [3, 4])
    weights = torch.tensor([1 - mixer.describe(seed)["weight"] for seed in (3, 4)])
    assert torch.allclose(rows, combine_labels(base, other, weights, rule))
    assert mixer.mix(images[:0], base[:0], images[:0], other[:0], [])[0].shape == (0, 1, 4, 4)
