"""Published data sets in miniature: files, names and lists of each distribution, with a few pictures.

Each function builds one layout below a folder and returns what it built: `Built(home, counts,
                                                                                 classes)`, with the
number of pictures of each part and class. Traps that belong to a layout (grey pictures, blanks
                                                                          and slashes in names,
classes that count from 1, stray files) are always there; what is wrong in a copy is made by the tests.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.io import savemat


class Built(NamedTuple):
    home: Path
    counts: dict  # (part, class) -> pictures
    classes: tuple


def save(path, seed, mode="RGB"):
    "A picture of 12 by 10 pixels, another for every seed."
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng([seed, 7])
    blocks = draw.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    image = Image.fromarray(np.kron(blocks, np.ones((2, 2, 1))).astype(np.uint8))
    image = image.convert("L") if mode == "L" else image.quantize(16) if mode == "P" else image
    image.save(path, format="TIFF" if path.suffix == ".tif" else "PNG")  # lossless, whatever the suffix says


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")


def cub(root, train=3, test=2, seed=0):
    home, counts, rows = root / "CUB_200_2011", Counter(), []
    for label, folder in enumerate(BIRDS, 1):
        for number in range(train + test):
            name = f"{folder}/{folder[4:]}_{number:04d}_{1000 * label + number}.jpg"
            save(home / "images" / name, seed + 100 * label + number, "L" if number == 1 else "RGB")
            rows.append((name, label, int(number < train)))
            counts["train" if number < train else "test", folder[4:].replace("_", " ")] += 1
    write(home / "classes.txt", *(f"{label} {folder}" for label, folder in enumerate(BIRDS, 1)))
    write(home / "images.txt", *(f"{index} {name}" for index, (name, _, _) in enumerate(rows, 1)))
    write(
        home / "image_class_labels.txt", *(f"{index} {label}" for index, (_, label, _) in enumerate(rows, 1))
    )
    write(home / "train_test_split.txt", *(f"{index} {part}" for index, (_, _, part) in enumerate(rows, 1)))
    write(home / "bounding_boxes.txt", *(f"{index} 0.0 0.0 5.0 5.0" for index in range(1, len(rows) + 1)))
    save(root / "segmentations" / BIRDS[0] / "a.png", 9)
    return Built(home, dict(counts), tuple(folder[4:].replace("_", " ") for folder in BIRDS))


PLANES = ("Boeing 717", "F-16A/B", "F/A-18", "Cessna 172")


def aircraft(root, each=2, seed=1000):
    home, counts, index = root / "fgvc-aircraft-2013b" / "data", Counter(), 34309
    write(home / "variants.txt", *PLANES)
    lists = {part: [] for part in ("train", "val", "test")}
    for variant in PLANES:
        for part in lists:
            for _ in range(each):
                save(home / "images" / f"{index:07d}.jpg", seed + index)
                lists[part].append(f"{index:07d} {variant}")
                counts[part, variant] += 1
                index += 1
    for part, lines in lists.items():
        write(home / f"images_variant_{part}.txt", *lines)
    write(home / "images_variant_trainval.txt", *lists["train"], *lists["val"])
    return Built(home, dict(counts), PLANES)


CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")


def annotations(rows, *fields):
    "A MATLAB struct array, as the distribution has it."
    kinds = [(name, "O") for name in fields]
    return {"annotations": np.array([tuple(row) for row in rows], kinds)}


def cars(root, train=3, test=2, seed=2000, labelled=True):
    home, counts, rows = root / "stanford_cars", Counter(), {"train": [], "test": []}
    for part, each in (("train", train), ("test", test)):
        for index in range(each * len(CARS)):
            label = index % len(CARS) + 1
            name = f"{index + 1:05d}.jpg"
            save(home / f"cars_{part}" / name, seed + 50 * (part == "test") + index)
            rows[part].append((1, 1, 5, 5, label, name))
            counts[part, CARS[label - 1]] += 1
    (home / "devkit").mkdir()
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    savemat(home / "devkit" / "cars_meta.mat", {"class_names": np.array(CARS, object)})
    savemat(home / "devkit" / "cars_train_annos.mat", annotations(rows["train"], *fields))
    bare = [row[:4] + row[5:] for row in rows["test"]]
    savemat(home / "devkit" / "cars_test_annos.mat", annotations(bare, *fields[:4], "fname"))
    if labelled:
        savemat(home / "cars_test_annos_withlabels.mat", annotations(rows["test"], *fields))
    return Built(home, {key: count for key, count in counts.items() if labelled or key[0] == "train"}, CARS)


def cars_in_one(root, train=3, test=2, seed=2500):
    home, counts, rows = root / "cars", Counter(), []
    for index in range((train + test) * len(CARS)):
        label, held_out = index % len(CARS) + 1, int(index >= train * len(CARS))
        name = f"car_ims/{index + 1:06d}.jpg"
        save(home / name, seed + index)
        rows.append((name, 1, 1, 5, 5, label, held_out))
        counts["test" if held_out else "train", CARS[label - 1]] += 1
    fields = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
    savemat(home / "cars_annos.mat", {"class_names": np.array(CARS, object), **annotations(rows, *fields)})
    return Built(home, dict(counts), CARS)


BREEDS = (
    ("Abyssinian", 1, 1),
    ("american_bulldog", 2, 1),
    ("Bengal", 1, 2),
    ("Egyptian_Mau", 1, 3),
    ("pug", 2, 2),
)


def pet(root, train=2, test=2, seed=3000):
    home, counts, lists = root / "oxford-iiit-pet", Counter(), {"trainval": [], "test": []}
    for label, (breed, species, number) in enumerate(BREEDS, 1):
        for index in range(train + test):
            name = f"{breed}_{100 + index}"
            save(home / "images" / f"{name}.jpg", seed + 20 * label + index, "P" if index == 0 else "RGB")
            lists["trainval" if index < train else "test"].append(f"{name} {label} {species} {number}")
            counts["train" if index < train else "test", breed.replace("_", " ")] += 1
    for name in ("Abyssinian_100.mat", "Abyssinian_101.mat"):
        (home / "images" / name).write_bytes(b"MATLAB 5.0 MAT-file")
    for name, lines in lists.items():
        write(home / "annotations" / f"{name}.txt", *lines)
    write(
        home / "annotations" / "list.txt",
        "#Image CLASS-ID SPECIES BREED ID",
        *lists["trainval"],
        *lists["test"],
    )
    save(home / "annotations" / "trimaps" / "Abyssinian_100.png", 5)
    return Built(home, dict(counts), tuple(breed.replace("_", " ") for breed, _, _ in BREEDS))


BLOOMS = {1: "pink primrose", 51: "petunia", 77: "passion flower"}


def flowers(root, train=1, val=1, test=3, swapped=False, seed=4000):
    home, counts, labels, sets = root / "flowers-102", Counter(), [], {"trnid": [], "valid": [], "tstid": []}
    parts = {"trnid": "train", "valid": "val", "tstid": "test"}
    sizes = dict(zip(sets, (test, val, train) if swapped else (train, val, test)))
    for name, each in sizes.items():
        for label in (77, 1, 51):
            for _ in range(each):
                labels.append(label)
                sets[name].append(len(labels))
                save(home / "jpg" / f"image_{len(labels):05d}.jpg", seed + len(labels))
                counts[parts[name], BLOOMS[label]] += 1
    savemat(home / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    savemat(home / "setid.mat", {name: np.array([numbers], np.uint16) for name, numbers in sets.items()})
    return Built(home, dict(counts), tuple(BLOOMS.values()))


def waterbirds(root, seed=5000):
    home, counts, lines = root / "waterbird_complete95_forest2water2", Counter(), []
    for index, (folder, bird, background, split) in enumerate(
        (folder, int(folder[:3] == "001"), background, split)
        for folder in BIRDS
        for split in (0, 0, 1, 2)
        for background in (0, 1)
    ):
        name = f"{folder}/{folder[4:]}_{index:04d}.jpg"
        save(home / name, seed + index)
        scene = ("/b/bamboo_forest/0001.jpg", "/o/ocean/0001.jpg")[background]
        lines.append(f"{index + 1},{name},{bird},{split},{background},{scene}")
        kind = ("landbird", "waterbird")[bird]
        counts[("train", "val", "test")[split], kind] += 1
        counts[("train", "val", "test")[split], f"{kind} on {('land', 'water')[background]}"] += 1
    write(home / "metadata.csv", "img_id,img_filename,y,split,place,place_filename", *lines)
    return Built(home, dict(counts), ("landbird", "waterbird"))


TISSUE_FOLDERS = (
    "01_TUMOR",
    "02_STROMA",
    "03_COMPLEX",
    "04_LYMPHO",
    "05_DEBRIS",
    "06_MUCOSA",
    "07_ADIPOSE",
    "08_EMPTY",
)


def kather(root, each=6, slides=6, nested=True, seed=6000):
    name = "Kather_texture_2016_image_tiles_5000"
    home, counts = root / name / name if nested else root / name, Counter()
    for number, folder in enumerate(TISSUE_FOLDERS):
        for index in range(each):
            slide = (index + number) % slides + 1
            source = f"{10 + index:X}A{number}_CRC-Prim-HE-{slide:02d}_{index:03d}.tif"
            file = f"{source}_Row_{index}_Col_{number}.tif"
            save(home / folder / file, seed + 50 * number + index)
            counts["all", folder[3:].lower()] += 1
            counts["all", f"slide {slide:02d}"] += 1
    (home / "01_TUMOR" / "Thumbs.db").write_bytes(b"x")
    return Built(home, dict(counts), tuple(folder[3:].lower() for folder in TISSUE_FOLDERS))


def lesions(root, patients=9, each=2, by_picture=True, seed=7000):
    home, counts, rows = root / "lesions", Counter(), []
    for label, kind in enumerate(("cyst", "hemangioma", "metastasis")):
        for patient in range(label, patients + label):
            for number in range(each):
                name = f"{kind}/P{patient:02d}_{number}.png"
                save(home / name, seed + 100 * label + 10 * patient + number)
                rows.append(f"{name},P{patient:02d}")
                counts["all", kind] += 1
    people = [f"P{patient:02d},{50 + patient}" for patient in range(patients + 2)]
    lines = ["file,patient", *rows] if by_picture else ["patient_id,age", *people]
    write(home / "patients.csv", *lines)
    return Built(home, dict(counts), ("cyst", "hemangioma", "metastasis"))


LAYOUTS = {
    "cub": cub,
    "fgvc-aircraft": aircraft,
    "stanford-cars": cars,
    "oxford-pet": pet,
    "flowers-102": flowers,
    "waterbirds": waterbirds,
    "kather-2016": kather,
    "lesions": lesions,
}
