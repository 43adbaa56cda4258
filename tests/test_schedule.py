"""The training schedule: pairing of arms, every use and partner rule, what is refused, and uses and rules of
ones own."""

import dataclasses
import inspect

import numpy as np
import pytest
from toy_sets import noise_set

from genaug.classifier import ImageStore, train_classifier
from genaug.contracts import PartnerRule
from genaug.identity import stored_kind
from genaug.messages import GenaugError
from genaug.methods.genmix import GenMix
from genaug.mixing.cutmix import CutMix
from genaug.mixing.mixup import MixUp
from genaug.schedule import (
    USES,
    Append,
    Showing,
    Swap,
    SwapOwn,
    TrainingSchedule,
    TrainingUse,
    TwoStage,
    choose,
    epoch_plan,
    slot_class,
    training_use,
)
from genaug.training_presets import training_preset
from genaug.views import View

QUICK = training_preset("tiny", weights=None, updates=3, batch_size=6, view=View(8, 8, 1))


def make(labels, prefix, info=None, task="single", classes=3, size=8, seed=0):
    names = tuple("abc"[:classes])
    return noise_set(labels, names, size=size, seed=seed, ids=prefix + "{}", task=task, info=info)


REAL = make([0, 0, 0, 1, 1, 2], "photo")
ANCHORS = [0, 0, 1, 2, 3, 4, 5, 5]
MADE = make([0, 0, 0, 0, 1, 1, 2, 2], "row", [{"sources": [[f"photo{i}", 1.0]]} for i in ANCHORS], seed=1)
LABEL = {f"real:{n}": t for n, t in zip(REAL.ids, REAL.targets)} | {
    f"synthetic:{n}": t for n, t in zip(MADE.ids, MADE.targets)
}


def fitting(use, mixer):
    "The mixer, or one that the use cannot do without."
    return GenMix(probability=0.5) if use == "partners" else mixer


def tables(use, epochs=60, synthetic=MADE, mixer=None, **settings):
    schedule = TrainingSchedule(REAL, synthetic, 3, Showing(training_use(use, **settings), mixer), epochs)
    return [schedule.plan(epoch) for epoch in range(epochs)]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("mixer", [None, MixUp()], ids=("plain", "mixup"))
def test_all_arms_have_the_same_slots_coins_and_views(use, mixer):
    for base, plan in zip(
        tables("swap_class", synthetic=None, epochs=5), tables(use, mixer=fitting(use, mixer), epochs=5)
    ):
        rows = [row for row in plan.rows if row.part != "synthetic"]
        assert [(row.slot, row.real_id, row.coin, row.view_seed) for row in rows] == [
            (row.slot, row.real_id, row.coin, row.view_seed) for row in base.rows
        ]
        assert sorted(row.real_id for row in rows) == sorted(REAL.ids)


def test_swapped_slots_are_nested_in_the_replacement_probability():
    few, many = tables("swap_class", replace=0.3), tables("swap_class", replace=0.7)
    for left, right in zip(few, many):
        for low, high in zip(left.rows, right.rows):
            assert low.shown.startswith("real:") or low.shown == high.shown  # a sweep of p only adds swaps


def test_each_use_shows_what_it_says():
    rows = {
        use: [row for plan in tables(use, replace=1.0, mixer=fitting(use, None)) for row in plan.rows]
        for use in USES
    }
    anchors = {f"synthetic:{name}": f"photo{anchor}" for name, anchor in zip(MADE.ids, ANCHORS)}
    assert all(anchors[row.shown] == row.real_id for row in rows["swap_own"])
    assert all(LABEL[row.shown] == LABEL[f"real:{row.real_id}"] for row in rows["swap_class"])
    assert len({row.shown for row in rows["swap_pool"]}) == 8
    assert any(LABEL[row.shown] != LABEL[f"real:{row.real_id}"] for row in rows["swap_pool"])
    assert all(row.shown.startswith("synthetic:") for row in rows["only"])
    assert {row.part for row in rows["two_loss"]} == {"real", "synthetic"}
    assert len(rows["two_loss"]) == 2 * 360
    assert all(row.shown == f"real:{row.real_id}" for row in rows["partners"])
    first, second = rows["two_stage"][:180], rows["two_stage"][180:]
    assert all(row.shown.startswith("synthetic:") for row in first)
    assert all(row.shown == f"real:{row.real_id}" for row in second)


@pytest.mark.parametrize("use, items", [("append", 14), ("only", 8)])
def test_passes_show_every_item_equally_often(use, items):
    shown = [row.shown for plan in tables(use, epochs=2 * items) for row in plan.rows]
    counts = np.unique(shown, return_counts=True)[1]
    assert len(counts) == items
    assert (counts == 12).all()


def test_tail_weights():
    shown = [LABEL[row.shown] for plan in tables("swap_tail", 400, replace=1.0) for row in plan.rows]
    expected = np.array([1 / 4, 1 / 3, 1 / 2]) / (1 / 4 + 1 / 3 + 1 / 2)
    assert np.abs(np.bincount(shown) / len(shown) - expected).max() < 0.04


