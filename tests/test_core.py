"""genaug.core: sets that survive the disk and other programs, names that cannot escape, seeds and budgets
that nest."""

import json
import os
import unicodedata
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from toy_sets import noise_pictures

import genaug.core as core
from genaug.contracts import Augmenter, Decision, Mixer
from genaug.core import LabeledImages
from genaug.decoding import decode_image
from genaug.files import file_name, write_atomic
from genaug.identity import Identity, content_hash, seed_from
from genaug.messages import GenaugError, progress_bar
from genaug.pictures import encode_png, to_tensor, to_uint8
from genaug.plans import Budget, PlanRow
from genaug.settings import settings_of

HOSTILE_NAMES = (
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "F-16A/B",
    "<script>alert('1')</script>",
    '" onload="x',
    "-rf",
    "~",
    "CON",
    "con.txt",
    "NUL",
    "a.",
    "a ",
    " a",
    ".hidden",
    "%2F",
    "a%",
    "a\x00b",
    "a\nb",
    "\u202eevil",
    "é",
    "🦊",
    "名前 と 空白",
    "x" * 300,
    "é" * 300,
    "Bird",
    "bird",
    "C:",
    "a*?|b",
)
KNOWN_FAULTS = (
    "classes.json",
    "metadata.jsonl",
    "a\u2028b",
    "a\x85b",
)  # of write_metadata and read_metadata; see the last test of this section


@pytest.fixture
def images():
    return LabeledImages(
        noise_pictures([(6 + number, 9, 1 if number % 4 == 3 else 3) for number in range(8)]),
        np.arange(8) % 3,
        ("kiwi", "F-16A/B", '<b> & "c"'),
        [f"a/{number}.png" for number in range(8)],
        groups=[f"patient {number // 2}" for number in range(8)],
        info=[{"caption": f"größe {number}", "weight": 0.1 * number} for number in range(8)],
    )


@pytest.fixture
def multi(images):
    labels = np.random.default_rng(1).random((8, 3)).astype(np.float32)
    return LabeledImages(
        images.pixels, labels, images.class_names, images.ids, task="multi", origins=["real", "grain"] * 4
    )


def same(left, right):
    assert left.class_names == right.class_names
    assert left.ids == right.ids
    assert left.task == right.task
    assert np.array_equal(left.labels, right.labels)
    assert left.labels.dtype == right.labels.dtype
    assert left.origins == right.origins
    assert (list(left.groups) if left.groups else None) == (list(right.groups) if right.groups else None)
    assert (list(left.info) if left.info else None) == (list(right.info) if right.info else None)
    assert all(
        np.array_equal(left.image(position), right.image(position))
        and left.image(position).shape == right.image(position).shape
        for position in range(len(left))
    )
    assert left.sha256 == right.sha256
    assert left.fingerprint() == right.fingerprint()


# ---- LabeledImages on disk


