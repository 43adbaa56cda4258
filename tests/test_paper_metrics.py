"""Measurements at the papers' scale: FID, LPIPS and CLIP score with weights from a named file, the number of
pictures beside them, and networks that follow from what the pictures are, on the device they are told."""

import dataclasses
import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy.linalg import sqrtm
from torchvision.models import get_model, inception_v3
from toy_sets import noise_set

import genaug.alignment as alignment
import genaug.evaluators as judging
import genaug.genmix_study as study
import genaug.results as results
from genaug.alignment import AlignmentStudy, find_panel, judge_networks, judged_rows, naming_of, ssim_metric
from genaug.cli import main
from genaug.comparison import Comparison, Split
from genaug.core import LabeledImages
from genaug.datasets import load
from genaug.evaluators import Evaluators, fid_findings, measure_set
from genaug.experiment import Run
from genaug.features import feature_network
from genaug.messages import GenaugError
from genaug.methods.feature_aligned import expert_preset
from genaug.methods.genmix import GenMix
from genaug.metrics import images as distances
from genaug.metrics.images import FeatureNetwork, pairwise_similarity, set_metrics
from genaug.stable_diffusion import load_backbone


def pictures(count, classes=2, seed=0, edge=16, task="single", names=None):
    labels = np.arange(count) % classes
    labels = np.eye(classes)[labels] if task == "multi" else labels
    names = names or tuple("abcdefgh"[:classes])
    return noise_set(labels, names, size=edge, seed=seed, ids=f"{seed}-{{}}", task=task)


class Planted(distances.InceptionFeatures):
    "The published network with eight features: the corner of each picture."

    def __init__(self):
        super().__init__(None, "planted")

    def features(self, images):
        return np.stack(
            [images.image(index)[:2, :2, :2].ravel() / 255.0 for index in range(len(images))] or [np.zeros(8)]
        )[: len(images)]


class Asked:
    "A judge that always answers the first class, as a network would."

    name, shown, seed = "judge", {}, 0

    def __init__(self, classes):
        self.class_names = tuple(classes)

    def predict(self, images):
        return np.eye(len(self.class_names))[np.zeros(len(images), int)]


def frechet(left, right):
    "The formula, with a matrix root of scipy's."
    (first, second), means = (
        (np.cov(side, rowvar=False) for side in (left, right)),
        left.mean(0) - right.mean(0),
    )
    return means @ means + np.trace(first + second) - 2 * np.trace(sqrtm(first @ second)).real


# ---------------------------------------------------------------- FID of any number of pictures


@pytest.mark.parametrize("count", [5, 8, 9, 40])
def test_the_published_fid_is_the_formula_at_any_number(count):
    draw = np.random.default_rng(count)
    left, right = draw.normal(size=(count, 8)), draw.normal(0.5, 2, size=(count + 3, 8))
    (name, part, value, n), (other, _, kernel, _) = distances.published_distances(
        left, right, "reference=pool"
    )
    assert (name, part, n, other) == ("fid", "reference=pool", count, "kid")
    assert value == pytest.approx(frechet(left, right), rel=1e-5, abs=1e-6)
    assert kernel == distances.kernel_distance(left, right)
    assert bool(distances.frechet_note(count, 8)) == (count <= 8)


def test_a_small_fid_is_biased_as_the_note_says_and_the_kid_is_not():
    values = {
        count: [
            distances.published_distances(*np.random.default_rng(seed).normal(size=(2, count, 8)))
            for seed in range(30)
        ]
        for count in (6, 60)
    }
    mean = {
        count: [np.mean([row[index][2] for row in rows]) for index in (0, 1)]
        for count, rows in values.items()
    }
    assert mean[6][0] > 3 * mean[60][0] > 0
    assert abs(mean[6][1]) < 0.1
    assert "rank 5 at most" in distances.frechet_note(6, 8)
    assert "KID" in distances.frechet_note(6, 8)


