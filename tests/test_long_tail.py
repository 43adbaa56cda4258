"""Long tails from end to end: which photographs and partners a slot gets, what classes weigh, how a budget is
shared, and that classes with one photograph work under every arm."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare
from toy_sets import noise_set

from genaug.arms import make_arm, parse_methods
from genaug.balance.cmo import CMO
from genaug.balance.drw import DRW, Oversampling
from genaug.balance.smote import SmoteMixer
from genaug.classifier import train_classifier
from genaug.comparison import Comparison, condition_name, make_split, manifest_path
from genaug.contracts import Mixer
from genaug.core import LabeledImages
from genaug.data.splits import Manifest, long_tail
from genaug.datasets import load
from genaug.experiment import Run, run_experiment
from genaug.losses import mixture_loss, weighted_loss
from genaug.messages import GenaugError
from genaug.metrics.classification import size_groups, size_rows
from genaug.plans import Budget
from genaug.readers import open_sets
from genaug.registry import groups
from genaug.results import read_rows
from genaug.schedule import Append, Showing, SwapTail, TrainingSchedule
from genaug.tables import ExtraRows, Places, fill_table
from genaug.training_presets import training_preset
from genaug.views import View

COUNTS = (12, 5, 2, 1)
NAMES = ("wren", "tit", "owl", "kite")
QUICK = training_preset("tiny", weights=None, updates=3, view=View(16, 16, 1))


def tail(seed=0, multi=False):
    "Twenty pictures in four classes of 12, 5, 2 and 1."
    classes = np.repeat(np.arange(4), COUNTS)
    made = noise_set(classes, NAMES, size=16, seed=seed, low=-30, high=30, tints=(60, 100, 140, 180))
    if not multi:
        return made
    labels = made.labels.copy()
    labels[[0, 17], 3] = labels[5, 2] = 1
    return dataclasses.replace(made, labels=labels, task="multi")


def plans(epochs=300, real=None, **parts):
    schedule = TrainingSchedule(real or tail(), None, 3, Showing(**parts), epochs, 16)
    return pd.concat([schedule.plan(epoch).table() for epoch in range(epochs)])


def classes_of(keys, real=None):
    real = real or tail()
    where = {f"real:{name}": int(target) for name, target in zip(real.ids, real.labels.argmax(1))}
    return np.array([where[key] for key in keys])


# ---------------------------------------------------------------- slots and partners


def test_plain_epochs_show_each_photograph_once_and_oversampling_each_class_alike():
    plain, balanced = plans(20), plans(300, balancer=Oversampling())
    assert plain.groupby("epoch").shown.nunique().eq(20).all()
    counted = np.bincount(classes_of(balanced.shown), minlength=4)
    assert chisquare(counted).pvalue > 1e-3
    rare = balanced[classes_of(balanced.shown) == 0].shown.value_counts()
    # photographs of one class alike
    assert len(rare) == 12
    assert chisquare(rare).pvalue > 1e-3
    assert (plain.view_seed.to_numpy() == balanced.view_seed[:400].to_numpy()).all()
    assert (plain.coin.to_numpy() == balanced.coin[:400].to_numpy()).all()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_partners_of_cmo_come_with_the_chances_of_their_class(power):
    mixer = CMO(power=power)
    table = plans(400, mixer=mixer)
    drawn = np.bincount(classes_of(table.partner.dropna()), minlength=4)
    chances = mixer.partner_rule.chances(np.array(COUNTS, float))
    assert chisquare(drawn, drawn.sum() * chances / chances.sum()).pvalue > 1e-3
    mixed = table.groupby("epoch").partner.apply(lambda column: column.notna().mean())
    active = [mixer.active(epoch, 400) for epoch in range(400)]
    assert (mixed[active] > 0).all()
    assert (mixed[~np.array(active)] == 0).all()
    assert abs(mixed[active].mean() - 0.5) < 0.02


def test_neighbours_of_smote_are_of_the_class_and_the_nearest():
    real = tail()
    points = real.batch(size=16).flatten(1).numpy()
    table = plans(60, mixer=SmoteMixer(probability=1.0, neighbours=3))
    partners = table.groupby("shown").partner.agg(lambda column: set(column.dropna()))
    for key, actual in partners.items():
        position = real.index([key.removeprefix("real:")])[0]
        same = [
            other
            for other in range(20)
            if real.targets[other] == real.targets[position] and other != position
        ]
        near = sorted(same, key=lambda other: ((points[other] - points[position]) ** 2).sum())[:3]
        assert actual == {f"real:{real.ids[other]}" for other in near}
    assert partners["real:19.png"] == set()  # the kite is alone


def test_several_labels_have_partners_and_slots_under_each_label():
    real = tail(multi=True)
    shown = plans(300, real, balancer=Oversampling()).shown
    kites = shown.isin(["real:0.png", "real:17.png", "real:19.png"]).mean()
    assert (
        abs(kites - (1 / 4 + 1 / 48 + 1 / 12)) < 0.02
    )  # a quarter of the slots, and 0 and 17 as one of twelve wrens and of three owls
    assert plans(50, real, mixer=CMO()).partner.notna().any()


def test_impossible_chances_and_uses_are_refused():
    class Bad(Oversampling):
        def slot_chances(self, counts, progress):
            return np.zeros(len(counts))

    with pytest.raises(GenaugError, match="chances of the classes"):
        plans(1, balancer=Bad())
    real = tail()
    with pytest.raises(GenaugError, match="has no such slots"):
        TrainingSchedule(real, real, showing=Showing(Append(), balancer=Oversampling()))
    TrainingSchedule(real, real, showing=Showing(Append(), balancer=DRW()))  # weights have no such conflict


# ---------------------------------------------------------------- the loss


def test_class_weights_agree_with_torch_and_spread_over_mixtures():
    generator = torch.Generator().manual_seed(0)
    logits, classes = torch.randn(8, 4, generator=generator), torch.arange(8) % 4
    weights, ones = torch.tensor([0.1, 0.5, 1.4, 2.0]), torch.ones(8)
    hard = torch.eye(4)[classes]
    expected = torch.nn.functional.cross_entropy(logits, classes, weight=weights)
    assert torch.isclose(
        weighted_loss(logits, hard, ones, label_smoothing=0.0, class_weights=weights), expected
    )
    soft = 0.3 * hard + 0.7 * hard.roll(1, 0)
    by_hand = -(weights * soft * logits.log_softmax(1)).sum() / (weights * soft).sum()
    assert torch.isclose(
        weighted_loss(logits, soft, ones, label_smoothing=0.0, class_weights=weights), by_hand
    )
    several = (torch.rand(8, 4, generator=generator) > 0.5).float()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, several, weight=weights.expand(8, 4)
    )
    assert torch.isclose(weighted_loss(logits, several, ones, "multi", class_weights=weights), losses)


def test_mixtures_under_class_weights_are_two_weighted_losses_as_in_the_code_of_cmo():
    generator = torch.Generator().manual_seed(1)
    logits, weights, share = torch.randn(6, 4, generator=generator), torch.tensor([0.02, 0.2, 0.8, 2.98]), 0.7
    behind, before = torch.tensor([0, 0, 1, 0, 2, 1]), torch.tensor([3, 1, 3, 0, 0, 2])

    def hard(classes):
        return torch.eye(4)[classes]

    whole = mixture_loss(
        logits,
        hard(behind),
        list(range(6)),
        hard(before),
        share * hard(behind) + (1 - share) * hard(before),
        torch.ones(6),
        weights,
        0.0,
    )
    code = share * torch.nn.functional.cross_entropy(logits, behind, weights) + (
        1 - share
    ) * torch.nn.functional.cross_entropy(logits, before, weights)
    rows = torch.arange(6) != 3  # row 3 is mixed with its own class: all of it counts as its own
    moved = mixture_loss(
        logits[rows],
        hard(behind)[rows],
        list(range(5)),
        hard(before)[rows],
        (share * hard(behind) + (1 - share) * hard(before))[rows],
        torch.ones(5),
        weights,
        0.0,
    )
    same = share * torch.nn.functional.cross_entropy(logits[rows], behind[rows], weights) + (
        1 - share
    ) * torch.nn.functional.cross_entropy(logits[rows], before[rows], weights)
    assert torch.isclose(moved, same)
    assert not torch.isclose(whole, code)
    some, ones = [0, 2], torch.ones(6)
    mixed = share * hard(behind)[some] + (1 - share) * hard(before)[some]
    plain = weighted_loss(
        logits, hard(behind).index_copy(0, torch.tensor(some), mixed), ones, label_smoothing=0.1
    )
    assert torch.isclose(
        mixture_loss(logits, hard(behind), some, hard(before)[some], mixed, ones, torch.ones(4), 0.1), plain
    )


def test_a_mixer_with_views_adds_its_disagreement_to_the_loss():
    @dataclasses.dataclass(kw_only=True)
    class Echo(Mixer):
        name: str = "echo"
        probability: float = 1.0
        price: float = 0.0

        def mix(self, images, labels, partner_images, partner_labels, seeds):
            return images, labels

        def views(self, images, seeds):
            return [images, 1 - images]

        def consistency(self, logits, task):
            assert len(logits) == 3
            assert torch.equal(logits[0], logits[1])
            assert task == "single"
            return torch.full((len(logits[0]),), self.price)

    free, dear = (
        train_classifier(
            tail(),
            preset=dataclasses.replace(QUICK, network="residual", updates=1),
            showing=Showing(mixer=Echo(price=price)),
        ).losses[0]
        for price in (0.0, 2.5)
    )
    plain = train_classifier(tail(), preset=dataclasses.replace(QUICK, network="residual", updates=1)).losses[
        0
    ]
    assert abs(free - plain) < 1e-5
    assert abs(dear - free - 2.5) < 1e-5


def test_drw_is_the_baseline_until_it_starts():
    preset = dataclasses.replace(QUICK, updates=10)
    plain, deferred = (
        train_classifier(tail(), preset=preset, showing=Showing(balancer=balancer)).losses
        for balancer in (None, DRW(start=0.5))
    )
    assert plain[:5] == deferred[:5]
    assert plain[5] != deferred[5]


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("total", [1, 4, 7, 100])
def test_a_total_is_shared_alike_and_the_rest_goes_to_the_smallest(total):
    real = tail()
    wanted = Budget(total=total).wanted(real)
    assert sum(wanted.values()) == total
    assert max(wanted.values()) - min(wanted.values()) <= 1
    assert sorted(wanted.values()) == [
        wanted[index] for index in np.argsort([-count for count in COUNTS], kind="stable")
    ]
    slots = Budget(total=total).slots(real)
    assert len(slots) == total
    assert all(slot.aimed for slot in slots)
    assert all(real.targets[real.index([slot.anchor])[0]] == slot.class_index for slot in slots)


def test_even_copies_are_the_same_work_as_a_total_and_a_larger_budget_only_adds():
    real = tail()
    assert Budget(3, even=True).slots(real) == Budget(total=60).slots(real)
    assert Budget(3).wanted(real) == dict(enumerate(np.multiply(COUNTS, 3)))
    assert set(Budget(1, even=True).slots(real)) <= set(Budget(2, even=True).slots(real))
    assert Budget(total=9, fill=True).wanted(real) == {0: 0, 1: 7, 2: 10, 3: 11}
    with pytest.raises(GenaugError, match="at least 1"):
        Budget(total=0).wanted(real)


def test_a_class_without_a_photograph_gets_nothing_of_a_total():
    real = tail()
    part = real[[position for position in range(20) if real.targets[position] != 2]]
    assert Budget(total=10).wanted(part) == {3: 4, 1: 3, 0: 3}


# ---------------------------------------------------------------- numbers by class size


def test_groups_by_size_agree_with_pandas():
    draw = np.random.default_rng(0)
    counts, truth = np.array([88, 21, 20, 5, 4, 1]), draw.integers(0, 6, 300)
    answers = np.eye(6)[np.where(draw.random(300) < 0.6, truth, draw.integers(0, 6, 300))]
    actual = {row.part: row for row in size_rows(answers, np.eye(6)[truth], counts)}
    each = pd.DataFrame({"class": truth, "right": answers.argmax(1) == truth}).groupby("class").right.mean()
    assert {name: list(group) for name, group in size_groups(counts).items()} == {
        "many": [0, 1],
        "medium": [2, 3],
        "few": [4, 5],
        "one": [5],
    }
    for name, members in {"many": [0, 1], "medium": [2, 3], "few": [4, 5], "one": [5]}.items():
        assert np.isclose(actual[f"shots={name}"].value, each[members].mean())
        assert actual[f"shots={name}"].n == np.isin(truth, members).sum()
    assert not any("many" in row.part for row in size_rows(answers, np.eye(6)[truth], np.full(6, 3)))


# ---------------------------------------------------------------- arms


@pytest.fixture(scope="module")
def uneven():
    "digit-scenes with an imbalance factor of 100: three classes have one photograph."
    return long_tail(load("digit-scenes")["train"], 100, 0)


@pytest.mark.parametrize("arm", parse_methods("generator-free"))
def test_every_arm_without_a_generator_trains_with_one_image_classes(arm, uneven):
    assert sorted(uneven.counts().values())[:3] == [1, 1, 1]
    made = make_arm(arm)
    synthetic = None
    if made.augmenter is not None:
        made.augmenter.fit(uneven)
        rows = made.augmenter.plan(uneven, Budget(fill=True), 0)[-40:]
        assert any(
            uneven.class_names[int(np.argmax(row.label))]
            in {name for name, count in uneven.counts().items() if count == 1}
            for row in rows
        )
        images = made.augmenter.paint(rows, uneven)
        synthetic = LabeledImages(
            images, np.array([row.label for row in rows]), uneven.class_names, [row.id for row in rows]
        )
    trained = train_classifier(
        uneven,
        synthetic,
        training_preset("tiny_lt", weights=None, updates=3),
        Showing(SwapTail(), made.mixer, made.balancer),
    )
    assert trained.shown["updates"] == 3
    assert trained.shown["rows"] == 150
    assert np.isfinite(trained.losses).all()
    assert (trained.shown["synthetic"] > 0) == (synthetic is not None)


def test_groups_of_names_and_the_alias_of_cmo_drw():
    assert set(groups()["generator-free"]) >= {
        "mixup",
        "cutmix",
        "augmix",
        "smote",
        "cmo",
        "drw",
        "cmo+drw",
        "oversampling+strong-augmentation",
    }
    both = make_arm("cmo-drw")
    assert both.text == "cmo+drw"
    assert isinstance(both.mixer, CMO)
    assert isinstance(both.balancer, DRW)
    assert both.augmenter is None
    over = make_arm("diff-ii@even=true;total=40+smote+oversampling")
    assert over.budget == {"even": True, "total": 40}
    assert isinstance(over.mixer, SmoteMixer)
    assert isinstance(over.balancer, Oversampling)


@pytest.mark.parametrize(
    "text, words",
    [
        ("mixup+cutmix", "two mixers"),
        ("drw+oversampling", "two balancers"),
        ("original+drw+drw", "two"),
        ("cmo+real-gen", "neither"),
        ("cmo+nothing", "no method"),
    ],
)
def test_impossible_compositions_are_one_clear_sentence(text, words):
    with pytest.raises(GenaugError, match=words):
        make_arm(text)


def test_a_balancer_that_chooses_photographs_is_refused_before_anything_is_painted():
    for text in ("smote+oversampling", "diff-ii@use=only+oversampling"):
        with pytest.raises(GenaugError, match="has no such slots"):
            make_arm(text)
    assert make_arm("smote@use=swap_class+oversampling").balancer.name == "oversampling"
    assert make_arm("smote+drw").use.word == "append"


def test_progress_stays_below_one_and_is_zero_where_the_length_is_not_known():
    known, unknown = (
        TrainingSchedule(tail(), showing=Showing(balancer=DRW()), epochs=epochs) for epochs in (10, None)
    )
    assert [known.progress(epoch) for epoch in (0, 5, 9, 12)] == [0, 0.5, 0.9, 0.9]
    assert unknown.progress(7) == 0
    assert (unknown.loss_weights(7) == 1).all()
    assert not (known.loss_weights(8) == 1).all()


# ---------------------------------------------------------------- comparisons


def question(methods=("original",), **changes):
    return Comparison(
        methods,
        **{
            **{
                "data": "digits",
                "shots": None,
                "imbalance_factor": 20.0,
                "splits": (0,),
                "repeats": (0,),
                "updates": 2,
                "classifier": "tiny_lt",
            },
            **changes,
        },
    )


def test_rows_of_a_long_tail_tell_the_groups(tmp_path):
    unit, rows = next(run_experiment(Run(question(), open_sets("digits"), None, tmp_path, False)))
    parts = {row["part"]: row for row in rows if row["part"].startswith("shots=")}
    assert {"shots=many", "shots=medium", "shots=few"} <= set(parts)
    assert all(row["metric"] == "accuracy" for row in parts.values())
    classes = {
        row["part"].removeprefix("class="): row["value"] for row in rows if row["metric"] == "sensitivity"
    }
    counts = make_split(question(), open_sets("digits"), 0).train.counts()
    assert np.isclose(
        parts["shots=many"]["value"], np.mean([classes[name] for name, count in counts.items() if count > 20])
    )


def test_balancer_budget_and_use_make_another_unit_and_defaults_do_not(tmp_path):
    sets = open_sets("digits")
    split = make_split(question(), sets, 0)

    def path(text, **changes):
        run = Run(question(**changes), sets, None, tmp_path)
        return run.path(run.arm(text), split, 0)

    arms = (
        "original",
        "drw",
        "cmo",
        "cmo+drw",
        "oversampling",
        "smote",
        "smote@fill=true",
        "smote@even=true",
        "smote@total=9",
    )
    assert len({path(arm) for arm in arms}) == len(arms)
    assert path("smote", even=True) == path("smote@even=true")
    assert path("smote", use="swap_tail") == path("smote@use=swap_tail")
    assert path("original", even=True, use="append") == path("original")
    with pytest.raises(GenaugError, match="There is no use"):
        question(use="swapping")


def test_another_test_part_shares_the_images_and_leaves_the_manifests_alone(tmp_path):
    places = Places(tmp_path / "rows.csv", tmp_path / "work")
    base = Comparison(
        ("original",),
        shots=1,
        splits=(0, 1),
        repeats=(0,),
        updates=2,
        table="demo",
        scale="hour",
        data="digit-scenes 1-shot",
    )
    shifted = dataclasses.replace(base, test_part="shifted")
    assert places.home(base) == places.home(shifted)
    assert condition_name(shifted) == "natural on shifted"
    fill_table([base], "digit-scenes", places, measure=False)
    before = manifest_path(places.home(base), 0).read_bytes()
    fill_table([shifted], "digit-scenes", places, measure=False, extra=ExtraRows(("group",)))
    rows = read_rows(places.file)
    assert manifest_path(places.home(base), 0).read_bytes() == before
    tested = Manifest.load(manifest_path(places.home(base), 0, "shifted"))
    assert tested.train == Manifest.load(manifest_path(places.home(base), 0)).train
    assert not set(tested.test) & set(Manifest.load(manifest_path(places.home(base), 0)).test)
    moved = rows[(rows.condition == "natural on shifted") & (rows.split == "0")]
    groups_there = moved[moved.part.str.startswith("group=")].value
    assert len(groups_there) == 4
    assert np.isclose(groups_there.mean(), moved[(moved.metric == "group_mean_accuracy")].value.item())
    assert np.isclose(groups_there.min(), moved[moved.metric == "worst_group_accuracy"].value.item())
    assert not rows[(rows.condition == "natural")].part.str.startswith("group=").any()
    assert set(rows[rows.metric == "accuracy_bootstrap_low"].condition) == {"natural", "natural on shifted"}
