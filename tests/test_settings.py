"""Every field of every method, mixer, balancer and part takes what it is declared to take and refuses the
rest in one sentence, before any work."""

import csv
import dataclasses
import random
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_world import toy_backbone, toy_photographs

from genaug import fusion_partners
from genaug.arm_findings import examine_arms
from genaug.arms import Amounts, make_arm, naming_parts, parse_arm, parse_methods, parse_value, show_value
from genaug.balance.smote import combine_labels, points_of
from genaug.contracts import Augmenter, Part
from genaug.generators import sparse_codes
from genaug.generators.common import GeneratorAugmenter
from genaug.messages import GenaugError
from genaug.methods import feature_space
from genaug.methods.diff_ii import circle_interpolate, turn_of
from genaug.methods.feature_aligned import pooled
from genaug.methods.feature_space import FeatureSpace
from genaug.mixing.strong import make_policy
from genaug.plans import Budget
from genaug.registry import find_method, groups, method_names, methods
from genaug.results import arm_text
from genaug.schedule import USES
from genaug.settings import as_typed, check_settings, declared, with_settings
from genaug.training import SCHEDULES
from genaug.training_presets import PRESETS

WRONG = ("nan", "-1", "2.5", "abc", "none", "true", "1e300", "1" + "0" * 30, "0x10", "0.5:0.7", "x" * 500)
MORE = (
    *WRONG,
    "inf",
    "-1e300",
    "1_000",
    "٣",
    "½",
    "abc:def",
    ":",
    "1e999",
    "-0",
    "5.",
    "9" * 45,
    "--1",
    "1e5e5",
    "(1)",
    "[]",
    "1j",
)
BACKBONE = toy_backbone()
OWN = ("use", "replace", "weigh", "real_share", *(item.name for item in dataclasses.fields(Amounts)))


def settable(instance):
    "Paths of the fields that an arm's text can reach, parts included."
    yield from instance.own_identity().aliases
    for item in dataclasses.fields(instance):
        if item.init and item.name not in ("name", "backbone", "class_prompt", "identity"):
            current = getattr(instance, item.name)
            yield item.name
            if dataclasses.is_dataclass(current):
                yield from (f"{item.name}.{inner}" for inner in settable(current))


def outcome(text, field, plans=False):
    """What becomes of an arm: '' when it is built (and plans) or is refused by the name of the field,
    otherwise what went wrong."""
    try:
        arm = make_arm(text, BACKBONE)
        if plans and not field.endswith("weights"):  # files are looked at by the network that reads them
            arm_plans(arm)
    except GenaugError as error:
        said = str(error)
        named = field.rpartition(".")[2] in said or "cannot be an arm" in said
        return "" if named and said.isprintable() and "\n" not in said else f"{text[:80]}: {said}"
    except Exception as error:  # whatever it is, a user would see a fault of the program
        return f"{text[:80]}: {type(error).__name__} {error}"
    return ""


def arm_plans(arm):
    "Plan with what was accepted; generators would have to be trained first."
    if arm.budget:
        Budget(**arm.budget).wanted(toy_photographs((3, 2)))
    if arm.augmenter is not None and not isinstance(arm.augmenter, (GeneratorAugmenter, FeatureSpace)):
        try:
            arm.augmenter.fit(toy_photographs((3, 2)))
        except (
            GenaugError
        ) as error:  # a network or a word that does not exist is only known with the backbone
            assert any(
                word in str(error)
                for word in ("network", "features", "CLIP", "metaclass", "weights", "module")
            )
            return
        arm.augmenter.plan(toy_photographs((3, 2)), Budget(1), 0)


def fields_of(name):
    "The fields that the text of an arm with this method can set."
    method = find_method(name)
    instance = None if method.build is None else make_arm(name, BACKBONE).augmenter or method.build()
    return [*([] if instance is None else settable(instance)), *OWN]


def faults_of(start, fields, values, plans=False):
    "What goes wrong when each field is given each value."
    return [
        text
        for text in (outcome(f"{start}{field}={value}", field, plans) for field in fields for value in values)
        if text
    ]


@pytest.mark.parametrize("name", method_names())
def test_no_value_of_any_field_is_a_fault(name):
    assert faults_of(f"{name}@", fields_of(name), WRONG) == []


@pytest.mark.parametrize("naming", ["words", "tokens", "category", "adapter", "weights"])
def test_no_value_of_any_naming_is_a_fault(naming):
    fields = [f"naming.{field}" for field in settable(naming_parts(False)[naming])] or ["naming.steps"]
    assert faults_of(f"real-gen@naming={naming};", fields, WRONG) == []