def test_round_trip_is_exact_for_one_label(images, tmp_path):
    images.save(tmp_path / "set")
    same(images, LabeledImages.open(tmp_path / "set"))
    LabeledImages.open(tmp_path / "set").save(tmp_path / "again")
    same(images, LabeledImages.open(tmp_path / "again"))

    def files(folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    assert files(tmp_path / "set") == files(tmp_path / "again")


def test_round_trip_is_exact_for_several_and_soft_labels(images, multi, tmp_path):
    multi.save(tmp_path / "multi")
    same(multi, LabeledImages.open(tmp_path / "multi"))
    assert not [path for path in (tmp_path / "multi").iterdir() if path.is_dir()]
    soft = np.random.default_rng(2).dirichlet(np.ones(3), 8).astype(np.float32)
    soft = LabeledImages(images.pixels, soft, images.class_names, images.ids)
    soft.save(tmp_path / "soft")
    same(soft, LabeledImages.open(tmp_path / "soft"))


def test_round_trip_of_an_empty_set_and_of_classes_without_images(images, tmp_path):
    images[[]].save(tmp_path / "none")
    again = LabeledImages.open(tmp_path / "none")
    assert len(again) == 0
    assert again.class_names == images.class_names
    assert again.labels.shape == (0, 3)
    images[images.targets == 1].save(tmp_path / "one")
    assert LabeledImages.open(tmp_path / "one").class_names == images.class_names


def test_round_trip_with_hostile_class_names_and_ids(tmp_path):
    names = list(dict.fromkeys(unicodedata.normalize("NFC", name) for name in HOSTILE_NAMES))
    arrays = [np.full((2, 2, 3), number, np.uint8) for number in range(len(names))]
    images = LabeledImages(arrays, np.arange(len(names)), names, names[::-1])
    images.save(tmp_path / "a" / "set")
    same(images, LabeledImages.open(tmp_path / "a" / "set"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["set"]


@pytest.mark.parametrize("name", KNOWN_FAULTS)
def test_round_trip_with_names_of_our_own_files_and_line_separators(name, tmp_path):
    images = LabeledImages([np.zeros((2, 2, 3), np.uint8)], [0], (name,), [name])
    images.save(tmp_path / "set")
    same(images, LabeledImages.open(tmp_path / "set"))


def test_saving_refuses_a_used_folder_and_opening_an_unfinished_one(images, tmp_path):
    images.save(tmp_path / "set")
    with pytest.raises(GenaugError, match="not empty"):
        images.save(tmp_path / "set")
    (tmp_path / "set" / "metadata.jsonl").unlink()
    with pytest.raises(GenaugError, match="finish or repeat"):
        LabeledImages.open(tmp_path / "set")
    with pytest.raises(GenaugError, match="no finished set"):
        LabeledImages.open(tmp_path / "nowhere")


def test_a_save_that_breaks_off_is_not_taken_for_a_set(images, tmp_path, monkeypatch):
    written = []

    def broken(path, data):
        written.append(path)
        if len(written) == 5:
            raise KeyboardInterrupt
        write_atomic(path, data)

    monkeypatch.setattr(core, "write_atomic", broken)
    with pytest.raises(KeyboardInterrupt):
        images.save(tmp_path / "set")
    with pytest.raises(GenaugError):
        LabeledImages.open(tmp_path / "set")


def test_torchvision_reads_a_saved_set(images, tmp_path):
    from torchvision.datasets import ImageFolder

    images.save(tmp_path / "set")
    tree = ImageFolder(str(tmp_path / "set"))
    names = [file_name(name) for name in images.class_names]
    assert sorted(tree.classes) == sorted(names)
    assert len(tree) == 8
    for path, index in tree.samples:
        name = os.path.basename(path)
        position = next(number for number in range(8) if file_name(images.ids[number]) + ".png" == name)
        assert tree.classes[index] == names[images.targets[position]]
        assert np.array_equal(np.asarray(Image.open(path)).squeeze(), images.image(position).squeeze())


@pytest.mark.parametrize("task", ["single", "multi"])
def test_hugging_face_datasets_reads_a_saved_set(images, multi, tmp_path, task):
    datasets = pytest.importorskip("datasets")
    chosen = images if task == "single" else multi
    chosen.save(tmp_path / "set")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert len(loaded) == 8
    for record in loaded:
        position = chosen.index([record["id"]])[0]
        assert np.array_equal(np.asarray(record["image"]), chosen.image(position).squeeze())
        assert np.allclose(record["labels"], chosen.labels[position])
        if task == "single":
            assert record["label"] == chosen.targets[position]
            assert record["class_name"] == chosen.class_names[record["label"]]


def test_pandas_reads_the_metadata(images, tmp_path):
    import pandas as pd

    images.save(tmp_path / "set")
    table = pd.read_json(tmp_path / "set" / "metadata.jsonl", lines=True)
    assert table["id"].tolist() == list(images.ids)
    assert table["label"].tolist() == images.targets.tolist()
    assert table["sha256"].tolist() == list(images.sha256)
    assert all((tmp_path / "set" / name).is_file() for name in table["file_name"])


# ---- LabeledImages in memory


def test_indexing_joining_and_selecting_keep_everything_aligned(images):
    part = images[[5, 0, 3]]
    assert part.ids == ("a/5.png", "a/0.png", "a/3.png")
    assert part.targets.tolist() == [2, 0, 0]
    assert part.groups[0] == "patient 2"
    assert part.info[1]["weight"] == 0
    assert np.array_equal(part.image("a/3.png"), images.image(3))
    assert images[2].ids == ("a/2.png",)
    assert images[-1].ids == ("a/7.png",)
    assert (
        images[::2].ids
        == images[np.arange(8) % 2 == 0].ids
        == images.select(["a/0.png", "a/2.png", "a/4.png", "a/6.png"]).ids
    )
    assert len(images[[]]) == 0
    assert len(images[0:0]) == 0
    same(images[:3] + images[3:], images)
    with pytest.raises(GenaugError, match="distinct"):
        images + images
    with pytest.raises(GenaugError, match="same class names"):
        images + LabeledImages([], [], ("x",), [])
    with pytest.raises(GenaugError, match="no image|No image"):
        images.index(["stranger"])
    with pytest.raises(IndexError):
        images[8]


def test_joining_keeps_digests_and_fills_what_one_side_lacks(images):
    bare = LabeledImages([np.zeros((2, 2, 3), np.uint8)], [0], images.class_names, ["bare"])
    both = images + bare
    assert both.groups[-1] == ""
    assert both.info[-1] == {}
    assert both.sha256 == images.sha256 + bare.sha256


def test_pixels_on_disk_are_decoded_when_asked_for(images, tmp_path):
    images.save(tmp_path / "set")
    stored = LabeledImages.open(tmp_path / "set")
    os.remove(stored.pixels[4])
    assert np.array_equal(stored.image(3), images.image(3))
    with pytest.raises(GenaugError, match="Cannot read"):
        stored.image(4)


@pytest.mark.parametrize(
    "labels, task, words",
    [
        ([0, 3], "single", "0..1"),
        ([0, -1], "single", "0..1"),
        ([[0.5, 0.4], [1, 0]], "single", "sum to one"),
        ([[1, 0]], "single", "shape"),
        ([[2.0, 0], [0, 1]], "multi", r"\[0, 1\]"),
        ([[np.nan, 0], [0, 1]], "multi", r"\[0, 1\]"),
        ([[1, 0], [0, 1]], "both", "single"),
    ],
)
def test_wrong_labels_are_refused(labels, task, words):
    with pytest.raises(GenaugError, match=words):
        LabeledImages(
            [np.zeros((2, 2, 3), np.uint8)] * 2, np.array(labels), ("a", "b"), ["1", "2"], task=task
        )


def test_wrong_lengths_and_repeated_names_are_refused():
    tile = np.zeros((2, 2, 3), np.uint8)
    for change, words in (
        ({"pixels": [tile]}, "one per image"),
        ({"ids": ["1", "1"]}, "distinct"),
        ({"class_names": ("a", "a")}, "distinct"),
        ({"ids": ["é", unicodedata.normalize("NFD", "é")]}, "distinct"),
        ({"info": [{}]}, "one per image"),
        ({"groups": ["g"] * 3}, "one per image"),
    ):
        with pytest.raises(GenaugError, match=words):
            LabeledImages(
                **{
                    "pixels": [tile, tile],
                    "labels": np.array([0, 1]),
                    "class_names": ("a", "b"),
                    "ids": ["1", "2"],
                    **change,
                }
            )


def test_multi_label_sets_have_no_single_target(multi):
    with pytest.raises(GenaugError, match="labels"):
        multi.targets
    assert multi.counts() == pytest.approx(dict(zip(multi.class_names, multi.labels.astype(float).sum(0))))


def test_fingerprint_notices_every_change(images):
    base = images.fingerprint()
    changes = [
        LabeledImages(
            [255 - images.image(0), *images.pixels[1:]], images.labels, images.class_names, images.ids
        ),
        LabeledImages(images.pixels, images.labels[::-1], images.class_names, images.ids),
        LabeledImages(images.pixels, images.labels, ("x", *images.class_names[1:]), images.ids),
        LabeledImages(images.pixels, images.labels, images.class_names, images.ids[::-1]),
        images[::-1],
        images[:7],
    ]
    assert len({base, *(changed.fingerprint() for changed in changes)}) == 7


# ---- pictures


def test_batches_lie_in_the_unit_interval_and_arrays_come_back_exactly(images):
    batch = images.batch(size=12)
    assert batch.shape == (8, 3, 12, 12)
    assert batch.dtype == torch.float32
    assert batch.min() >= 0
    assert batch.max() <= 1
    assert images.batch(["a/3.png"], channels=1).shape == (1, 1, 9, 9)
    for position in range(8):
        array = images.image(position)
        assert np.array_equal(to_uint8(to_tensor([array], channels=array.shape[2]))[0], array)
    with pytest.raises(GenaugError, match="different sizes"):
        images.batch()
    ramp = torch.linspace(-0.5, 1.5, 48).view(1, 3, 4, 4)
    assert to_uint8(ramp)[0].min() == 0
    assert to_uint8(ramp)[0].max() == 255
    assert to_uint8(torch.full((1, 1, 1, 1), 0.5 / 255))[0].item() == 0
    assert to_uint8(torch.full((1, 1, 1, 1), 1.5 / 255))[0].item() == 2


def test_encoding_is_lossless_and_repeatable(images, tmp_path):
    for position in range(8):
        data = encode_png(images.image(position))
        assert data == encode_png(images.image(position).copy())
        write_atomic(tmp_path / "x.png", data)
        assert np.array_equal(decode_image(tmp_path / "x.png"), images.image(position))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16"])
def test_every_mode_of_a_picture_becomes_grey_or_rgb(mode, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8))
    picture = (
        Image.fromarray(np.full((6, 5), 40_000, np.uint16))
        if mode == "I;16"
        else picture.convert("RGBA").convert(mode)
        if mode in ("LA",)
        else picture.convert(mode)
    )
    path = tmp_path / ("x.tif" if mode in ("CMYK", "YCbCr", "LAB") else "x.png")
    if mode == "HSV":
        picture = picture.convert("RGB")
    picture.save(path)
    array = decode_image(path)
    assert array.dtype == np.uint8
    assert array.shape == (6, 5, 1 if mode in ("1", "L", "LA", "I;16") else 3)
    if mode == "RGB":
        assert np.array_equal(array, np.asarray(picture))
    if mode == "1":
        assert set(np.unique(array)) <= {0, 255}
    if mode == "I;16":
        assert array[0, 0, 0] == 156


def test_transparency_is_laid_over_white_and_rotation_applied(tmp_path):
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2, :, 3] = 255
    Image.fromarray(clear).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png")[0, 0, 0] == 0
    assert decode_image(tmp_path / "a.png")[3, 0, 0] == 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(8, dtype=np.uint8).reshape(2, 4)).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(decode_image(tmp_path / "b.png")[:, :, 0], np.rot90(np.arange(8).reshape(2, 4), -1))


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(50), b"GIF89a"]
)
def test_broken_pictures_are_named(content, tmp_path):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(GenaugError, match="broken.png"):
        decode_image(tmp_path / "broken.png")
    with pytest.raises(GenaugError, match="limit"):
        write_atomic(tmp_path / "big.png", encode_png(np.zeros((20, 20, 1), np.uint8)))
        decode_image(tmp_path / "big.png", max_pixels=399)


