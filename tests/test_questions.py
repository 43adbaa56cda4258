"""A comparison is checked whole before any work: words, numbers, arms, classifiers, weights, folders; what
cannot be asked leaves nothing behind."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_experiment import QUESTION, SETS, pool

import genaug.compare as compare_module
from genaug import comparison_folder, evaluators, experiment, preflight, results
from genaug.compare import compare
from genaug.comparison import check_classifier
from genaug.experiment import Run
from genaug.messages import GenaugError
from genaug.networks import letters_network, make_network
from genaug.preflight import examine
from genaug.readers import open_sets
from genaug.training_presets import TrainingPreset
from genaug.views import View

# words and numbers


@pytest.mark.parametrize(
    "change, words",
    [
        ({"condition": "validaton"}, "did you mean 'validation'"),
        ({"condition": "Natural"}, "did you mean 'natural'"),
        ({"condition": ""}, "choose one of natural"),
        ({"condition": None}, "condition"),
        ({"use": "swap_clas"}, "did you mean 'swap_class'"),
        ({"use": "foo"}, "choose one of swap_own"),
        ({"copies": math.inf}, "finite"),
        ({"copies": math.nan}, "finite"),
        ({"copies": 1e9}, "10,000|1e.04"),
        ({"copies": "5"}, "copies"),
        ({"copies": True}, "copies"),
        ({"replace": math.nan}, "replace"),
        ({"replace": "half"}, "replace"),
        ({"updates": 2.5}, "updates"),
        ({"updates": 10**12}, "updates"),
        ({"updates": -3}, "update"),
        ({"shots": 1.5}, "shots"),
        ({"shots": -1}, "shots"),
        ({"shots": 10**12}, "shots"),
        ({"imbalance_factor": 0.5, "shots": None}, "imbalance"),
        ({"imbalance_factor": math.inf, "shots": None}, "imbalance"),
        ({"test_fraction": math.nan}, "test_fraction"),
        ({"test_fraction": "0.5"}, "test_fraction"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": 10**9}, "batch_size"),
        ({"splits": (0, 0)}, "stands twice among the splits"),
        ({"repeats": (1, 1)}, "stands twice among the repeats"),
        ({"methods": ("original", "original")}, "stands twice among the arms"),
        ({"methods": ()}, "at least one arm"),
        ({"methods": "original"}, "arms"),
        ({"splits": (-1,)}, "splits"),
        ({"splits": (2**40,)}, "splits"),
        ({"splits": (0.5,)}, "splits"),
        ({"splits": ("0",)}, "splits"),
        ({"splits": tuple(range(10_001))}, "at most 10,000"),
        ({"repeats": tuple(range(1_000_000))}, "at most 10,000"),
        ({"splits": range(10**12)}, "at most 10,000"),
        ({"repeats": range(10**12)}, "at most 10,000"),
        ({"device": ""}, "device"),
        ({"test_part": " "}, "test_part"),
        ({"data": ""}, "data"),
        ({"classifier": None}, "classifier"),
        ({"classifier": "a\0b"}, "classifier"),
        ({"even": "yes"}, "even"),
        ({"draws": 1}, "draws"),
        ({"suffixes": "on grass"}, "suffixes"),
        ({"suffixes": (3,)}, "suffixes"),
        ({"classifier_weights": 3}, "classifier_weights"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_question_that_cannot_be_asked_is_refused_when_it_is_made(change, words):
    with pytest.raises(GenaugError, match=words):
        dataclasses.replace(QUESTION, **change)


def test_what_is_allowed_stays_allowed():
    assert (
        dataclasses.replace(
            QUESTION,
            copies=0.5,
            replace=0,
            updates=1,
            splits=[3, 1],
            repeats=(0,),
            batch_size=1,
            shots=None,
            imbalance_factor=100,
            test_part="shifted",
        ).copies
        == 0.5
    )
    assert len(dataclasses.replace(QUESTION, splits=tuple(range(1000))).splits) == 1000


@pytest.mark.parametrize(
    "source, condition, words",
    [
        ("digits", "validaton", "did you mean 'validation'"),
        ("photos", "validaton", "did you mean"),
        ("photos", "correlated", "no effect on '.*photos'"),
        ("digits", "correlated", "no condition 'correlated'"),
        ("textures", "natura", "did you mean"),
    ],
)
def test_a_condition_that_is_none_is_refused_for_folders_too(source, condition, words, tmp_path):
    from PIL import Image

    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.full((9, 9, 3), 80, np.uint8)).save(tmp_path / "photos" / name / "one.png")
    with pytest.raises(GenaugError, match=words):
        open_sets(str(tmp_path / "photos") if source == "photos" else source, condition)
    assert set(open_sets(str(tmp_path / "photos"), "validation")) == {"all"}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"optimizer": "sdg"}, "sgd, adamw"),
        ({"schedule": "cosin"}, "cosine"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"batch_size": 0}, "batch_size"),
        ({"updates": None, "epochs": None}, "neither epochs nor updates"),
        ({"warmup_share": 2}, "warmup_share"),
        ({"momentum": "much"}, "momentum"),
        ({"patience": 0}, "patience"),
    ],
)
def test_a_training_preset_is_checked_when_it_is_made(change, words):
    with pytest.raises(GenaugError, match=words):
        TrainingPreset(**{"name": "mine", "updates": 3} | change)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"padding_mode": "mirror"}, "constant, reflect"),
        ({"size": 40, "resize": 32}, "at least the size"),
        ({"padding": -1}, "padding"),
        ({"area": (0.0, 1.0)}, "area"),
        ({"jitter": 2.0}, "jitter"),
    ],
)
def test_a_view_is_checked_when_it_is_made(change, words):
    with pytest.raises(GenaugError, match=words):
        View(**change)


def test_a_mixer_that_is_none_is_refused():
    from genaug.schedule import Showing

    with pytest.raises(GenaugError, match="does not say how images are shown"):
        Showing(mixer="mixup")


# classifiers and their weights


def weight_file(path, kind):
    "A file as a user might name it."
    state = letters_network(26).state_dict()
    if kind == "good":
        save_file(state, path)
    elif kind == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    elif kind == "nan":
        save_file(
            {
                name: torch.full_like(value, math.nan) if value.is_floating_point() else value
                for name, value in state.items()
            },
            path,
        )
    elif kind == "truncated":
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("not weights")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    "kind, words",
    [
        ("missing", "no weight file"),
        ("foreign", "another network"),
        ("nan", "not finite"),
        ("truncated", "damaged or no safetensors"),
        ("text", "damaged or no safetensors"),
        ("empty", "damaged or no safetensors"),
        ("folder", "no weight file"),
    ],
)
@pytest.mark.parametrize("classifier", ["letters", "residual"])
def test_weights_that_cannot_be_used_are_a_sentence_before_any_work(kind, words, classifier, tmp_path):
    path = weight_file(tmp_path / "mine.safetensors", kind)
    question = dataclasses.replace(QUESTION, classifier=classifier, classifier_weights=str(path))
    words = "another network|not finite" if kind == "nan" else words
    with pytest.raises(GenaugError, match=words):
        check_classifier(question)
    with pytest.raises(GenaugError, match=words):
        compare(Run(question, SETS, None, tmp_path / "out", False))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "foreign", "truncated", "text", "empty", "folder"])
def test_weights_of_a_timm_network_are_checked_too(kind, tmp_path):
    path = weight_file(tmp_path / "mine.safetensors", kind)
    with pytest.raises(GenaugError, match="mine.safetensors"):
        check_classifier(
            dataclasses.replace(QUESTION, classifier="test_resnet", classifier_weights=str(path))
        )


@pytest.mark.parametrize(
    "classifier, weights, words",
    [
        ("resnet1", None, "There is no network 'resnet1'"),
        ("resnet5O", None, "did you mean 'resnet50'"),
        ("leters", None, "did you mean"),
        ("test_resnet.no_such_tag", None, "cannot be loaded"),
        ("test_resnet", "no_such_tag", "cannot be loaded"),
        ("letters", "tv_in1k", "no weight file"),
        ("letters.tag", None, "There is no network"),
    ],
)
def test_networks_and_tags_that_do_not_exist_are_a_sentence(classifier, weights, words):
    with pytest.raises(GenaugError, match=words):
        check_classifier(dataclasses.replace(QUESTION, classifier=classifier, classifier_weights=weights))


def test_random_weights_that_nobody_asked_for_are_refused(tmp_path):
    with pytest.raises(GenaugError, match="would start from random weights, since none are named"):
        check_classifier(dataclasses.replace(QUESTION, classifier="test_resnet", classifier_weights=None))
    check_classifier(dataclasses.replace(QUESTION, classifier="test_resnet", classifier_weights="random"))
    check_classifier(dataclasses.replace(QUESTION, classifier="residual", classifier_weights=None))
    good = str(weight_file(tmp_path / "mine.safetensors", "good"))
    check_classifier(dataclasses.replace(QUESTION, classifier="letters", classifier_weights=good))


def test_good_weights_are_those_that_are_used(tmp_path):
    path = weight_file(tmp_path / "mine.safetensors", "good")
    from safetensors.torch import load_file

    assert torch.equal(
        make_network("letters", 4, weights=str(path)).network.state_dict()["body.0.0.weight"],
        load_file(path)["body.0.0.weight"],
    )


# the whole question


@pytest.fixture
def no_work(monkeypatch):
    "Whatever computes, fails the test."
    for module, names in (
        (experiment, ("prepare_training", "paint_plan", "paint_arm", "run_unit", "write_atomic")),
        (evaluators, ("paint_arm", "write_atomic")),
        (compare_module, ("estimate", "run_experiment", "write_atomic")),
        (results, ("write_atomic",)),
        (comparison_folder, ("write_atomic",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))


@pytest.mark.parametrize(
    "change, sets, words",
    [
        ({"methods": ("original", "smote@use=foo")}, SETS, "foo"),
        ({"methods": ("original", "smote@weigh=banana")}, SETS, "banana|weigh"),
        ({"methods": ("original", "smote@replace=2")}, SETS, "replace|\\[0, 1\\]"),
        ({"methods": ("original", "mixup@alpha=-1")}, SETS, "alpha"),
        ({"methods": ("original", "mixup@alpha=abc")}, SETS, "alpha"),
        ({"methods": ("original", "smote@copies=0.1")}, SETS, "no image at all"),
        ({"methods": ("original", "smote"), "copies": 0.01}, SETS, "raise --copies"),
        ({"methods": ("original", "no-such")}, SETS, "no method"),
        (
            {"methods": ("original", "smote@use=partners")},
            SETS,
            "cannot train on these data|add such a mixer",
        ),
        ({"methods": ("original", "smote@use=append+oversampling")}, SETS, "slot"),
        ({"methods": ("original", "smote@tail=0")}, SETS, "tail"),
        ({"methods": ("original", "smote@real_share=7")}, SETS, "real_share"),
        ({"test_part": "shifted"}, SETS, "no part 'shifted'"),
        ({"condition": "correlated"}, SETS, "no effect"),
        (
            {"condition": "validation", "splits": (100,), "test_part": "val"},
            SETS | {"val": SETS["test"]},
            "no effect",
        ),
        ({"classifier": "genmix_vgg16"}, SETS, "validation part"),
        ({}, {"test": SETS["test"]}, "no training images"),
        ({}, {}, "no training images"),
        ({}, {"train": pool(6, 1), "test": pool(3, 1, 5, "exam")}, "at least two classes"),
        ({"device": "nowhere"}, SETS, "no device"),
        ({"device": "cuda:99"}, SETS, "cuda"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(change, sets, words, no_work, tmp_path):
    with pytest.raises(GenaugError, match=words):
        compare(Run(dataclasses.replace(QUESTION, **change), sets, None, tmp_path / "out", False))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("location", ["photos/out", "photos", ".", "photos/ant/out"])
def test_a_result_among_the_photographs_is_refused_before_any_work(location, no_work, tmp_path):
    from PIL import Image

    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((9, 9, 3), 30 * number + len(name) + (name == "bee"), np.uint8)).save(
                tmp_path / "photos" / name / f"{number}.png"
            )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(GenaugError, match="inside one another|not empty"):
        compare(Run(QUESTION, open_sets(str(tmp_path / "photos")), None, tmp_path / location, False))
    assert sorted(tmp_path.rglob("*")) == before


def test_what_must_be_known_is_a_finding():
    sets = {"train": pool()[[0, 1, 12, 13, 24]], "test": pool(6, seed=1, prefix="exam")[[0, 1, 6, 7]]}
    kinds = {
        finding.kind: finding
        for finding in examine(
            Run(
                dataclasses.replace(QUESTION, methods=("original", "mixup", "mixup@alpha=1"), shots=None),
                sets,
                None,
                ".",
                False,
            )
        )
    }
    assert set(kinds) == {"single-photograph", "untested-class", "same-arm"}
    assert kinds["untested-class"].severity == "warning"
    assert "1 of 3 classes (class 2)" in kinds["untested-class"].message
    assert "'mixup@alpha=1' and 'mixup'" in kinds["same-arm"].message


def test_a_clean_question_has_no_finding_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        examine(
            Run(dataclasses.replace(QUESTION, methods=("original", "mixup", "smote")), SETS, None, ".", False)
        )
        == []
    )
    assert list(tmp_path.iterdir()) == []


def test_an_arm_that_cannot_work_on_these_photographs_does_not_stop_the_others(monkeypatch, tmp_path):
    def fail(plain):
        return lambda *args: (
            plain(*args)
            if not {"smote"}
            & {getattr(argument, field, "") for argument in args for field in ("name", "text")}
            else (_ for _ in ()).throw(GenaugError("smote needs two photographs of a class"))
        )

    for module, name in ((preflight, "painting_cost"), (experiment, "paint_arm")):
        monkeypatch.setattr(module, name, fail(getattr(module, name)))
    question = dataclasses.replace(QUESTION, methods=("original", "smote"), splits=(0,))
    actual = compare(Run(question, SETS, None, tmp_path, False))
    before, after = (
        next(finding for finding in actual.findings if finding.kind == kind)
        for kind in ("arm-fails", "failed-run")
    )
    assert (before.where, before.severity, after.severity) == ("smote", "error", "error")
    assert actual.summary.set_index("arm").splits.to_dict() == {"original": 1, "smote": 0}


def test_a_comparison_in_which_no_arm_can_work_is_refused(no_work, monkeypatch, tmp_path):
    monkeypatch.setattr(
        preflight, "painting_cost", lambda *_: (_ for _ in ()).throw(GenaugError("needs two photographs"))
    )
    with pytest.raises(GenaugError, match="needs two photographs"):
        compare(Run(dataclasses.replace(QUESTION, methods=("smote",)), SETS, None, tmp_path / "out", False))
    assert not (tmp_path / "out").exists()


def test_the_order_is_refusals_then_claim_then_work(monkeypatch, tmp_path):
    seen = []
    for name in ("examine", "check_claim", "claim_comparison", "estimate", "run_experiment"):
        plain = getattr(compare_module, name)
        monkeypatch.setattr(
            compare_module,
            name,
            lambda *args, name=name, plain=plain, **rest: seen.append(name) or plain(*args, **rest),
        )
    compare(Run(dataclasses.replace(QUESTION, splits=(0,)), SETS, None, tmp_path, False))
    assert list(dict.fromkeys(seen)) == [
        "examine",
        "check_claim",
        "claim_comparison",
        "estimate",
        "run_experiment",
    ]


def test_findings_that_are_known_are_kept_and_not_said_again(tmp_path):
    from genaug.files import read_findings
    from genaug.messages import Finding

    known, said = Finding("blank", "warning", "one.png", "The picture is blank."), []
    question = dataclasses.replace(QUESTION, methods=("mixup", "mixup@alpha=1"), splits=(0,))
    findings = compare(
        Run(question, SETS, None, tmp_path, False),
        say=said.append,
        findings=[known, *examine(Run(question, SETS, None, ".", False))],
    )
    assert known in findings.findings
    assert known in read_findings(tmp_path)
    assert not any("same arm" in line or "blank" in line for line in said)


# parameters of table notebooks


@pytest.mark.parametrize(
    "given, words",
    [
        ({"sedes": [0]}, "did you mean 'seeds'"),
        ({"": 1}, "no parameter"),
        ({"scale": "minute"}, "seconds, hour or paper"),
        ({"scale": None}, "seconds, hour or paper"),
        ({"methods": ["mixupp"]}, "no method"),
        ({"methods": []}, "No method"),
        ({"methods": ["mixup@alpha="]}, "no value"),
        ({"seeds": [-1]}, "splits"),
        ({"seeds": [0, 0]}, "twice"),
        ({"seeds": []}, "at least one"),
        ({"seeds": range(10**12)}, "at most"),
        ({"device": "gpu0"}, "no device"),
    ],
)
def test_parameters_of_a_table_are_checked_before_it_runs(given, words):
    from pathlib import Path

    from genaug.tables import check_parameters

    with pytest.raises(GenaugError, match=words):
        check_parameters(Path(__file__).parent.parent / "nbs" / "tables" / "diff_ii_few_shot.ipynb", given)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"cells": []}',
        '{"cells": [{"metadata": {"tags": ["parameters"]}, "source": ["def ("]}]}',
        '{"cells": [7]}',
    ],
)
def test_a_file_that_is_no_table_notebook_is_a_sentence(text, tmp_path):
    from genaug.tables import parameter_names

    (tmp_path / "table.ipynb").write_text(text)
    with pytest.raises(GenaugError, match="no table notebook"):
        parameter_names(tmp_path / "table.ipynb")


def test_every_table_takes_its_own_parameters():
    from pathlib import Path

    from genaug.tables import check_parameters, parameter_names

    notebooks = sorted((Path(__file__).parent.parent / "nbs" / "tables").glob("[!_]*.ipynb"))
    assert len(notebooks) > 5
    assert all(
        {"scale", "run", "methods", "seeds", "device", "results"} <= set(parameter_names(path))
        for path in notebooks
    )
    for path in notebooks:
        check_parameters(
            path,
            {"scale": "hour", "run": True, "methods": None, "seeds": [0], "device": "cpu", "results": "x"},
        )
