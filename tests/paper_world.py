"""The scale `paper` on miniatures: published layouts with a few pictures, a random Stable Diffusion folder,
full-size classifiers with random weights, and presets whose numbers of steps, copies and updates are small.
Everything else is the preset's."""

import ast
import contextlib
import io
import json
import re

import numpy as np
from PIL import Image

import miniatures
import nbformat
from genaug import presets
from genaug.data.mimic_cxr_lt import MIMIC_HEADS, MIMIC_TAILS
from random_pipeline import random_pipeline
from table_pages import TABLES

FEW = {  # method -> settings that make it cheap; two learning steps, two sampler steps
    **dict.fromkeys(
        ("da-fusion", "diff-gen", "diff-aug", "diff-mix", "diff-ii"), "naming.steps=2;num_inference_steps=2"
    ),
    **dict.fromkeys(("real-gen", "real-guidance", "real-mix"), "num_inference_steps=2"),
    "real-filter": "num_inference_steps=2;rounds=1",
    "feature-space": "denoising_steps=1;generations=2;imitation_updates=1;interaction_updates=1;"
    "num_inference_steps=2;tail=1;width=8",
    "round-trip": "",
    "smote": "",
    "dcgan": "batch_size=2;steps=2",
    "stylegan": "batch_size=2;steps=2",
    "textual-inversion": "naming.steps=2;num_inference_steps=2",
    "pixel-diffusion": "batch_size=2;corpus=20;num_inference_steps=2;pretraining_batch=2;pretraining_steps=2;"
    "steps=2;widths=32:64:64:64",
}
STUDY = {
    "runs": [0],
    "draws": [1, 1],
    "per_class": 2,
    "num_inference_steps": 2,
    "judge": ["vit_base_patch16_224", "", 224, 2],
    "overrides": {"steps": 2, "batch_size": 2, "expert_updates": 2},
}


def cheap(arm):
    "The arm with few steps; what its text says about anything else stays."
    head, plus, behind = arm.partition("+")
    name, _, settings = head.partition("@")
    fields = dict(part.split("=", 1) for part in settings.split(";") if part)
    small = dict(part.split("=", 1) for part in FEW.get(name, "").split(";") if part)
    if fields.get("naming") == "words":
        small.pop("naming.steps", None)
    fields = {
        **fields,
        **small,
        **({"tail": "1"} if "tail" in fields else {}),
        **({"copies": "0.3"} if "copies" in fields else {}),
    }
    fields = {key: value for key, value in fields.items() if key != "fill" or name == "smote"}
    return (
        name
        + ("@" + ";".join(f"{key}={value}" for key, value in sorted(fields.items())) if fields else "")
        + plus
        + behind
    )


def rehearsed(record, shared, most=None):
    "Small numbers; with `most` one arm of each method, and no filter, which turns down all random pictures."

    def small(cell):
        arms = [
            cheap(arm)
            for arm in (record["shared"] | cell)["methods"]
            if not (most and arm.startswith("real-filter"))
        ]
        first = {re.split("[@+]", arm)[0] if most else arm: arm for arm in reversed(arms)}
        cell = cell | {
            "methods": [arm for arm in dict.fromkeys(arms) if arm in first.values()],
            "splits": [0],
            "repeats": [0],
        }
        if cell["cell"].endswith(" vit"):  # six seconds a run
            cell["methods"] = cell["methods"][:1] + cell["methods"][-1:]
        if cell.get("training"):
            cell["training"] = {
                **{
                    key: value for key, value in cell["training"].items() if key not in ("epochs", "patience")
                },
                "updates": 2,
                "batch_size": 2,
            }
            # AdamW would hold their weights four times
            if cell["network"] == "vgg16" or cell["network"].startswith("vit"):
                cell["training"] |= {"optimizer": "sgd", "momentum": 0}
        if cell.get("study", {}).get("runs"):
            cell["study"] = {**cell["study"], **STUDY}
        return cell

    return {
        **record,
        "shared": record["shared"] | {"splits": [0], "repeats": [0], "copies": 0.3},
        "cells": [small(cell) for cell in record["cells"]],
    }


def write_presets(folder, tables, **options):
    "Small presets of these tables in a folder."
    source = presets.presets_folder()
    folder.mkdir(parents=True, exist_ok=True)
    shared = json.loads((source / "_shared.json").read_text(encoding="utf-8"))
    (folder / "_shared.json").write_text(json.dumps(shared), encoding="utf-8")
    for table in tables:
        record = json.loads((source / f"{table}.json").read_text(encoding="utf-8"))
        (folder / f"{table}.json").write_text(
            json.dumps(rehearsed(record, shared, **options)), encoding="utf-8"
        )


def chests(root):
    "Thirty pictures of each part with the ten labels, in the layout of the 19-label release."
    labels, draw = (*MIMIC_HEADS, *MIMIC_TAILS), np.random.default_rng(0)
    for part in ("train", "val", "test"):
        lines = [",".join(["dicom_id", "subject_id", "path", *labels])]
        for number in range(30 if part == "train" else 12):
            name = f"files/p10/p{part}{number}/s1/{part}{number}.jpg"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / name)
            row = [
                int(draw.random() < (0.6 if index < 5 else 0.15) or number % 10 == index)
                for index in range(10)
            ]
            lines.append(",".join([f"{part}{number}", f"{part}{number}", name, *map(str, row)]))
        (root / f"miccai2023_mimic-cxr-lt_labels_{part}.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def lesion_parts(root):
    "Lesions with the three parts of the paper."
    draw = np.random.default_rng(1)
    for part, each in (("train", 4), ("val", 2), ("test", 2)):
        for kind in ("cyst", "hemangioma", "metastasis"):
            for number in range(each):
                path = root / part / kind / f"{part}{kind}{number}_0.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    return root


def build_data(root):
    "Every data set of the presets in miniature: the folder that holds them."
    miniatures.cub(root / "cub", train=6)
    miniatures.aircraft(root / "aircraft", each=5)
    miniatures.cars(root / "cars", train=5)
    miniatures.pet(root / "pet", train=5, test=1)
    miniatures.flowers(root / "flowers", train=3, val=3, test=4)
    miniatures.cub(root / "waterbirds", train=6)
    miniatures.waterbirds(root / "waterbirds")
    miniatures.kather(root / "kather", each=3, slides=3)
    chests(root / "mimic-cxr-lt")
    lesion_parts(root / "lesions")
    return root


def build_backbone(folder):
    "A Stable Diffusion folder with the real module types, random weights and small widths."
    random_pipeline().save_pretrained(folder, safe_serialization=True)
    return folder


def run_page(name, whole=False, **parameters):
    "Executes a table notebook through the cell that runs, or the whole page; its names."
    space = {"display": lambda *shown: None}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in nbformat.read(TABLES / f"{name}.ipynb", 4).cells:
            if cell.cell_type == "code":
                exec(compile(ast.parse(cell.source), name, "exec"), space)
                if "parameters" in cell.metadata.get("tags", []):
                    space.update(parameters)
                if "if run:" in cell.source and not whole:
                    break
    return space
