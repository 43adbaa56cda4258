"DataDream: adapters per class and per set, painted row by row."

import dataclasses
import json

import numpy as np
import pytest
import torch
from random_pipeline import random_pipeline
from toy_sets import noise_set
from toy_world import toy_backbone

from genaug.arms import make_arm
from genaug.choices import ClassName, FromNoise, HardLabel, KeepAll, LearnedAdapter, OwnClass, Plain
from genaug.concepts.concept import Concept
from genaug.concepts.lora import AdapterSet
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.datadream import datadream
from genaug.plans import Budget, PlanRow
from genaug.schedule import TwoLoss
from genaug.stable_diffusion import StableDiffusionBackbone

CHEAP = LearnedAdapter(steps=3, learning_rate=0.05, rank=2, batch_size=2, warmup=0, flip=False)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    random_pipeline().save_pretrained(folder)
    return StableDiffusionBackbone.from_folder(folder)


def photographs(seed=0, counts=(2, 1)):
    targets = np.repeat(np.arange(2), counts)
    return noise_set(targets, ["wren", "owl"], size=16, seed=seed, high=60, tints=(60, 150))


@pytest.fixture(scope="module")
def fitted(backbone):
    real = photographs()
    return datadream(naming=CHEAP, backbone=backbone, num_inference_steps=4).fit(real), real


def adapters(row):
    return tuple((name, weight) for name, weight in row.settings["adapters"])


def farthest(first, second):
    return max(
        int(np.abs(left.astype(int) - right.astype(int)).max())
        for left, right in zip(first, second, strict=True)
    )


def test_the_defaults_are_the_papers():
    method = datadream()
    paper = {
        "scope": "class",
        "fuse": 1,
        "steps": 200 * 16 // 8,
        "learning_rate": 1e-4,
        "batch_size": 8,
        "rank": 16,
        "text_encoder": True,
        "warmup": 100,
        "schedule": "cosine",
        "flip": False,
    }
    assert {name: getattr(method.naming, name) for name in paper} == paper
    assert (method.num_inference_steps, method.guidance_scale, method.use) == (
        50,
        2.0,
        TwoLoss(real_share=0.8),
    )
    assert (method.start, method.target, method.prompting, method.label, method.filter) == (
        FromNoise(),
        OwnClass(),
        Plain(),
        HardLabel(),
        KeepAll(),
    )
    many = LabeledImages(
        list(np.zeros((200, 4, 4, 3), np.uint8)),
        np.arange(200),
        [f"bird {index}" for index in range(200)],
        [str(index) for index in range(200)],
    )
    assert method.naming.effort(many) == (80_000, 8)
    assert dataclasses.replace(method.naming, scope="set").effort(many) == (400, 8)


def test_the_arm_of_the_comparison():
    arm = make_arm("datadream@naming.scope=set;guidance_scale=3", toy_backbone())
    assert arm.augmenter.naming.scope == "set"
    assert arm.augmenter.guidance_scale == 3
    assert (arm.use.word, arm.use.real_share) == ("two_loss", 0.8)
    assert make_arm("datadream@use=only", toy_backbone()).use.word == "only"
    with pytest.raises(GenaugError, match="set, class, image"):
        make_arm("datadream@naming.scope=dataset", toy_backbone())


def test_one_adapter_per_class_from_its_own_photographs_only(fitted, backbone):
    method, real = fitted
    assert isinstance(method.concept, AdapterSet)
    assert list(method.concept.concepts) == ["wren", "owl"]
    owl = LabeledImages([*real.pixels[:2], 255 - real.pixels[2]], real.targets, real.class_names, real.ids)
    again = datadream(naming=CHEAP, backbone=backbone).fit(owl).concept
    same = {
        name: again.concepts[name].fingerprint() == method.concept.concepts[name].fingerprint()
        for name in real.class_names
    }
    assert same == {"wren": True, "owl": False}


