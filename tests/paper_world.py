"""The scale `paper` on miniatures: published layouts with a few pictures, a random Stable Diffusion folder,
full-size classifiers with random weights, and presets whose numbers of steps, copies and updates are small.
Everything else is the preset's."""

import ast
import contextlib
import ctypes
import dataclasses
import io
import json
import re
import resource
import time
import weakref

import miniatures
import nbformat
import numpy as np
import torch
from PIL import Image
from random_pipeline import random_pipeline
from table_pages import TABLES

from genaug import classifier, features, presets, trained_classifier
from genaug.data.mimic_cxr_lt import MIMIC_HEADS, MIMIC_TAILS
from genaug.networks import Normalized
from genaug.views import View

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
    "stylegan": "batch_size=2;latent_dim=32;steps=2;width=32",
    "textual-inversion": "naming.steps=2;num_inference_steps=2",
    "pixel-diffusion": "batch_size=2;corpus=20;num_inference_steps=2;pretraining_batch=2;pretraining_steps=2;"
    "steps=2;widths=32:64:64:64",
}
REHEARSED = {  # table -> cell -> methods that are rehearsed, one arm each: as many as 20 seconds allow
    "diff_ii_components": {"aircraft 5-shot resnet50": ("original", "round-trip", "diff-ii")},
    "diff_ii_few_shot": {"cars 10-shot vit": ("original",)},
    "diff_ii_long_tail": {"flowers IF=10 lt_diffmix": ("original", "drw", "diff-mix")},
    "diff_ii_main_job": {"pet 5-shot resnet50": ("original", "mixup", "round-trip", "diff-ii")},
    "diff_ii_out_of_distribution": {
        "waterbirds 5-shot resnet50": ("original", "strong-augmentation", "real-guidance", "real-mix")
    },
    "diff_ii_split_ratio": {"aircraft 10-shot resnet50": ("original", "round-trip", "diff-ii")},
    "diff_ii_strength": {"aircraft 5-shot resnet50": ("original", "da-fusion", "diff-aug", "diff-ii")},
    "feature_aligned": {"kather dreambooth tumor": ("fine-tuned", "feature-aligned")},
    "feature_aligned_expert": {
        "kather resnet50": ("original",),
        "kather vit_base_patch16_224": ("original",),
    },
    "feature_aligned_settings": {"kather settings": ("feature-aligned",)},
    "feature_space_ablations": {"mimic-cxr-lt densenet121": ("original", "feature-space", "real-gen")},
    "feature_space_long_tail": {
        "mimic-cxr-lt densenet121": ("original", "round-trip", "smote", "feature-space")
    },
    "generator_free_baselines": {
        "cub 5-shot resnet50": ("original", "cutmix", "augmix"),
        "cub IF=100 lt_diffii": ("original", "oversampling", "cmo"),
    },
    "genmix_alpha_and_ratio": {"lesions vgg16": ("genmix",)},
    "genmix_lesions": {"lesions vgg16": ("original", "stylegan", "pixel-diffusion")},
    "genmix_tsne": {"lesions vgg16": ("dcgan",)},
    "size_and_copies": {"cub 5-shot resnet50": ("original", "strong-augmentation", "diff-ii", "diff-aug")},
}
STUDY = {
    "runs": [0],
    "draws": [1, 1],
    "per_class": 2,
    "num_inference_steps": 2,
    "left_out": ["empty", "complex", "lympho", "debris", "adipose", "mucosa"],  # two of eight are painted
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


def rehearsed(record, shared, few=None):
    "Small numbers; with the cells of a table in `few`, of each one arm of each method that stands there."

    def small(cell):
        arms = [cheap(arm) for arm in (record["shared"] | cell)["methods"]]
        first = {re.split("[@+]", arm)[0] if few else arm: arm for arm in reversed(arms)}
        if few and cell["cell"] in few:
            first = {name: first[name] for name in few[cell["cell"]]}
        cell = cell | {
            "methods": [arm for arm in dict.fromkeys(arms) if arm in first.values()],
            "splits": [0],
            "repeats": [0],
        }
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


def write_presets(folder, tables, few=None):
    "Small presets of these tables in a folder; `few`: table -> its cells with few methods."
    source = presets.presets_folder()
    folder.mkdir(parents=True, exist_ok=True)
    shared = json.loads((source / "_shared.json").read_text(encoding="utf-8"))
    (folder / "_shared.json").write_text(json.dumps(shared), encoding="utf-8")
    for table in tables:
        record = json.loads((source / f"{table}.json").read_text(encoding="utf-8"))
        (folder / f"{table}.json").write_text(
            json.dumps(rehearsed(record, shared, few and few[table])), encoding="utf-8"
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
    for part, each in (("train", 4), ("val", 1), ("test", 1)):
        for kind in ("cyst", "hemangioma", "metastasis"):
            for number in range(each):
                path = root / part / kind / f"{part}{kind}{number}_0.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    return root


def build_data(root):
    "Every data set of the presets in miniature: the folder that holds them."
    miniatures.cub(root / "cub", train=6, test=1)
    miniatures.aircraft(root / "aircraft", each=4)
    miniatures.cars(root / "cars", train=5, test=1)
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


def give_back_memory():
    "Let the C library return what is free, and from now on each freed tensor of four megabytes at once."
    with contextlib.suppress(OSError, AttributeError):  # another system than Linux
        library, threshold = ctypes.CDLL(None), -3  # M_MMAP_THRESHOLD
        library.mallopt(threshold, 4 << 20)
        library.malloc_trim(0)


class StepsAtOnce(torch.optim.SGD):
    "Plain descent that uses up each gradient as soon as there is one, so that never all of them are there."

    def __init__(self, groups, momentum=0.0, weight_decay=0.0):
        super().__init__(groups, lr=0.0, momentum=momentum, weight_decay=weight_decay)
        own = weakref.ref(self)
        for position, group in enumerate(self.param_groups):
            for parameter in group["params"] if not momentum else ():
                parameter.register_post_accumulate_grad_hook(
                    lambda changed, position=position: own() and own().changed(changed, position)
                )

    def step(self, closure=None):
        "Nothing has a gradient left; the pieces of this update go back, since they do not fit the next."
        super().step(closure)
        give_back_memory()

    @torch.no_grad()
    def changed(self, parameter, position):
        "Change one tensor by its gradient, and forget that."
        group = self.param_groups[position]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(parameter.grad, alpha=-group["lr"])
        parameter.grad = None


SMALL_VIEW = View(64, 64, 0, flip=True)
LARGE, DRAWN = 1 << 22, 1 << 20  # tensors with more numbers than the first repeat as many as the second


def repeated(draw):
    "A function that fills a tensor with random numbers, made quick for the hundred million of VGG-16."

    def fill(tensor, *arguments, **named):
        if tensor.numel() <= LARGE:
            return draw(tensor, *arguments, **named)
        numbers = draw(tensor.new_empty(DRAWN), *arguments, **named)
        for piece in tensor.view(-1).split(DRAWN):
            piece.copy_(numbers[: len(piece)])
        return tensor

    return fill


@contextlib.contextmanager
def quick_kernels(networks):
    """Products of matrices in half precision where the processor can; and convolutions without oneDNN for
    VGG-16, whose first full layer it keeps in two orders more, 400 MB each."""
    before, large = torch.get_float32_matmul_precision(), "vgg16" in networks
    try:
        with torch.backends.mkldnn.flags(enabled=not large):
            torch.set_float32_matmul_precision(before if large else "medium")
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_one_order(network, images):
    "What `Normalized.prepared` gives, channel by channel: else a layer of VGG-16 is turned at every answer."
    return ((images - network.mean) / network.std).contiguous()


def small_views(preset):
    "Training presets by name; VGG-16, with all its weights, sees 64 pixels, so that three arms take seconds."

    def changed(name, **changes):
        made = preset(name, **changes)
        return dataclasses.replace(made, view=SMALL_VIEW) if made.network == "vgg16" else made

    return changed


def by_checkpoints(network, images):
    "What `Normalized.forward` gives; a transformer computes its blocks again on the way back."
    if hasattr(network.network, "blocks") and hasattr(network.network, "set_grad_checkpointing"):
        network.network.set_grad_checkpointing(network.training and torch.is_grad_enabled())
    return network.network(network.prepared(images))


def save_memory(monkeypatch):
    """Networks of full size in two gigabytes and on one core: few pictures at a time, gradients used up as
    they come, random weights that repeat."""
    give_back_memory()
    for module in (features, classifier, trained_classifier):
        monkeypatch.setattr(module, "images_at_once", lambda view: 2)
    monkeypatch.setattr(torch.optim, "SGD", StepsAtOnce)
    monkeypatch.setattr(Normalized, "forward", by_checkpoints)
    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, name, repeated(getattr(torch.Tensor, name)))


def used():
    "Seconds of processor time of this process so far, and the megabytes that it held at most."
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kilobytes on Linux
    return time.process_time(), peak / 1000


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
