"""The ImageNet weights that come along, networks of timm and torchvision by one call, and the table of roles:
no toy network examines photographs."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import get_model
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug import imagenet
from genaug.choices import ClassName
from genaug.comparison import Comparison
from genaug.core import LabeledImages
from genaug.data.splits import few_shot, long_tail
from genaug.datasets import load, names
from genaug.experiment import Run
from genaug.features import feature_network
from genaug.files import write_atomic
from genaug.identity import content_hash
from genaug.imagenet import (
    IMAGENET,
    KNOWN_PICTURES,
    convert_imagenet,
    imagenet_classes,
    known_answers,
    renamed_weights,
)
from genaug.messages import GenaugError
from genaug.methods.diagen import SoftWeight, diagen
from genaug.methods.genie import LargestStep, genie_ada
from genaug.methods.real_filter import FeatureFilter, real_filter
from genaug.networks import TOY, SmallNetwork, copy_weights, embedded_weights, make_network, usual_view
from genaug.pictures import encode_png
from genaug.plans import Budget
from genaug.readers import open_sets
from genaug.roles import KINDS, ROLE_WORDS, ROLES, bare_name, features_for, kind_of_data, network_for
from genaug.synthesis import synthesize

ASSETS = Path(imagenet.__file__).parent / "assets"
LITE = "tf_efficientnet_lite0"
REAL_KINDS = [kind for kind in KINDS if kind != "embedded"]


# The weights that come along


@pytest.mark.parametrize("name", IMAGENET)
def test_the_asset_is_what_its_card_says(name):
    card, state = (
        json.loads((ASSETS / "imagenet-1" / f"{name}.json").read_text()),
        load_file(ASSETS / "imagenet-1" / f"{name}.safetensors"),
    )
    assert {key: list(value.shape) for key, value in state.items()} == card["tensors"]
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert all(value.isfinite().all() for value in state.values())
    assert card["source"]["sha256"] == IMAGENET[name].sha256
    assert IMAGENET[name].sha256 in (ASSETS / "imagenet-1" / "NOTICE").read_text()
    assert card["licence"] == "Apache-2.0"
    assert card["mean"] == card["std"] == [0.5] * 3


@pytest.mark.parametrize("name", IMAGENET)
def test_the_tensors_are_those_of_timms_module_tree(name):
    own = {
        key: value.shape
        for key, value in timm.create_model(name).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert {key: value.shape for key, value in embedded_weights(name).items()} == own
    network = make_network(name, 1000, 3, usual_view(name).size, "embedded")
    assert not [
        key
        for key, value in embedded_weights(name).items()
        if not torch.equal(network.network.state_dict()[key], value)
    ]


@pytest.mark.parametrize("name", IMAGENET)
def test_it_names_the_four_pictures(name):
    view = usual_view(name)
    network = make_network(name, 1000, 3, view.size, "embedded").eval()
    answers, expected = known_answers(network, view), list(KNOWN_PICTURES.values())
    right = [answer["class"] for answer in answers if answer["class"] in expected]
    assert expected == [285, 967, 657, 665]
    assert right == expected if name == LITE else len(right) >= 3
    assert [answer["name"].split(",")[0] for answer in answers if answer["class"] != 657][:2] == [
        "Egyptian cat",
        "espresso",
    ]
    assert name != LITE or [answer["name"] for answer in answers[2:]] == ["missile", "moped"]
    stored = json.loads((ASSETS / "imagenet-1" / f"{name}.json").read_text())
    assert [answer["class"] for answer in answers] == [answer["class"] for answer in stored["answers"]]
    assert [answer["probability"] for answer in answers] == pytest.approx(
        [answer["probability"] for answer in stored["answers"]], abs=0.01
    )
    assert network.mean.flatten().tolist() == network.std.flatten().tolist() == [0.5] * 3
    assert (view.size, view.resize) == (stored["size"], stored["resize"])
    assert name != LITE or view.size == 224


def test_class_names_are_those_of_timm():
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    assert len(imagenet_classes()) == 1000
    assert [info.index_to_description(index) for index in range(0, 1000, 37)] == list(
        imagenet_classes()[::37]
    )


def test_all_assets_stay_small():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 36e6


def planted_file(tmp_path, monkeypatch, change=lambda state: state):
    "A checkpoint of random numbers under other names, in timm's order; the declared hash is its own."
    own = timm.create_model(LITE).state_dict()
    state = change(
        {f"_part{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(own.items())}
    )
    torch.save(state, tmp_path / "given.pth")
    source = IMAGENET[LITE]._replace(sha256=hashlib.sha256((tmp_path / "given.pth").read_bytes()).hexdigest())
    monkeypatch.setattr(imagenet, "IMAGENET", {LITE: source})
    return tmp_path / "given.pth", own


def test_a_conversion_renames_rounds_and_says_what_it_did(tmp_path, monkeypatch):
    path, own = planted_file(tmp_path, monkeypatch)
    record = convert_imagenet(path, LITE, tmp_path / "out")
    state = load_file(tmp_path / "out" / f"{LITE}.safetensors")
    assert len(state) == 247
    assert all(torch.equal(value, own[key].half()) for key, value in state.items())
    assert record == json.loads((tmp_path / "out" / f"{LITE}.json").read_text())
    assert len(record["answers"]) == 4
    assert len((tmp_path / "out" / "classes.txt").read_text().splitlines()) == 1000


@pytest.mark.parametrize(
    "change",
    [
        # one tensor is missing
        lambda state: dict(list(state.items())[:-1]),
        # in another order
        lambda state: dict(sorted(state.items(), key=lambda item: item[1].numel())),
        # another shape
        lambda state: {key: value.T if value.ndim == 2 else value for key, value in state.items()},
        # another meaning
        lambda state: {key.replace("running_mean", "shift"): value for key, value in state.items()},
    ],
)
def test_a_conversion_refuses_other_tensors(tmp_path, monkeypatch, change):
    path, _ = planted_file(tmp_path, monkeypatch, change)
    with pytest.raises(GenaugError, match="do not stand in the order"):
        renamed_weights(path, LITE)


class Bomb:
    "Unpickling it makes a folder."

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    path, _ = planted_file(
        tmp_path, monkeypatch, lambda state: {**state, "extra": Bomb(tmp_path / "executed")}
    )
    for read in (
        lambda: renamed_weights(path, LITE),
        lambda: make_network("torchvision:shufflenet_v2_x0_5", 3, 3, 64, str(path)),
        lambda: make_network("test_resnet", 3, 3, 64, str(path)),
    ):
        with pytest.raises(GenaugError):
            read()
    assert not (tmp_path / "executed").exists()


def test_counters_may_lack_and_other_tensors_may_not():
    network, state = timm.create_model(LITE), embedded_weights(LITE)
    assert copy_weights(network, state) == []
    with pytest.raises(GenaugError, match="another network"):
        copy_weights(network, {key: value for key, value in state.items() if "bn1" not in key})


# Any network of timm or torchvision


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5", "regnet_y_400mf"]
)
def test_a_network_of_torchvision_has_the_two_halves(name, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        whole = get_model(name, weights=None).eval()
    save_file(
        {key: value.contiguous() for key, value in whole.state_dict().items()}, tmp_path / "model.safetensors"
    )
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "model.pth")
    images, before = torch.rand(2, 3, 64, 64), torch.random.get_rng_state()
    made = [
        make_network(f"torchvision:{name}", 1000, 3, 64, str(tmp_path / file)).eval()
        for file in ("model.safetensors", "model.pth", "")
    ]
    assert torch.equal(before, torch.random.get_rng_state())
    with torch.inference_mode():
        expected = whole((images - made[0].mean) / made[0].std)
        assert all(torch.allclose(network(images), expected, atol=1e-4) for network in made)
        few = make_network(f"torchvision:{name}", 3, 3, 64, str(tmp_path / "model.pth")).eval()
        rows = few.features(images)
        assert torch.allclose(rows, made[0].features(images), atol=1e-4)
        assert few(images).shape == (2, 3)
        assert torch.allclose(few(images), few.network.classifier(rows), atol=1e-5)
        grey = make_network(f"torchvision:{name}", 3, 1, 64, str(tmp_path / "model.pth")).eval()
        assert grey(images[:, :1]).shape == (2, 3)


@pytest.mark.parametrize(
    "name, weights, words",
    [
        ("torchvision:resnet5000", None, "There is no network"),
        ("torchvision:squeezenet1_0", None, "There is no network"),
        ("torchvision:inception_v3", None, "use the one of timm: 'inception_v3'"),
        ("torchvision:resnet18.V9", None, "IMAGENET1K_V1"),
        ("torchvision:shufflenet_v2_x0_5", "no/such.pth", "there is no such file"),
        ("torchvision:shufflenet_v2_x0_5", "no_such_tag", "one of torchvision's tags"),
        ("resnet50", "embedded", "cannot be loaded"),
        ("residual", "embedded", "no pretrained weights"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_remedy(name, weights, words):
    with pytest.raises(GenaugError, match=words):
        make_network(name, 3, 3, 64, weights)


def test_a_file_of_another_network_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("torchvision:shufflenet_v2_x0_5", "test_resnet", "letters"):
        with pytest.raises(GenaugError):
            make_network(name, 3, 3, 64, str(tmp_path / "other.safetensors"))


def test_a_head_of_another_size_is_new_and_grey_sums_the_filters():
    few, grey = make_network(LITE, 5, 3, 224, "embedded"), make_network(LITE, 5, 1, 224, "embedded")
    stem = few.network.state_dict()["conv_stem.weight"]
    assert torch.allclose(grey.network.state_dict()["conv_stem.weight"], stem.sum(1, keepdim=True), atol=1e-6)
    assert few.network.classifier.out_features == 5
    assert grey.mean.shape == (1, 1, 1, 1)


@pytest.mark.parametrize("name", ["letters", "test_resnet", "torchvision:shufflenet_v2_x0_5"])
def test_random_is_a_word(name):
    same = [make_network(name, 3, 3, 64, word, seed=2).state_dict() for word in (None, "random")]
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[0])
    with pytest.raises(GenaugError, match="untrained"):
        feature_network(name, "random")


# What the pictures are


def photographs(count=4, edge=40, channels=3, seed=0):
    size = (edge, edge + 3)
    return noise_set(np.arange(count) % 2, ("wren", "owl"), size=size, channels=channels, seed=seed)


def in_folder(home, images):
    "The same pictures as files in class folders, opened again."
    for index, name in enumerate(images.ids):
        write_atomic(
            home / images.class_names[int(images.labels[index].argmax())] / Path(name).name,
            encode_png(images.image(index)),
        )
    return next(iter(open_sets(str(home)).values()))


@pytest.mark.parametrize("name", names())
def test_embedded_sets_and_their_parts_are_recognised(name):
    assert kind_of_data(name) == "embedded"
    sets = load(name)
    assert kind_of_data(sets) == "embedded"
    assert {kind_of_data(part) for part in sets.values()} == {"embedded"}
    train = sets["train"]
    assert kind_of_data(train[::37]) == kind_of_data(train[[0]]) == "embedded"
    if train.task == "single":
        assert kind_of_data(few_shot(train, 2, 3)) == "embedded"


def test_a_long_tail_is_embedded_too():
    pool = load("digits")["train"]
    assert kind_of_data(long_tail(pool, 10, 0)) == kind_of_data(pool.select(pool.ids[::-1])) == "embedded"


def planted(tmp_path):
    "Name -> pictures that a careless rule takes for an embedded set."
    pool = load("digit-scenes")["train"][:4]
    pixels, small = [pool.image(index) for index in range(4)], photographs(edge=16)
    enlarged = [np.pad(image, ((0, 1), (0, 1), (0, 0))) for image in pixels]
    return {
        "photographs": photographs(),
        "photographs of 32 pixels": replace(photographs(), pixels=pixels),
        "a folder of 12 pixels": in_folder(
            tmp_path / "small", replace(small, pixels=[image[:12, :12] for image in small.pixels])
        ),
        "an embedded set in a folder": in_folder(tmp_path / "written", pool),
        "names of digits": replace(photographs(), class_names=("one", "two"), pixels=pixels),
        "ids of an embedded set": LabeledImages(pixels, [0, 1, 0, 1], ("wren", "owl"), pool.ids),
        "ids and names, larger": replace(pool, pixels=enlarged, digests=None),
        "ids and names, in grey": replace(pool, pixels=[image[:, :, :1] for image in pixels], digests=None),
        "one id of its own": replace(pool, ids=(*pool.ids[:3], "mine.png")),
        "no picture": photographs()[[]],
    }


def test_whatever_is_not_surely_embedded_is_photographs(tmp_path):
    actual = {name: kind_of_data(images) for name, images in planted(tmp_path).items()}
    assert actual.pop("ids and names, in grey") == "grey", actual
    assert set(actual.values()) == {"photographs"}, actual
    assert kind_of_data(str(tmp_path / "written")) == kind_of_data(tmp_path / "small") == "photographs"
    assert kind_of_data({"train": load("digit-scenes")["train"][:3], "test": photographs()}) == "photographs"


def test_grey_is_grey_however_it_is_stored(tmp_path):
    grey = photographs(20, channels=1)
    coloured = replace(grey, pixels=[np.repeat(image, 3, 2) for image in grey.pixels])
    assert (
        kind_of_data(grey)
        == kind_of_data(coloured)
        == kind_of_data(in_folder(tmp_path / "scans", grey))
        == "grey"
    )
    assert kind_of_data(replace(grey, pixels=[*grey.pixels[:19], photographs(1).image(0)])) == "photographs"
    flat = replace(grey, pixels=[image[:, :, 0] for image in grey.pixels])
    assert kind_of_data(flat) == "grey"


# Who examines them


def test_the_table_is_complete_and_its_networks_can_be_had():
    assert set(ROLES) == {(role, kind) for role in ROLE_WORDS for kind in KINDS}
    for (role, kind), entry in ROLES.items():
        assert network_for(role, kind) == entry
        assert (bare_name(entry.network) in TOY) == (kind == "embedded")
        assert entry.size == usual_view(entry.network).size
        assert (entry.weights == "random") == (role == "judge" and kind == "embedded")
    for kind in KINDS:
        judge = ROLES["judge", kind].network
        assert judge not in {ROLES[role, kind].network for role in ROLE_WORDS if role != "judge"}


@pytest.mark.parametrize("kind", REAL_KINDS)
@pytest.mark.parametrize("role", ROLE_WORDS)
def test_no_toy_network_in_any_role(role, kind, tmp_path):
    images = in_folder(tmp_path, photographs(channels=1 if kind == "grey" else 3))
    assert kind_of_data(images) == kind
    for name in (*TOY, "letters.tag", "torchvision:letters"):
        for weights in (None, "embedded", "random", "file.safetensors"):
            with pytest.raises(GenaugError, match="cannot examine|There is no network"):
                network_for(role, kind, name, weights)
            with pytest.raises(GenaugError, match="cannot examine|There is no network"):
                features_for(role, images, name, weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLE_WORDS)
def test_random_weights_only_by_that_word_and_only_where_it_learns(role, kind):
    for name in ("resnet18", "torchvision:resnet18"):
        with pytest.raises(GenaugError, match="has no weights"):
            network_for(role, kind, name)
        if role in ("classifier", "judge"):
            assert network_for(role, kind, name, "random").weights == "random"
        else:
            with pytest.raises(GenaugError, match="mean nothing"):
                network_for(role, kind, name, "random")
        assert network_for(role, kind, name, "weights.safetensors").weights == "weights.safetensors"
    with pytest.raises(GenaugError, match="mean nothing"):
        network_for("filter", kind, weights="random")


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_judges_what_he_selected(kind):
    judge, filtering = ROLES["judge", kind].network, ROLES["filter", kind].network
    with pytest.raises(GenaugError, match="it is the judge's"):
        network_for(
            "filter", kind, judge, "random" if judge in TOY else None
        ) if judge not in TOY else _raise_as_judge(kind)
    for same in (filtering, f"{bare_name(filtering)}.in1k") if kind != "embedded" else (filtering,):
        with pytest.raises(GenaugError, match="filtered with it|cannot examine"):
            network_for("judge", kind, same)
    with pytest.raises(GenaugError, match="filtered with it"):
        network_for("judge", kind, apart=(judge,))
    for pair in (
        ("resnet18.a1_in1k", "torchvision:resnet18.IMAGENET1K_V1"),
        ("resnet18.tv_in1k", "resnet18.a1_in1k"),
    ):
        with pytest.raises(GenaugError, match="filtered with it"):
            network_for("judge", kind, pair[0], apart=(pair[1], "densenet121.tv_in1k"))
        with pytest.raises(GenaugError, match="it is the judge's"):
            network_for("filter", kind, pair[0], apart=(pair[1],))
    assert (
        network_for("judge", kind, "resnet18.tv_in1k", apart=("resnet34.tv_in1k",)).network
        == "resnet18.tv_in1k"
    )


def _raise_as_judge(kind):
    "The toy judge is refused as a filter for its weights already."
    with pytest.raises(GenaugError, match="mean nothing"):
        network_for("filter", kind, ROLES["judge", kind].network)
    return network_for("filter", kind, ROLES["judge", kind].network, "some.safetensors")


@pytest.mark.parametrize(
    "role, kind, words",
    [
        ("evaluators", "photographs", "no role of a network 'evaluators'"),
        ("judge", "birds", "no kind of data 'birds'"),
    ],
)
def test_unknown_words_are_named(role, kind, words):
    with pytest.raises(GenaugError, match=words):
        network_for(role, kind)


# The methods that examine: Real-Filter, GeNIe-Ada, DIAGen

METHODS = {
    "real-filter": (real_filter, {"rounds": 4, "num_inference_steps": 3}),
    "genie-ada": (genie_ada, {"num_inference_steps": 4}),
    "diagen": (diagen, {"naming": ClassName(), "num_inference_steps": 4}),
}
TOY_WORDS = {
    "real-filter": {"features": "letters"},
    "genie-ada": {"features": "wide"},
    "diagen": {"classifier": "tiny"},
}


def made(name, **settings):
    method, usual = METHODS[name]
    return method(backbone=toy_backbone(), guidance_scale=1.0, **{**usual, **settings})


@pytest.fixture
def no_toys(monkeypatch):
    "Whoever asks a toy network fails; the doubter learns for two updates."
    from genaug.training_presets import training_preset

    monkeypatch.setattr(
        SmallNetwork, "forward_features", lambda *arguments: pytest.fail("a toy network was asked")
    )
    monkeypatch.setattr(
        "genaug.methods.diagen.training_preset", lambda name: training_preset(name, updates=2, batch_size=2)
    )


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", METHODS)
def test_a_folder_of_photographs_is_examined_by_no_toy(name, channels, tmp_path, no_toys):
    real = in_folder(
        tmp_path / "photos", replace(photographs(6, 24, channels), class_names=("square", "bar"))
    )
    method = made(name).fit(real, tmp_path / "work")
    assert method.examiners(real) == (LITE,)
    assert method.filter.examiners(real) == (LITE,)
    out = synthesize(method, real, tmp_path / "out", Budget(1), seed=0, progress=False, allow_fewer=True)
    assert len(out) <= 6


@pytest.mark.parametrize("name", METHODS)
def test_a_toy_that_was_named_is_refused_before_anything_is_learned(name, tmp_path, no_toys, monkeypatch):
    real = in_folder(tmp_path / "photos", replace(photographs(6, 24), class_names=("square", "bar")))
    monkeypatch.setattr("genaug.recipe.learn_or_load", lambda *arguments: pytest.fail("it learned"))
    with pytest.raises(GenaugError, match="cannot examine photographs"):
        made(name, **TOY_WORDS[name]).fit(real, tmp_path / "work")


@pytest.mark.parametrize(
    "network, weights",
    [("letters", "embedded"), ("residual", "random"), ("resnet18", None), ("wide", "file.safetensors")],
)
def test_a_doubter_by_a_named_network_is_looked_at_too(network, weights):
    with pytest.raises(GenaugError, match="cannot examine photographs|has no weights"):
        SoftWeight(network=network, weights=weights).suited(photographs())
    for preset in ("judge", "letters", "tiny_lt", "few_shot_vit"):
        with pytest.raises(GenaugError, match="cannot examine photographs|has no weights"):
            SoftWeight(preset).suited(photographs())


@pytest.mark.parametrize("name", METHODS)
def test_on_toy_pictures_every_id_is_what_it_was(name):
    real = toy_photographs()
    new, named = (
        made(name),
        made(name, **{key: {"wide": "letters"}.get(word, word) for key, word in TOY_WORDS[name].items()}),
    )
    assert content_hash(new.settings()) == content_hash(named.settings())
    assert new.fingerprint() == named.fingerprint()
    new, named = new.fit(real), named.fit(real)
    assert new.settings() == named.settings()
    assert new.fingerprint() == named.fingerprint()
    assert new.plan(real, Budget(2), 0) == named.plan(real, Budget(2), 0)
    words = {key: made(name).settings()[key] for key in TOY_WORDS[name]}
    assert (
        words
        == {
            "real-filter": {"features": "letters"},
            "genie-ada": {"features": "letters"},
            "diagen": {"classifier": "tiny"},
        }[name]
    )


@pytest.mark.parametrize("name", METHODS)
def test_photographs_have_other_ids_and_a_copy_asks_again(name, tmp_path):
    toy, real = toy_photographs(), replace(photographs(6, 24), class_names=("square", "bar"))
    assert content_hash(made(name).suited(real).settings()) == content_hash(made(name).fit(real).settings())
    method = made(name).fit(toy)
    before = method.settings()
    assert method.fresh().filter == made(name).filter
    assert method.fresh().fit(real).settings() != before
    assert method.fit(real).settings() != before
    assert method.fit(toy).settings() == before
    method.fit(real)
    rows = method.plan(real, Budget(1), 0)
    method.save(tmp_path / "method")
    assert made(name).load(tmp_path / "method").plan(real, Budget(1), 0) == rows


def test_parts_alone_ask_the_table_too():
    assert (
        FeatureFilter().suited(photographs()).features == LargestStep().suited(photographs()).features == LITE
    )
    assert SoftWeight(classifier=None).suited(photographs()) == SoftWeight(classifier=None)
    assert not SoftWeight(classifier=None).examiners(None)
    assert FeatureFilter("clip_zero_shot", clip="there").suited(photographs()).features == "auto"
    assert FeatureFilter("clip_zero_shot", clip="there").examiners(photographs()) == ("clip:there",)
    named = SoftWeight(network=LITE).suited(photographs()).preset()
    assert (named.network, named.weights) == (LITE, "embedded")  # and not random weights by an empty field
    assert SoftWeight(network="resnet18.tv_in1k").suited(photographs()).preset().weights == "usual"
    assert SoftWeight("densenet121").suited(photographs()).preset().network == "densenet121"


def test_the_key_of_a_result_names_the_network_that_filters(tmp_path):
    mine = noise_set([0, 0, 1, 1], ("cup", "jar"), size=40)
    question = Comparison(("real-filter",), "mine", shots=None, splits=(0,), repeats=(0,))
    run = Run(question, {"train": mine, "test": mine}, None, tmp_path, False)
    assert run.arms["real-filter"].augmenter.filter.features == "tf_efficientnet_lite0"
    with pytest.raises(GenaugError, match="letters"):
        Run(
            replace(question, methods=("real-filter@features=letters",)), run.sets, None, tmp_path, False
        ).arms
