"""A set is recognised by its content, in whatever order its images come back; results are still keyed by the
ordered fingerprint."""

import json
from dataclasses import replace

import numpy as np
import pytest
from toy_sets import noise_pictures

from genaug.audit import audit, failures
from genaug.contracts import Augmenter
from genaug.core import LabeledImages
from genaug.files import write_atomic
from genaug.identity import content_hash
from genaug.pictures import encode_png
from genaug.plan_file import read_plan
from genaug.plans import Budget, PlanRow, fitted_on_these
from genaug.readers import open_sets
from genaug.report import write_report
from genaug.set_report import chosen_photographs, content_overlap, leak_lines, photographs_of
from genaug.synthesis import synthesize
from genaug.synthetic_set import open_synthetic


def pictures(count, seed=0):
    return noise_pictures([(12, 12, 3)] * count, seed=seed)


def folders(home, names, seed=0):
    "Two pictures in each of these class folders; an id may name a deeper folder."
    for name, pixels in zip(
        [f"{name}/{number}.png" for name in names for number in (10, 9)], pictures(2 * len(names), seed)
    ):
        write_atomic(home / name, encode_png(pixels))
    return home


@pytest.fixture
def photos():
    ids = ["cat-wild/1.png", "cat/1.png", "Cat2/a10.png", "cat/a2.png", "b/c/1.png", "b-c/1.png"]
    return LabeledImages(pictures(6), [1, 0, 2, 0, 2, 1], ("cat", "cat-wild", "other"), ids)


class Dreamer(Augmenter):
    "Paints from what it was fitted on, as a generator does: no source, only `fitted_on`."

    def plan(self, real, budget, seed):
        return [
            PlanRow(
                f"row{number}",
                self.name,
                tuple(map(float, real.labels[real.index([slot.anchor])[0]])),
                (),
                (),
                1000 + number,
                {"anchor": slot.anchor, "copy": slot.copy},
                fitted_on=self.fitted_on,
            )
            for number, slot in enumerate(budget.slots(real))
        ]

    def paint(self, rows, real):
        return [np.random.default_rng(row.seed).integers(0, 255, (12, 12, 3), dtype=np.uint8) for row in rows]


def dreamt(home, out, part="all"):
    sets = open_sets(str(home))
    synthesize(
        Dreamer(name="dreamer").fit(sets[part]), sets[part], out, Budget(copies=1), seed=0, progress=False
    )
    write_atomic(
        out / ".genaug" / "run.json",
        json.dumps({"source": str(home), "test": list(sets["test"].ids) if "test" in sets else []}),
    )
    return out


# ---- the two identities


def test_the_content_identity_has_no_order_and_the_fingerprint_has(photos):
    turned = photos[[3, 1, 5, 0, 4, 2]]
    assert turned.content_identity() == photos.content_identity()
    assert turned.fingerprint() != photos.fingerprint()


def test_the_fingerprint_is_what_it_was(photos):
    assert photos.fingerprint() == content_hash(
        photos.ids, photos.labels, photos.class_names, photos.task, photos.sha256
    )


@pytest.mark.parametrize(
    "change", ["renamed", "label", "pixel", "class order", "class name", "task", "fewer"]
)
def test_whatever_a_set_consists_of_changes_its_identity(photos, change):
    pixels = [*photos.pixels[:5], photos.pixels[5] ^ 1]
    other = {
        "renamed": lambda: replace(photos, ids=["x.png", *photos.ids[1:]]),
        "label": lambda: replace(photos, labels=[0, 0, 2, 0, 2, 1]),
        "pixel": lambda: replace(photos, pixels=pixels),
        "class order": lambda: replace(photos, class_names=("cat-wild", "cat", "other")),
        "class name": lambda: replace(photos, class_names=("cat", "cat-wild", "else")),
        "task": lambda: replace(photos, task="multi"),
        "fewer": lambda: photos[:5],
    }[change]()
    assert other.content_identity() != photos.content_identity()


def test_swapped_pixels_are_another_set_though_hashes_and_ids_are_the_same_together(photos):
    swapped = replace(photos, pixels=[photos.pixels[1], photos.pixels[0], *photos.pixels[2:]])
    assert swapped.content_identity() != photos.content_identity()


