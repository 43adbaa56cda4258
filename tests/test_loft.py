"LoFT: one adapter per photograph, fused in pairs."

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from random_pipeline import random_pipeline
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug.arms import make_arm
from genaug.choices import LearnedAdapter
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.loft import loft
from genaug.plans import Budget, PlanRow
from genaug.recipe import by_adapters
from genaug.schedule import TwoLoss
from genaug.stable_diffusion import StableDiffusionBackbone

CHEAP = LearnedAdapter(
    scope="image",
    fuse=2,
    steps=3,
    learning_rate=0.05,
    rank=2,
    batch_size=1,
    text_encoder=False,
    warmup=0,
    flip=False,
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    random_pipeline().save_pretrained(folder)
    return StableDiffusionBackbone.from_folder(folder)


def photographs():
    return noise_set([0, 0, 0, 1], ["wren", "owl"], size=16, ids=["a", "b", "c", "lonely"])


@pytest.fixture(scope="module")
def fitted(backbone):
    real = photographs()
    return loft(naming=CHEAP, backbone=backbone, num_inference_steps=4).fit(real), real


def planned(real, budget=Budget(30), **changes):
    return loft(**{"naming": CHEAP, "backbone": toy_backbone(), **changes}).fit(real).plan(real, budget, 0)


def farthest(first, second):
    return max(
        int(np.abs(left.astype(int) - right.astype(int)).max())
        for left, right in zip(first, second, strict=True)
    )


def test_the_defaults_are_the_releases():
    method = loft()
    paper = {
        "scope": "image",
        "fuse": 2,
        "steps": 600,
        "learning_rate": 1e-3,
        "batch_size": 1,
        "rank": 2,
        "text_encoder": False,
        "warmup": 10,
        "schedule": "cosine",
        "flip": False,
    }
    assert {name: getattr(method.naming, name) for name in paper} == paper
    assert method.naming.effort(toy_photographs((5, 5))) == (6000, 1)
    assert (method.num_inference_steps, method.guidance_scale, method.use) == (
        50,
        2.0,
        TwoLoss(real_share=0.8),
    )
    assert make_arm("loft@use=only;naming.fuse=3", toy_backbone()).use.word == "only"


def test_pairs_are_other_photographs_of_the_class_and_all_occur():
    real = toy_photographs((4, 2))
    rows, targets = planned(real), dict(zip(real.ids, real.targets))
    pairs = Counter()
    for row in rows:
        (first, item), (second, other) = row.settings["adapters"]
        assert first == row.settings["anchor"] != second
        assert targets[first] == targets[second] == row.label.index(1.0)
        assert (item, other) == (0.5, 0.5)
        pairs[first, second] += 1
    assert len(pairs) == 4 * 3 + 2 * 1
    assert Counter(first for first, _ in pairs.elements()) == dict.fromkeys(real.ids, 30)
    counts = np.array([pairs["0.png", f"{other}.png"] for other in (1, 2, 3)])
    assert abs(counts - 10).max() < 4 * np.sqrt(30 * 2 / 9)  # uniform over the partners


@pytest.mark.parametrize("fuse, sizes", [(1, (1, 1)), (2, (2, 1)), (3, (3, 1)), (9, (3, 1))])
def test_as_many_adapters_as_the_class_has(fuse, sizes):
    real = toy_photographs((3, 1))
    for row in planned(real, Budget(4), naming=dataclasses.replace(CHEAP, fuse=fuse)):
        names = [name for name, _ in row.settings["adapters"]]
        assert len(names) == len(set(names)) == sizes[row.label.index(1.0)]
        assert sum(weight for _, weight in row.settings["adapters"]) == pytest.approx(1)


def test_a_copy_of_the_file_is_no_partner():
    base = toy_photographs((2, 1))
    real = LabeledImages(
        [base.image(0), base.image(0), base.image(1), base.image(2)],
        [0, 0, 0, 1],
        base.class_names,
        ["a", "copy", "b", "c"],
    )
    pairs = {frozenset(name for name, _ in row.settings["adapters"]) for row in planned(real)}
    assert pairs == {frozenset("ab"), frozenset(("copy", "b")), frozenset("c")}


def test_a_tail_class_is_filled_with_its_own_pairs():
    real = toy_photographs((5, 2))
    rows = planned(real, Budget(fill=True))
    assert len(rows) == 3
    assert all({name for name, _ in row.settings["adapters"]} == {"5.png", "6.png"} for row in rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"scope": "class", "fuse": 2},
        {"scope": "set", "fuse": 2},
        {"scope": "image", "fuse": 0},
        {"scope": "photo"},
    ],
)
def test_impossible_scopes_are_refused(settings):
    with pytest.raises(GenaugError, match="scope"):
        LearnedAdapter(**settings)