# ---- names, hashes, files


def test_file_names_are_safe_and_injective():
    names = [file_name(name) for name in HOSTILE_NAMES]
    assert len(set(names)) == len({unicodedata.normalize("NFC", name) for name in HOSTILE_NAMES})
    for name in names:
        assert name
        assert not set(name) & set('/\\:*?"<>|\x00\n')
        assert name[0] not in ". "
        assert name[-1] not in ". "
        assert len(name.encode()) <= 200
        assert name.split(".")[0].upper() not in ("CON", "NUL", "PRN", "AUX", "COM1", "LPT9")
    assert file_name("plain name_1.2") == "plain name_1.2"
    assert file_name("e\u0301") == file_name("é")
    assert file_name("%2F") != file_name("/")
    assert file_name("x" * 300) != file_name("x" * 301)
    assert file_name("\ud800")


def test_no_two_short_names_collide():
    from itertools import product

    names = ["".join(letters) for length in range(4) for letters in product("a./% \\A", repeat=length)]
    assert len({file_name(name) for name in names}) == len(names)


def test_hashes_see_types_order_and_nesting():
    values = [
        "",
        0,
        0.0,
        False,
        None,
        b"",
        [],
        {},
        "0",
        [0],
        [[0]],
        {"a": 0},
        (1, 2),
        "ab",
        1e-8,
        -0.0,
        np.zeros(2),
        np.zeros(2, np.float32),
        np.zeros((1, 2)),
        torch.zeros(2, dtype=torch.int64),
    ]
    hashes = [content_hash(value) for value in values]
    assert len(set(hashes)) == len(values)
    assert all(len(digest) == 64 for digest in hashes)
    assert content_hash((1, 2)) == content_hash([1, 2])
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash("a", "b") != content_hash("ab")
    assert content_hash(np.zeros(3)) == content_hash(torch.zeros(3, dtype=torch.float64))
    assert content_hash(np.float64(1.5)) == content_hash(1.5)
    array = np.arange(12).reshape(3, 4)
    assert content_hash(array.T) == content_hash(np.ascontiguousarray(array.T)) != content_hash(array)
    with pytest.raises(TypeError):
        content_hash(object())