@pytest.mark.parametrize("part", [name for name in method_names() if find_method(name).part is not None])
def test_no_value_of_any_part_behind_a_plus_is_a_fault(part):
    fields = [*settable(find_method(part).part())] or ["beta"]
    assert faults_of(f"real-gen@use=swap_class+{part}@", fields, WRONG) == []


@pytest.mark.long
@pytest.mark.parametrize("name", method_names())
def test_what_is_accepted_plans_and_no_value_at_all_is_a_fault(name):
    assert faults_of(f"{name}@", fields_of(name), MORE, plans=True) == []


@pytest.mark.long
@pytest.mark.parametrize("naming", ["words", "tokens", "category", "adapter", "weights"])
def test_what_a_naming_accepts_plans_and_no_value_at_all_is_a_fault(naming):
    fields = [f"naming.{field}" for field in settable(naming_parts(False)[naming])] or ["naming.steps"]
    assert faults_of(f"real-gen@naming={naming};", fields, MORE, plans=True) == []


VALUES = (
    float("nan"),
    float("inf"),
    -1,
    2.5,
    "abc",
    None,
    True,
    1e300,
    -1e300,
    10**30,
    "",
    (),
    (0.5, 0.7),
    ("abc",),
    [],
    {},
    b"x",
    object,
    np.float32("nan"),
    np.array([0.5, np.nan]),
    3 + 1j,
)


@pytest.mark.parametrize("name", [method.name for method in methods() if method.build is not None])
def test_objects_refuse_what_their_text_would_refuse(name):
    instance, faults = find_method(name).build(), []
    for item in dataclasses.fields(instance):
        if item.init and item.name not in (
            "name",
            "backbone",
            "class_prompt",
            "naming",
            "start",
            "target",
            "prompting",
            "label",
            "filter",
            "finish",
            "use",
            "identity",
        ):
            for value in VALUES:
                try:
                    dataclasses.replace(instance, **{item.name: value})
                except GenaugError as error:
                    faults += [] if item.name in str(error) else [f"{item.name}={value!r}: {error}"]
                except Exception as error:
                    faults.append(f"{item.name}={value!r}: {type(error).__name__} {error}")
    assert not faults


@pytest.mark.parametrize("name", [method.name for method in methods() if method.build is not None])
def test_every_number_has_a_bound_on_both_sides(name):
    instance = find_method(name).build()
    parts = [
        instance,
        *(
            getattr(instance, item.name)
            for item in dataclasses.fields(instance)
            if isinstance(getattr(instance, item.name), Part)
        ),
    ]
    without = []
    for part in parts:
        for item in dataclasses.fields(part):
            numbers = item.init and ("float" in str(item.type) or item.type is float)
            bound = declared(type(part))[item.name][1]
            if numbers and (bound is None or not np.isfinite(bound.low) or not np.isfinite(bound.high)):
                without.append(f"{type(part).__name__}.{item.name}")
    assert not without


def random_value(draw, depth=0):
    "One value that an arm's text can hold."
    kind = draw.randrange(7 if depth else 8)
    letters = string.ascii_letters + string.digits + "_-./é½ж"
    if kind == 0:
        return draw.choice((True, False, None))
    if kind == 1:
        return draw.randrange(-(10 ** draw.randrange(1, 39)), 10 ** draw.randrange(1, 39))
    if kind in (2, 3):
        return draw.choice(
            (
                draw.random(),
                draw.uniform(-1e3, 1e3),
                draw.uniform(0, 1) * 10.0 ** draw.randrange(-320, 308),
                float(draw.randrange(10**6)),
                1e16,
                1e22,
                5e-324,
                1.7976931348623157e308,
            )
        )
    if kind < 7:
        return parse_value("".join(draw.choice(letters) for _ in range(draw.randrange(1, 12))))
    return tuple(random_value(draw, 1) for _ in range(draw.randrange(4)))


def test_the_canonical_text_of_every_value_reads_back_as_that_value():
    draw = random.Random(0)
    values = [random_value(draw) for _ in range(3000)]
    wrong = [value for value in values if repr(parse_value(show_value(value))) != repr(value)]
    assert not wrong


def test_the_canonical_text_of_an_arm_is_a_fixed_point():
    draw, wrong = random.Random(1), []
    for _ in range(1000):
        fields = ";".join(
            "".join(draw.choice(string.ascii_lowercase) for _ in range(6))
            + f"{number}={show_value(random_value(draw))}"
            for number in range(draw.randrange(1, 4))
        )
        arm = parse_arm(
            f"diff-ii@{fields}+cutmix@alpha={show_value(draw.random() * 10.0 ** draw.randrange(-300, 300))}"
        )
        wrong += (
            []
            if parse_arm(arm.canonical()) == arm and parse_arm(arm.canonical()).canonical() == arm.canonical()
            else [arm.canonical()]
        )
    assert not wrong


