"""What is wrong with a source is said through one channel: layouts one level off, label tables, values of
files, near copies."""

import csv
import io
import os
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms

from genaug.data.sources import examine_source, formats, open_source
from genaug.messages import Finding, GenaugError


def picture(path, seed=0, size=(24, 20), **options):
    "A picture of 5 x 5 blocks in random colours: it survives resizing and JPEG."
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng([seed, 7])
    array = np.kron(draw.integers(0, 255, (5, 6, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    Image.fromarray(array).resize(size, Image.Resampling.NEAREST).save(path, **options)
    return path


def grow(root, *folders, each=2, seed=0):
    "Pictures in folders, all different."
    for number, folder in enumerate(folders):
        for position in range(each):
            picture(root / folder / f"{position}.png", seed + 100 * number + position)
    return root


def findings_of(source, **options):
    report = examine_source(source, formats=formats(), **options)
    return {finding.kind: finding for finding in report.findings}


def errors(source):
    return [
        finding
        for finding in examine_source(source, formats=formats()).findings
        if finding.severity == "error"
    ]


# ---- one channel


def test_a_report_holds_findings_of_the_core_and_a_python_program_is_not_warned_beside_it(tmp_path):
    grow(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "bad.png").write_text("a letter")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = examine_source(tmp_path)
    assert all(isinstance(finding, Finding) for finding in report.findings)
    assert [finding.where for finding in report.errors] == ["cat/bad.png"]
    assert list(report.sets) == ["all"]
    assert report.class_names == ("cat", "dog")
    with pytest.raises(GenaugError, match="not a picture"):
        report.raise_first()
    with pytest.raises(GenaugError, match="not a picture"):
        open_source(tmp_path)
    assert len(open_source(tmp_path, strict=False)["all"]) == 4


@pytest.mark.parametrize(
    "source", ["no/such/folder", "cub:/data", "label-table:", "label-table:no/such/folder"]
)
def test_a_source_that_is_none_is_a_finding_too(source):
    report = examine_source(source, formats=formats())
    assert [finding.kind for finding in report.errors] == ["source"]
    assert report.sets == {}
    with pytest.raises(GenaugError):
        report.raise_first()


def test_the_first_error_tells_how_many_more_there_are(tmp_path):
    grow(tmp_path, "cat", "dog")
    for number in range(3):
        (tmp_path / "cat" / f"bad{number}.png").write_text("a letter")
    with pytest.raises(GenaugError, match=r"\(2 more: `genaug check` lists them all.\)"):
        open_source(tmp_path)


# ---- one level too high or too deep

WRAPPED = {
    "wrapped": ("dataset/train/cat", "dataset/train/dog", "dataset/test/cat", "dataset/test/dog"),
    "wrapped twice": ("zoo/zoo/train/cat", "zoo/zoo/train/dog", "zoo/zoo/test/cat", "zoo/zoo/test/dog"),
    "wrapped, val only": ("dataset/train/cat", "dataset/val/cat"),
    "wrapped, training part alone": ("dataset/train/cat", "dataset/train/dog"),
    "other spelling": ("Training set/cat", "Training set/dog", "Test set/cat", "Test set/dog"),
    "holdout": ("train_data/cat", "train_data/dog", "hold-out/cat", "hold-out/dog"),
    "dev and eval": ("dev/cat", "dev/dog", "Test_images/cat", "Test_images/dog"),
    "class first": ("cat/train", "cat/test", "dog/train", "dog/test"),
    "class first, validation": ("cat/training", "cat/valid", "dog/training", "dog/valid"),
    "parts in the names": ("cat_train", "dog_train", "cat_test", "dog_test"),
    "years": ("train2017/cat", "train2017/dog", "val2017/cat", "val2017/dog"),
    "flat parts": ("train", "test"),
    "yolo": ("images/train", "images/val"),
    "parts within a part": ("train/x/train/cat", "train/x/test/cat", "test/x/cat"),
    "test beside the classes": ("cat", "dog", "test/cat", "test/dog"),
    "holdout beside the classes": ("cat", "dog", "Holdout/cat", "Holdout/dog"),
    "folds": ("fold_0/cat", "fold_0/dog", "fold_1/cat", "fold_1/dog"),
    "masks beside images": ("images", "masks"),
    "only a test part": ("test/cat", "test/dog"),
    "only a validation part": ("val/cat", "val/dog"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_tree_whose_parts_would_be_read_as_classes_is_an_error_that_names_the_remedy(tmp_path, name):
    grow(tmp_path, *WRAPPED[name])
    first = errors(tmp_path)[0]
    assert first.kind in ("parts-inside", "folds", "no-class-folders", "no-train")
    assert ":" in first.message
    with pytest.raises(GenaugError):
        open_source(tmp_path)


def test_the_remedy_is_the_folder_to_give(tmp_path):
    grow(tmp_path, *WRAPPED["wrapped twice"])
    assert f"give '{tmp_path}/zoo/zoo' as the source" in errors(tmp_path)[0].message
    assert errors(tmp_path / "zoo" / "zoo") == []


def test_test_pictures_do_not_enter_the_pool_of_a_lenient_opening(tmp_path):
    grow(tmp_path, *WRAPPED["wrapped"])
    with pytest.raises(GenaugError, match="trained on"):
        open_source(tmp_path, strict=False)


FINE = {
    "plain": ("cat", "dog"),
    "vehicles": ("train", "bus"),
    "steam train": ("steam train", "diesel train", "bus"),
    "parts": ("train/cat", "train/dog", "test/cat", "test/dog"),
    "vehicles nested": ("wheels/train", "wheels/bus", "wings/plane", "wings/kite"),
    "years": ("cat/2020", "cat/2021", "dog/2020", "dog/2022"),
    "sides": ("cat/left", "cat/right", "dog/left", "dog/right"),
    "test tube": ("test tube", "flask"),
    "prefix": ("cat", "cat-wild"),
    "contest": ("contest", "latest"),
    "valley": ("valley", "mountain"),
    "folders of a person": ("cat/anna", "dog/ben"),
    "nested classes": ("train/animals/cat", "train/animals/dog", "train/plants/oak", "train/plants/fir"),
    "mask or not": ("mask", "no mask"),
}


@pytest.mark.parametrize("name", FINE)
def test_trees_that_only_resemble_them_open(tmp_path, name):
    grow(tmp_path, *FINE[name])
    assert errors(tmp_path) == []


@pytest.mark.parametrize(
    "name, severity",
    [("years", "note"), ("sides", "note"), ("nested classes", "warning"), ("vehicles nested", "warning")],
)
def test_sub_folders_of_a_class_are_named(tmp_path, name, severity):
    grow(tmp_path, *FINE[name])
    nested = findings_of(tmp_path)["nested"]
    assert nested.severity == severity
    assert "sub-folders" in nested.message


def test_classes_one_level_too_deep_are_a_warning_with_the_folder_to_give(tmp_path):
    grow(tmp_path, "photos/cat", "photos/dog")
    assert f"give '{tmp_path}/photos'" in findings_of(tmp_path)["wrapped"].message


def test_a_class_folder_dragged_into_another_is_named(tmp_path):
    grow(tmp_path, "cat", "dog", "cat/dog")
    assert "move 'cat/dog'" in findings_of(tmp_path)["class-in-class"].message


def test_masks_within_a_class_are_named(tmp_path):
    grow(tmp_path, "cat/images", "cat/masks", "dog/images", "dog/masks")
    assert findings_of(tmp_path)["masks"].severity == "warning"


def test_tables_and_annotations_beside_the_pictures_are_named(tmp_path):
    grow(tmp_path, "cat", "dog")
    (tmp_path / "annotations.json").write_text("{}")
    assert "'annotations.json' is not read" in findings_of(tmp_path)["annotations"].message
    flat = grow(tmp_path / "flat", ".")
    (flat / "labels.csv").write_text("path,cat\n0.png,1\n")
    assert f"label-table:{flat}" in findings_of(flat)["no-classes"].message


def test_hidden_copies_of_notebooks_are_no_class(tmp_path):
    grow(tmp_path, "cat", "dog", ".ipynb_checkpoints", "cat/.ipynb_checkpoints")
    report = examine_source(tmp_path)
    assert report.class_names == ("cat", "dog")
    assert report.ok
    assert len(report.sets["all"]) == 4


# ---- label tables

COLUMNS = ("path", "patient_id", "kiwi", "plum", "fig")


def write(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def fruit(tmp_path):
    "Eight training and four test pictures of different patients."
    root = tmp_path / "fruit"
    for number in range(12):
        picture(root / f"{number}.png", number)
    labels = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]
    write(
        root / "train.csv",
        COLUMNS,
        [(f"{number}.png", f"p{number}", *labels[number % 4]) for number in range(8)],
    )
    write(
        root / "test.csv",
        COLUMNS,
        [(f"{number}.png", f"p{number}", *labels[number % 4]) for number in range(8, 12)],
    )
    return root


def table(root, **changes):
    "Write the training table again with columns changed or added."
    with open(root / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, values in changes.items():
        for row, value in zip(rows, values):
            row[name] = value
    write(root / "train.csv", list(rows[0]), [list(row.values()) for row in rows])
    return findings_of(f"label-table:{root}")


def test_a_sound_table_has_no_errors_and_no_warnings(fruit):
    assert {finding.severity for finding in findings_of(f"label-table:{fruit}").values()} <= {"note"}


@pytest.mark.parametrize("spelling", ["p8", "P8", " p8 "])
def test_shared_patients_reach_everybody_who_opens_the_source(fruit, spelling):
    shared = table(fruit, patient_id=[spelling, *(f"q{number}" for number in range(7))])["shared-patients"]
    assert shared.severity == "warning"
    assert "results will look too good" in shared.message


def test_a_spreadsheet_does_not_hide_a_shared_patient(fruit):
    write(fruit / "test.csv", COLUMNS, [("8.png", "0012", 1, 0, 0), ("9.png", "0013", 0, 1, 1)])
    assert "shared-patients" in table(fruit, patient_id=["12.0", *(f"1{number}" for number in range(4, 11))])


def test_a_text_named_png_is_an_error_and_its_row_is_left_out(fruit):
    (fruit / "3.png").write_text("a letter")
    assert findings_of(f"label-table:{fruit}")["not-an-image"].where == "3.png"
    assert len(open_source(f"label-table:{fruit}", formats=formats(), strict=False)["train"]) == 7


@pytest.mark.parametrize("content, kind", [(b"", "empty-file"), ("half", "corrupt")])
def test_damaged_pictures_of_a_table_are_errors(fruit, content, kind):
    path = fruit / "3.png"
    path.write_bytes(path.read_bytes()[:100] if content == "half" else content)
    assert findings_of(f"label-table:{fruit}")[kind].severity == "error"


def test_values_of_files_are_noted_in_tables_too(fruit):
    Image.fromarray(np.full((20, 20), 90, np.uint8)).save(fruit / "3.png")
    kinds = findings_of(f"label-table:{fruit}")
    assert kinds["blank"].severity == "warning"
    assert kinds["grey"].severity == "note"


def test_links_out_of_the_folder_are_not_followed(fruit, tmp_path):
    outside = picture(tmp_path / "elsewhere" / "x.png", 80)
    (fruit / "3.png").unlink()
    os.symlink(outside, fruit / "3.png")
    assert findings_of(f"label-table:{fruit}")["link-outside"].where == "3.png"
    (fruit / "3.png").unlink()
    os.symlink(outside.parent, fruit / "files")
    assert (
        table(fruit, path=["files/x.png", *(f"{number}.png" for number in range(1, 8))])["link-outside"].where
        == "files/x.png"
    )


@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["link", "hard link"])
def test_one_file_under_two_names_is_a_repeated_picture(fruit, make):
    (fruit / "3.png").unlink()
    make(fruit / "2.png", fruit / "3.png")
    repeated = findings_of(f"label-table:{fruit}")["repeated"]
    assert repeated.where == "3.png"
    assert "'2.png'" in repeated.message


def test_equal_pixels_in_two_tables_are_a_leak(fruit):
    Image.open(fruit / "8.png").save(fruit / "3.bmp")
    leak = table(
        fruit, path=["0.png", "1.png", "2.png", "3.bmp", *(f"{number}.png" for number in range(4, 8))]
    )["leak"]
    assert leak.where == "3.bmp"
    assert "'8.png'" in leak.message


def test_equal_pixels_in_one_table_are_a_warning_and_more_so_with_other_labels(fruit):
    Image.open(fruit / "0.png").save(fruit / "4.png")
    assert findings_of(f"label-table:{fruit}")["duplicate"].severity == "warning"
    Image.open(fruit / "0.png").save(fruit / "1.png")
    assert findings_of(f"label-table:{fruit}")["two-labels"].severity == "warning"


@pytest.mark.parametrize(
    "column", ["pregnant", "Pregnancy", "smoker", "is_male", "Patient Smoking", "dead", "frontal", "train"]
)
def test_a_property_of_the_patient_among_the_labels_is_a_warning_that_lists_them_all(fruit, column):
    write(fruit / "test.csv", (*COLUMNS, column), [("8.png", "p8", 1, 0, 0, 1), ("9.png", "p9", 0, 1, 1, 0)])
    doubtful = table(fruit, **{column: [0, 1, 0, 1, 1, 0, 0, 1]})["no-labels"]
    assert doubtful.where == column
    assert "kiwi, plum, fig" in doubtful.message


def test_a_column_that_never_differs_within_a_patient_is_doubtful(tmp_path):
    draw, rows = np.random.default_rng(0), []
    for number in range(24):
        picture(tmp_path / f"{number}.png", number)
        rows.append(
            (f"{number}.png", f"p{number // 2}", number % 2, int(draw.random() < 0.5), number // 2 % 2)
        )
    write(tmp_path / "train.csv", ("path", "patient", "kiwi", "plum", "gene"), rows)
    assert findings_of(f"label-table:{tmp_path}")["no-labels"].where == "gene"


@pytest.mark.parametrize(
    "changes, kind",
    [
        ({"kiwi": [0] * 8}, "empty-label"),
        ({"kiwi": [1] * 8}, "full-label"),
        ({"kiwi": [0, 1, 0, 1, 0, 1, 0, 1]}, "equal-labels"),
    ],
)
def test_labels_that_cannot_be_learned_are_warnings(fruit, changes, kind):
    assert table(fruit, **changes)[kind].severity == "warning"


# ---- what files say about their values


def test_a_colour_profile_twelve_bits_and_blank_pictures(tmp_path):
    grow(tmp_path, "cat", "dog")
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 4096, (20, 20)).astype(np.uint16)).save(tmp_path / "cat" / "deep.png")
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "cat" / "blank.png")
    kinds = findings_of(tmp_path)
    assert kinds["12-bit"].severity == "warning"
    assert kinds["blank"].where == "cat/blank.png"
    assert "blank-class" not in kinds


def test_nearly_blank_counts_as_blank_and_a_black_class_is_named(tmp_path):
    grow(tmp_path, "cat", "dog")
    for number in range(2):
        Image.fromarray((np.random.default_rng(number).integers(0, 3, (20, 20, 3))).astype(np.uint8)).save(
            tmp_path / "dog" / f"{number}.png"
        )
    kinds = findings_of(tmp_path)
    assert kinds["blank-class"].where == "dog"
    assert not errors(tmp_path)


def test_an_srgb_profile_is_not_worth_a_note(tmp_path):
    grow(tmp_path, "cat", "dog")
    picture(
        tmp_path / "cat" / "0.png",
        0,
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )
    assert "profile" not in findings_of(tmp_path)
    picture(tmp_path / "cat" / "0.png", 0, icc_profile=b"damaged")
    assert findings_of(tmp_path)["broken-profile"].severity == "warning"


# ---- near copies


def saved(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return Image.open(buffer).convert("RGB")


CHANGES = {
    "half size": lambda image: image.resize((12, 10)),
    "twice the size": lambda image: image.resize((48, 40)),
    "jpeg 50": lambda image: saved(image, format="JPEG", quality=50),
    "jpeg 95": lambda image: saved(image, format="JPEG", quality=95),
    "webp": lambda image: saved(image, format="WEBP"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brighter": lambda image: image.point(lambda value: value * 0.7 + 70),
    "grey": lambda image: image.convert("L"),
    "palette": lambda image: image.quantize(12),
    "mirrored, smaller, jpeg": lambda image: saved(
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((36, 30)), format="JPEG", quality=60
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_in_the_test_part_is_a_warning(tmp_path, name):
    grow(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog", each=6)
    changed = CHANGES[name](Image.open(tmp_path / "train" / "cat" / "3.png").convert("RGB"))
    changed.save(tmp_path / "test" / "cat" / "extra.png")
    copy = findings_of(tmp_path)["near-copy"]
    assert copy.severity == "warning"
    assert copy.message.startswith("1 pair")
    assert "'train/cat/3.png' and 'test/cat/extra.png'" in copy.message
    assert ("mirrored" in copy.message) == ("mirrored" in name)


def test_different_pictures_are_none(tmp_path):
    grow(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog", each=8)
    assert "near-copy" not in findings_of(tmp_path)


def test_a_copy_with_another_label_is_a_warning(tmp_path):
    grow(tmp_path, "cat", "dog", each=6)
    Image.open(tmp_path / "cat" / "3.png").resize((48, 40)).save(tmp_path / "dog" / "extra.png")
    assert "'cat/3.png' and 'dog/extra.png'" in findings_of(tmp_path)["near-copy-labels"].message


def test_copies_between_tables_are_found(fruit):
    Image.open(fruit / "8.png").resize((30, 25)).save(fruit / "3.png")
    assert "near-copy" in findings_of(f"label-table:{fruit}")