def test_both_networks_are_adapted_unless_told_otherwise(fitted, backbone):
    method, real = fitted
    concept = method.concept.concepts["wren"]
    assert concept.lora_config["r"] == concept.text_lora_config["r"] == 2
    assert concept.tokens == {}
    assert (
        max(float(matrix.abs().max()) for name, matrix in concept.text_lora.items() if "lora_B" in name) > 0
    )
    lean = (
        datadream(naming=dataclasses.replace(CHEAP, text_encoder=False), backbone=backbone)
        .fit(real[:2])
        .concept.concepts["wren"]
    )
    assert lean.text_lora is None
    assert lean.lora


def test_rows_name_the_adapter_of_the_class_they_paint(fitted):
    method, real = fitted
    for budget in (Budget(3), Budget(per_class={"owl": 4, "wren": 1}), Budget(fill=True)):
        for row in method.plan(real, budget, 0):
            name = real.class_names[row.label.index(1.0)]
            assert adapters(row) == ((name, 1.0),)
            assert row.prompts == ((f"a photo of a {name}", 1.0),)
            assert row.inputs == ()
            assert row.fitted_on == real.fingerprint()


def test_a_mixed_batch_paints_each_row_as_if_alone(fitted):
    method, real = fitted
    rows = method.plan(real, Budget(2), 0)
    together = method.paint(rows, real)
    assert farthest(together, [method.paint([row], real)[0] for row in rows]) <= 2
    assert farthest(together[::-1], method.paint(rows[::-1], real)) <= 2


def test_the_adapter_is_what_differs(fitted):
    method, real = fitted
    row = method.plan(real, Budget(1), 0)[0]
    other = dataclasses.replace(row, settings={**row.settings, "adapters": (("owl", 1.0),)})
    plain = dataclasses.replace(method, naming=ClassName()).fit(real)
    own, borrowed, none = (
        np.stack(painted)
        for painted in (method.paint([row], real), method.paint([other], real), plain.paint([row], real))
    )
    assert farthest(own, borrowed) > 2
    assert farthest(own, none) > 2
    assert farthest(none, plain.paint([row], real)) == 0  # the backbone carries nothing afterwards
    with pytest.raises(GenaugError, match="no adapter for 'emu'"):
        method.paint([dataclasses.replace(row, settings={**row.settings, "adapters": (("emu", 1.0),)})], real)


def test_one_adapter_for_the_set(backbone):
    real = photographs()
    method = datadream(
        naming=dataclasses.replace(CHEAP, scope="set"), backbone=backbone, num_inference_steps=4
    ).fit(real)
    rows = method.plan(real, Budget(1), 0)
    assert isinstance(method.concept, Concept)
    assert method.concept.lora
    assert all("adapters" not in row.settings for row in rows)
    assert all(image.shape == (16, 16, 3) for image in method.paint(rows, real))


def test_a_saved_method_and_a_plan_from_disk_paint_the_same(fitted, backbone, tmp_path):
    method, real = fitted
    method.save(tmp_path / "saved")
    again = datadream(naming=CHEAP, backbone=backbone, num_inference_steps=4).load(tmp_path / "saved")
    rows = method.plan(real, Budget(1), 0)
    reread = [PlanRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows]
    assert again.plan(real, Budget(1), 0) == rows
    assert farthest(again.paint(reread, real), method.paint(rows, real)) == 0


def test_learning_and_painting_leave_the_global_random_state_alone(backbone):
    torch.manual_seed(1), np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    method = datadream(naming=CHEAP, backbone=backbone, num_inference_steps=2).fit(photographs())
    method.paint(method.plan(photographs(), Budget(1), 0), photographs())
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_several_labels_share_the_adapters_of_their_classes(backbone):
    base = photographs(counts=(2, 2))
    real = LabeledImages(base.pixels, [[1, 1], [1, 0], [0, 1], [0, 1]], base.class_names, base.ids, "multi")
    method = datadream(naming=CHEAP, backbone=backbone, num_inference_steps=2).fit(real)
    rows = {row.settings["anchor"]: adapters(row) for row in method.plan(real, Budget(1), 0)}
    assert rows["0.png"] == (("wren", 0.5), ("owl", 0.5))
    assert rows["1.png"] == (("wren", 1.0),)