def committed():
    "The arms of all committed rows."
    files = sorted((Path(__file__).parent.parent / "nbs" / "results").glob("*.csv"))
    pairs = {
        (row["method"], row["variant"])
        for file in files
        for row in csv.DictReader(file.open(encoding="utf-8"))
    }
    return sorted(arm_text(*pair) for pair in pairs if pair[0] != "real")


def test_committed_rows_keep_their_names():
    assert [text for text in committed() if parse_arm(text).canonical() != text] == []


def test_committed_rows_can_still_be_built():
    backbones, refused = {True: None, False: toy_backbone()}, []
    for text in committed():
        for backbone in backbones.values():
            try:
                make_arm(text, backbone, suffixes=("on grass",))
            except GenaugError as error:
                refused.append(f"{text}: {error}")
    assert not refused


@pytest.mark.parametrize("group", list(groups()))
def test_groups_can_still_be_built(group):
    assert [make_arm(text).text for text in parse_methods(group)] == parse_methods(group)


BAD_TEXTS = (
    "diff-ii@steps=3;steps=4",
    "diff-ii@naming.steps=3; naming.steps=3",
    "diff-ii@a=1;a=b",
    "diff-ii@;=",
    "diff-ii@=",
    "@steps=3",
    "@@",
    "diff-ii@@split_ratio=1",
    "++",
    "+",
    "+cutmix",
    "diff-ii+",
    "diff-ii++cutmix",
    "Diff-II",
    "DIFF-II",
    "diff‑ii",
    "dіff-ii",
    "diff-ii\x00",
    "diff-ii@mode=\x1b[2J",
    "diff-ii@mode=cir\u202ecle",
    "diff-ii\u200b",
    "diff-ii@name=x",
    "diff-ii@backbone=tiny",
    "diff-ii@class_prompt=x",
    "diff-ii@start=noise",
    "real-gen@start=noise",
    "real-gen@target=x",
    "real-gen@start.strengths=0.5",
    "diff-ii@naming",
    "diff-ii@naming=",
    "diff-ii@naming=a:b",
    "diff-ii@naming=true",
    "diff-ii@naming.=3",
    "diff-ii@.steps=3",
    "diff-ii@naming.steps.x=3",
    "diff-ii@bounds=3",
    "diff-ii@__class__=3",
    "diff-ii@settings=3",
    "real-gen@use=partners",
    "real-gen@use=foo",
    "real-gen@use=true",
    "real-gen@use=swap_own:append",
    "real-gen@weigh=banana",
    "real-gen@weigh=3",
    "real-gen@replace=2",
    "real-gen@replace=abc",
    "real-gen@replace=none",
    "real-gen@real_share=nan",
    "mixup@alpha=-1",
    "mixup@alpha=0",
    "mixup@probability=1.1",
    "mixup@probability=true",
    "genmix@synthetic_share=1.5",
    "genmix@partners=rare",
    "real-gen@use=two_loss+genmix@per_batch=true",
    "real-gen@use=partners+genmix@probability=0",
    "real-gen@use=partners+genmix@synthetic_share=0",
    "real-gen@use=partners+mixup",
    "real-gen@use=only+oversampling",
    "real-gen@copies=abc",
    "real-gen@copies=-1",
    "real-gen@copies=0",
    "real-gen@copies=inf",
    "real-gen@copies=1e9",
    "real-gen@copies=none",
    "real-gen@copies=1:2",
    "real-gen@total=0",
    "real-gen@total=2.5",
    "real-gen@total=1e12",
    "real-gen@tail=0",
    "real-gen@even=yes",
    "real-gen@even=1",
    "real-gen@fill=maybe",
    "real-gen@heads=2",
    "real-guidance@strengths=:",
    "real-guidance@strengths=0",
    "da-fusion@strengths=0.5:abc",
    "real-gen@guidance_scale=1e300",
    "real-gen@guidance_scale=1e+300",
    "real-gen@guidance_scale=1e9",
    "real-gen@num_inference_steps=1e5",
    "real-gen@num_inference_steps=0x10",
    "real-gen@num_inference_steps=1_0",
    "real-gen@num_inference_steps=٣",
    "real-gen@num_inference_steps=" + "9" * 5000,
    "diff-ii@mode=spiral",
    "diff-ii@radius=foo",
    "diff-ii@single=foo",
    "diff-ii@positions=1",
    "da-fusion@naming.schedule=foo",
    "loft@naming.scope=foo",
    "loft@naming.fuse=0",
    "datadream@naming.fuse=2",
    "feature-aligned@naming.pooling=foo",
    "diagen@classifier=foo",
    "real-filter@rule=foo",
    "smote@space=foo",
    "smote@label_rule=foo",
    "diff-aug+smote@label_rule=majority",
    "strong-augmentation@policy=foo",
    "augmix@depth=0",
    "feature-space@cam=foo",
    "feature-space@neighbours=foo",
    "feature-space@neighbours=2.5",
    "feature-space@denoising_steps=80",
    "drw@beta=1",
    "cmo@warm=-1",
    "original@copies=2",
    "mixup@copies=2",
    "oversampling@x=1",
    "controls@copies=2",
    "diff-ii@" + ";".join(f"x{number}=1" for number in range(2000)),
)


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: ascii(text)[:40])
def test_wrong_arms_are_one_sentence_before_anything_is_fitted(text, monkeypatch):
    monkeypatch.setattr(Augmenter, "fit", lambda *_, **__: pytest.fail("fitted"))
    with pytest.raises(GenaugError) as error:
        for arm in parse_methods(text):
            make_arm(arm, toy_backbone())
    said = str(error.value)
    assert said.isprintable()
    assert said.endswith(".")
    assert len(said) < 1500