def test_the_identity_looks_at_pixels_that_are_there_when_asked(photos):
    claimed = replace(photos, digests=photos.sha256, pixels=pictures(6, seed=9))
    assert claimed.content_identity() == photos.content_identity()
    assert claimed.rehashed().content_identity() != photos.content_identity()


# ---- fitted on exactly these


@pytest.mark.parametrize(
    "order",
    [
        lambda ids: ids,
        sorted,
        lambda ids: sorted(ids, key=lambda name: name.split("/")),
        lambda ids: sorted(ids, key=str.casefold),
    ],
)
def test_an_old_value_is_recognised_in_every_likely_order(photos, order):
    fitted = photos.select(order(list(photos.ids)))
    assert fitted_on_these(
        [fitted.fingerprint(), None],
        photos[[5, 4, 3, 2, 1, 0]] if order(list(photos.ids)) != list(photos.ids) else photos,
    ) == [True, True]


def test_an_old_value_of_an_unlikely_order_is_recognised_by_the_hashes_of_the_plan(photos):
    fitted = photos[[4, 0, 3, 5, 1, 2]]
    header = {
        "sources": dict(sorted(zip(fitted.ids, fitted.sha256))),
        "class_names": list(fitted.class_names),
    }
    assert fitted_on_these([fitted.fingerprint()] * 2, photos) == [False, False]
    assert fitted_on_these([fitted.fingerprint()] * 2, photos, header) == [True, True]


def test_other_photographs_are_not_these(photos):
    header = {"sources": dict(zip(photos.ids, photos.sha256)), "class_names": list(photos.class_names)}
    renamed = replace(photos, ids=[f"new-{name}" for name in photos.ids])
    assert fitted_on_these([photos.fingerprint()], renamed, header) == [False]
    assert fitted_on_these([photos[:5].fingerprint()], photos[:4], header) == [False]


def test_one_image_of_another_model_is_found_among_the_good_ones(photos):
    fitted = photos[[4, 0, 3, 5, 1, 2]]
    header = {"sources": dict(zip(photos.ids, photos.sha256)), "class_names": list(photos.class_names)}
    assert fitted_on_these([photos.fingerprint(), "0" * 64], photos, header) == [True, False]
    assert fitted_on_these([fitted.fingerprint(), "0" * 64], photos, header) == [False, False]


def test_a_plan_that_records_both_identities_is_strict(photos):
    fitted = photos[[4, 0, 3, 5, 1, 2]]
    header = {
        "sources": dict(zip(photos.ids, photos.sha256)),
        "class_names": list(photos.class_names),
        "photographs": {"ordered": fitted.fingerprint(), "content": fitted.content_identity()},
    }
    assert fitted_on_these([fitted.fingerprint(), fitted.content_identity(), "0" * 64], photos, header) == [
        True,
        True,
        False,
    ]
    assert fitted_on_these([fitted.fingerprint()], photos[:5], header) == [False]


# ---- sets on disk


LAYOUTS = {
    "a hyphen before a slash": ["cat", "cat-wild"],
    "case": ["Zebra", "ant", "Bee"],
    "nested": ["cat/young", "cat/old", "dog/x"],
    "spaces and dots": ["a b", "a", "a.b"],
    "accents": ["é", "e", "z"],
}


@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_nothing_leaks_where_nothing_leaked(tmp_path, names):
    out = dreamt(folders(tmp_path / "photos", names), tmp_path / "out")
    header = read_plan(out).header
    real, why = photographs_of(out, header["sources"], json.loads((out / ".genaug" / "run.json").read_text()))
    assert real is not None
    assert why == ""
    assert failures(audit(open_synthetic(out), real, header=header)) == []
    page = write_report(out).read_text(encoding="utf-8")
    assert "Made by a model fitted on another set" not in page
    assert "LEAK" not in page