def test_the_fused_denoiser_is_the_mean_of_the_two(fitted):
    method, real = fitted
    layer = next(
        name.removesuffix(".lora_A.weight")
        for name in method.concept.concepts["a"].lora
        if name.endswith("lora_A.weight")
    )

    def weight():
        return method.backbone.unet.get_submodule(layer).weight.detach().clone()

    plain, actual = weight(), {}
    for adapters in ((("a", 1.0),), (("b", 1.0),), (("a", 0.5), ("b", 0.5)), (("a", 0.25), ("b", 0.75))):
        with method.backbone.using(method.concept.get(adapters)):
            actual[adapters] = weight() - plain
    left, right, half, quarter = actual.values()
    assert float(left.abs().max()) > 1e-3
    assert not torch.allclose(left, right, atol=1e-4)
    assert torch.allclose(half, (left + right) / 2, atol=1e-6)
    assert torch.allclose(quarter, 0.25 * left + 0.75 * right, atol=1e-6)
    assert torch.equal(weight(), plain)


def test_one_adapter_per_photograph_small_and_of_the_denoiser_only(fitted):
    method, real = fitted
    assert list(method.concept.concepts) == list(real.ids)
    assert method.concept.scope == "image"
    assert all(
        concept.text_lora is None and concept.lora_config["r"] == 2
        for concept in method.concept.concepts.values()
    )
    assert len({concept.fingerprint() for concept in method.concept.concepts.values()}) == 4


def test_rows_of_one_batch_are_painted_with_their_own_pairs(fitted):
    method, real = fitted
    rows = method.plan(real, Budget(2), 0)
    assert len(by_adapters(method.concept, rows)) > 2
    together = method.paint(rows, real)
    assert farthest(together, [method.paint([row], real)[0] for row in rows]) <= 2
    swapped = dataclasses.replace(rows[0], settings={**rows[0].settings, "adapters": (("lonely", 1.0),)})
    assert farthest(together[:1], method.paint([swapped], real)) > 2


def test_a_plan_from_disk_paints_the_same(fitted, backbone, tmp_path):
    method, real = fitted
    rows = method.plan(real, Budget(1), 0)
    method.save(tmp_path / "saved")
    again = loft(naming=CHEAP, backbone=backbone, num_inference_steps=4).load(tmp_path / "saved")
    reread = [PlanRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows]
    assert farthest(again.paint(reread, real), method.paint(rows, real)) == 0


def test_adapters_of_other_settings_or_photographs_are_never_reused(backbone, tmp_path):
    "The release leaves when a file of the class exists, whatever made it."
    real = photographs()[:2]
    changed = LabeledImages([255 - real.pixels[0], real.pixels[1]], real.targets, real.class_names, real.ids)
    runs = [
        loft(naming=naming, backbone=backbone).fit(images, tmp_path).concept.fingerprint()
        for naming, images in (
            (CHEAP, real),
            (dataclasses.replace(CHEAP, rank=1), real),
            (CHEAP, changed),
            (CHEAP, real),
        )
    ]
    assert len(set(runs)) == 3
    assert runs[0] == runs[3]