@pytest.mark.parametrize(
    "text, path, value",
    [
        ("real-gen@num_inference_steps=30.0", "num_inference_steps", 30),
        ("real-gen@num_inference_steps=3e1", "num_inference_steps", 30),
        ("real-gen@guidance_scale=3", "guidance_scale", 3.0),
        ("real-gen@guidance_scale=.5", "guidance_scale", 0.5),
        ("da-fusion@strengths=1", "strengths", (1.0,)),
        ("diff-ii@positions=0.5", "positions", (0.5,)),
        ("diff-ii@suffixes=on grass", "suffixes", ("on grass",)),
        ("pixel-diffusion@widths=8;size=8", "widths", (8,)),
        ("feature-space@cam_layer=block1", "cam_layer", "block1"),
        ("feature-space@neighbours=inf", "neighbours", "inf"),
        ("datadream@naming.fuse=2;naming.scope=image", "naming.fuse", 2),
        ("real-gen@guidance_scale=1e1", "guidance_scale", 10.0),
    ],
)
def test_right_values_take_the_form_of_their_field(text, path, value):
    actual = make_arm(text, toy_backbone()).augmenter.setting(path)
    assert (actual, type(actual)) == (value, type(value))


def test_a_form_that_differs_gives_the_same_images():
    prints = [
        make_arm(text, toy_backbone()).augmenter.fingerprint()
        for text in (
            "real-gen@num_inference_steps=30;guidance_scale=3",
            "real-gen@num_inference_steps=30.0;guidance_scale=3.0",
        )
    ]
    assert prints[0] == prints[1]


def test_closed_sets_of_words_are_those_that_are_used():
    assert all(
        make_arm(f"diff-ii@use={word}", toy_backbone()).use.word == word
        for word in USES
        if word != "partners"
    )
    assert all(make_arm(f"da-fusion@naming.schedule={word}", toy_backbone()) for word in SCHEDULES)
    assert all(make_arm(f"diagen@classifier={word}", toy_backbone()) for word in PRESETS)


@pytest.mark.parametrize(
    "text",
    [
        "original",
        "real-gen",
        "real-gen@copies=1",
        "real-gen@replace=0.3",
        "diff-ii@mode=linear",
        "feature-space@denoising_steps=0",
        "da-fusion@strengths=0.25",
        "drw",
        "augmix@jsd=false",
        "real-gen+genmix",
    ],
)
def test_settings_that_work_have_no_finding(text):
    assert examine_arms([text], ["zero", "one", "two"], suffixes=("on grass",)) == []


