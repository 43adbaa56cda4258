"""Every published layout, in miniature, opens with the counts it was built with; every trap is a finding."""

import csv
import pickle
import socket
from collections import Counter
from pathlib import Path

import miniatures
import numpy as np
import pytest
from miniatures import LAYOUTS, annotations, save, write
from scipy.io import loadmat, savemat
from typer.testing import CliRunner

from genaug.data.distributions import check_distribution
from genaug.data.folders import check_folder, open_folder
from genaug.data.sources import examine_source
from genaug.data.splits import Manifest, carve_validation
from genaug.messages import GenaugError
from genaug.readers import DISTRIBUTIONS, formats, open_sets

NORMAL = {
    "published-counts",
    "single-image",
    "grey",
    "palette",
    "banner",
    "groups",
    "near-copy",
    "near-copy-labels",
}


def examined(name, folder, **options):
    return examine_source(f"{name}:{folder}", formats=formats(), **options)


def kinds(name, folder):
    "Kind -> its first finding."
    return {finding.kind: finding for finding in reversed(examined(name, folder).findings)}


def counts(sets):
    "(part, class or group) -> pictures."
    actual = Counter(
        (part, images.class_names[target]) for part, images in sets.items() for target in images.targets
    )
    return actual + Counter(
        (part, group) for part, images in sets.items() for group in images.groups or () if group
    )


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    "Layout -> what was built; not to be changed."
    return {name: build(tmp_path_factory.mktemp(name)) for name, build in LAYOUTS.items()}


# ---- every layout


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("above", [0, 1], ids=["home", "folder above"])
def test_a_layout_opens_with_the_counts_it_was_built_with(name, above, intact):
    if name == "lesions" and above:
        pytest.skip("a folder of your own is given as it is")
    built = intact[name]
    path = built.home.parents[above - 1] if above else built.home
    report = examined(name, path)
    assert report.ok
    assert not {finding.kind for finding in report.findings if finding.severity == "warning"} - NORMAL
    assert built.counts.items() <= counts(report.sets).items()
    wanted = Counter()
    for (part, word), count in built.counts.items():
        wanted[part] += count if word in built.classes else 0
    assert {part: len(images) for part, images in report.sets.items()} == wanted
    assert all(images.class_names == built.classes for images in report.sets.values())
    for images in open_sets(f"{name}:{path}").values():
        assert images.batch(channels=3).shape == (len(images), 3, 10, 12)
    manifest = Manifest.build(report.sets, seed=0, shots=1)
    assert len(manifest.train) == len(built.classes)
    assert manifest.test


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name in DISTRIBUTIONS])
def test_counts_that_differ_from_the_published_ones_are_a_warning(name, intact):
    finding = kinds(name, intact[name].home)["published-counts"]
    part, count = next(iter(DISTRIBUTIONS[name].published.items()))
    assert finding.severity == "warning"
    assert DISTRIBUTIONS[name].title in finding.message
    assert f"({count:,})" in finding.message
    assert f"{part} " in finding.message


def test_counts_that_agree_are_not_mentioned(intact, monkeypatch):
    from dataclasses import replace

    same = replace(DISTRIBUTIONS["cub"], num_classes=3, published={"train": 9, "test/Laysan Albatross": 2})
    assert "published-counts" not in {
        finding.kind for finding in check_distribution(same, intact["cub"].home).findings
    }


def test_nothing_is_unpickled_and_nothing_fetched(intact, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("not allowed")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name, built in intact.items():
        assert examined(name, built.home).ok


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_terminal_checks_a_layout(name, intact):
    from genaug.cli import app

    result = CliRunner().invoke(app, ["check", f"{name}:{intact[name].home}"])
    assert result.exit_code == 0, result.output
    total = sum(count for (_, word), count in intact[name].counts.items() if word in intact[name].classes)
    assert f"{total} usable pictures in {len(intact[name].classes)} classes, 0 errors" in result.output


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "lesions"])
def test_a_folder_that_is_something_else_is_refused(name, tmp_path, intact):
    with pytest.raises(GenaugError, match="does not look like"):
        open_sets(f"{name}:{tmp_path}")
    with pytest.raises(GenaugError, match="unpack"):
        open_sets(f"{name}:{tmp_path / 'nowhere'}")