def test_share_of_synthetic_images_is_the_probability():
    for replace in (0.0, 0.1, 0.5, 1.0):
        share = np.mean([plan.synthetic_share for plan in tables("swap_pool", 1000, replace=replace)])
        assert abs(share - replace) <= 4 * np.sqrt(replace * (1 - replace) / 6000)


def test_a_photograph_without_variant_stays():
    some = MADE[[0, 1]]
    rows = [row for plan in tables("swap_own", synthetic=some, replace=1.0) for row in plan.rows]
    assert all((row.real_id == "photo0") == row.shown.startswith("synthetic:") for row in rows)


@pytest.mark.parametrize("weigh", ["loss", "sampling"])
@pytest.mark.parametrize(
    "use", ["swap_class", "swap_pool", "swap_tail", "append", "only", "two_loss", "two_stage"]
)
def test_rows_of_weight_zero_are_never_shown(use, weigh):
    weighed = dataclasses.replace(MADE, info=[{"weight": float(i % 2)} for i in range(8)])
    shown = {
        row.shown
        for plan in tables(use, synthetic=weighed, replace=1.0, weigh=weigh)
        for row in plan.rows
        if row.shown.startswith("synthetic:")
    }
    assert shown == {f"synthetic:row{i}" for i in (1, 3, 5, 7)}


def test_weights_count_in_the_loss_or_in_the_sampling():
    weighed = dataclasses.replace(MADE, info=[{"weight": 3.0 if i == 0 else 1.0} for i in range(8)])
    loss = [row for plan in tables("swap_pool", 300, synthetic=weighed, replace=1.0) for row in plan.rows]
    assert {row.weight for row in loss if row.shown == "synthetic:row0"} == {3.0}
    assert abs(np.mean([row.shown == "synthetic:row0" for row in loss]) - 1 / 8) < 0.03
    drawn = [
        row
        for plan in tables("swap_pool", 300, synthetic=weighed, replace=1.0, weigh="sampling")
        for row in plan.rows
    ]
    assert {row.weight for row in drawn} == {1.0}
    assert abs(np.mean([row.shown == "synthetic:row0" for row in drawn]) - 3 / 10) < 0.04


def test_choose_never_leaves_the_candidates():
    chances = np.array([0.0, 1.0, 0.0, 1e-12, 5.0, 0.0])
    for uniform in (0.0, 1e-9, 0.5, 1 - 2**-53):
        assert chances[choose(np.arange(6), chances, uniform)] > 0


def test_partners_are_other_slots_of_the_same_part():
    for plan in tables("two_loss", mixer=MixUp(probability=1.0)):
        slots = {row.shown: row.slot for row in plan.rows if row.part == "real"}
        for row in plan.rows:
            assert row.partner.split(":")[0] == ("real" if row.part == "real" else "synthetic")
            assert row.mix == "mixup"
            if row.part == "real":
                assert slots[row.partner] != row.slot
    left = make([0], "photo")
    assert epoch_plan(0, left, showing=Showing(mixer=MixUp(probability=1.0))).rows[0].partner is None


def test_plan_describes_the_mixture():
    row = TrainingSchedule(REAL, showing=Showing(mixer=CutMix(probability=1.0)), size=8).plan(0).rows[0]
    assert row.mix_weight == CutMix().describe(row.mix_seed, 8)["weight"]


@pytest.mark.parametrize(
    "synthetic, use, settings, words",
    [
        (MADE, "swap", {}, "choose one of"),
        (MADE, "swap_class", {"replace": 1.5}, "at least 0 and at most 1"),
        (MADE, "swap_class", {"weigh": "both"}, "sampling"),
        (make([0], "row", classes=2), "swap_class", {}, "class names"),
        (MADE[[]], "swap_class", {}, "No synthetic image was used"),
        (None, "only", {}, "give a synthetic set"),
        (
            dataclasses.replace(MADE, info=[{"weight": 0.0}] * 8),
            "swap_class",
            {},
            "No synthetic image was used",
        ),
        (
            dataclasses.replace(MADE, info=[{"sources": []}] * 8),
            "swap_own",
            {},
            "No synthetic image was used",
        ),
        (dataclasses.replace(MADE, info=[{"weight": -1.0}] * 8), "swap_class", {}, "not negative"),
        (MADE, "two_stage", {}, "epochs"),
        (MADE, "partners", {}, "No synthetic image was used"),
    ],
)
def test_what_cannot_be_shown_is_refused(synthetic, use, settings, words):
    with pytest.raises(GenaugError, match=words):
        TrainingSchedule(REAL, synthetic, showing=Showing(training_use(use, **settings)))