@pytest.mark.parametrize(
    "text, kind",
    [
        ("diff-ii@split_ratio=1", "idle-setting"),
        ("diff-ii@mode=noise;fixed_point_iterations=2", "idle-setting"),
        ("real-gen@guidance_scale=1;guidance_until=0.5", "idle-setting"),
        ("round-trip@guidance_scale=3", "idle-setting"),
        ("real-gen@jitter=0.1", "idle-setting"),
        ("real-gen@use=append;replace=0.1", "idle-setting"),
        ("real-gen@real_share=0.1", "idle-setting"),
        ("real-gen@total=30;copies=2", "idle-setting"),
        ("real-gen@fill=true;even=true", "idle-setting"),
        ("augmix@jsd=false;weight=3", "idle-setting"),
        ("drw@start=1;beta=0.9", "idle-setting"),
        ("real-gen+augmix@jsd=false;weight=3", "idle-setting"),
        ("smote@label_rule=union", "idle-setting"),
        ("da-fusion@strengths=0.01:0.9", "weak-strength"),
        ("real-guidance@strengths=0.01", "weak-strength"),
        ("real-guidance@num_inference_steps=9", "weak-strength"),
        ("mixup@probability=0", "idle-mixer"),
        ("feature-space@tau_low=0.8", "overlapping-masks"),
        ("real-filter@percentile=3", "idle-setting"),
        ("real-filter@rule=clip_zero_shot", "missing-part"),
        ("real-filter@features=residual", "missing-part"),
        ("feature-aligned@naming.alignment_weight=0;naming.expert_size=64", "idle-setting"),
        ("diff-mix@strengths=1.0;gamma=0.3", "idle-setting"),
    ],
)
def test_settings_without_effect_and_parts_that_lack_are_found(text, kind):
    findings = examine_arms([text], ["zero", "one", "two"])
    assert [finding.kind for finding in findings] == [kind]
    assert all(finding.where.partition("@")[0] == text.partition("@")[0] for finding in findings)


def test_all_arms_are_examined_and_not_only_those_before_the_first_wrong_one():
    findings = examine_arms(["real-gen@x=1", "mixup@alpha=-1", "original"], ["zero", "one"])
    assert [(finding.kind, finding.severity, finding.where) for finding in findings] == [
        ("arm", "error", "real-gen@x=1"),
        ("arm", "error", "mixup@alpha=-1"),
    ]


@pytest.mark.parametrize(
    "text, task, names, kind",
    [
        ("genie", "multi", ["zero", "one"], "needs-classes"),
        ("diff-mix", "single", ["zero"], "needs-classes"),
        ("feature-space", "single", ["zero"], "needs-classes"),
        ("stylegan", "multi", ["zero", "one"], "needs-one-label"),
        ("genmix@partners=synthetic", "single", ["zero", "one"], "needs-synthetic"),
        ("oversampling+genmix@synthetic_share=0.5", "single", ["zero", "one"], "needs-synthetic"),
        ("feature-space@heads=3", "single", ["zero", "one", "two"], "needs-classes"),
    ],
)
def test_what_a_method_cannot_do_with_a_set_is_an_error(text, task, names, kind):
    assert [(finding.kind, finding.severity) for finding in examine_arms([text], names, task)] == [
        (kind, "error")
    ]


@pytest.mark.parametrize("text", ["diff-ii", "smote", "diff-aug+smote", "loft"])
def test_classes_with_one_photograph_are_noted_where_pairs_are_taken(text):
    def notes(counts):
        return [finding.kind for finding in examine_arms([text], ["zero", "one"], counts=counts)]

    assert notes({"zero": 1, "one": 5}) == ["single-photograph"]
    assert notes({"zero": 2, "one": 5}) == []


def test_a_value_that_is_no_text_is_not_taken_for_one():
    assert as_typed(True, int, 3) is True
    with pytest.raises(GenaugError, match="num_inference_steps=True"):
        with_settings(find_method("real-gen").build(), [("num_inference_steps", True)])
    check_settings(find_method("real-gen").build())


@pytest.mark.parametrize(
    "call",
    [
        lambda: sparse_codes.normalise(8, "layer"),
        lambda: sparse_codes.imitation_loss(torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1), "kl"),
        lambda: sparse_codes.class_weights(np.ones((2, 2)), "inverse"),
        lambda: sparse_codes.code_classifier("vgg", 3, 2, (64, 64)),
        lambda: feature_space.from_tail(*[torch.ones(1, 1, 1, dtype=torch.bool)] * 3, "xor"),
        lambda: list(fusion_partners.distances_to(None, None, "pixels", [])),
        lambda: points_of(toy_photographs(), "features"),
        lambda: combine_labels(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1), "vote"),
        lambda: circle_interpolate(
            torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.zeros(1), radius="round"
        ),
        lambda: turn_of(torch.zeros(1), torch.ones(1), "half"),
        lambda: pooled(torch.ones(1, 2, 2, 2), "median"),
        lambda: make_policy("auto"),
    ],
)
def test_a_misspelt_word_is_never_taken_for_another(call):
    with pytest.raises(GenaugError, match="one of|by 'median'|not by 'vote'"):
        call()