# ---- the same pictures, labels and names as torchvision's readers


def same_as(sets, parts, paths, labels, classes):
    "Are the rows of these parts those of torchvision, in its order?"
    ours = [
        (Path(images.pixels[row]).name, images.class_names[images.targets[row]])
        for images in (sets[part] for part in parts)
        for row in range(len(images))
    ]
    assert sorted(ours) == sorted((Path(path).name, classes[label]) for path, label in zip(paths, labels))
    assert sets[parts[0]].class_names == tuple(classes)


def test_aircraft_are_those_of_torchvision(intact):
    from torchvision.datasets import FGVCAircraft

    built = intact["fgvc-aircraft"]
    sets = open_sets(f"fgvc-aircraft:{built.home}")
    for split, parts in (
        ("train", ["train"]),
        ("val", ["val"]),
        ("trainval", ["train", "val"]),
        ("test", ["test"]),
    ):
        theirs = FGVCAircraft(built.home.parents[1], split, download=False)
        same_as(sets, parts, theirs._image_files, theirs._labels, theirs.classes)


def test_cars_are_those_of_torchvision(intact):
    from torchvision.datasets import StanfordCars

    built = intact["stanford-cars"]
    sets = open_sets(f"stanford-cars:{built.home}")
    for split in ("train", "test"):
        theirs = StanfordCars(built.home.parent, split, download=False)
        same_as(sets, [split], *zip(*theirs._samples), theirs.classes)


def test_pets_are_those_of_torchvision_but_for_capitals(intact):
    from torchvision.datasets import OxfordIIITPet

    built = intact["oxford-pet"]
    sets = open_sets(f"oxford-pet:{built.home}")
    for split, part in (("trainval", "train"), ("test", "test")):
        theirs = OxfordIIITPet(built.home.parent, split, download=False)
        assert [name.title() for name in built.classes] == theirs.classes
        same_as(sets, [part], theirs._images, theirs._labels, built.classes)


def test_flowers_are_those_of_torchvision(intact, monkeypatch):
    from torchvision.datasets import Flowers102

    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)
    built = intact["flowers-102"]
    sets = open_sets(f"flowers-102:{built.home}")
    for split in ("train", "val", "test"):
        theirs = Flowers102(built.home.parent, split, download=False)
        numbers = sorted(set(theirs._labels))
        same_as(
            sets,
            [split],
            theirs._image_files,
            [numbers.index(label) for label in theirs._labels],
            [Flowers102.classes[number] for number in numbers],
        )


# ---- traps: name of the layout, what is done to the copy, kind, severity, part of the sentence


def missing(home):
    (home / "images" / miniatures.BIRDS[0] / "Black_footed_Albatross_0000_1000.jpg").unlink()


def named_twice(home):
    with open(home / "images.txt", "a") as file:
        file.write("99 001.Black_footed_Albatross/Black_footed_Albatross_0000_1000.jpg\n")
    for name, line in (("image_class_labels.txt", "99 1"), ("train_test_split.txt", "99 1")):
        with open(home / name, "a") as file:
            file.write(line + "\n")


def in_two_parts(home):
    named_twice(home)
    edit(home / "train_test_split.txt", "99 1", "99 0")


def with_two_labels(home):
    named_twice(home)
    edit(home / "image_class_labels.txt", "99 1", "99 3")


def no_label(home):
    edit(home / "image_class_labels.txt", "1 1\n", "")


def outside(home):
    save(home.parent / "elsewhere.jpg", 77)
    edit(
        home / "images.txt",
        "001.Black_footed_Albatross/Black_footed_Albatross_0000_1000.jpg",
        "../../elsewhere.jpg",
    )


def broken(home):
    path = home / "images" / miniatures.BIRDS[0] / "Black_footed_Albatross_0000_1000.jpg"
    path.write_bytes(b"\xff\xd8 no picture")


