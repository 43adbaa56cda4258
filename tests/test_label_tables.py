"""genaug.data on tables of labels: labels by name, pictures wherever they lie, and one sentence for every
fault."""

import csv

import numpy as np
import pytest
from PIL import Image

from genaug.classifier import train_classifier
from genaug.data import pictures
from genaug.data.label_columns import find_tables, read_table
from genaug.data.label_tables import check_label_tables, locate_pictures, open_label_tables
from genaug.data.mimic_cxr_lt import MIMIC_HEADS, MIMIC_RELEASES, MIMIC_TAILS, open_mimic_cxr_lt
from genaug.data.sources import formats, open_source, parse_source
from genaug.data.splits import Manifest
from genaug.messages import GenaugError
from genaug.training_presets import training_preset

NINETEEN = (
    "No Finding",
    "Lung Opacity",
    "Cardiomegaly",
    "Atelectasis",
    "Pleural Effusion",
    "Support Devices",
    "Edema",
    "Pneumonia",
    "Pneumothorax",
    "Lung Lesion",
    "Fracture",
    "Enlarged Cardiomediastinum",
    "Consolidation",
    "Pleural Other",
    "Calcification of the Aorta",
    "Tortuous Aorta",
    "Pneumoperitoneum",
    "Subcutaneous Emphysema",
    "Pneumomediastinum",
)
TWENTY_SIX = tuple(
    sorted(
        {*NINETEEN, "Emphysema", "Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural Thickening"}
    )
)


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (2, 2), dtype=np.uint8)).save(
        path, format="PNG"
    )


