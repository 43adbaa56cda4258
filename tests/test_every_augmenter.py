"""The contract that every registered arm keeps, on a toy backbone and on a small Stable Diffusion pipeline
with random weights.

Whoever registers a method finds it here without writing a line: `method_names()` is what is tested.
"""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from quick_methods import cheap
from random_pipeline import random_pipeline
from toy_sets import BIRDS, photographs

from genaug.arms import make_arm
from genaug.choices import FromNoise, OwnClass
from genaug.core import LabeledImages
from genaug.diffusion import ToyBackbone
from genaug.generators.common import GeneratorAugmenter
from genaug.messages import GenaugError
from genaug.plans import Budget, PlanRow
from genaug.recipe import Recipe
from genaug.registry import find_method, method_names
from genaug.stable_diffusion import StableDiffusionBackbone
from genaug.synthesis import synthesize

AUGMENTERS = [name for name in method_names() if find_method(name).kind == "augmenter"]
BALANCERS = [name for name in method_names() if find_method(name).kind == "balancer"]
MIXERS = [name for name in method_names() if find_method(name).part is not None and name not in BALANCERS] + [
    "augmix@jsd=false"
]
BUDGET = Budget(copies=2)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    "The closed-form model of these photographs, and a pipeline in the diffusers layout."
    real = photographs()
    folder = tmp_path_factory.mktemp("pipeline")
    random_pipeline().save_pretrained(folder)
    return {
        "toy": ToyBackbone.from_images(real.batch(), real.targets, BIRDS),
        "pipeline": StableDiffusionBackbone.from_folder(folder),
    }


@pytest.fixture(scope="module")
def make(backbones, tmp_path_factory):
    """Builds a method that costs little: few sampler steps, a concept learned in two steps, two rounds of a
    filter."""
    work = tmp_path_factory.mktemp("work")

    def build(name, backbone="toy", real=None, **changes):
        augmenter = make_arm(name, backbones[backbone], suffixes=("on grass", "in snow")).augmenter
        augmenter = cheap(augmenter, real is not None and real.task == "multi", **changes)
        return augmenter if real is None else augmenter.fit(real, work)

    return build


@pytest.fixture(
    params=[(name, kind) for name in AUGMENTERS for kind in ("toy", "pipeline")],
    ids=lambda pair: "-".join(pair),
)
def fitted(request, make):
    "(augmenter fitted on the photographs, photographs)"
    real = photographs()
    return make(*request.param, real=real), real


def filters(augmenter):
    "May the method turn images down? Then a finished set may be smaller than asked for."
    return isinstance(augmenter, Recipe) and augmenter.filter.rounds > 1


def own_class(augmenter):
    "Does the method make images of the class that the slot asks for, and of that class alone?"
    return getattr(augmenter, "label_rule", "own") != "union" and (
        not isinstance(augmenter, Recipe) or isinstance(augmenter.target, OwnClass)
    )


def mixer_of(text):
    "The mixer that a text stands for behind a plus, or alone when it has settings."
    return make_arm(text if "@" in text else f"original+{text}").mixer


def paint_set(augmenter, real, folder, **options):
    return synthesize(
        augmenter, real, folder, BUDGET, seed=0, progress=False, allow_fewer=filters(augmenter), **options
    )


def test_every_registered_method_is_tested():
    assert set(AUGMENTERS) | {name for name in MIXERS if "@" not in name} | set(BALANCERS) | {
        "original"
    } == set(method_names())
    plain = make_arm("original")
    assert (plain.augmenter, plain.mixer, plain.use) == (None, None, None)


def test_the_count_equals_the_budget(fitted, tmp_path):
    augmenter, real = fitted
    for budget in (BUDGET, Budget(per_class={"owl": 3, "wren": 1}), Budget(fill=True)):
        rows = augmenter.plan(real, budget, 0)
        first = [row for row in rows if row.round == 0]
        groups = {row.group if row.group is not None else row.id for row in first}
        assert len(groups) == len(budget.slots(real))
        assert len({row.id for row in rows}) == len(rows)
    made = paint_set(augmenter, real, tmp_path / "set")
    assert len(made) == 14 or filters(augmenter) and len(made) <= 14
    assert made.class_names == real.class_names
    if own_class(augmenter) and not filters(augmenter):
        assert made.counts() == {"wren": 6.0, "great tit": 6.0, "owl": 2.0}


