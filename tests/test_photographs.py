"""Photographs: pictures keep their shape from decoding to painting, a probe trains like everything else, and
no toy network or random weights come in unasked."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug import networks
from genaug.balance.drw import DRW
from genaug.classifier import ImageStore, ProbeRun, prepare_training, train_classifier
from genaug.cli import run as command
from genaug.comparison import Comparison, check_classifier, classifier_identity, classifier_preset
from genaug.core import LabeledImages
from genaug.data.folders import open_folder
from genaug.data.sources import frame_sets, usual_fit
from genaug.datasets import load
from genaug.evaluators import find_evaluators, judge_preset, other_networks
from genaug.experiment import Run
from genaug.features import cached_features, feature_network
from genaug.inversion import pool_keys
from genaug.messages import GenaugError
from genaug.mixing.augmix import AugMix
from genaug.mixing.cutmix import CutMix
from genaug.mixing.mixup import MixUp
from genaug.networks import TOY
from genaug.pictures import FITS, Framing, square, to_tensor
from genaug.preflight import check_painter, network_findings
from genaug.readers import open_sets
from genaug.roles import ROLES
from genaug.schedule import USES, Showing, TrainingSchedule, TwoStage, stand_in, training_use
from genaug.training_presets import PRESETS, training_preset
from genaug.views import View, kept_strip, strip, window

SMALL = View(32, 32, 4, "reflect")
PROBE = training_preset("probe", network="letters", view=SMALL, updates=12, batch_size=6)


def disc(height, width, radius, middle=None):
    "An orange disc on blue, uint8."
    rows, columns = np.mgrid[:height, :width]
    y, x = middle or ((height - 1) / 2, (width - 1) / 2)
    inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return np.where(inside[..., None], (230, 120, 40), (40, 90, 140)).astype(np.uint8)


def roundness(plane):
    "Height over width of the disc in a float picture."
    actual = (plane[2] < 0.35).numpy()
    return actual.any(1).sum() / actual.any(0).sum()


def photographs(count=12, edge=(40, 24), seed=0):
    "Pictures that no program of genaug draws, two classes, wide."
    return noise_set(np.arange(count) % 2, ("cat", "dog"), size=edge[::-1], seed=seed, ids="photo{}.jpg")


def folder_of(images, root, mode="RGB"):
    for index, name in enumerate(images.ids):
        home = root / images.class_names[images.targets[index]]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.image(index)).convert(mode).save(home / f"{Path(name).stem}.png")
    return root


# Shape


@pytest.mark.parametrize("height, width", [(60, 120), (120, 60), (64, 200), (33, 47), (500, 90)])
def test_a_circle_stays_round_unless_squashing_is_asked_for(height, width):
    plane = to_tensor([disc(height, width, 0.4 * min(height, width))])[0]
    assert roundness(square(plane, 96, Framing("crop"))) == pytest.approx(1, abs=0.06)
    assert roundness(square(plane, 256, Framing("pad"))) == pytest.approx(1, abs=0.1)
    assert roundness(square(plane, 256)) == pytest.approx(width / height, rel=0.08)


def test_a_square_is_the_same_under_every_framing():
    plane = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    for fit in FITS:
        for size in (40, 24, 64):
            assert torch.equal(square(plane, size, Framing(fit, "black")), square(plane, size))


def test_padding_shows_the_whole_picture_and_the_stated_colour():
    plane = to_tensor([np.full((20, 40, 3), 77, np.uint8)])[0]
    shown = square(plane, 40, Framing("pad", "#102030"))
    assert torch.allclose(shown[:, 0, 0], torch.tensor([0x10, 0x20, 0x30]) / 255)
    assert torch.allclose(shown[:, 10:30], torch.full((3, 20, 40), 77 / 255))
    assert torch.allclose(
        square(plane, 40, Framing("pad"), within=20)[:, 15:25, 10:30], torch.full((3, 10, 20), 77 / 255)
    )


def test_a_classifier_view_of_a_padded_picture_loses_no_pixel_of_it():
    "The centre crop of a view takes borders away, not the picture."
    corner = np.zeros((64, 128, 3), np.uint8)
    corner[:8, :8] = 255
    images = LabeledImages([corner], [0], ("a",), ["one"]).framed(Framing("pad", "black"))
    view = View(224, 256, 0)
    assert view.test(images.batch(size=256, within=224)).max() > 0.9
    assert view.test(images.batch(size=256)).max() > view.test(images.batch(size=256, within=224)).min()
    assert kept_strip(images, 0, view).shape == (3, 256, 256)


def test_the_framing_reaches_painting_and_classifying_alike():
    "What a backbone encodes and what a classifier is tested on are the same square."
    images = LabeledImages([disc(48, 96, 18)], [0], ("a",), ["one"]).framed(Framing("crop"))
    painted, shown = images.batch(size=48)[0], View(48, 48, 0).test(images.batch(size=48, within=48))[0]
    assert torch.equal(painted, shown)
    assert roundness(painted) == pytest.approx(1, abs=0.06)
    assert torch.equal(painted, to_tensor([images.image(0)[:, 24:72]])[0])


def test_sets_keep_their_framing_and_identities_know_it():
    images = photographs()
    cropped, padded = (images.framed(Framing(fit)) for fit in ("crop", "pad"))
    assert cropped[[0, 2]].framing == cropped.framing
    assert (cropped[:2] + images[2:4]).framing == cropped.framing
    assert len({value.fingerprint() for value in (images, cropped, padded)}) == 3
    assert len({value.content_identity() for value in (images, cropped, padded)}) == 3
    assert images.framed(Framing()).fingerprint() == images.fingerprint()
    with pytest.raises(GenaugError, match="framed in two ways"):
        cropped[:2] + padded[2:4]


def test_caches_of_features_and_inversions_tell_framings_apart(tmp_path):
    network, images = feature_network("letters"), photographs()
    features = [cached_features(network, images.framed(Framing(fit)), tmp_path) for fit in FITS]
    assert not any(
        np.allclose(left, right) for left, right in ((features[0], features[1]), (features[0], features[2]))
    )
    backbone = toy_backbone()
    keys = {fit: pool_keys(backbone, [images.image(0)], ["a"], framing=Framing(fit)) for fit in FITS}
    assert len({key for (key,) in keys.values()}) == 3
    assert keys["squash"] == pool_keys(backbone, [images.image(0)], ["a"])


def test_transparency_lies_over_the_stated_colour(tmp_path):
    path = tmp_path / "a" / "clear.png"
    path.parent.mkdir()
    Image.new("RGBA", (30, 20), (200, 0, 0, 0)).save(path)
    Image.new("RGBA", (30, 20), (200, 0, 0, 255)).save(tmp_path / "a" / "solid.png")
    for matte, wanted in (("white", (255, 255, 255)), ("#123456", (0x12, 0x34, 0x56))):
        images = open_sets(str(tmp_path), matte=matte)["all"]
        assert images.framing == Framing("pad", matte)
        assert tuple(images.image("a/clear.png")[0, 0]) == wanted
        assert tuple(images.image("a/solid.png")[0, 0]) == (200, 0, 0)
        assert images.sha256 == images.rehashed().sha256


@pytest.mark.parametrize("mode, wanted", [("RGB", "crop"), ("RGBA", "pad"), ("LA", "pad"), ("L", "crop")])
def test_the_usual_fit_follows_from_the_files(tmp_path, mode, wanted):
    sets = open_folder(folder_of(photographs(4), tmp_path, mode))
    assert usual_fit(sets)[0] == wanted
    framed, (note,) = frame_sets(sets)
    assert framed["all"].framing.fit == wanted
    assert wanted in note.message
    assert note.kind == "framing"
    assert frame_sets(sets, fit="squash")[0]["all"].framing == Framing("squash")


def test_squares_need_no_choice_and_keep_their_identity(tmp_path):
    sets = open_folder(folder_of(photographs(4, (24, 24)), tmp_path))
    framed, notes = frame_sets(sets)
    assert notes == []
    assert framed["all"].fingerprint() == sets["all"].fingerprint()


def test_a_strip_is_cut_anywhere_along_its_longer_edge_and_squares_nowhere():
    plane = torch.arange(60.0).expand(3, 20, 60) / 60
    cut = strip(plane, 20, Framing("crop"))
    assert torch.equal(cut, plane)
    assert torch.equal(window(cut), plane[:, :, 20:40])
    starts = [round(float(window(cut, index)[0, 0, 0]) * 60) for index in np.linspace(0, 0.9999, 200)]
    assert set(starts) == set(range(41))
    assert starts == sorted(starts)
    tall = strip(plane.permute(0, 2, 1), 20, Framing("crop"))
    assert window(tall, 0.0).shape == (3, 20, 20)
    assert strip(torch.rand(3, 10, 4000), 10, Framing("crop")).shape == (3, 10, 30)
    images = photographs(4, (24, 24))
    store = ImageStore(images, None, View(24, 24, 0))
    assert torch.equal(store.images(["real:photo0.jpg"], [5]), store.images(["real:photo0.jpg"]))


def test_pictures_are_decoded_once_and_damaged_strips_are_made_again(tmp_path, monkeypatch):
    images = photographs(3, (400, 300))
    images.sha256
    view, asked = View(32, 32, 0), []
    plain = LabeledImages.image
    monkeypatch.setattr(LabeledImages, "image", lambda self, key: asked.append(key) or plain(self, key))
    first = [kept_strip(images, index, view, folder=tmp_path) for index in range(3)]
    again = [kept_strip(images, index, view, folder=tmp_path) for index in range(3)]
    assert len(asked) == 3
    assert all(torch.equal(left, right) for left, right in zip(first, again))
    victim = next(tmp_path.rglob("*.npy"))
    victim.write_bytes(b"\x93NUMPY but cut")
    assert all(
        torch.equal(kept_strip(images, index, view, folder=tmp_path), first[index]) for index in range(3)
    )
    assert len(asked) == 4


# The probe


def parts(mixer=None, balancer=None, use="swap_class"):
    return Showing(training_use(use), mixer, balancer)


def same_losses(real, made, showing):
    """With a rate of zero for the body, full training has the losses of the probe: same slots, views,
    mixtures, weights."""
    frozen = prepare_training(real, made, replace(PROBE, views=100), showing, seed=1)
    full = prepare_training(real, made, replace(PROBE, frozen=False, fixed_statistics=True), showing, seed=1)
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(full.trained.network.network.fc, name).copy_(
                getattr(frozen.trained.network.network.fc, name)
            )
    for update in range(12):
        assert frozen.rows(update) == full.rows(update)
        losses = [float(run.loss_at(update).detach()) for run in (frozen, full)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    "showing",
    [
        *(pytest.param(Showing(training_use(use)), id=use) for use in USES if use != "partners"),
        pytest.param(parts(MixUp()), id="mixup"),
        pytest.param(parts(CutMix()), id="cutmix"),
        pytest.param(parts(AugMix()), id="augmix"),
        pytest.param(parts(balancer=DRW()), id="drw"),
        pytest.param(parts(MixUp(), DRW()), id="mixup+drw"),
    ],
)
def test_every_way_of_training_works_with_a_frozen_network(showing):
    real, made = toy_photographs((3, 5)), toy_photographs((4, 4), seed=1)
    made = replace(
        made,
        ids=[f"made{index}" for index in range(8)],
        info=[{"sources": [[real.ids[index % 8], 1.0]], "weight": 0.5} for index in range(8)],
    )
    run = prepare_training(real, made, PROBE, showing)
    before = {name: value.clone() for name, value in run.trained.network.state_dict().items()}
    trained = run.finish()
    changed = {
        name for name, value in trained.network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert isinstance(run, ProbeRun)
    assert changed == {"network.fc.weight", "network.fc.bias"}
    assert np.isfinite(trained.losses).all()
    assert trained.shown["updates"] == 12
    assert trained.shown["rows"] >= 12
    same_losses(real, made, showing)


def test_a_probe_without_replacement_is_the_baseline_bit_for_bit():
    real, made = toy_photographs((3, 5)), toy_photographs((4, 4), seed=1)
    made = replace(made, ids=[f"made{index}" for index in range(8)])
    alone = train_classifier(real, None, PROBE, seed=3)
    beside = train_classifier(real, made, PROBE, Showing(training_use("swap_class", replace=0.0)), seed=3)
    assert alone.losses == beside.losses
    assert np.array_equal(alone.predict(made), beside.predict(made))


def test_a_probe_looks_at_no_more_views_than_it_says_and_shows_them_again():
    real = toy_photographs((3, 3))
    run = prepare_training(real, None, replace(PROBE, updates=40, views=4))
    looked = []
    plain = run.trained.network.features
    run.trained.network.features = lambda images: looked.append(len(images)) or plain(images)
    run.finish()
    assert len(looked) == 4
    assert sum(looked) == 4 * 6
    assert run.rows(0) == run.rows(4)
    assert run.rows(1) != run.rows(0)


def test_an_epoch_never_stands_in_for_one_of_another_phase():
    real, made = toy_photographs((3, 3)), toy_photographs((3, 3), seed=1)
    made = replace(made, ids=[f"made{index}" for index in range(6)])
    schedule = TrainingSchedule(real, made, showing=Showing(TwoStage(stage_share=0.3)), epochs=20)
    for epoch in range(20):
        other = stand_in(schedule, epoch, 4)
        assert other <= epoch
        assert (other >= 6) == (epoch >= 6)
    assert len({stand_in(schedule, epoch, 4) for epoch in range(20)}) == 8
    weights = TrainingSchedule(real, None, showing=Showing(balancer=DRW()), epochs=20)
    assert {stand_in(weights, epoch, 4) for epoch in range(20)} == set(range(4))


def test_a_loaded_probe_answers_as_before(tmp_path):
    real = toy_photographs((3, 3))
    trained = train_classifier(real, preset=PROBE)
    trained.save(tmp_path)
    again = type(trained).load(tmp_path)
    assert again.preset == trained.preset
    assert np.allclose(again.predict(real), trained.predict(real), atol=1e-6)


# Networks by role


def small_run(images=None, folder="unused", **changes):
    images = photographs() if images is None else images
    return Run(
        Comparison(("original",), shots=2, splits=(0,), repeats=(0,), **changes),
        {"all": images},
        None,
        Path(folder),
    )


def test_the_data_decide_the_classifier():
    assert small_run().question.classifier == "probe"
    embedded = Run(Comparison(("original",)), load("digit-scenes"), None, Path("unused"))
    assert embedded.question.classifier == "letters"
    assert embedded.pictures is None
    assert Run(Comparison(("original",)), {}, None, Path("unused")).question.classifier == "auto"
    assert (
        PRESETS["probe"].network == PRESETS["fine-tune"].network == ROLES["classifier", "photographs"].network
    )
    assert PRESETS["judge_photographs"].network == ROLES["judge", "photographs"].network


@pytest.mark.parametrize("toy", [*TOY, "tiny", "probe:letters", "fine-tune:wide"])
def test_no_toy_classifier_learns_photographs(toy):
    with pytest.raises(GenaugError, match="is a toy for the embedded sets"):
        network_findings(small_run(classifier=toy))


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_what_looks_at_photographs_is_said(kind):
    images = photographs()
    if kind == "grey":
        images = replace(images, pixels=[images.image(index)[:, :, :1] for index in range(len(images))])
    (note,) = network_findings(small_run(images))
    assert note.kind == "networks"
    assert "tf_efficientnet_lite0 (ImageNet-1k, in genaug's assets)" in note.message
    assert network_findings(Run(Comparison(("original",)), load("digits"), None, Path("unused"))) == []


@pytest.mark.parametrize(
    "name", ["resnet18", "probe:resnet18", "fine-tune:vit_tiny_patch16_224", "few_shot_vit"]
)
def test_random_weights_only_by_that_word(name):
    with pytest.raises(GenaugError, match="would start from random weights"):
        check_classifier(Comparison(("original",), classifier=name))
    if name != "few_shot_vit":
        check_classifier(Comparison(("original",), classifier=name, classifier_weights="random"))


def test_rows_tell_a_probe_from_a_fine_tuning_and_name_the_weights():
    identities = {
        name: classifier_identity(classifier_preset(name))
        for name in ("probe", "fine-tune", "probe:resnet18.a1_in1k")
    }
    assert identities["probe"] == f"probe {identities['fine-tune']}"
    assert "@random" not in str(identities)
    assert identities["probe:resnet18.a1_in1k"] == "probe resnet18.a1_in1k@usual"


def test_the_judge_of_photographs_is_another_network_and_never_one_that_filters_or_learns():
    images = photographs()
    assert judge_preset(images).network == "tf_efficientnet_lite1"
    for apart in ("tf_efficientnet_lite1", "tf_efficientnet_lite1.in1k"):
        with pytest.raises(GenaugError, match="cannot be the judge network"):
            judge_preset(images, apart=(apart,))
    with pytest.raises(GenaugError, match="is a toy for the embedded sets"):
        judge_preset(images, "residual")
    run = small_run(classifier="probe:tf_efficientnet_lite1")
    with pytest.raises(GenaugError, match="cannot be the judge network"):
        judge_preset(images, apart=other_networks(run))


def test_arms_that_filter_name_their_network_and_it_is_no_toy():
    run = Run(
        Comparison(("original", "real-filter"), shots=2),
        {"all": photographs()},
        toy_backbone(),
        Path("unused"),
    )
    assert other_networks(run) == ("tf_efficientnet_lite0",)
    assert judge_preset(run.sets["all"], apart=other_networks(run)).network == "tf_efficientnet_lite1"
    for arm in ("real-filter@features=letters", "genie-ada@features=wide"):
        with pytest.raises(GenaugError, match="is a toy for the embedded sets"):
            Run(Comparison((arm,), shots=2), {"all": photographs()}, toy_backbone(), Path("unused")).arms


def test_the_toy_backbone_paints_photographs_only_when_named():
    painting = small_run()
    painting = replace(painting, question=replace(painting.question, methods=("original", "diff-ii")))
    with pytest.raises(GenaugError, match="none is named: give --backbone"):
        check_painter(painting, None)
    check_painter(painting, "tiny")
    check_painter(small_run(), None)
    check_painter(replace(painting, sets=load("digits")), None)


def test_the_judge_and_the_features_of_photographs_are_real_networks(tmp_path):
    short = training_preset("judge_photographs", updates=2)
    evaluators = find_evaluators({"all": photographs(4)}, tmp_path, preset=short)
    assert evaluators.judge.name == "tf_efficientnet_lite1"
    assert evaluators.network.name == "tf_efficientnet_lite0"
    assert evaluators.judge.preset.frozen
    assert evaluators.judge.predict(photographs(2)).shape == (2, 2)


# The command


@pytest.fixture
def answers(capsys):
    "Run the command line: its exit code and all that it said."

    def ask(*words):
        code, said = command([*map(str, words)]), capsys.readouterr()
        return code, said.out + said.err

    return ask


@pytest.mark.parametrize(
    "words, said",
    [
        (("--classifier", "letters"), "is a toy for the embedded sets"),
        (("--classifier", "resnet18"), "would start from random weights"),
        (("--methods", "original,diff-ii"), "none is named: give --backbone"),
        (("--fit", "stretch"), "--fit"),
        (("--matte", "rainbow"), "is no colour"),
        (
            ("--judge", "residual", "--methods", "original,diff-ii", "--backbone", "tiny", "--measure"),
            "toy for the embedded",
        ),
    ],
)
def test_compare_refuses_before_any_work(tmp_path, answers, words, said):
    source, out = folder_of(photographs(), tmp_path / "in"), tmp_path / "out"
    code, text = answers("compare", source, "--shots", 2, "--seeds", 1, "--out", out, "--quiet", *words)
    assert code == 2, text
    assert said in " ".join(text.split()), text
    assert not out.exists() or not list(out.glob("runs/*"))


def test_compare_on_a_folder_by_default_is_a_probe_of_arms_that_need_no_backbone(tmp_path, answers):
    source, out = folder_of(photographs(), tmp_path / "in"), tmp_path / "out"
    code, text = answers(
        "compare", source, "--shots", 2, "--seeds", 1, "--repeats", 1, "--updates", 8, "--out", out, "--quiet"
    )
    said = " ".join(text.split())
    assert code == 0, text
    assert "a linear probe on tf_efficientnet_lite0" in said
    assert "pictures are no squares: crop" in said
    record = json.loads((out / "comparison.json").read_text())
    assert record["question"]["classifier"] == "probe"
    assert record["question"]["methods"] == ["original", "strong-augmentation", "mixup", "cutmix"]
    assert record["shared"]["classifier"].startswith("probe tf_efficientnet_lite0@")
    assert list((out / "work" / "features").glob("*.safetensors"))
    page = (out / "report.html").read_text()
    assert "tf_efficientnet_lite0" in page
    assert "no squares" in page
    code, text = answers(
        "compare",
        source,
        "--shots",
        2,
        "--seeds",
        1,
        "--repeats",
        1,
        "--updates",
        8,
        "--out",
        out,
        "--quiet",
        "--fit",
        "pad",
    )
    assert code == 2
    assert "the way pictures become squares changed since" in text


def test_augment_paints_the_framed_picture_and_the_report_opens_it_again(tmp_path, answers):
    source, out = folder_of(photographs(4), tmp_path / "in", "RGBA"), tmp_path / "out"
    code, text = answers(
        "augment", source, out, "--method", "round-trip", "--copies", 1, "--matte", "black", "--quiet"
    )
    assert code == 0, text
    note = json.loads((out / ".genaug" / "run.json").read_text())
    assert (note["fit"], note["matte"]) == ("pad", "#000000")
    assert "miniature" in text or "toy" in text
    code, text = answers("audit", out)
    assert code == 0, text


@pytest.mark.parametrize("name", ["probe", "fine-tune", "judge_photographs"])
def test_the_head_of_a_real_network_begins_small(name):
    "timm begins EfficientNet's head with weights of a third, from which two images per class do not recover."
    preset = training_preset(name, view=View(64, 64, 0))
    run = prepare_training(photographs(6, (24, 24)), preset=preset)
    head = networks.head_of(run.trained.network.network)
    assert preset.small_head
    assert not head.bias.any()
    assert float(head.weight.std()) < 0.02
    assert float(run.loss_at(0).detach()) == pytest.approx(np.log(2), abs=0.1)