def copied(home):
    folder = home / "images" / miniatures.BIRDS[0]
    same = (folder / "Black_footed_Albatross_0000_1000.jpg").read_bytes()
    (folder / "Black_footed_Albatross_0004_1004.jpg").write_bytes(same)


def extra(home):
    save(home / "images" / "004.Groove_billed_Ani" / "new.jpg", 78)


def empty_class(home):
    with open(home / "classes.txt", "a") as file:
        file.write("4 004.Groove_billed_Ani\n")


def breed_numbers(home):
    edit(home / "annotations" / "trainval.txt", "american_bulldog_100 2 2 1", "american_bulldog_100 1 2 1")


def every_breed_number(home):
    for name in ("trainval.txt", "test.txt"):
        path = home / "annotations" / name
        lines = [line.split() for line in path.read_text().splitlines()]
        write(path, *(f"{image} {breed} {species} {breed}" for image, _, species, breed in lines))


def unlisted_flower(home):
    save(home / "jpg" / "image_00099.jpg", 88)


def from_zero(home):
    path = home / "devkit" / "cars_train_annos.mat"
    rows = [
        (1, 1, 5, 5, int(row["class"]) - 1, str(row["fname"]))
        for row in loadmat(path, squeeze_me=True)["annotations"]
    ]
    savemat(path, annotations(rows, "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"))


def unlabelled_test(home):
    (home / "cars_test_annos_withlabels.mat").unlink()


def no_slide(home):
    path = next((home / "01_TUMOR").glob("*HE-01*"))
    path.rename(path.with_name("10A_unknown.tif"))


TRAPS = [
    ("cub", missing, "missing-picture", "error", "1 listed picture(s) of train"),
    ("cub", named_twice, "listed-twice", "warning", "is listed 2 times in train"),
    ("cub", in_two_parts, "leak", "error", "is listed in train and in test"),
    ("cub", with_two_labels, "two-labels", "error", "'Black footed Albatross' and as 'Sooty Albatross'"),
    ("cub", no_label, "list", "error", "have no class or no part"),
    ("cub", outside, "link-outside", "error", "are not followed"),
    ("cub", broken, "not-an-image", "error", "is not a picture"),
    ("cub", copied, "leak", "warning", "lie in two parts and are left out of the earlier one"),
    ("cub", extra, "unlisted", "warning", "first 'images/004.Groove_billed_Ani/new.jpg', are in no list"),
    ("cub", empty_class, "empty-class", "error", "'Groove billed Ani'"),
    (
        "cub",
        lambda home: (home / "train_test_split.txt").unlink(),
        "source",
        "error",
        "train_test_split.txt' is missing",
    ),
    (
        "cub",
        lambda home: edit(home / "images.txt", "2 ", ""),
        "source",
        "error",
        "has 1 columns instead of 2",
    ),
    (
        "cub",
        lambda home: edit(home / "image_class_labels.txt", "1 1\n", "1 0\n"),
        "source",
        "error",
        "classes count from 1 to 3",
    ),
    (
        "cub",
        lambda home: (home / "images.txt").write_bytes(b"\xff\xfe\x00\x01"),
        "source",
        "error",
        "cannot be read as text",
    ),
    (
        "fgvc-aircraft",
        lambda home: edit(home / "variants.txt", "F-16A/B", "F-16A B"),
        "source",
        "error",
        "has the variant 'F-16A/B'",
    ),
    (
        "fgvc-aircraft",
        lambda home: (home / "images" / "0034309.jpg").unlink(),
        "missing-picture",
        "error",
        "of train",
    ),
    (
        "fgvc-aircraft",
        lambda home: (home / "images_variant_test.txt").unlink(),
        "source",
        "error",
        "is missing",
    ),
    ("stanford-cars", from_zero, "source", "error", "has the class '0', and classes count from 1 to 2"),
    ("stanford-cars", unlabelled_test, "no-test-labels", "warning", "have no labels"),
    (
        "stanford-cars",
        lambda home: (home / "devkit" / "cars_meta.mat").write_bytes(b"MATLAB" * 40),
        "source",
        "error",
        "cannot be read as a MATLAB",
    ),
    ("oxford-pet", breed_numbers, "source", "error", "elsewhere"),
    ("oxford-pet", every_breed_number, "source", "error", "not the number within a species"),
    (
        "oxford-pet",
        lambda home: edit(home / "annotations" / "test.txt", "pug_102 5 2 2", "pug_102 5"),
        "source",
        "error",
        "has 2 columns instead of 4",
    ),
    ("flowers-102", unlisted_flower, "unlisted", "warning", "image_00099.jpg"),
    (
        "flowers-102",
        lambda home: (home / "imagelabels.mat").unlink(),
        "source",
        "error",
        "imagelabels.mat' is missing",
    ),
    (
        "waterbirds",
        lambda home: edit(home / "metadata.csv", ",0,0,0,", ",0,3,0,"),
        "source",
        "error",
        "'3' in the column 'split'",
    ),
    (
        "waterbirds",
        lambda home: edit(home / "metadata.csv", "place,place_filename", "where,place_filename"),
        "source",
        "error",
        "nothing in the column 'place'",
    ),
    ("kather-2016", no_slide, "no-group", "warning", "name no slide"),
    ("lesions", lambda home: (home / "patients.csv").unlink(), "no-patients", "error", "add patients.csv"),
    (
        "lesions",
        lambda home: edit(home / "patients.csv", "cyst/P00_1.png,P00", "cyst/P00_0.png,P01"),
        "two-groups",
        "error",
        "into the groups",
    ),
]