def test_images_of_a_wanted_class_are_of_that_class(fitted):
    augmenter, real = fitted
    for budget in (Budget(per_class={"owl": 3, "wren": 1}), Budget(fill=True)):
        rows = [row for row in augmenter.plan(real, budget, 0) if row.round == 0]
        classes = {row.group or row.id: int(np.argmax(row.label)) for row in rows}
        assert sorted(classes.values()) == sorted(slot.class_index for slot in budget.slots(real))


def test_labels_are_rows_that_sum_to_one(fitted):
    augmenter, real = fitted
    labels = np.array([row.label for row in augmenter.plan(real, BUDGET, 0)])
    assert labels.shape[1] == 3
    assert (labels >= 0).all()
    assert (labels <= 1).all()
    assert np.allclose(labels.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("name", AUGMENTERS)
def test_several_labels_stay_within_zero_and_one(name, make):
    real = photographs("multi")
    augmenter = make(name, real=real)
    # another class than "wren and great tit" is not defined
    if isinstance(augmenter, Recipe) and not own_class(augmenter):
        with pytest.raises(GenaugError, match="single-label"):
            augmenter.plan(real, BUDGET, 0)
        return
    rows = augmenter.plan(real, BUDGET, 0)
    labels = np.array([row.label for row in rows])
    assert (labels >= 0).all()
    assert (labels <= 1).all()
    assert len({row.group or row.id for row in rows if row.round == 0}) == 10
    assert (labels.sum(1) > 1).any()  # an image with two labels stays one
    assert all(image.dtype == np.uint8 for image in augmenter.paint(rows[:2], real))


def test_images_are_finite_bytes_of_one_size(fitted):
    augmenter, real = fitted
    rows = augmenter.plan(real, BUDGET, 0)
    images = augmenter.paint(rows, real)
    assert len(images) == len(rows)
    assert len({image.shape for image in images}) == 1
    assert all(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3) for image in images)
    assert max(image.std() for image in images) > 0


def test_every_input_is_a_photograph_or_an_earlier_row(fitted):
    augmenter, real = fitted
    known = set(real.ids)
    for row in augmenter.plan(real, BUDGET, 0):
        assert all(name in known for name, _ in row.inputs)
        assert abs(sum(part for _, part in row.prompts) - 1) < 1e-6 or not isinstance(augmenter, Recipe)
        noise = (
            isinstance(augmenter, Recipe)
            and isinstance(augmenter.start, FromNoise)
            or isinstance(augmenter, GeneratorAugmenter)
            or row.label[2] == 1
        )  # the owl has one photograph
        assert row.inputs or noise
        assert row.fitted_on == real.fingerprint()
        known.add(row.id)


def test_the_seed_decides_the_images(fitted):
    augmenter, real = fitted
    item, same, other = (augmenter.plan(real, BUDGET, seed) for seed in (0, 0, 1))
    assert item == same
    assert {row.id for row in item}.isdisjoint(row.id for row in other)
    assert [row.seed for row in item] != [row.seed for row in other]
    first, again, different = (augmenter.paint(rows, real) for rows in (item, same, other))
    assert all(np.array_equal(left, right) for left, right in zip(first, again))
    moving = (
        not isinstance(augmenter, Recipe) or augmenter.evaluations(item) > 0
    )  # without a step of denoising there is nothing that a seed could change
    assert any(not np.array_equal(left, right) for left, right in zip(first, different)) == moving


def test_a_smaller_budget_is_a_prefix(fitted):
    augmenter, real = fitted
    small, large = (augmenter.plan(real, Budget(copies=copies), 0) for copies in (1, 3))
    assert large[: len(small)] == small
    assert len(large) == 3 * len(small)
    assert small


