"""What `paper` scale would do, without its data and weights: every method planned with its own settings on a miniature of CUB
(200 classes, five images each); rows, labels and denoiser evaluations agree with the briefs."""
import dataclasses

import numpy as np
import pytest

from genaug.alignment import AlignmentStudy
from genaug.core import Budget, LabeledImages
from genaug.diffusion import ToyBackbone
from genaug.recipe import ClassName
from genaug.registry import find_method, groups, make_arm, naming_parts, tiny_settings

CLASSES, SHOTS = 200, 5
AUGMENTERS = [
    name
    for name in dict.fromkeys((*groups()["diff-ii-family"], *groups()["newer"], *groups()["aligned"]))
    if find_method(name).kind == "augmenter"
]
PLANNED = {}
STEPS_OF_25 = {0.1: 2, 0.25: 6, 0.5: 12, 0.7: 17, 0.75: 18, 0.9: 22, 1.0: 25}      # section 1 of the brief


@pytest.fixture(scope="module")
def cub():
    draw = np.random.default_rng(0)
    targets = np.repeat(np.arange(CLASSES), SHOTS)
    pictures = [draw.integers(0, 255, (4, 4, 3), dtype=np.uint8) for _ in targets]
    names = [f"{index + 1:03d}.Bird_{index}" for index in range(CLASSES)]
    real = LabeledImages(
        pictures, targets, names, [f"{names[target]}/{place}.png" for place, target in enumerate(targets)]
    )
    return real, ToyBackbone.from_images(real.batch(), real.targets, names)


def planned(name, cub, **changes):
    "A method, its plan and its cost; a plan is made once per method and setting."
    key = (name, *sorted(changes.items()))
    if key not in PLANNED:
        PLANNED[key] = plan_of(name, cub, **changes)
    return PLANNED[key]


def plan_of(name, cub, **changes):
    real, backbone = cub
    augmenter = (
        make_arm(name, backbone, suffixes=("on a branch", "in flight"))
        .augmenter.having(naming=ClassName(), **changes)
        .fit(real)
    )
    rows = [row for row in augmenter.plan(real, Budget(5), 0) if row.round == 0]
    return augmenter, rows, augmenter.evaluations(rows)


@pytest.mark.parametrize("name", AUGMENTERS)
def test_five_images_per_photograph_are_planned(name, cub):
    augmenter, rows, _ = planned(name, cub)
    wanted = {row.group or row.id for row in rows}
    assert (
        len(wanted) == 5 * CLASSES * SHOTS and len(rows) == 5 * CLASSES * SHOTS * augmenter.start.alternatives
    )
    labels = np.array([row.label for row in rows])
    assert np.allclose(labels.sum(1), 1, atol=1e-5) and {row.settings["anchor"] for row in rows} == set(
        cub[0].ids
    )


@pytest.mark.parametrize("name, changes, per_image", [
    ("real-guidance", {}, 4), ("diff-mix", {"strengths": (0.7,)}, 34), ("da-fusion", {"strengths": (0.9,)}, 44), ("diff-aug", {"strengths": (0.9,)}, 44),      # neighbours, section 2
    ("diff-aug", {}, 50), ("diff-gen", {}, 50), ("real-gen", {}, 50), ("genie", {}, 80), ("genie-ada", {}, 350), ("datadream", {}, 100), ("loft", {}, 100), ("round-trip", {}, 0),
    ("fine-tuned", {}, 999), ("feature-aligned", {}, 999)])       # one evaluation per level, without guidance
def test_an_image_costs_what_the_brief_says(name, changes, per_image, cub):
    _, rows, count = planned(name, cub, **changes)
    assert count == per_image * len({row.group or row.id for row in rows})


def test_diff_ii_inverts_every_photograph_once(cub):
    _, rows, count = planned("diff-ii", cub)
    assert count == 50 * len(rows) + 25 * CLASSES * SHOTS == 55 * len(rows)


@pytest.mark.parametrize("name, strengths", [("da-fusion", (0.25, 0.5, 0.75, 1.0)), ("diff-mix", (0.5, 0.7, 0.9)), ("real-mix", (0.5, 0.7, 0.9)), ("real-guidance", (0.1,))])
def test_strengths_are_drawn_evenly_and_cost_their_steps(name, strengths, cub):
    augmenter, rows, count = planned(name, cub)
    drawn = np.array([row.settings["strength"] for row in rows])
    shares = [(drawn == strength).mean() for strength in strengths]
    assert abs(sum(shares) - 1) < 1e-9 and max(
        abs(share - 1 / len(strengths)) for share in shares
    ) < 4 * np.sqrt(0.25 / len(rows))
    assert count == sum(2 * STEPS_OF_25[strength] for strength in drawn)


def test_learning_at_paper_scale_is_what_the_papers_print(cub):
    real, backbone = cub
    effort = {name: make_arm(name, backbone).augmenter.naming.effort(real) for name in AUGMENTERS}
    assert effort["diff-ii"] == effort["diff-mix"] == effort["diff-aug"] == effort["diff-gen"] == (35_000, 2)
    assert effort["da-fusion"] == (200_000, 4) and effort["real-gen"] == effort["real-mix"] == effort[
        "real-guidance"
    ] == (0, 0)
    assert effort["loft"] == (600_000, 1)  # 1,000 adapters of 600 steps (neighbours, section 4)
    assert (
        make_arm("datadream", backbone).augmenter.naming.rank == 16
        and make_arm("diff-ii", backbone).augmenter.guidance_scale == 7.5
    )


def test_the_embedded_settings_never_reach_another_backbone(cub):
    for name in AUGMENTERS:
        ours, theirs = make_arm(name).augmenter, make_arm(name, cub[1]).augmenter
        assert (
            dataclasses.replace(theirs, backbone=None).settings() == find_method(name).build().settings()
            or name == "round-trip"
        )
        assert all(ours.setting(field) == value for field, value in tiny_settings(name).items())
    assert naming_parts(False)["category"].steps == 35_000 != naming_parts(True)["category"].steps


def test_feature_aligned_at_paper_scale():
    "5,000 tiles of 8 classes, 80 % of them for training: 20 passes in batches of four; 10 images of 7 classes from 15 seeds."
    kather = LabeledImages(
        [np.zeros((2, 2, 1), np.uint8)] * 4000,
        np.repeat(np.arange(8), 500),
        [f"class {index}" for index in range(8)],
        [f"{place}.tif" for place in range(4000)],
    )
    for name, weight in (("fine-tuned", 0.0), ("feature-aligned", 1.0)):
        naming = make_arm(
            name, ToyBackbone.from_images(kather[::500].batch(), list(range(8)), kather.class_names)
        ).augmenter.naming
        assert naming.effort(kather) == (20_000, 4) and (
            naming.learning_rate,
            naming.schedule,
            naming.alignment_weight,
            naming.noise_weight,
        ) == (1e-4, "cosine", weight, 1.0)
        assert (
            naming.expert_network,
            naming.expert_size,
            naming.expert_epochs,
            naming.expert_learning_rate,
            naming.expert_input,
            naming.tap,
        ) == ("resnet50", 224, 15, 1e-4, "noisy", None)
    paper = AlignmentStudy(draws=(15, 15), num_inference_steps=999, scale="paper")
    images = [len(paper.seeds(run)) * paper.per_class * (8 - len(paper.left_out)) for run in paper.runs]
    assert images == [1050] * 5 and len(paper.arms) * sum(images) * paper.num_inference_steps == 15_734_250