@pytest.mark.parametrize("name, spoil, kind, severity, text", TRAPS)
def test_a_trap_is_named(name, spoil, kind, severity, text, tmp_path):
    built = LAYOUTS[name](tmp_path)
    spoil(built.home)
    finding = kinds(name, built.home)[kind]
    assert finding.severity == severity
    assert text in finding.message
    if severity == "error":
        with pytest.raises(GenaugError):
            open_sets(f"{name}:{built.home}")
    else:
        open_sets(f"{name}:{built.home}")


def test_what_is_left_without_strictness(tmp_path):
    built = miniatures.cub(tmp_path)
    missing(built.home)
    in_two = miniatures.cub(tmp_path / "two")
    in_two_parts(in_two.home)
    assert len(open_sets(f"cub:{built.home}", strict=False)["train"]) == 8
    sets = open_sets(f"cub:{in_two.home}", strict=False)
    assert len(sets["train"]) == 8
    assert len(sets["test"]) == 7


def test_two_copies_of_a_set_are_not_guessed_between(tmp_path):
    miniatures.cub(tmp_path / "one")
    miniatures.cub(tmp_path / "two")
    with pytest.raises(GenaugError, match="both look like CUB-200-2011"):
        open_sets(f"cub:{tmp_path}")


# ---- single layouts


def test_cars_in_one_packing(tmp_path):
    built = miniatures.cars_in_one(tmp_path)
    sets = open_sets(f"stanford-cars:{built.home}")
    assert counts(sets) == built.counts
    assert sets["train"].class_names == built.classes


def test_a_slash_in_a_class_name_becomes_no_folder(intact, tmp_path):
    train = open_sets(f"fgvc-aircraft:{intact['fgvc-aircraft'].home}")["train"]
    train.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "Boeing 717",
        "Cessna 172",
        "F%2FA-18",
        "F-16A%2FB",
    ]
    assert type(train).open(tmp_path / "out").class_names == train.class_names


def test_a_swapped_setid_is_read_as_it_says_and_named(tmp_path):
    built = miniatures.flowers(tmp_path, swapped=True)
    report = examined("flowers-102", built.home)
    assert counts(report.sets) == built.counts
    assert len(report.sets["train"]) == 9
    assert "swapped-parts" in {finding.kind for finding in report.findings}