def test_nothing_leaks_in_a_label_table_whose_rows_are_not_sorted(tmp_path):
    names = ["z.png", "a-1.png", "a/1.png", "B.png", "m10.png", "m9.png"]
    for name, pixels in zip(names, pictures(6)):
        write_atomic(tmp_path / "photos" / name, encode_png(pixels))
    (tmp_path / "photos" / "labels.csv").write_text(
        "file,label\n" + "".join(f"{name},{'ab'[number % 2]}\n" for number, name in enumerate(names))
    )
    try:
        sets = open_sets(str(tmp_path / "photos"))
    except ValueError as error:
        pytest.skip(f"the table has another form: {error}")
    out = dreamt(tmp_path / "photos", tmp_path / "out", next(iter(sets)))
    assert "Made by a model fitted on another set" not in write_report(out).read_text(encoding="utf-8")


def test_a_set_that_another_file_system_lists_otherwise_is_recognised(tmp_path, photos):
    "The set was painted from an order which nothing restores; the header has the hash of each photograph."
    fitted = photos[[4, 0, 3, 5, 1, 2]]
    synthesize(
        Dreamer(name="dreamer").fit(fitted),
        fitted,
        tmp_path / "out",
        Budget(copies=1),
        seed=0,
        progress=False,
    )
    header, synthetic = read_plan(tmp_path / "out").header, open_synthetic(tmp_path / "out")
    restored = chosen_photographs({"all": photos}, header["sources"])
    assert restored.ids == photos.ids
    assert failures(audit(synthetic, restored, header=header)) == []


def test_photographs_with_other_pixels_or_names_are_not_restored(photos):
    sources = dict(zip(photos.ids, photos.sha256))
    assert chosen_photographs({"all": replace(photos, pixels=pictures(6, seed=5))}, sources) is None
    assert (
        chosen_photographs({"all": replace(photos, ids=[f"new-{name}" for name in photos.ids])}, sources)
        is None
    )
    assert chosen_photographs({"all": photos}, {**sources, "gone.png": "0"}) is None


def test_a_painted_picture_replaced_by_a_photograph_is_found_by_the_report(tmp_path):
    out = dreamt(folders(tmp_path / "photos", ["cat", "dog"]), tmp_path / "out")
    target = sorted((out / "train").rglob("*.png"))[0]
    target.write_bytes(sorted((tmp_path / "photos").rglob("*.png"))[0].read_bytes())
    assert "Equal to a training image, pixel for pixel" in write_report(out).read_text(encoding="utf-8")


# ---- leakage by content


def test_test_pictures_under_other_names_are_leaks(photos):
    synthetic = LabeledImages(
        pictures(1, seed=3), [0], photos.class_names, ["r0"], info=[{"sources": [["cat/1.png", 1.0]]}]
    )
    exam = LabeledImages(
        [photos.pixels[1], *pictures(1, seed=4)], [0, 0], photos.class_names, ["exam/a.png", "exam/b.png"]
    )
    said = leak_lines(synthetic, photos.ids, exam.ids, photos, exam)
    assert sum(line.startswith("LEAK") for line in said) == 2
    assert any("1 images are in training and test" in line for line in said)
    assert any("test images are sources" in line for line in said)
    assert content_overlap(photos, exam) == ["cat/1.png"]


def test_what_was_not_compared_is_not_claimed(photos):
    synthetic = LabeledImages(
        pictures(1, seed=3), [0], photos.class_names, ["r0"], info=[{"sources": [["cat/1.png", 1.0]]}]
    )
    assert not any("by content" in line for line in leak_lines(synthetic, photos.ids, ["exam.png"]))
    exam = LabeledImages(pictures(1, seed=4), [0], photos.class_names, ["exam.png"])
    assert any(
        "by name and by content" in line for line in leak_lines(synthetic, photos.ids, exam.ids, photos, exam)
    )


def test_a_test_picture_in_the_training_part_is_said_in_the_report_of_a_set(tmp_path):
    home = tmp_path / "photos"
    folders(home / "train", ["cat", "dog"])
    folders(home / "test", ["cat", "dog"], seed=1)
    out = dreamt(home, tmp_path / "out", "train")
    assert "LEAK" not in write_report(out).read_text(encoding="utf-8")
    target = sorted((out / "train").rglob("*.png"))[0]
    target.write_bytes(sorted((home / "test").rglob("*.png"))[0].read_bytes())
    assert "Equal to a test image, pixel for pixel" in write_report(out).read_text(encoding="utf-8")