@pytest.mark.parametrize("counts", [(1, 5), (5, 1), (5, 0)])
def test_a_fid_of_one_picture_is_nan_with_its_number(counts):
    left, right = (np.random.default_rng(0).normal(size=(count, 8)) for count in counts)
    for _, _, value, n in distances.published_distances(left, right):
        assert math.isnan(value)
        assert n == min(counts)


def test_plain_names_are_the_published_networks_alone():
    real, made = pictures(6, seed=1), pictures(5, seed=2)
    names = [metric for metric, *_ in set_metrics(real, made, Planted())]
    assert names[:2] == ["fid", "kid"]
    assert not {"fid@inception", "kid@inception"} & set(names)
    own = [metric for metric, *_ in set_metrics(real, made, FeatureNetwork("small", Planted().features))]
    assert own[0] == "kid@small"  # too few for a Fréchet distance: left out, as in every embedded table
    assert names[2:] == [name.replace("small", "inception") for name in own[1:]]


# ---------------------------------------------------------------- weights from a file


@pytest.fixture(scope="module")
def inception_state():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).state_dict()


def written(state, path, layout):
    if layout == "safetensors":
        save_file(
            {name: value.contiguous() for name, value in state.items()}, path.with_suffix(".safetensors")
        )
        return path.with_suffix(".safetensors")
    torch.save({"state_dict": dict(state)} if layout == "wrapped" else dict(state), path)
    return path


@pytest.mark.parametrize("layout", ["plain", "wrapped", "safetensors"])
def test_an_inception_file_is_read_in_each_layout(layout, inception_state, tmp_path):
    path = written(inception_state, tmp_path / "pt_inception-2015-12-05-6726825d.pth", layout)
    read = distances.inception_state(path)
    assert set(read) == {name for name in inception_state if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(value, inception_state[name]) for name, value in read.items())


def test_the_published_network_is_torchmetrics_own(inception_state, tmp_path):
    pytest.importorskip("torch_fidelity")
    from torchmetrics.image.fid import FrechetInceptionDistance

    path = written(inception_state, tmp_path / "inception.pth", "plain")
    network = distances.inception_network(path)
    grey = LabeledImages([np.full((20, 24, 1), 90, np.uint8)], [0], ["a"], ["grey"])
    images = pictures(7, seed=3)
    features = network.features(images, batch_size=3)
    pixels = torch.from_numpy(np.stack([images.image(index) for index in range(7)])).permute(0, 3, 1, 2)
    metric = FrechetInceptionDistance(feature=network.network, input_img_size=(3, 16, 16))
    metric.update(pixels[:4], real=True)
    metric.update(pixels[4:], real=False)
    assert features.shape == (7, 2048)
    assert np.allclose(features, network.network(pixels).numpy(), atol=1e-5)
    assert network.features(grey).shape == (1, 2048)
    assert distances.published_distances(features[:4], features[4:])[0][2] == pytest.approx(
        float(metric.compute()), abs=1e-6
    )
    other = dict(inception_state) | {"fc.bias": inception_state["fc.bias"] + 1}
    assert (
        distances.inception_network(written(other, tmp_path / "other.pth", "plain")).digest != network.digest
    )


def test_without_the_package_the_file_is_checked_and_the_package_named(
    inception_state, tmp_path, monkeypatch
):
    monkeypatch.setattr(distances.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GenaugError, match=r"install genaug\[fid\]"):
        distances.inception_network(written(inception_state, tmp_path / "inception.pth", "plain"))
    with pytest.raises(GenaugError, match="file of another network"):
        distances.inception_network(written({"fc.weight": torch.ones(2, 2)}, tmp_path / "other.pth", "plain"))


class Opened:
    "What an unpickled file must not do."

    def __reduce__(self):
        return (open, ("opened.txt", "w"))