def test_flower_halves_are_those_of_the_published_rule(intact):
    home = intact["flowers-102"].home
    sets = open_sets(f"flowers-102-halves:{home}")
    labels = loadmat(home / "imagelabels.mat")["labels"][0]
    rng, train = np.random.default_rng(0), set()
    for number in sorted(set(labels)):
        files = [f"jpg/image_{index + 1:05d}.jpg" for index in np.flatnonzero(labels == number)]
        order = rng.permutation(len(files))
        train |= {files[index] for index in np.array_split(order, [int(0.5 * len(order))])[0]}
    assert set(sets["train"].ids) == train
    assert len(sets["test"]) == len(labels) - len(train)


def test_waterbirds_examine_cub(tmp_path):
    cub, _birds = miniatures.cub(tmp_path), miniatures.waterbirds(tmp_path)
    sets = open_sets(f"cub-waterbirds:{tmp_path}")
    assert set(sets) == {"train", "test", "shifted"}
    assert {key: count for key, count in counts(sets).items() if key[0] != "shifted"} == cub.counts
    assert len(sets["shifted"]) == 6
    assert sets["shifted"].class_names == cub.classes
    assert set(sets["shifted"].groups) == {
        "waterbird on land",
        "waterbird on water",
        "landbird on land",
        "landbird on water",
    }


def test_long_tail_lists_take_the_official_classes_and_test_part(tmp_path):
    built = miniatures.cub(tmp_path, train=4)
    folder = "/somebody/CUB_200_2011/images"
    rows = [line.split()[1] for line in (built.home / "images.txt").read_text().splitlines()]
    tail = rows[:4] + rows[6:8] + rows[12:13]
    write(built.home / "imb_cub_0.01_train.txt", *(f"{folder}/{name} {int(name[:3]) - 1}" for name in tail))
    sets = open_sets(f"cub-lt:{built.home}")
    assert sets["train"].counts() == dict(zip(built.classes, (4, 2, 1)))
    assert len(sets["test"]) == 6
    assert open_sets(f"image-list:{built.home}")["train"].counts() == sets["train"].counts()
    write(
        built.home / "imb_cub_0.01_train.txt",
        *(f"{name} {label}" for name, label in zip(tail, (0, 0, 0, 0, 1, 1, 7))),
    )
    assert "another label" in kinds("cub-lt", built.home)["list"].message


def test_flower_long_tail_lists(tmp_path):
    built = miniatures.flowers(tmp_path)
    halves = open_sets(f"flowers-102-halves:{built.home}")
    names = halves["train"].ids[:3]
    write(built.home / "train.txt", *names)
    sets = open_sets(f"flower-lt:{built.home}", strict=False)
    assert set(sets["train"].ids) == set(names)
    assert sets["test"].ids == tuple(
        name
        for name, target in zip(halves["test"].ids, halves["test"].targets)
        if halves["test"].class_names[target] in sets["train"].class_names
    )


@pytest.mark.parametrize(
    "lines, classes",
    [
        (["one two/a b.jpg,0", "three/c.jpg,1"], ("one two", "three")),
        (["one two/a b.jpg\tfinch", "three/c.jpg\twren"], ("finch", "wren")),
        (["one two/a b.jpg", "three/c.jpg"], ("one two", "three")),
    ],
)
def test_lists_of_several_forms(lines, classes, tmp_path):
    for seed, name in enumerate(("one two/a b.jpg", "three/c.jpg")):
        save(tmp_path / name, seed)
    write(tmp_path / "train.txt", *lines)
    assert set(open_sets(f"image-list:{tmp_path}")["train"].class_names) == set(classes)


def test_a_list_never_leads_out_of_the_folder(tmp_path):
    save(tmp_path / "secret" / "a.jpg", 1)
    save(tmp_path / "data" / "cat" / "b.jpg", 2)
    (tmp_path / "data" / "cat" / "link.jpg").symlink_to(tmp_path / "secret" / "a.jpg")
    write(
        tmp_path / "data" / "train.txt",
        "cat/b.jpg 0",
        "../secret/a.jpg 1",
        f"{tmp_path}/secret/a.jpg 1",
        "cat/link.jpg 0",
    )
    actual = kinds("image-list", tmp_path / "data")
    assert "2 listed picture(s)" in actual["link-outside"].message
    assert "missing-picture" in actual


