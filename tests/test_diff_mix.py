"""Diff-Mix, Real-Mix, Diff-AUG, Diff-Gen and Real-Gen: labels, targets, counts, what they paint in closed
form, and what they refuse."""

import dataclasses

import numpy as np
import pytest
import torch
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug.choices import (
    AnotherClass,
    ClassName,
    FromNoise,
    FromPhotograph,
    HardLabel,
    LearnedCategory,
    Naming,
    OwnClass,
)
from genaug.concepts.concept import Concept
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.diff_mix import diff_aug, diff_gen, diff_mix, real_gen, real_mix
from genaug.plans import Budget
from genaug.schedule import SwapClass, SwapPool

NAMES = ("ant", "bee", "cat", "dog", "eel")


def photographs(counts=(4, 4, 4, 4, 4)):
    "Noise with labels; nobody paints it."
    return noise_set(np.repeat(np.arange(len(counts)), counts), NAMES[: len(counts)])


def plan(kind, real, budget=Budget(5), seed=0, **settings):
    method = kind(
        **{"naming": ClassName(), "backbone": toy_backbone(), "guidance_scale": 1.0, **settings}
    ).fit(real)
    return method, method.plan(real, budget, seed)


def both_ends(rows, real):
    "Class of the photograph that is painted over, class named in the prompt."
    return (
        real.targets[real.index([row.inputs[0][0] for row in rows])],
        np.array([real.class_names.index(row.prompts[0][0].split()[-1]) for row in rows]),
    )


def at_strength(rows, strength):
    return [dataclasses.replace(row, settings={**row.settings, "strength": strength}) for row in rows]


@pytest.mark.parametrize("kind", [diff_mix, real_mix])
@pytest.mark.parametrize("gamma", [0, 0.5, 0.8, 1.0, 2])
def test_the_label_row_is_the_formula(kind, gamma):
    real = photographs()
    _, rows = plan(kind, real, gamma=gamma)
    sources, targets = both_ends(rows, real)
    for row, source, target in zip(rows, sources, targets):
        wanted = np.zeros(5)
        wanted[target] += row.settings["strength"] ** gamma
        wanted[source] += 1 - row.settings["strength"] ** gamma
        assert np.abs(np.array(row.label) - wanted).max() < 1e-6
        assert sum(row.label) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("gamma, share", [(0.5, 0.837), (0.8, 0.752), (1.0, 0.7)])
def test_the_share_of_the_target_at_strength_0_7(gamma, share):
    _, rows = plan(diff_mix, photographs(), gamma=gamma, strengths=0.7)
    assert {round(max(row.label), 3) for row in rows} == {share}


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), float("inf")])
def test_a_bad_gamma_is_refused(gamma):
    with pytest.raises(GenaugError, match="gamma="):
        real_mix(gamma=gamma)


def test_the_target_is_uniform_over_the_other_classes_and_never_the_own():
    real = photographs()
    _, rows = plan(real_mix, real, Budget(150))
    counts = np.zeros((5, 5), int)
    np.add.at(counts, both_ends(rows, real), 1)
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(5, dtype=bool)]
    assert ((off - 150) ** 2 / 150).sum() < 40  # 15 degrees of freedom: beyond the 99.9 % point


def test_including_the_own_class_one_row_in_k_keeps_its_hard_label():
    real = photographs()
    _, rows = plan(real_mix, real, Budget(150), include_own=True)
    sources, targets = both_ends(rows, real)
    same = sources == targets
    assert abs(same.mean() - 1 / 5) < 4 * (0.16 / len(rows)) ** 0.5
    assert all(
        row.label == tuple(float(index == source) for index in range(5))
        for row, source in zip(np.array(rows, dtype=object)[same], sources[same])
    )
    assert all(max(row.label) < 1 for row in np.array(rows, dtype=object)[~same])