def test_soft_labels_are_kept_and_their_class_is_the_largest():
    soft = dataclasses.replace(MADE, labels=np.array([[0.3, 0.7, 0]] * 8, np.float32))
    rows = [row for plan in tables("swap_class", synthetic=soft, replace=1.0) for row in plan.rows]
    assert all(row.shown.startswith("synthetic:") == (row.real_id in ("photo3", "photo4")) for row in rows)
    assert np.allclose(ImageStore(REAL, soft, View(8, 8, 0)).labels(["synthetic:row0"]), [[0.3, 0.7, 0]])


def test_rarest_label():
    counts = np.array([5, 2, 2])
    assert slot_class(np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0.2]]), "multi", counts).tolist() == [1, 0, -1]


def test_updates_are_full_unless_there_is_none():
    plan = epoch_plan(0, REAL)
    assert [len(rows) for rows in plan.updates(4)] == [4]
    assert [len(rows) for rows in plan.updates(9)] == [6]
    assert [row.slot for row in plan.updates(2)[2]] == [4, 5]


# ---------------------------------------------------------------- uses and rules are objects


def test_each_use_is_one_class_under_its_word():
    assert {word: kind.word for word, kind in USES.items()} == {word: word for word in USES}
    assert len(set(USES.values())) == len(USES)
    for word in USES:
        assert not inspect.isabstract(USES[word])
        assert list(training_use(word).record().items()) == [
            ("kind", word),
            ("replace", 0.5),
            ("weigh", "loss"),
            ("real_share", 0.8),
        ]
        assert stored_kind(training_use(word)) == word


def test_swaps_differ_by_their_candidates_and_only_two_look_at_other_things():
    swaps = [kind for kind in USES.values() if issubclass(kind, Swap)]
    assert [kind.word for kind in swaps] == ["swap_own", "swap_class", "swap_pool", "swap_tail"]
    for kind in swaps:
        assert kind.shown is Swap.shown


def test_idle_settings_of_a_use_have_a_reason():
    idle = {word: set(training_use(word).idle()) for word in USES}
    assert idle == {
        word: {"real_share"}
        if word.startswith("swap")
        else {"replace"}
        if word == "two_loss"
        else {"replace", "real_share"}
        for word in USES
    }
    assert Append().idle()["replace"] == "use=append replaces no photograph"


def test_a_setting_that_decides_nothing_changes_nothing():
    for word in USES:
        for name in training_use(word).idle():
            left, right = (
                tables(word, 4, mixer=fitting(word, None), **{name: value}) for value in (0.3, 0.9)
            )
            assert [plan.rows for plan in left] == [plan.rows for plan in right]


def test_the_stage_share_counts_in_what_is_stored_only_where_it_is_set():
    assert TwoStage(stage_share=0.25).record() == TwoStage().record() | {"stage_share": 0.25}
    shares = [plan.synthetic_share for plan in tables("two_stage", 8, stage_share=0.25)]
    assert shares == [1.0] * 2 + [0.0] * 6


class Twice(TrainingUse):
    "A use that the library does not know: a photograph, and its first variant with half the weight."

    word = "twice"

    def shown(self, schedule, epoch, order, coins):
        actual = schedule.once(SwapOwn().fitting)
        rows = [[self.photograph(schedule, position)] for position in order]
        for row, position in zip(rows, order):
            row += [self.painted(schedule, pick)._replace(weight=0.5) for pick in actual[position][:1]]
        return rows


@dataclasses.dataclass(frozen=True)
class SameSlot(PartnerRule):
    "A rule that the library does not know: the photograph of the slot."

    shift: int = 0

    def partners(self, schedule, epoch, rows):
        names = schedule.real.ids
        return [f"real:{names[(names.index(row.real_id) + self.shift) % len(names)]}" for row in rows]


@dataclasses.dataclass(kw_only=True)
class OwnMix(MixUp):
    name: str = "own-mix"
    probability: float = 1.0
    partner_rule = SameSlot(1)


def test_a_use_and_a_rule_of_ones_own_train_a_classifier():
    showing = Showing(Twice(), OwnMix())
    plan = epoch_plan(0, REAL, MADE, 3, showing)
    assert len(plan) == 12
    assert all(row.partner == f"real:photo{(int(row.real_id[-1]) + 1) % 6}" for row in plan.rows)
    trained = train_classifier(REAL, MADE, QUICK, showing)
    assert trained.shown == {"updates": 3, "epochs": 3, "rows": 36, "synthetic": 18, "mixed": 36}


def test_what_is_computed_once_is_computed_once():
    calls = []

    def count(schedule):
        calls.append(schedule)
        return len(calls)

    schedule = TrainingSchedule(REAL, MADE)
    assert [schedule.once(count), schedule.once(count)] == [1, 1]


@pytest.mark.parametrize("wrong", [{"use": "append"}, {"mixer": "mixup"}, {"balancer": MixUp()}])
def test_parts_of_another_kind_are_refused(wrong):
    with pytest.raises(GenaugError, match="does not say how images are shown"):
        Showing(**wrong)


def test_no_constructor_asks_for_more_than_eight_things():
    for public in (TrainingSchedule, Showing, epoch_plan, train_classifier, *USES.values()):
        assert len(inspect.signature(public).parameters) <= 8