# ---- groups


def test_patients_by_picture_and_by_row(tmp_path):
    left, right = miniatures.lesions(tmp_path / "one"), miniatures.lesions(tmp_path / "two", by_picture=False)
    groups = [
        dict(zip(images.ids, images.groups))
        for images in (open_sets(f"lesions:{built.home}")["all"] for built in (left, right))
    ]
    assert groups[0] == groups[1]
    assert set(groups[0].values()) == {f"P{number:02d}" for number in range(11)}


@pytest.mark.parametrize("name", ["kather-2016", "lesions"])
@pytest.mark.parametrize("fraction", [0.2, 0.34, 0.5])
def test_a_group_never_lies_on_both_sides_and_classes_stay_balanced(name, fraction, intact):
    sets, choices = open_sets(f"{name}:{intact[name].home}"), set()
    pool = dict(zip(sets["all"].ids, sets["all"].groups))
    for seed in range(6):
        manifest = Manifest.build(sets, seed, validation=0.25, test_fraction=fraction)
        parts = [{pool[image] for image in part} for part in (manifest.train, manifest.val, manifest.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        choices.add(frozenset(parts[2]))
        for label, total in sets["all"].counts().items():
            held = sum(
                label == sets["all"].class_names[sets["all"].targets[sets["all"].index([image])[0]]]
                for image in manifest.test
            )
            assert abs(held - fraction * total) <= max(2, 0.2 * total)
    assert len(choices) > 1


def test_the_best_balance_is_found_where_there_is_an_exact_one(tmp_path):
    for group, (cats, dogs) in {"a": (5, 1), "b": (1, 5), "c": (3, 3), "d": (9, 1), "e": (1, 9)}.items():
        for kind, count in (("cat", cats), ("dog", dogs)):
            for number in range(count):
                save(
                    tmp_path / kind / f"{group}{number}.png",
                    1000 * (kind == "cat") + 100 * ord(group) + number,
                )
    write(
        tmp_path / "groups.csv",
        "file,group",
        *(f"{path.relative_to(tmp_path)},{path.name[0]}" for path in sorted(tmp_path.rglob("*.png"))),
    )
    images = open_folder(tmp_path)["all"]
    for seed in range(5):
        _, held = carve_validation(images, 6 / 19, seed, by_group=True)
        assert held.counts() == {"cat": 6, "dog": 6}
        assert set(held.groups) == {"a", "b"}


def test_a_class_of_one_group_stays_in_training_and_one_group_is_refused(tmp_path):
    built = miniatures.lesions(tmp_path, patients=4)
    table = built.home / "patients.csv"
    rows = list(csv.reader(table.read_text().splitlines()))
    write(
        table,
        "file,patient",
        *(f"{name},{'X' if name.startswith('cyst') else patient}" for name, patient in rows[1:]),
    )
    sets = open_sets(f"lesions:{built.home}")
    for seed in range(4):
        manifest = Manifest.build(sets, seed, test_fraction=0.5)
        assert not any(image.startswith("cyst") for image in manifest.test)
        assert manifest.test
    write(table, "file,patient", *(f"{name},X" for name, _ in rows[1:]))
    with pytest.raises(GenaugError, match="too few groups"):
        Manifest.build(open_sets(f"lesions:{built.home}"), 0)


def folder_with_groups(root, *lines):
    for index in range(6):
        save(root / "photos" / ("cat", "dog")[index % 2] / f"{index}.png", 60 + index)
    write(root / "photos" / "groups.csv", *lines)
    return root / "photos"


def found_in(folder):
    return {finding.kind: finding for finding in check_folder(folder).findings}


def test_groups_of_any_folder(tmp_path):
    rows = [f"{('cat', 'dog')[index % 2]}/{index}.png,{index // 2}" for index in range(6)]
    folder = folder_with_groups(tmp_path, "file,group", *rows)
    assert open_folder(folder)["all"].groups == ["0", "1", "2", "0", "1", "2"]
    assert set(found_in(folder)) <= {"groups", "near-copy-labels"}
    write(folder / "groups.csv", "file;slide", *(row.replace(",", ";") for row in rows[:-1]), "dog/99.png;7")
    assert {"group-file", "no-group"} <= set(found_in(folder))
    assert open_folder(folder)["all"].groups[-1] == ""
    write(
        folder / "groups.csv",
        "group,file",
        *(f"{row.split(',')[1]},{row.split('/')[1].split(',')[0]}" for row in rows),
    )
    assert open_folder(folder)["all"].groups == ["0", "1", "2", "0", "1", "2"]


@pytest.mark.parametrize(
    "lines, text",
    [
        (["name,colour", "cat/0.png,red"], "needs the columns file and group"),
        (["file,group", "cat/0.png"], "too few columns"),
        (["file,group", "cat/0.png,A", "cat/0.png,B"], "into the groups 'A' and 'B'"),
    ],
)
def test_a_spoilt_table_of_groups_is_an_error(lines, text, tmp_path):
    folder = folder_with_groups(tmp_path, *lines)
    assert any(text in finding.message for finding in check_folder(folder).errors)
    with pytest.raises(GenaugError):
        open_folder(folder)


def test_groups_in_two_given_parts_are_a_warning_and_parts_stay(tmp_path):
    for seed, name in enumerate(("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png")):
        save(tmp_path / name, 500 + seed)
    write(
        tmp_path / "groups.csv",
        "file,patient",
        "train/cat/1.png,A",
        "train/dog/2.png,B",
        "test/cat/3.png,A",
        "test/dog/4.png,C",
    )
    assert "1 group(s), first 'A'" in found_in(tmp_path)["shared-groups"].message
    sets = open_folder(tmp_path)
    assert Manifest.build(sets, 0).test == sets["test"].ids
    assert sets["test"].groups == ["A", "C"]


def test_patients_of_a_label_table_stay_together(tmp_path):
    rows = [f"{index}.png,P{index // 3},{index % 2},{int(index % 3 == 0)}" for index in range(24)]
    for position in range(24):
        save(tmp_path / f"{position}.png", 900 + position)
    write(tmp_path / "train.csv", "path,patient_id,kiwi,plum", *rows)
    sets = open_sets(f"label-table:{tmp_path}")
    for seed in range(4):
        manifest = Manifest.build(sets, seed, test_fraction=0.25)
        people = [{int(image[:-4]) // 3 for image in part} for part in (manifest.train, manifest.test)]
        assert not people[0] & people[1]
        assert len(people[1]) == 2


def test_tuning_leaves_out_the_groups_of_its_training_images(intact):
    from genaug.data.splits import tuning_sets

    pool = open_sets(f"lesions:{intact['lesions'].home}")["all"]
    parts = tuning_sets(pool, 100, shots=1, by_group=True)
    assert len(parts["test"])
    assert not set(parts["train"].groups) & set(parts["test"].groups)


# ---- damaged and hostile lists


def test_the_folder_of_the_pictures_alone_is_answered_with_the_folder_to_give(intact):
    home = intact["cub"].home
    with pytest.raises(GenaugError, match=f"give the folder '{home}'"):
        open_sets(f"cub:{home / 'images'}")


def test_an_unreadable_neighbour_does_not_matter(tmp_path, monkeypatch):
    import os

    built, real = miniatures.cub(tmp_path), os.scandir
    (tmp_path / "lost+found").mkdir()

    def refuse(path):
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert counts(open_sets(f"cub:{tmp_path}")) == built.counts


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "a\0b.jpg", "\x1b[2J.jpg", "con/../../x.jpg"])
def test_names_that_no_file_can_have(name, tmp_path):
    save(tmp_path / "cat" / "a.jpg", 1)
    write(tmp_path / "train.txt", "cat/a.jpg 0", f"{name} 0")
    report = examined("image-list", tmp_path)
    assert {finding.kind for finding in report.errors} <= {
        "missing-picture",
        "link-outside",
    }
    assert report.errors
    assert len(open_sets(f"image-list:{tmp_path}", strict=False)["train"]) == 1


@pytest.mark.parametrize(
    "name, file, content",
    [
        (
            "flowers-102",
            "setid.mat",
            {"trnid": np.array(["a", "b"]), "valid": np.array([1]), "tstid": np.array([2])},
        ),
        (
            "flowers-102",
            "setid.mat",
            {"trnid": np.array([1.5]), "valid": np.array([1]), "tstid": np.array([2])},
        ),
        (
            "flowers-102",
            "setid.mat",
            {"trnid": np.array([1, 999]), "valid": np.array([2]), "tstid": np.array([3])},
        ),
        ("flowers-102", "imagelabels.mat", {"labels": np.array([0, 1, 2])}),
        ("flowers-102", "imagelabels.mat", {"other": np.array([1])}),
        ("stanford-cars", "devkit/cars_train_annos.mat", {"annotations": np.array([1, 2, 3])}),
        (
            "stanford-cars",
            "devkit/cars_train_annos.mat",
            annotations([("00001.jpg", "one")], "fname", "class"),
        ),
        (
            "stanford-cars",
            "devkit/cars_train_annos.mat",
            annotations([("00001.jpg", np.array([1, 2]))], "fname", "class"),
        ),
    ],
)
def test_matlab_files_that_hold_something_else_are_refused_in_a_sentence(name, file, content, tmp_path):
    built = LAYOUTS[name](tmp_path)
    savemat(built.home / file, content)
    finding = kinds(name, built.home)["source"]
    assert "again" in finding.message or "whole" in finding.message or "labels" in finding.message


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_is_never_more_than_a_finding(seed, tmp_path):
    draw = np.random.default_rng(seed)
    name = list(LAYOUTS)[seed % len(LAYOUTS)]
    built = LAYOUTS[name](tmp_path)
    lists = sorted(
        path for path in built.home.rglob("*") if path.suffix in (".txt", ".mat", ".csv") and path.is_file()
    )
    for path in lists[:4]:
        content = bytearray(path.read_bytes())
        for _ in range(int(draw.integers(1, 6))):
            index = int(draw.integers(len(content)))
            content[index : index + int(draw.integers(0, 9))] = draw.bytes(int(draw.integers(0, 6)))
        path.write_bytes(bytes(content))
    report = examined(name, built.home)
    assert report.sets or report.errors


def test_no_patient_is_tied_to_any_picture(tmp_path):
    built = miniatures.lesions(tmp_path, by_picture=False)
    write(built.home / "patients.csv", "patient_id,age", "somebody,1", "else,2")
    assert "No picture belongs to a patient" in kinds("lesions", built.home)["no-patients"].message


def test_patients_in_folders_and_a_list_with_blanks(tmp_path):
    for seed, name in enumerate(("cyst/Anna B/1.png", "cyst/Ben/2.png", "solid/Anna B/3.png")):
        save(tmp_path / name, 300 + seed)
    write(tmp_path / "patients.csv", "patient,sex", "Anna B,f", "Ben,m")
    assert open_sets(f"lesions:{tmp_path}")["all"].groups == ["Anna B", "Ben", "Anna B"]


def test_total_counts_of_a_long_tail_may_be_one_of_several(tmp_path):
    built = miniatures.cub(tmp_path)
    write(
        built.home / "train.txt",
        *(line.split()[1] for line in (built.home / "images.txt").read_text().splitlines()[:3]),
        "002.Laysan_Albatross/Laysan_Albatross_0000_2000.jpg",
        "003.Sooty_Albatross/Sooty_Albatross_0000_3000.jpg",
    )
    assert (
        "train 5 (1,242 or 1,427 or 1,798 or 2,238)"
        in kinds("cub-lt", built.home)["published-counts"].message
    )