def test_strengths_are_equally_frequent_and_independent_of_the_target():
    real = photographs()
    _, rows = plan(diff_mix, real, Budget(150))
    strengths, targets = np.array([row.settings["strength"] for row in rows]), both_ends(rows, real)[1]
    for strength in (0.5, 0.7, 0.9):
        assert abs((strengths == strength).mean() - 1 / 3) < 4 * (2 / 9 / len(rows)) ** 0.5
        assert all(
            abs((strengths[targets == index] == strength).mean() - 1 / 3) < 4.5 * (2 / 9 / 600) ** 0.5
            for index in range(5)
        )


@pytest.mark.parametrize("kind", [diff_mix, real_mix, diff_aug, diff_gen, real_gen])
def test_counts_are_stratified(kind):
    real = photographs((6, 2, 1))
    _, rows = plan(kind, real, Budget(4))
    anchors = [row.settings["anchor"] for row in rows]
    assert sorted(anchors) == sorted(4 * list(real.ids))
    if kind in (diff_aug, diff_gen, real_gen):
        assert np.bincount([row.label.index(1) for row in rows]).tolist() == [24, 8, 4]


@pytest.mark.parametrize(
    "budget, wanted", [(Budget(fill=True), [0, 4, 5]), (Budget(per_class={"ant": 3, "cat": 2}), [3, 0, 2])]
)
def test_a_budget_by_class_asks_for_images_into_the_class(budget, wanted):
    real = photographs((6, 2, 1))
    for kind in (real_mix, diff_aug):
        _, rows = plan(kind, real, budget)
        sources, targets = both_ends(rows, real)
        assert np.bincount(targets, minlength=3).tolist() == wanted
        assert (sources != targets).all() if kind is real_mix else (sources == targets).all()


def test_an_edit_ends_in_the_target_class_only_if_it_is_strong():
    """In closed form: at 0.1 the image is still nearest to its source's mean, at 1 to its target's, and the
    change grows in between."""
    real = toy_photographs((4, 4))
    method, rows = plan(real_mix, real, Budget(2))
    means = method.backbone.decode(method.backbone.means).mul(255).permute(0, 2, 3, 1).numpy()
    sources, targets = both_ends_of_shapes(rows, real)
    towards = []
    for strength in (0.1, 0.5, 0.7, 0.9, 1.0):
        images = np.stack(method.paint(at_strength(rows, strength), real)).astype(float)
        distance = np.abs(images[:, None] - means[None]).mean((2, 3, 4))
        index = np.arange(len(rows))
        towards.append((distance[index, sources] - distance[index, targets]))
    assert (towards[0] < 0).all()
    assert (towards[-1] > 0).all()
    assert np.all(np.diff(np.mean(towards, axis=1)) > 0)


def both_ends_of_shapes(rows, real):
    sources, targets = both_ends(rows, real)
    assert (sources == 1 - targets).all()
    return sources, targets


def test_diff_aug_paints_the_own_class_and_its_label_is_hard():
    real = toy_photographs((4, 2))
    method, rows = plan(diff_aug, real, Budget(3))
    sources, targets = both_ends(rows, real)
    assert (sources == targets).all()
    assert all(
        sorted(row.label) == [0.0, 1.0] and row.label[source] == 1 for row, source in zip(rows, sources)
    )
    means = method.backbone.decode(method.backbone.means).mul(255).permute(0, 2, 3, 1).numpy()
    nearest = np.abs(np.stack(method.paint(rows, real))[:, None] - means[None]).mean((2, 3, 4)).argmin(1)
    assert nearest.tolist() == targets.tolist()
    assert method.evaluations(rows) == 25 * len(rows)


def test_from_noise_the_photographs_do_not_matter_and_at_strength_one_they_do():
    real = toy_photographs((3, 3))
    others = LabeledImages(
        [255 - real.image(index) for index in range(6)], real.targets, real.class_names, real.ids
    )
    for kind in (real_gen, diff_gen):
        method, rows = plan(kind, real, Budget(2))
        assert all(row.inputs == () for row in rows)
        assert all(
            np.array_equal(image, other)
            for image, other in zip(method.paint(rows, real), method.paint(rows, others))
        )
    method, rows = plan(diff_aug, real, Budget(2))
    apart = [
        np.abs(image.astype(int) - other).mean()
        for image, other in zip(method.paint(rows, real), method.paint(rows, others))
    ]
    assert min(apart) > 0.5  # 8.5 % of the photograph is in the start


