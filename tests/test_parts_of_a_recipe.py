"""What a recipe is made of: targets, groups, rounds, adapters, jitter, partial
guidance, single photographs."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug.choices import (
    AnotherClass,
    ClassName,
    EveryOtherClass,
    Filter,
    FromPhotograph,
    LearnedAdapter,
    LearnedCategory,
    LearnedTokens,
    OwnClass,
)
from genaug.concepts.concept import Concept
from genaug.concepts.lora import AdapterSet
from genaug.contracts import Decision
from genaug.diffusion import ToyBackbone
from genaug.identity import content_hash
from genaug.messages import GenaugError
from genaug.methods.diff_ii import CircleStart, diff_ii, moved_copy
from genaug.plan_file import read_plan
from genaug.plans import Budget, PlanRow
from genaug.recipe import Recipe, by_adapters, with_jitter
from genaug.synthesis import synthesize
from genaug.synthetic_set import read_decisions


def many_classes(classes=6, per_class=3):
    names = [f"class {index}" for index in range(classes)]
    return noise_set(np.repeat(np.arange(classes), per_class), names)


def recipe(real, **settings):
    backbone = ToyBackbone.from_images(real.batch(), real.targets, real.class_names)
    return Recipe(**{"backbone": backbone, "guidance_scale": 1.0, "num_inference_steps": 5, **settings}).fit(
        real
    )


def painted_class(row):
    return int(np.argmax(row.label))


def test_every_other_class_is_visited_once_per_round_of_copies():
    real = many_classes()
    rows = recipe(real, start=FromPhotograph((0.8,)), target=EveryOtherClass()).plan(real, Budget(10), 0)
    for anchor in real.ids:
        visited = [painted_class(row) for row in rows if row.settings["anchor"] == anchor]
        own = int(real.targets[real.ids.index(anchor)])
        assert sorted(visited[:5]) == sorted(set(range(6)) - {own})
        assert visited[5:] == visited[:5]
    assert (
        len(
            {
                tuple(painted_class(row) for row in rows if row.settings["anchor"] == anchor)
                for anchor in real.ids
            }
        )
        > 6
    )  # not one order for all


@pytest.mark.parametrize("target", [AnotherClass(), EveryOtherClass()])
def test_wanted_classes_are_painted_over_photographs_of_others(target):
    real = many_classes()
    rows = recipe(real, start=FromPhotograph((0.8,)), target=target).plan(
        real, Budget(per_class={"class 2": 40}), 0
    )
    sources = Counter(int(real.targets[real.ids.index(row.inputs[0][0])]) for row in rows)
    assert {painted_class(row) for row in rows} == {2}
    assert len(rows) == 40
    assert set(sources) == {0, 1, 3, 4, 5}
    assert [row.settings["anchor"] for row in rows] == [row.inputs[0][0] for row in rows]


def test_the_own_class_may_be_drawn_if_asked_for_and_then_with_its_share():
    real = many_classes()
    rows = recipe(real, start=FromPhotograph((0.8,)), target=AnotherClass(include_own=True)).plan(
        real, Budget(60), 0
    )
    own = sum(painted_class(row) == int(real.targets[real.ids.index(row.settings["anchor"])]) for row in rows)
    assert abs(own / len(rows) - 1 / 6) < 4 * np.sqrt(5 / 36 / len(rows))


@dataclasses.dataclass(frozen=True)
class KeepStrongest(Filter):
    "Of each group the row of the largest strength, unless its id ends in a letter."

    rounds: int = 3

    def select(self, rows, images, real, context):
        best = {}
        for row in rows:
            best.setdefault(row.group, []).append(row)
        remaining = {max(members, key=lambda row: row.settings["strength"]).id for members in best.values()}
        return [Decision(row.id in remaining and row.group[-1].isdigit()) for row in rows]


def test_a_group_keeps_one_and_a_filter_draws_until_enough(tmp_path):
    real = many_classes(3, 2)
    method = recipe(real, start=FromPhotograph((0.2, 0.6, 0.9), every=True), filter=KeepStrongest())
    rows = method.plan(real, Budget(4), 0)
    assert len(rows) == 24 * 3 * 3
    assert all(
        len({row.seed for row in rows if row.group == group}) == 1 for group in {row.group for row in rows}
    )
    made = synthesize(method, real, tmp_path / "set", Budget(4), 0, progress=False, allow_fewer=True)
    decided, plan = read_decisions(tmp_path / "set"), read_plan(tmp_path / "set")
    remaining = [plan.by_id[name] for name, decision in decided.items() if decision.keep]
    assert len(remaining) == len(made)
    assert {row.settings["strength"] for row in remaining} == {0.9}
    assert len({row.group for row in remaining}) == len(remaining)
    # later rounds were needed, and not all was painted
    assert any(row.round > 0 for row in remaining)
    assert set(decided) != set(plan.by_id)
    again = synthesize(
        method, real, tmp_path / "again", Budget(4), 0, batch_size=1, progress=False, allow_fewer=True
    )
    assert again.ids == made.ids
    assert again.sha256 == made.sha256


def test_partial_guidance_costs_what_it_says():
    real = toy_photographs()

    class Counting(type(toy_backbone())):
        def predict_noise(self, latents, timesteps, condition):
            self.count = getattr(self, "count", 0) + len(latents)
            return super().predict_noise(latents, timesteps, condition)

    for until, start in (
        (1.0, FromPhotograph((0.5,))),
        (0.5, FromPhotograph((1.0,))),
        (0.3, FromPhotograph((0.8,))),
        (0.0, FromPhotograph((1.0,))),
    ):
        backbone = toy_backbone()
        backbone.__class__ = Counting
        method = Recipe(
            backbone=backbone, guidance_scale=3.0, guidance_until=until, start=start, num_inference_steps=10
        ).fit(real)
        rows = method.plan(real, Budget(1), 0)
        method.paint(rows, real)
        assert backbone.count == method.evaluations(rows), until


def test_an_unchanged_late_setting_leaves_ids_alone_and_a_changed_one_does_not():
    real = toy_photographs()

    def ids(**settings):
        return [
            row.id for row in Recipe(backbone=toy_backbone(), **settings).fit(real).plan(real, Budget(1), 0)
        ]

    assert ids(guidance_until=1.0, jitter=()) == ids()
    assert not set(ids(guidance_until=0.5)) & set(ids())
    assert (
        content_hash(LearnedCategory(schedule="constant"))
        == content_hash(LearnedCategory())
        != content_hash(LearnedCategory(schedule="cosine"))
    )
    assert (
        content_hash(CircleStart(single="shift"))
        != content_hash(CircleStart())
        == content_hash(CircleStart(positions=()))
    )


def test_jitter_touches_only_the_rows_that_ask_and_not_the_concept():
    concept = Concept(
        {"a": "<c001>", "b": "<c0010>"}, {"<c001>": torch.ones(2, 4), "<c0010>": torch.zeros(2, 4)}
    )

    def row(name, text, size):
        return PlanRow(name, "", (1,), (), ((text, 1.0),), hash(name) % 1000, {"jitter": size})

    rows = [
        row("r1", "a photo of a <c001>", 0.1),
        row("r2", "a photo of a <c0010>", 0.1),
        row("r3", "a photo of a <c001>", 0.0),
    ]
    noisy, changed = with_jitter(concept, rows)
    assert [item.prompts[0][0] for item in changed] == [
        "a photo of a <c001-r1>",
        "a photo of a <c0010-r2>",
        "a photo of a <c001>",
    ]
    assert set(noisy.tokens) == {"<c001>", "<c0010>", "<c001-r1>", "<c0010-r2>"}
    assert torch.equal(noisy.tokens["<c001>"], concept.tokens["<c001>"])
    spread = (noisy.tokens["<c001-r1>"] - 1).std()
    assert 0.02 < spread < 0.3
    assert set(concept.tokens) == {"<c001>", "<c0010>"}
    assert torch.equal(
        with_jitter(concept, rows[:1])[0].tokens["<c001-r1>"], noisy.tokens["<c001-r1>"]
    )  # depends on the row alone


def test_rows_are_sorted_by_adapter_and_an_unknown_one_is_named():
    adapter_set = AdapterSet({"wren": Concept({}), "owl": Concept({})}, "class")

    def row(*names):
        return PlanRow("x", "", (1,), (), (), 0, {"adapters": [[name, 1 / len(names)] for name in names]})

    sorted_rows = by_adapters(adapter_set, [row("wren"), row("owl"), row("wren")])
    assert [places for _, places in sorted_rows] == [[0, 2], [1]]
    assert sorted_rows[0][0] is adapter_set.concepts["wren"]
    with pytest.raises(GenaugError, match="emu"):
        by_adapters(adapter_set, [row("emu")])


@pytest.mark.parametrize(
    "settings", [{"scope": "set", "fuse": 2}, {"scope": "galaxy"}, {"scope": "image", "fuse": 0}]
)
def test_impossible_scopes_are_refused(settings):
    with pytest.raises(GenaugError, match="scope"):
        LearnedAdapter(**settings)


def test_effort_counts_steps_of_all_adapters():
    real = many_classes(4, 2)
    assert [LearnedAdapter(scope=scope, steps=10).effort(real)[0] for scope in ("set", "class", "image")] == [
        10,
        40,
        80,
    ]
    assert LearnedTokens().effort(real) == (4000, 4)
    assert ClassName().effort(real) == (0, 0)


@pytest.mark.parametrize("single", ["noise", "noise-circle", "flip", "shift"])
def test_a_single_photograph_has_a_policy(single):
    real = toy_photographs((1, 1))
    method = diff_ii(
        naming=ClassName(),
        backbone=toy_backbone(),
        guidance_scale=1.0,
        num_inference_steps=25,
        fixed_point_iterations=3,
        single=single,
    ).fit(real)
    rows = method.plan(real, Budget(6), 0)
    images = np.stack(method.paint(rows, real)).astype(float)
    assert all(bool(row.inputs) == (single != "noise") for row in rows)
    assert len({row.id for row in rows}) == 12
    assert np.isfinite(images).all()
    assert (
        min(np.abs(image - other).mean() for index, image in enumerate(images) for other in images[:index])
        > 0
    )
    if single != "noise":  # position 0 is the photograph itself
        at_home = [dataclasses.replace(rows[0], settings={**rows[0].settings, "position": 0.0})]
        away = [dataclasses.replace(rows[0], settings={**rows[0].settings, "position": 0.5})]

        def distance(row):
            return np.abs(method.paint(row, real)[0].astype(float) - real.image(0)).mean()

        assert distance(at_home) < 3 < 10 < distance(away)
    assert method.evaluations(rows) == 25 * 12 + 25 * 4 * (
        len(method.start.inverted(rows)) if single != "noise" else 0
    )


@pytest.mark.parametrize("moved", [[0, 0], [4, -3], [-8, 8], [1, 0]])
def test_a_shift_moves_the_middle_and_repeats_the_border(moved):
    image = np.random.default_rng(0).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    down, right = moved[0], 2 * moved[1]
    shifted = moved_copy(image, moved)
    assert shifted.shape == image.shape
    rows, columns = np.clip(np.arange(32) - down, 0, 31), np.clip(np.arange(64) - right, 0, 63)
    assert np.array_equal(shifted, image[rows][:, columns])


def test_fixed_positions_are_used_and_must_be_on_the_arc():
    draw = np.random.default_rng(0)
    start = CircleStart(positions=(0.1, 0.6))
    assert {start.plan_start(draw, "a", ["b"])[1]["position"] for _ in range(30)} == {
        0.1,
        0.6,
    }
    assert CircleStart(positions=0.25).positions == (0.25,)


def test_own_class_draws_nothing():
    draw = np.random.default_rng(0)
    real = many_classes()
    OwnClass().choose_target(draw, Budget(1).slots(real)[0], real, "base")
    assert draw.random() == np.random.default_rng(0).random()