def test_a_hash_is_the_same_in_another_process():
    import subprocess
    import sys

    code = (
        "from genaug.identity import content_hash, seed_from; print(content_hash({'b': 1.5, 'a': ['é', "
        "None]}), seed_from('x', 3))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    ).stdout.split()
    assert shown == [content_hash({"a": ["é", None], "b": 1.5}), str(seed_from("x", 3))]


def test_seeds_fit_and_spread():
    seeds = [seed_from("row", number) for number in range(2000)]
    assert len(set(seeds)) == 2000
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    torch.Generator().manual_seed(max(seeds)), np.random.default_rng(max(seeds))
    assert abs(np.mean(seeds) / 2**63 - 0.5) < 0.03


def test_atomic_writes_replace_whole_files_and_clean_up(tmp_path, monkeypatch):
    write_atomic(tmp_path / "deep" / "a.txt", "größe")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "größe".encode()
    assert (tmp_path / "deep" / "a.txt").stat().st_mode & 0o777 == 0o644
    monkeypatch.setattr(
        os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError):
        write_atomic(tmp_path / "deep" / "a.txt", "new")
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "größe"
    assert len(list((tmp_path / "deep").iterdir())) == 1


# ---- plan rows, budgets, interfaces


def test_plan_rows_survive_json():
    row = PlanRow(
        "id",
        "diff-ii",
        (0.1, 0.9),
        (("a.png", 0.3), ("b.png", 0.7)),
        (("a photo of é", 0.3), ("a photo", 0.7)),
        2**63 - 1,
        {"angle": 0.123456789012345, "steps": 25},
        "g",
        2,
        "f",
    )
    assert PlanRow.from_json(json.loads(json.dumps(row.to_json()))) == row
    with pytest.raises(AttributeError):
        row.seed = 1


def unequal(counts=(7, 3, 1)):
    targets = np.repeat(np.arange(len(counts)), counts)
    return LabeledImages(
        [np.zeros((1, 1, 3), np.uint8)] * len(targets),
        targets,
        tuple("abcdef"[: len(counts)]),
        [f"{number}" for number in range(len(targets))],
    )


@pytest.mark.parametrize("small, large", [(1, 2), (1, 5), (0.5, 1), (2, 2.5), (4, 20)])
def test_a_smaller_budget_asks_for_a_subset_copy_by_copy(small, large):
    real = unequal()
    left, right = (
        [(slot.anchor, slot.class_index, slot.copy) for slot in Budget(copies=copies).slots(real)]
        for copies in (small, large)
    )
    assert set(left) <= set(right)
    assert len(set(right)) == len(right)
    if small == int(small):
        assert right[: len(left)] == left


@pytest.mark.parametrize(
    "small, large", [({"a": 2, "b": 1}, {"a": 9, "b": 4, "c": 3}), ({"c": 1}, {"c": 5}), ({"a": 3}, {"a": 4})]
)
def test_counts_per_class_nest(small, large):
    real = unequal()
    left, right = (
        {(slot.anchor, slot.class_index, slot.copy) for slot in Budget(per_class=counts).slots(real)}
        for counts in (small, large)
    )
    assert left <= right
    assert len(right) == sum(large.values())


def test_budgets_ask_for_the_right_numbers():
    real = unequal()

    def classes(budget):
        return np.bincount([slot.class_index for slot in budget.slots(real)], minlength=3).tolist()

    assert classes(Budget()) == [35, 15, 5]
    assert classes(Budget(copies=1.5)) == [10, 4, 1]
    assert classes(Budget(fill=True)) == [0, 4, 6]
    assert classes(Budget(per_class={"b": 7})) == [0, 7, 0]
    anchors = [slot.anchor for slot in Budget(per_class={"b": 7}).slots(real)]
    assert {anchors.count(name) for name in ("7", "8", "9")} == {2, 3}
    assert set(anchors) == {"7", "8", "9"}
    assert all(
        real.targets[real.index([slot.anchor])[0]] == slot.class_index for slot in Budget().slots(real)
    )
    assert [slot.copy for slot in Budget().slots(real)] == sorted(slot.copy for slot in Budget().slots(real))


def test_impossible_budgets_are_refused():
    real = unequal()
    for fields, words in (
        ({"copies": 0}, "positive"),
        ({"copies": -1}, "positive"),
        ({"copies": float("nan")}, "positive"),
        ({"per_class": {"zebra": 1}}, "zebra"),
    ):
        with pytest.raises(GenaugError, match=words):
            Budget(**fields).slots(real)
    with pytest.raises(GenaugError, match="no photograph"):
        Budget(per_class={"a": 1}).slots(real[real.targets == 1])


def test_budgets_of_multi_label_sets(multi):
    assert len(Budget(copies=2).slots(multi)) == 16
    assert {slot.class_index for slot in Budget(copies=2).slots(multi)} == {None}
    slots = Budget(per_class={"kiwi": 3}).slots(multi)
    assert len(slots) == 3
    assert all(multi.labels[multi.index([slot.anchor])[0], 0] > 0 for slot in slots)


@dataclass(kw_only=True)
class Plain(Augmenter):
    name: str = "plain"
    strength: float = 0.5
    device: str = "cpu"
    network: LabeledImages | None = None
    identity = Identity(later=("network",), never=("device",))

    def plan(self, real, budget, seed):
        return []

    def paint(self, rows, real):
        return []


def test_augmenters_are_their_settings(images, tmp_path):
    left, right = Plain(), Plain(strength=0.7)
    assert left.settings() == {"name": "plain", "strength": 0.5}
    assert left.fingerprint() != right.fingerprint()
    assert Plain(device="cuda").fingerprint() == left.fingerprint()
    before = left.fingerprint()
    assert left.fit(images) is left
    assert left.fingerprint() != before
    assert left.fitted_on == images.fingerprint()
    left.save(tmp_path / "fitted")
    assert Plain().load(tmp_path / "fitted").fingerprint() == left.fingerprint()
    with pytest.raises(GenaugError, match="no saved augmenter"):
        Plain().load(tmp_path)
    with pytest.raises(GenaugError, match="was saved by"):
        Plain(name="other").load(tmp_path / "fitted")
    assert left.select([1, 2], [3, 4], images) == [Decision(), Decision()]
    for unfinished in (Augmenter, Mixer):
        with pytest.raises(TypeError, match="abstract"):
            unfinished()


def test_fit_finds_a_broken_file_before_work_starts(images, tmp_path):
    images.save(tmp_path / "set")
    stored = LabeledImages.open(tmp_path / "set")
    fresh = LabeledImages(stored.pixels, stored.labels, stored.class_names, stored.ids)
    stored.pixels[3].write_bytes(b"broken")
    with pytest.raises(GenaugError, match="repair, convert or remove"):
        Plain().fit(fresh)


def test_settings_replace_objects_by_their_fingerprint():
    assert settings_of(Plain(network=unequal()))["network"] == unequal().fingerprint()


def test_progress_bars_go_to_standard_error_and_only_when_wanted(capsys):
    assert list(progress_bar(range(3), "painting", False)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    assert list(progress_bar(iter("abc"), "painting", True, total=3)) == ["a", "b", "c"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "painting" in shown.err


def test_nothing_touches_the_global_random_state(images):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    images.batch(size=8), images.fingerprint(), Budget().slots(images), Plain().fit(images)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