@dataclasses.dataclass(frozen=True)
class Taught(Naming):
    "A naming that has learned one word per class."

    def learn(self, backbone, real, class_prompt, checkpoint=None, progress=False):
        return Concept(
            {name: f"<c{index:03d}>" for index, name in enumerate(real.class_names)},
            {f"<c{index:03d}>": torch.zeros(1, 4) for index in range(len(real.class_names))},
        )


def test_a_learned_word_names_the_target_class():
    real = photographs((2, 2, 2))
    for kind in (diff_mix, diff_aug, diff_gen):
        _, rows = plan(kind, real, Budget(4), naming=Taught())
        for row in rows:
            source = real.targets[real.index([row.settings["anchor"]])[0]]
            named = int(row.prompts[0][0][-4:-1])
            assert row.prompts[0][0].startswith("a photo of a <c")
            assert row.label[named] == max(row.label)
            assert (named != source) == (kind is diff_mix)


def test_the_grid_differs_in_naming_start_target_and_label_only():
    parts = {
        kind: (type(kind().naming), type(kind().start), type(kind().target))
        for kind in (diff_mix, real_mix, diff_aug, diff_gen, real_gen)
    }
    assert parts == {
        diff_mix: (LearnedCategory, FromPhotograph, AnotherClass),
        real_mix: (ClassName, FromPhotograph, AnotherClass),
        diff_aug: (LearnedCategory, FromPhotograph, OwnClass),
        diff_gen: (LearnedCategory, FromNoise, OwnClass),
        real_gen: (ClassName, FromNoise, OwnClass),
    }
    for kind in parts:
        method = kind()
        assert (method.num_inference_steps, method.guidance_scale) == (25, 7.5)
        assert method.use == (SwapPool(0.5) if kind in (diff_mix, real_mix) else SwapClass(0.5))
        assert (method.label == HardLabel()) == (kind not in (diff_mix, real_mix))
    assert diff_mix().start.strengths == real_mix().start.strengths == (0.5, 0.7, 0.9)
    assert diff_mix().label.gamma == real_mix().label.gamma == 0.5
    assert diff_aug().start.strengths == (1.0,)
    assert [kind().name for kind in parts] == ["diff-mix", "real-mix", "diff-aug", "diff-gen", "real-gen"]


def test_settings_of_two_instances_do_not_meet():
    first, other = real_mix(gamma=1.0, strengths=0.7), real_mix()
    assert first.label.gamma == 1.0
    assert other.label.gamma == 0.5
    assert first.start.strengths == (0.7,)
    assert other.start.strengths == (0.5, 0.7, 0.9)
    assert real_mix(strengths=0.7).settings() == real_mix(strengths=(0.7,)).settings() != other.settings()
    changed = first.having(gamma=0.8)
    assert changed.label.gamma == 0.8
    assert changed.start == first.start
    assert first.label.gamma == 1.0


def test_another_class_needs_one_and_only_one_label():
    real = photographs((2, 2))
    both = LabeledImages(
        [real.image(0), real.image(1)], [[1, 0], [1, 1]], real.class_names, ["a", "b"], task="multi"
    )
    for given in (both, photographs((2,))):
        for kind in (diff_mix, real_mix):
            with pytest.raises(GenaugError, match="another class"):
                plan(kind, given)
        for kind in (diff_aug, diff_gen, real_gen):
            assert len(plan(kind, given)[1]) == 10


def test_the_rows_carry_the_photographs_they_were_planned_for():
    real = photographs()
    for kind in (diff_mix, real_mix, diff_aug, diff_gen, real_gen):
        assert {row.fitted_on for row in plan(kind, real)[1]} == {real.fingerprint()}