def test_neither_batches_nor_shards_change_a_pixel_by_more_than_two(fitted, tmp_path):
    augmenter, real = fitted
    whole = paint_set(augmenter, real, tmp_path / "whole", batch_size=32)
    singly = paint_set(augmenter, real, tmp_path / "singly", batch_size=1)
    for index in (0, 1):
        sharded = paint_set(augmenter, real, tmp_path / "sharded", batch_size=3, shard=(index, 2))
    for other in (singly, sharded):
        assert other.ids == whole.ids
        assert (
            max(
                [
                    int(np.abs(other.image(name).astype(int) - whole.image(name).astype(int)).max())
                    for name in whole.ids
                ],
                default=0,
            )
            <= 2
        )


def random_states():
    return [torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), str(random.getstate())]


@pytest.mark.parametrize("kind", ["toy", "pipeline"])
@pytest.mark.parametrize("name", AUGMENTERS)
def test_nothing_outside_is_changed(name, kind, make, tmp_path, backbones):
    real = photographs(seed=3)
    pixels, print_before, weights = (
        [real.image(index).copy() for index in range(len(real))],
        real.fingerprint(),
        backbones[kind].fingerprint(),
    )
    states = random_states()
    augmenter = make(name, kind)
    augmenter.fit(real, tmp_path / "work")
    paint_set(augmenter, real, tmp_path / "set")
    assert random_states() == states
    assert all(np.array_equal(real.image(index), before) for index, before in enumerate(pixels))
    assert photographs(seed=3).fingerprint() == print_before
    assert dataclasses.replace(augmenter).fingerprint() != ""
    assert type(backbones[kind]).fingerprint(backbones[kind]) == weights


@pytest.mark.parametrize("kind", ["toy", "pipeline"])
@pytest.mark.parametrize("name", AUGMENTERS)
def test_two_instances_do_not_affect_each_other(name, kind, make, tmp_path):
    real, others = photographs(), photographs(seed=9)
    first = make(name, kind, real)
    rows = first.plan(real, BUDGET, 0)
    alone = first.paint(rows, real)
    second = make(name, kind, guidance_scale=3.0, num_inference_steps=3, neighbours=3, latent_dim=6)
    second.fit(others, tmp_path)
    second.paint(second.plan(others, BUDGET, 5), others)
    assert first.settings() != second.settings()
    assert first.fingerprint() != second.fingerprint()
    assert first.plan(real, BUDGET, 0) == rows
    assert all(np.array_equal(left, right) for left, right in zip(alone, first.paint(rows, real)))


def test_saving_and_loading_changes_nothing(fitted, make, tmp_path, request):
    augmenter, real = fitted
    augmenter.save(tmp_path / "saved")
    copy = dataclasses.replace(augmenter).load(tmp_path / "saved")
    rows = augmenter.plan(real, BUDGET, 0)
    assert copy.fitted_on == augmenter.fitted_on
    assert copy.fingerprint() == augmenter.fingerprint()
    assert copy.plan(real, BUDGET, 0) == rows
    assert all(
        np.array_equal(left, right)
        for left, right in zip(augmenter.paint(rows, real), copy.paint(rows, real))
    )


def test_a_plan_read_back_paints_the_same_images(fitted):
    augmenter, real = fitted
    rows = augmenter.plan(real, BUDGET, 0)
    again = [PlanRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows]
    assert again == rows
    assert all(
        np.array_equal(left, right)
        for left, right in zip(augmenter.paint(rows, real), augmenter.paint(again, real))
    )


def batch(seed=0, count=6):
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.rand(count, 3, 16, 16, generator=generator), torch.eye(3)[torch.arange(count) % 3]
    return images, labels, images.roll(1, 0), labels.roll(1, 0), list(range(100, 100 + count))


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_keeps_the_contract(name):
    mixer, states = mixer_of(name), random_states()
    given = batch()
    copies = [value.clone() for value in given[:4]]
    images, labels = mixer.mix(*given)
    assert images.shape == given[0].shape
    assert torch.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.allclose(labels.sum(1), torch.ones(6), atol=1e-6)
    assert labels.min() >= 0
    assert all(torch.equal(value, before) for value, before in zip(given, copies))
    assert random_states() == states
    again, other = mixer.mix(*batch()), mixer.mix(*given[:4], [seed + 1 for seed in given[4]])
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], labels)
    assert not torch.equal(other[0], images) or mixer.views(
        given[0], given[4]
    )  # AugMix with further views leaves the images alone