def broken(kind, state, path):
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    if kind == "text":
        path.write_text("no weights")
    if kind == "code":
        path.write_bytes(pickle.dumps({"fc.weight": Opened()}, protocol=2))
    if kind == "list":
        torch.save([torch.ones(2)], path)
    if kind == "other":
        torch.save(get_model("squeezenet1_1", weights=None).state_dict(), path)
    if kind == "not finite":
        torch.save(dict(state) | {"fc.bias": torch.full((1008,), torch.nan)}, path)
    if kind == "shape":
        torch.save(dict(state) | {"fc.bias": torch.zeros(1000)}, path)
    return path


@pytest.mark.parametrize(
    "kind, words",
    [
        ("missing", "is not in"),
        ("folder", "cannot be read"),
        ("text", "cannot be read"),
        ("code", "cannot be read"),
        ("list", "something else than tensors"),
        ("other", "file of another network"),
        ("not finite", "not finite"),
        ("shape", r"'fc.bias' has the shape \(1000,\)"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_a_sentence(
    kind, words, inception_state, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GenaugError, match=words):
        distances.inception_state(broken(kind, inception_state, tmp_path / "weights.pth"))
    assert not (tmp_path / "opened.txt").exists()


@pytest.mark.parametrize("backbone", ["alex", "squeeze"])
def test_lpips_from_a_file_is_torchmetrics_own(backbone, tmp_path, monkeypatch):
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    name, file = distances.LPIPS_BACKBONES[backbone]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(get_model(name, weights=None).state_dict(), tmp_path / "hub" / "checkpoints" / file)
    random = torch.random.get_rng_state()
    actual, network = distances.lpips_network(tmp_path / "hub" / "checkpoints" / file)
    assert torch.equal(random, torch.random.get_rng_state())
    left, right = torch.rand(2, 3, 3, 64, 64)
    metric = LearnedPerceptualImagePatchSimilarity(net_type=backbone, normalize=True)
    wanted = [float(metric(first[None], second[None])) for first, second in zip(left, right)]
    assert actual == backbone
    assert distances.perceptual_distance(left, right, network=network) == pytest.approx(wanted, rel=1e-5)
    assert distances.perceptual_distance(left, right, backbone) == pytest.approx(wanted, rel=1e-5)
    rows = judging.within_class_lpips(pictures(6, seed=4), perceptual=(actual, network))
    assert [row[0] for row in rows] == ["lpips_within_class" + ("" if backbone == "alex" else "@squeeze")]
    assert rows[0][3] == 6


def test_a_file_of_another_network_is_no_lpips(tmp_path):
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(
        GenaugError, match="LPIPS cannot be measured with 'resnet.pth', the file of another network"
    ):
        distances.lpips_network(tmp_path / "resnet.pth")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    "A CLIP model of random weights in transformers' layout, small."
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "vocab_size": len(words)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(
            CLIPConfig(
                text_config=small | ends,
                vision_config=small | {"image_size": 32, "patch_size": 8},
                projection_dim=16,
            )
        )
    model.save_pretrained(folder)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(processor, tokenizer).save_pretrained(folder)
    return folder


def test_the_clip_score_is_a_hundred_times_the_cosine_of_the_projections(clip_folder):
    images, texts = pictures(5, seed=5, edge=40), ["a cat", "a dog", "a bird", "no", "ok"]
    model, processor = distances.clip_model(clip_folder)
    wanted = []
    for index, text in enumerate(texts):  # one pair at a time, without padding
        given = processor(text=[text], images=[images.image(index)], return_tensors="pt")
        with torch.inference_mode():
            seen = model.visual_projection(
                model.vision_model(pixel_values=given["pixel_values"]).pooler_output
            )
            read = model.text_projection(model.text_model(input_ids=given["input_ids"]).pooler_output)
        wanted.append(max(0, 100 * float(torch.cosine_similarity(seen, read))))
    scores = distances.clip_score(images, texts, clip_folder, batch_size=2)
    assert scores == pytest.approx(wanted, abs=1e-3)
    assert np.ptp(scores) > 0
    distances.check_published(clip=clip_folder)


def test_a_folder_without_a_clip_model_is_a_sentence(clip_folder, tmp_path):
    with pytest.raises(GenaugError, match="'config.json' is not in"):
        distances.check_published(clip=tmp_path)
    (tmp_path / "config.json").write_text((clip_folder / "config.json").read_text())
    with pytest.raises(GenaugError, match="name a folder with config.json, model.safetensors"):
        distances.check_published(clip=tmp_path)


# ---------------------------------------------------------------- a evaluators with files


@pytest.fixture
def planted(monkeypatch):
    messages = []
    monkeypatch.setattr(
        judging, "inception_network", lambda path, device: messages.append((path, device)) or Planted()
    )
    return messages


def test_a_evaluators_with_a_file_measures_fid_of_as_many_pictures_as_it_is_told(planted):
    pool, train, made = pictures(30, seed=1), pictures(8, seed=2), pictures(9, seed=3)
    evaluators = Evaluators(
        Asked("ab"),
        FeatureNetwork("small", Planted().features),
        pool,
        inception="inception.pth",
        device="cuda",
    )
    plain = dataclasses.replace(evaluators, inception=None)
    rows = {(metric, part): (value, n) for metric, part, value, n in measure_set(made, train, evaluators)}
    without = {
        (metric, part) for metric, part, *_ in measure_set(made, train, plain) if metric != "kid@small"
    }
    features = Planted().features
    value, n = rows["fid", "reference=pool"]
    assert value == pytest.approx(frechet(features(pool), features(made)), rel=1e-4)
    assert n == 9
    assert planted == [("inception.pth", "cuda")]  # loaded once, on the evaluators's device
    assert set(rows) - without >= {("fid", "reference=pool"), ("kid", "reference=pool")}
    assert without <= set(rows)
    fewer = dataclasses.replace(evaluators, fid_images=5)
    assert {(row[0], row[3]) for row in measure_set(made, train, fewer) if row[0] in ("fid", "kid")} == {
        ("fid", 5),
        ("kid", 5),
    }
    assert plain.measures() == {}
    assert fewer.measures() == {"fid_images": 5, "inception": "planted"}


def test_a_tail_has_its_fid_by_class_and_their_mean(planted):
    pool, made = pictures(40, 4, 1, task="multi"), pictures(21, 4, 2, task="multi")
    train = LabeledImages(
        [made.image(0)] * 10,
        np.eye(4, dtype=np.float32)[[0] * 5 + [1] * 3 + [2, 3]],
        made.class_names,
        [str(position) for position in range(10)],
        "multi",
    )
    evaluators = Evaluators(
        Asked("abcd"), FeatureNetwork("small", Planted().features), pool, inception="inception.pth"
    )
    rows = [row for row in measure_set(made, train, evaluators) if row[0] in ("fid", "tail_fid")]
    each = {part: (value, n) for metric, part, value, n in rows if metric == "fid"}
    features, classes = Planted().features, made.labels.argmax(1)
    for part, (value, n) in each.items():
        index = made.class_names.index(part.partition("=")[2])

        def of(images):
            return features(images[np.flatnonzero(images.labels[:, index] >= 0.5)])

        assert value == pytest.approx(frechet(of(pool), of(made)), rel=1e-4, abs=1e-6)
        assert n == (classes == index).sum()
    (mean,) = [row for row in rows if row[0] == "tail_fid"]
    assert mean[2] == pytest.approx(np.mean([value for value, _ in each.values()]))
    assert mean[3] == min(n for _, n in each.values())
    assert 0 < len(each) < 4


def test_the_hash_of_a_measured_set_names_the_files_only_where_there_are_some(planted, tmp_path, monkeypatch):
    train = pictures(8, seed=2)
    split = type("S", (), {"number": 0, "train": train})
    arm = type("A", (), {"text": "smote", "method": "smote", "variant": ""})
    run = Run(Comparison(("smote",)), {"train": train}, None, tmp_path, False)
    monkeypatch.setattr(judging, "noted_arm", lambda *_: tmp_path)
    monkeypatch.setattr(judging, "open_synthetic", lambda home: pictures(9, seed=3))
    monkeypatch.setattr(judging, "measure_set", lambda *_: [("judge_accuracy", "", 0.5, 9)])
    monkeypatch.setattr(judging, "_judged", lambda *_: dict.fromkeys(results.KEY, "x"))
    network = feature_network("letters")
    evaluators = Evaluators(Asked("ab"), network, train)
    names = []
    for item in (
        evaluators,
        dataclasses.replace(evaluators, device="cuda"),
        dataclasses.replace(evaluators, inception="i.pth"),
        dataclasses.replace(evaluators, fid_images=9),
    ):
        judging.measure_arm(run, arm, split, item)
        names.append({path.name for path in (tmp_path / "runs").glob("set-*.json")})
    assert [len(name) for name in names] == [1, 1, 2, 3]


def test_few_pictures_are_a_finding_and_enough_are_none():
    def rows(*counts):
        return pd.DataFrame([{"metric": "fid", "n": count} for count in counts])

    assert fid_findings(rows(2049, 5000)) == []
    assert fid_findings(pd.DataFrame([{"metric": "kid", "n": 5}])) == []
    (first,) = fid_findings(rows(1000, 1000))
    assert first.severity == "note"
    assert "1000 images in 2048 features" in first.message
    assert "rank 999" in first.message
    assert "fid_images" not in first.message
    assert "from 20 to 30" in fid_findings(rows(20, 30))[0].message


@pytest.mark.parametrize(
    "options, words",
    [
        (["--inception", "nothing.pth"], "The published FID is not available"),
        (["--lpips", "nothing.pth"], "LPIPS is not available"),
        (["--clip", "nothing"], "The CLIP score is not available"),
        (["--lpips", "nothing.pth", "--no-measure"], "--no-measure forbids it"),
    ],
)
def test_files_are_refused_before_any_work(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv",
        ["genaug", "compare", "digit-scenes", "--methods", "original,smote", *options, "--out", "out"],
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- the panel of the alignment study

BACKBONE = load_backbone("tiny")
SMOKE = AlignmentStudy(judge=("auto", None, None, 4), overrides=(("expert_updates", 4),))


def photographs(count=8, classes=("tumor", "stroma")):
    return pictures(count, len(classes), 7, edge=60, names=tuple(classes))


@pytest.fixture
def asked(monkeypatch):
    "What would be trained, and where."
    messages = []

    def train(real, preset, seed=0, cache=None, progress=False, device="cpu"):
        messages.append((preset, seed, device))
        return Asked(real.class_names)

    monkeypatch.setattr(alignment, "train_expert", train)
    monkeypatch.setattr("genaug.methods.feature_aligned.train_expert", train)
    seen = alignment.features_for
    monkeypatch.setattr(
        alignment,
        "features_for",
        lambda *a, device, **k: messages.append(("features", device)) or seen(*a, **k),
    )
    return messages


def test_the_embedded_panel_is_the_one_it_was(asked, tmp_path):
    panel = find_panel(AlignmentStudy(), load("textures"), BACKBONE, tmp_path)
    expert = expert_preset("letters", "embedded", 32, 15, 300, 3e-3, False)
    judge = expert_preset("residual", None, 32, updates=400, learning_rate=3e-3, flip=True)
    assert list(panel.judges) == ["expert letters", "judge residual"]
    assert [entry for entry in asked if entry[0] != "features"] == [(expert, 0, "cpu"), (judge, 1, "cpu")]
    assert panel.network.fingerprint() == feature_network("letters").fingerprint()
    assert panel.published is None
    assert len(panel.test) == 350


def test_a_panel_on_photographs_is_of_real_networks_on_the_device_it_is_told(asked, tmp_path):
    panel = find_panel(
        SMOKE, {"train": photographs(), "test": photographs()}, BACKBONE, tmp_path, device="somewhere"
    )
    trained = {entry[0].network: entry for entry in asked if entry[0] != "features"}
    assert list(panel.judges) == ["expert tf_efficientnet_lite0", "judge tf_efficientnet_lite1"]
    assert {entry[-1] for entry in asked} == {"somewhere"}
    assert (trained["tf_efficientnet_lite1"][0].weights, trained["tf_efficientnet_lite1"][0].view.size) == (
        "embedded",
        240,
    )
    assert {preset.learning_rate for preset, *_ in trained.values()} == {1e-4}
    assert panel.network.name == "tf_efficientnet_lite0"


def test_without_a_device_the_panel_goes_where_the_backbone_is(asked, tmp_path):
    elsewhere = type(
        "Elsewhere", (), {"name": "tiny", "device": torch.device("meta"), "fingerprint": BACKBONE.fingerprint}
    )()
    find_panel(SMOKE, {"train": photographs(), "test": photographs()}, elsewhere, tmp_path)
    assert {entry[-1] for entry in asked} == {"meta"}


@pytest.mark.parametrize(
    "changes",
    [
        {"judge": ("residual", None, 32, 4)},
        {"judge": ("wide", "random", 32, 4)},
        {"more_judges": (("residual", None),)},
        {"overrides": (("expert_network", "letters"),)},
        {"features": "letters"},
    ],
)
def test_a_toy_on_photographs_is_refused_before_any_training(changes, asked, tmp_path):
    with pytest.raises(
        GenaugError, match="is a toy for the embedded sets of 32 pixels and cannot examine photographs"
    ):
        find_panel(
            dataclasses.replace(SMOKE, **changes),
            {"train": photographs(), "test": photographs()},
            BACKBONE,
            tmp_path,
        )
    assert [entry for entry in asked if entry[0] != "features"] == []


def test_the_judge_is_never_the_expert_and_every_other_network_at_hand_judges():
    def names(study, expert):
        return [entry.network for entry in judge_networks(study, "photographs", expert)]

    assert names(SMOKE, "resnet50") == ["tf_efficientnet_lite1", "tf_efficientnet_lite0"]
    assert names(SMOKE, "tf_efficientnet_lite0") == ["tf_efficientnet_lite1"]
    more = dataclasses.replace(SMOKE, more_judges=(("resnet18.tv_in1k", None),))
    assert names(more, "tf_efficientnet_lite0") == ["tf_efficientnet_lite1", "resnet18.tv_in1k"]
    paper = dataclasses.replace(SMOKE, judge=("vit_base_patch16_224", "augreg2_in21k_ft_in1k", 224, 940))
    assert judge_networks(paper, "photographs", "resnet50")[0][:3] == (
        "vit_base_patch16_224",
        "augreg2_in21k_ft_in1k",
        224,
    )
    with pytest.raises(GenaugError, match="a method filtered with it"):
        names(
            dataclasses.replace(SMOKE, judge=("tf_efficientnet_lite1", None, None, 4)),
            "tf_efficientnet_lite1",
        )
    with pytest.raises(GenaugError, match="has no weights"):
        names(dataclasses.replace(SMOKE, judge=("resnet18", None, None, 4)), "tf_efficientnet_lite0")


def test_an_expert_that_was_named_stays_on_photographs():
    named = naming_of(
        SMOKE,
        "feature-aligned@naming.expert_network=resnet50;naming.expert_weights=tv_in1k",
        0,
        BACKBONE,
        "photographs",
    )
    assert (named.expert_network, named.expert_weights) == ("resnet50", "tv_in1k")
    usual = naming_of(SMOKE, "feature-aligned", 0, BACKBONE, "photographs")
    assert (usual.expert_network, usual.expert_weights, usual.expert_size) == (
        "tf_efficientnet_lite0",
        "embedded",
        224,
    )
    assert naming_of(SMOKE, "feature-aligned", 0, BACKBONE).expert_network == "letters"


@pytest.mark.parametrize("size", [32, 64])
def test_the_similarity_is_of_the_size_that_its_name_says(size):
    images = pictures(6, seed=8, edge=48)
    panel = alignment.Panel({}, FeatureNetwork("small", Planted().features), images)
    rows = {(row["metric"], row["part"]): row for row in judged_rows([images], panel, (), ssim_size=size)}
    name = "ssim_within_class" if size == 32 else "ssim_within_class@64px"
    assert ssim_metric(size) == name
    for label, (value, pairs) in pairwise_similarity(images, size).items():
        assert (rows[name, f"class={label}"]["value"], rows[name, f"class={label}"]["n"]) == (value, pairs)
    assert {metric for metric, _ in rows if metric.startswith("ssim")} == {name}


def test_the_papers_edge_belongs_to_its_scale():
    assert AlignmentStudy().compared_size == AlignmentStudy(scale="seconds").compared_size == 32
    assert AlignmentStudy(scale="paper").compared_size == 64
    assert AlignmentStudy(ssim_size=48, scale="paper").compared_size == 48


def test_a_panel_with_the_published_network_gives_plain_fid():
    images = pictures(6, seed=8)
    panel = alignment.Panel({}, FeatureNetwork("small", Planted().features), images, Planted())
    rows = {row["metric"]: row for row in judged_rows([pictures(5, seed=9)], panel, ()) if not row["part"]}
    assert rows["fid"]["n"] == rows["kid"]["n"] == 5
    assert "kid@small" in rows


# ---------------------------------------------------------------- the maps of the GenMix study


@pytest.fixture
def fed(monkeypatch):
    "Classifiers whose features say what they were trained with."
    messages = []

    def train(
        real, synthetic=None, preset=None, showing=None, seed=0, validation=None, device="cpu", progress=False
    ):
        messages.append((None if synthetic is None else tuple(synthetic.ids), showing, seed, device))
        number = len(messages)

        def features(images):
            return np.stack(
                [
                    np.concatenate([[number], images.image(index)[:2, :2, 0].ravel()])
                    for index in range(len(images))
                ]
            )

        return type("Fake", (), {"features": staticmethod(features)})()

    monkeypatch.setattr(study, "train_classifier", train)
    return messages


def studied(tmp_path, monkeypatch, images, arms=("dcgan", "smote"), **fields):
    "A study of planted sets: the sets, the maps with the number of their network, and the rows."
    features = fields.pop("features", "auto")
    asked = {"classifier": "letters", "updates": 4, "table": "genmix_tsne", **fields}
    run = Run(
        Comparison(arms, "lesions", shots=None, splits=(0,), **asked),
        {"train": images},
        None,
        tmp_path,
        False,
    )
    monkeypatch.setattr(Run, "splits", {0: Split(0, images, images, None)})
    made = {arm: pictures(12, 2, 20 + index, names=images.class_names) for index, arm in enumerate(arms)}
    painted, maps, drawn = [], {}, study.map_points
    monkeypatch.setattr(
        study, "paint_arm", lambda run, arm, split: painted.append(arm.text) or (made[arm.text], 0)
    )

    def keep(panel, sets, network, **rest):
        maps[panel] = int(network.features(sets["real"])[0, 0])
        return drawn(panel, sets, network, **rest)

    monkeypatch.setattr(study, "map_points", keep)
    try:
        study.fill_study(run, tmp_path / "rows.csv", {arm: arm.upper() for arm in arms}, features=features)
    finally:
        made["painted"] = painted
    return made, maps, results.read_rows(tmp_path / "rows.csv")


def test_each_map_is_in_the_features_of_the_network_trained_on_what_it_shows(fed, tmp_path, monkeypatch):
    made, maps, rows = studied(tmp_path, monkeypatch, pictures(12, seed=1))
    taught = {panel: fed[number - 1] for panel, number in maps.items()}
    assert len(set(maps.values())) == len(maps) == 5
    assert taught["photographs"][:2] == (None, study.Showing())
    for arm in ("dcgan", "smote"):
        for kind, mixer in (("synthetic", None), ("GenMix", GenMix())):
            ids, showing, seed, _ = taught[f"{arm.upper()}: {kind}"]
            assert ids == tuple(made[arm].ids)
            assert showing.mixer == mixer
            assert seed == 0
    assert taught["DCGAN: synthetic"][1].use.word == "append"


def test_swapped_sets_swap_the_networks_of_their_maps(fed, tmp_path, monkeypatch):
    points = []
    # the sets are planted by their place
    for index, arms in enumerate((("dcgan", "smote"), ("smote", "dcgan"))):
        fed.clear()
        with monkeypatch.context() as patch:
            made, maps, _ = studied(tmp_path / str(index), patch, pictures(12, seed=1), arms)
        points.append({panel: fed[number - 1][0] for panel, number in maps.items()})
    first, second = points
    for kind in ("synthetic", "GenMix"):
        assert (
            first[f"DCGAN: {kind}"]
            == second[f"SMOTE: {kind}"]
            != first[f"SMOTE: {kind}"]
            == second[f"DCGAN: {kind}"]
        )


def test_rows_of_a_set_are_about_its_own_network_and_about_the_photographs(fed, tmp_path, monkeypatch):
    made, _, rows = studied(tmp_path, monkeypatch, pictures(12, seed=1))
    actual = {
        (row.method, row.part): set(rows[(rows.method == row.method) & (rows.part == row.part)].metric)
        for row in rows.itertuples()
    }
    assert set(actual) == {
        ("original", "set=real"),
        *((arm, f"set={kind}") for arm in ("dcgan", "smote") for kind in ("synthetic", "genmix")),
    }
    for metrics in actual.values():
        assert {
            "boundary_coverage@original",
            "boundary_coverage@trained",
            "photographs_near_border@trained",
        } <= metrics
    question = Comparison(
        ("dcgan", "smote"), "lesions", shots=None, splits=(0,), table="genmix_tsne", updates=4
    )
    assert study.unstudied(question, tmp_path / "rows.csv") == []
    old = rows[rows.metric != "boundary_coverage@trained"]  # a table that was filled before has the rest only
    old.to_csv(tmp_path / "old.csv", index=False)
    assert study.unstudied(question, tmp_path / "old.csv") == [(0, "dcgan"), (0, "smote")]


def test_the_studys_networks_are_where_the_comparison_is(fed, tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(
        study,
        "features_for",
        lambda role, images, name, device: places.append((role, device)) or feature_network("letters"),
    )
    studied(tmp_path, monkeypatch, pictures(12, seed=1), device="cuda")
    assert places == [("distance", "cuda")]
    assert {device for *_, device in fed} == {"cuda"}
    assert len(fed) == 5


@pytest.mark.parametrize(
    "fields", [{}, {"classifier": "photographs", "features": "letters"}, {"classifier": "tiny_wide"}]
)
def test_a_toy_is_refused_as_map_and_as_distance_network_of_photographs(fields, fed, tmp_path, monkeypatch):
    with pytest.raises(
        GenaugError, match="is a toy for the embedded sets of 32 pixels and cannot examine photographs"
    ):
        studied(tmp_path, monkeypatch, photographs(12), **fields)
    assert fed == []
    assert not (tmp_path / "rows.csv").exists()


def test_photographs_are_seen_by_the_network_that_photographs_have(tmp_path):
    run = Run(
        Comparison(("smote",), "lesions", shots=None, classifier="photographs", updates=2),
        {"train": photographs()},
        None,
        tmp_path,
        False,
    )
    assert study.examiner(run, photographs()).name == "tf_efficientnet_lite0"
    drawn = Run(
        Comparison(("smote",), "lesions", shots=None, draws=True), load("lesions"), None, tmp_path, False
    )
    assert (
        study.examiner(drawn, load("lesions")["train"]).fingerprint()
        == feature_network("letters").fingerprint()
    )