def write(path, columns, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        csv.writer(file, **options).writerows([columns, *rows])


COLUMNS = ("path", "patient_id", "kiwi", "plum", "fig")
TRAIN = (
    ("a.png", "01", 1, 0, 0),
    ("b.png", "01", 1, 1, 0),
    ("c.png", "02", 0, 0, 1),
    ("d.png", "03", 0, 0, 0),
)
TEST = (("e.png", "04", 1, 1, 0), ("f.png", "05", 0, 1, 1))


@pytest.fixture
def folder(tmp_path):
    "A sound collection: train.csv and test.csv beside six pictures."
    root = tmp_path / "fruit"
    for seed, name in enumerate("abcdef"):
        picture(root / f"{name}.png", seed)
    write(root / "train.csv", COLUMNS, TRAIN)
    write(root / "test.csv", COLUMNS, TEST)
    return root


def refusal(call, *arguments, **options):
    with pytest.raises(GenaugError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert ":" in message
    return message


def kinds(folder, **options):
    return {problem.kind: problem for problem in check_label_tables(folder, **options).findings}


# ---- what a sound collection gives


def test_a_sound_collection(folder, recwarn):
    sets = open_label_tables(folder)
    train = sets["train"]
    assert list(sets) == ["train", "test"]
    assert train.task == "multi"
    assert train.class_names == ("kiwi", "plum", "fig")
    assert train.ids == ("a.png", "b.png", "c.png", "d.png")
    assert train.groups == ["01", "01", "02", "03"]
    assert train.labels.dtype == np.float32
    assert train.labels.tolist() == [list(map(float, row[2:])) for row in TRAIN]
    assert not list(recwarn)
    assert (train.image("b.png") == np.array(Image.open(folder / "b.png"))[:, :, None]).all()


def test_notes_say_what_stays_and_what_is_not_used(folder):
    report = check_label_tables(folder)
    assert report.ok
    assert set(kinds(folder)) == {"negatives", "grey"}
    assert "1 of 4 pictures of 'train.csv' have none of the 3 labels" in report.lines()[0]
    assert report.counts().loc["plum"].to_dict() == {"train": 1, "test": 2}
    assert len(report.table()) == 2
    assert "kiwi, fig" in kinds(folder, labels=["plum"])["other-column"].message


def test_nothing_is_decoded_at_opening(folder, monkeypatch):
    (folder / "a.png").write_bytes(b"no picture")
    monkeypatch.setattr(pictures, "decode_image", lambda *_: pytest.fail("decoded"))
    train = open_label_tables(folder)["train"]
    with pytest.raises(GenaugError, match="a.png"):
        train.image("a.png")


def test_labels_named_by_the_user_come_in_that_order_and_negatives_stay(folder):
    train = open_label_tables(folder, labels=["fig", "kiwi"])["train"]
    assert train.class_names == ("fig", "kiwi")
    assert train.labels.tolist() == [[0, 1], [0, 1], [1, 0], [0, 0]]
    assert (
        "note: 3 of 4 pictures of 'train.csv' have none of the 1 labels and stay as negatives."
        in check_label_tables(folder, labels="fig").lines()
    )
    message = refusal(open_label_tables, folder, labels=["fig", "nut", "pear"])
    assert "'nut', 'pear'" in message
    assert "kiwi, plum, fig" in message
    for bad in ([], ["fig", "fig"]):
        assert "none of them twice" in refusal(open_label_tables, folder, labels=bad)


def test_columns_are_matched_by_name_not_by_place(folder):
    order = ("fig", "path", "plum", "patient_id", "kiwi")
    write(
        folder / "test.csv", order, [tuple(dict(zip(COLUMNS, row))[name] for name in order) for row in TEST]
    )
    assert open_label_tables(folder)["test"].labels.tolist() == [[1, 1, 0], [0, 1, 1]]


def test_ids_ages_and_texts_are_no_labels(folder):
    write(
        folder / "train.csv",
        ("", *COLUMNS, "study_id", "age", "weight", "remark", "Sex"),
        [(0, *row, 1, 1, 70.5, "good", 1) for row in TRAIN],
    )
    report = check_label_tables(folder)
    assert report.class_names == ("kiwi", "plum", "fig")
    assert "study_id, age, weight, remark, Sex" in kinds(folder)["other-column"].message


@pytest.mark.parametrize("column", ["path", "fpath", "file_name", "filename", "image", "Path", "IMAGE"])
def test_names_of_the_path_column(folder, column):
    write(folder / "train.csv", (column, *COLUMNS[1:]), TRAIN)
    assert open_label_tables(folder)["train"].ids[0] == "a.png"


@pytest.mark.parametrize(
    "name, split",
    [
        ("val.csv", "val"),
        ("validation.csv", "val"),
        ("development.csv", "val"),
        ("DEVELOPMENT.CSV", "val"),
        ("fruit_val.csv", "val"),
        ("my_fruit_dev.csv", "val"),
    ],
)
def test_names_of_tables(folder, name, split):
    picture(folder / "g.png", 9)
    write(folder / name, COLUMNS, [("g.png", "06", 1, 1, 1)])
    assert find_tables(folder)[split].name == name
    assert list(open_label_tables(folder)) == [
        "train",
        "val",
        "test",
    ]


def test_tables_in_one_folder_below(folder):
    (folder / "labels").mkdir()
    (folder / ".hidden").mkdir()
    for name in ("train.csv", "test.csv"):
        write(folder / ".hidden" / name, COLUMNS, TRAIN)
        (folder / name).rename(folder / "labels" / f"fruit_{name}")
    assert open_label_tables(folder)["train"].ids[0] == "a.png"
    write(folder / "other" / "train.csv", COLUMNS, TRAIN)
    assert "'labels' and in 'other'" in refusal(open_label_tables, folder)


def test_pictures_are_found_wherever_they_may_lie(tmp_path):
    for name in (
        "one.png",
        "files/two.png",
        "tables/three.png",
        "tables/files/four.png",
        "five.png",
        "tables/six.png",
    ):
        picture(tmp_path / name)
    rows = [
        ("one.png", 1),
        ("two.png", 1),
        ("three.png", 1),
        ("four.png", 1),
        ("files/five.png", 1),
        ("./files//six.png", 1),
        ("files/two.png", 0),
        ("files\\two.png", 0),
        ("no.png", 0),
    ]
    write(tmp_path / "tables" / "train.csv", ("path", "round"), rows)
    actual = locate_pictures(read_table(tmp_path / "tables" / "train.csv", tmp_path, "train"), tmp_path)
    assert actual == [
        "one.png",
        "files/two.png",
        "tables/three.png",
        "tables/files/four.png",
        "five.png",
        "tables/six.png",
        "files/two.png",
        "files/two.png",
        "",
    ]
    assert "repeated" in kinds(tmp_path)  # the same file under two spellings


@pytest.mark.parametrize("mark, encoding", [(";", "utf-8"), ("\t", "utf-8"), (",", "utf-8-sig")])
def test_separators_and_byte_order_mark(folder, mark, encoding):
    write(folder / "train.csv", [f" {name} " for name in COLUMNS], TRAIN, delimiter=mark, encoding=encoding)
    assert open_label_tables(folder)["train"].class_names == ("kiwi", "plum", "fig")


def test_patients_are_text_and_may_be_unknown(folder):
    write(
        folder / "train.csv",
        COLUMNS,
        [(row[0], "" if row[0] == "d.png" else row[1], *row[2:]) for row in TRAIN],
    )
    write(folder / "test.csv", ("path", *COLUMNS[2:]), [(row[0], *row[2:]) for row in TEST])
    sets = open_label_tables(folder)
    assert sets["train"].groups == ["01", "01", "02", ""]
    assert sets["test"].groups is None
    write(folder / "test.csv", COLUMNS, [(row[0], "", *row[2:]) for row in TEST])
    assert "shared-patients" not in kinds(folder)


def test_other_spellings_of_zero_and_one(folder):
    write(
        folder / "train.csv",
        COLUMNS,
        [(*row[:2], *(f"{value}.0" for value in row[2:4]), bool(row[4])) for row in TRAIN],
    )
    assert open_label_tables(folder)["train"].labels.tolist() == [list(map(float, row[2:])) for row in TRAIN]


# ---- every fault


def test_missing_pictures(folder):
    (folder / "b.png").unlink()
    assert "1 of 4 pictures of 'train.csv' are not there (first 'b.png')" in refusal(
        open_label_tables, folder
    )
    assert open_label_tables(folder, strict=False)["train"].ids == ("a.png", "c.png", "d.png")
    for name in "acd":
        (folder / f"{name}.png").unlink()
    assert "no training picture that can be used" in refusal(open_label_tables, folder, strict=False)


def test_a_blank_path(folder):
    write(folder / "train.csv", COLUMNS, [TRAIN[0], (" ", *TRAIN[1][1:]), *TRAIN[2:]])
    assert "row 2, whose path is blank" in refusal(open_label_tables, folder)


@pytest.mark.parametrize(
    "value, said", [("", "is blank"), (-1, "is '-1"), ("yes", "is 'yes'"), (0.5, "is '0.5'")]
)
def test_values_that_are_not_0_or_1(folder, value, said):
    write(folder / "train.csv", COLUMNS, [TRAIN[0], (*TRAIN[1][:3], value, 0), *TRAIN[2:]])
    message = refusal(open_label_tables, folder)
    assert "'plum' of 'b.png' in 'train.csv'" in message
    assert said in message
    assert "1 rows" in message
    assert open_label_tables(folder, strict=False)["train"].ids == ("a.png", "c.png", "d.png")
    assert (
        len(open_label_tables(folder, labels=["kiwi", "fig"])["train"]) == 4
    )  # a fault in a label that is not taken


def test_repeated_pictures(folder):
    write(folder / "train.csv", COLUMNS, [*TRAIN, ("./a.png", "01", 0, 1, 0)])
    assert "two rows for 'a.png'" in refusal(open_label_tables, folder)
    train = open_label_tables(folder, strict=False)["train"]
    assert len(train) == 4
    assert train.labels[0].tolist() == [1, 0, 0]


def test_a_picture_in_two_splits_stays_in_the_later_one(folder):
    write(folder / "test.csv", COLUMNS, [*TEST, ("c.png", "09", 0, 0, 1)])
    assert "'c.png' is in 'train.csv' and in 'test.csv' (1 pictures" in refusal(open_label_tables, folder)
    sets = open_label_tables(folder, strict=False)
    assert "c.png" not in sets["train"].ids
    assert "c.png" in sets["test"].ids


def test_shared_patients_are_a_warning_with_their_number(folder):
    write(folder / "test.csv", COLUMNS, [("e.png", "01", 1, 1, 0), ("f.png", "03", 0, 1, 1)])
    assert kinds(folder)["shared-patients"].severity == "warning"
    assert (
        "2 patient(s), first '01', have pictures in 'train.csv' and in 'test.csv'"
        in kinds(folder)["shared-patients"].message
    )
    assert len(open_label_tables(folder)["train"]) == 4


def test_no_test_table_is_a_note_where_patients_are_known(folder):
    (folder / "test.csv").unlink()
    assert kinds(folder)["no-test"].severity == "note"
    assert "all pictures of a patient together" in kinds(folder)["no-test"].message
    assert list(open_label_tables(folder)) == ["train"]


def test_a_label_without_pictures_is_a_warning(folder):
    write(folder / "test.csv", COLUMNS, [TEST[0]])
    assert (
        "No picture of 'test.csv' has the label fig: it cannot be measured"
        in kinds(folder)["empty-label"].message
    )


def test_other_labels_in_another_table(folder):
    write(folder / "test.csv", (*COLUMNS[:4], "figs"), TEST)
    assert "(it lacks fig and adds figs)" in refusal(open_label_tables, folder)
    assert "kiwi" in open_label_tables(folder, labels=["kiwi", "plum"])["test"].class_names
    write(folder / "test.csv", (*COLUMNS, "nut"), [(*row, 1) for row in TEST])
    assert "(it adds nut)" in refusal(open_label_tables, folder)


def test_tables_that_cannot_be_used(folder):
    def after(text):
        (folder / "train.csv").write_bytes(text)
        return refusal(open_label_tables, folder)

    assert "no column with the paths" in after(b"picture,kiwi\na.png,1\n")
    assert "no column with the paths" in after(b"")
    assert "no column of labels" in after(b"path,weight\na.png,70\nb.png,80\n")
    assert "has no rows" in after(b"path,kiwi,plum,fig\n")
    assert "column 'kiwi' twice" in after(b"path,kiwi,kiwi\na.png,1,0\n")
    assert "cannot be read as a table" in after(b"path,kiwi\n\xff\xfe.png,1\n")
    assert "cannot be read as a table" in after(b"path,kiwi\na.png,1\nb.png,1,2\n")
    assert "cannot be read as a table" in after(b"path,kiwi\na.png,1,0\nb.png,1,0\n")
    for path in ("/etc/a.png", "../a.png", "x/../../a.png", "C:\\a.png"):
        assert "leads out of the folder" in after(f"path,kiwi,plum,fig\n{path},1,0,0\n".encode())


def test_folders_that_hold_no_tables(folder, tmp_path):
    write(folder / "fruit_train.csv", COLUMNS, TRAIN)
    assert "'fruit_train.csv' and 'train.csv' are both tables of the train split" in refusal(
        open_label_tables, folder
    )
    (folder / "fruit_train.csv").unlink(), (folder / "train.csv").unlink()
    assert "no table of training pictures" in refusal(open_label_tables, folder)
    assert "does not exist" in refusal(open_label_tables, tmp_path / "no")
    assert "the tables of labels and the pictures" in refusal(open_label_tables, folder / "test.csv")


def test_all_faults_are_listed_and_the_first_names_their_number(folder):
    (folder / "a.png").unlink()
    write(folder / "test.csv", COLUMNS, [*TEST, TEST[0]])
    assert set(kinds(folder)) == {
        "missing-picture",
        "repeated",
        "negatives",
        "grey",
    }
    assert "(1 more: `check_label_tables` lists them all.)" in refusal(open_label_tables, folder)


# ---- MIMIC-CXR-LT


def mimic(root, release, names, begin="files/", below="files/"):
    """A miniature of a release: six pictures of three patients, a table per split; the first label of picture
    n is number n."""
    number = 0
    for patient, file in zip(("10000032", "11000050", "12000077"), MIMIC_RELEASES[release].values()):
        rows = []
        for study in ("50000001", "50000002"):
            path = f"p{patient[:2]}/p{patient}/s{study}/{number:08x}.jpg"
            picture(root / below / path, number)
            ids = (f"{number:08x}", patient, study) if release == "cxr-lt-2023" else (patient, study)
            more = ("PA", "postero-anterior") if release == "cxr-lt-2023" else ()
            rows.append((*ids, *more, begin + path, *((n % 6 in (number, 5)) * 1 for n in range(len(names)))))
            number += 1
        header = (
            ("dicom_id", "subject_id", "study_id", "ViewPosition", "ViewCodeSequence_CodeMeaning", "fpath")
            if release == "cxr-lt-2023"
            else ("subject_id", "study_id", "path")
        )
        write(root / release / file, (*header, *names), rows)
    return root


@pytest.mark.parametrize(
    "release, names", [("miccai-2023_mimic-cxr-lt", NINETEEN), ("cxr-lt-2023", TWENTY_SIX)]
)
@pytest.mark.parametrize("begin, below", [("files/", "files/"), ("", "files/"), ("files/", "")])
def test_both_releases_of_mimic(tmp_path, release, names, begin, below):
    sets = open_mimic_cxr_lt(mimic(tmp_path, release, names, begin, below))
    assert list(sets) == ["train", "val", "test"]
    assert sets["train"].class_names == (
        *MIMIC_HEADS,
        *MIMIC_TAILS,
    )
    assert sets["train"].ids[0] == f"{below}p10/p10000032/s50000001/00000000.jpg"
    assert sets["val"].groups == ["11000050"] * 2
    expected = [
        [float(names.index(name) % 6 in (number, 5)) for name in (*MIMIC_HEADS, *MIMIC_TAILS)]
        for number in (4, 5)
    ]
    assert sets["test"].labels.tolist() == expected
    assert np.ptp(expected) == 1


def test_tables_of_mimic_directly_in_the_folder(tmp_path):
    root = mimic(tmp_path, "miccai-2023_mimic-cxr-lt", NINETEEN)
    for file in MIMIC_RELEASES["miccai-2023_mimic-cxr-lt"].values():
        (root / "miccai-2023_mimic-cxr-lt" / file).rename(root / file)
    assert len(open_mimic_cxr_lt(root)["train"]) == 2


def test_of_two_releases_the_paper_s_is_read_unless_another_is_named(tmp_path):
    mimic(mimic(tmp_path, "cxr-lt-2023", TWENTY_SIX), "miccai-2023_mimic-cxr-lt", NINETEEN)
    first, second = (
        open_mimic_cxr_lt(tmp_path, release=release)["train"] for release in (None, "cxr-lt-2023")
    )
    assert first.ids == second.ids
    assert (
        first.labels.tolist()
        == open_mimic_cxr_lt(tmp_path, release="miccai-2023_mimic-cxr-lt")["train"].labels.tolist()
        != second.labels.tolist()
    )
    assert "no release 'cxr'" in refusal(open_mimic_cxr_lt, tmp_path, release="cxr")
    assert "'cxr-lt-2023' and in 'miccai-2023_mimic-cxr-lt'" in refusal(open_label_tables, tmp_path)


def test_a_release_that_lacks_labels_names_them(tmp_path):
    root = mimic(
        tmp_path, "cxr-lt-2023", [name for name in TWENTY_SIX if name not in ("Fracture", "Tortuous Aorta")]
    )
    message = refusal(open_mimic_cxr_lt, root)
    assert "no column for 'Fracture', 'Tortuous Aorta'" in message
    assert open_mimic_cxr_lt(root, tails=("Hernia",))["train"].class_names == (*MIMIC_HEADS, "Hernia")
    assert "holds no labels of MIMIC-CXR-LT" in refusal(
        open_mimic_cxr_lt, root, release="miccai-2023_mimic-cxr-lt"
    )


# ---- as a source, and what comes after opening


def test_formats_open_as_sources(folder, tmp_path):
    assert parse_source(f"label-table:{folder}", formats=tuple(formats())).name == "label-table"
    sets = open_source(f"label-table:{folder}", formats=formats(), strict=True, progress=False, min_size=1)
    assert sets["train"].class_names == ("kiwi", "plum", "fig")
    root = mimic(tmp_path / "chest", "miccai-2023_mimic-cxr-lt", NINETEEN)
    assert len(open_source(f"mimic-cxr-lt:{root}", formats=formats())["train"].class_names) == 10
    (folder / "a.png").unlink()
    assert len(open_source(f"label-table:{folder}", formats=formats(), strict=False)["train"]) == 3
    assert "Give the folder behind 'label-table:'" in refusal(open_source, "label-table:", formats=formats())
    with pytest.raises(TypeError):
        formats()["mine"] = open_label_tables


def test_progress_is_shown_only_when_asked_for(folder, capsys):
    open_label_tables(folder)
    assert capsys.readouterr().err == ""
    open_label_tables(folder, progress=True)
    assert "looking for the pictures of train.csv" in capsys.readouterr().err


def test_a_manifest_and_a_classifier(folder):
    sets = open_label_tables(folder)
    manifest = Manifest.build(sets, seed=0)
    assert manifest.train == sets["train"].ids
    assert manifest.test == sets["test"].ids
    assert manifest.rule == "all"
    train = manifest.sets(sets)["train"]
    assert train.task == "multi"
    assert train.groups == ["01", "01", "02", "03"]
    trained = train_classifier(
        train, preset=training_preset("tiny_multi", epochs=None, updates=2, batch_size=2)
    )
    answers = trained.predict(manifest.sets(sets)["test"])
    assert answers.shape == (2, 3)
    assert np.isfinite(answers).all()


def test_equal_pictures_in_two_splits_are_found_by_the_manifest(folder):
    (folder / "e.png").write_bytes((folder / "a.png").read_bytes())
    assert "is also in test" in refusal(Manifest.build, open_label_tables(folder), seed=0)