@pytest.mark.parametrize("name", MIXERS)
def test_further_views_are_answered_alike_or_cost_something(name):
    mixer, given = mixer_of(name), batch()
    views = mixer.views(given[0], given[4])
    assert all(view.shape == given[0].shape and view.min() >= 0 and view.max() <= 1 for view in views)
    assert all(torch.equal(view, again) for view, again in zip(views, mixer.views(given[0], given[4])))
    for task in ("single", "multi"):
        same = [torch.full((6, 3), 0.3)] * (1 + len(views))
        differing = [
            value + 2.0 * index * torch.eye(3)[torch.arange(6) % 3] for index, value in enumerate(same)
        ]
        assert mixer.consistency(same, task).shape == (6,)
        assert mixer.consistency(same, task).abs().max() < 1e-6
        assert (mixer.consistency(differing, task) > 1e-3).all() == bool(views)


@pytest.mark.parametrize("name", BALANCERS)
def test_a_balancer_gives_fair_finite_weights(name):
    balancer = make_arm(name).balancer
    for counts in (np.array([500.0, 20.0, 1.0]), np.array([3.0, 3.0, 3.0]), np.array([4.0, 0.0, 1.0])):
        for progress in (0.0, 0.5, 0.99):
            weights, chances = (
                balancer.loss_weights(counts, progress),
                balancer.slot_chances(counts, progress),
            )
            assert weights.shape == (3,)
            assert np.isfinite(weights).all()
            assert (weights >= 0).all()
            # a rarer class never counts less
            assert np.isclose(weights.sum(), 3)
            assert (np.diff(weights[np.argsort(-counts)][: int((counts > 0).sum())]) >= -1e-9).all()
            assert chances is None or (
                np.isfinite(chances).all() and (chances >= 0).all() and (chances[counts == 0] == 0).all()
            )
    equal = balancer.loss_weights(np.array([3.0, 3.0, 3.0]), 0.99)
    assert np.allclose(equal, 1)


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixed_image_depends_on_its_own_pair_and_seed_only(name):
    mixer, given = mixer_of(name), batch()
    images, labels = mixer.mix(*given)
    for index in range(6):
        alone = mixer.mix(*(value[index : index + 1] for value in given))
        assert torch.allclose(alone[0][0], images[index], atol=1e-6)
        assert torch.allclose(alone[1][0], labels[index], atol=1e-6)


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_keeps_labels_of_several_within_zero_and_one(name):
    images, _, partners, _, seeds = batch()
    labels = torch.tensor([[1.0, 1.0, 0.0]] * 6)
    _, mixed = mixer_of(name).mix(images, labels, partners, labels.roll(1, 1), seeds)
    assert mixed.min() >= 0
    assert mixed.max() <= 1


@pytest.fixture(scope="module")
def digits():
    "Two photographs of each of three digits, and the embedded backbone."
    from genaug.datasets import load
    from genaug.stable_diffusion import load_backbone

    pool = load("digit-scenes")["train"]
    chosen = [
        pool.ids[position] for index in range(3) for position in np.flatnonzero(pool.targets == index)[:2]
    ]
    few = pool.select(chosen)
    return LabeledImages(
        [few.image(index) for index in range(6)], few.targets, few.class_names[:3], few.ids
    ), load_backbone("tiny")


@pytest.mark.parametrize("name", AUGMENTERS)
def test_the_embedded_backbone_paints_every_method_and_its_plan_repaints(
    name, make, digits, backbones, tmp_path
):
    real, backbone = digits
    backbones["tiny"] = backbone
    augmenter = make(name, "tiny", real, num_inference_steps=3, rounds=1)
    rows = augmenter.plan(real, Budget(copies=0.5), 0)
    images = augmenter.paint(rows, real)
    again = [PlanRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows]
    assert again == rows
    assert all(np.array_equal(left, right) for left, right in zip(images, augmenter.paint(again, real)))
    assert {image.shape for image in images} == {(32, 32, 3)}
    assert max(image.std() for image in images) > 5
    assert len(rows) >= 3
    assert all(0.999 < sum(row.label) < 1.001 for row in rows)
    assert len(augmenter.select(rows, images, real)) == len(rows)
