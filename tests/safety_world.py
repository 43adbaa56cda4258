"""The world of the safety net: photographs, backbones, cheap arms, and everything of them that
`test_safety_net.py` compares with the files in `safety/`.

Whatever decides an id or a seed here is made of whole numbers as far as genaug allows, so that it is the same
on every processor; what is computed in floating point is compared within a tolerance. Looked at on AVX-512,
and on AVX2 by `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`: all ids agree, and pictures within 1 of
255.
"""

import functools
import hashlib
import json
import math
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from quick_methods import cheap
from random_pipeline import random_pipeline
from toy_sets import BIRDS, photographs

from genaug.arms import make_arm
from genaug.choices import LearnedAdapter, LearnedCategory, LearnedTokens
from genaug.classifier import train_classifier
from genaug.comparison import Comparison
from genaug.concepts.dreambooth import FineTuned
from genaug.core import LabeledImages
from genaug.datasets import load
from genaug.diffusion import ToyBackbone
from genaug.experiment import Run
from genaug.identity import content_hash
from genaug.judge import train_judge
from genaug.messages import GenaugError
from genaug.networks import embedded_weights
from genaug.plan_file import plain_value
from genaug.plans import Budget
from genaug.prompts import ClassPrompt
from genaug.registry import find_method, method_names
from genaug.results import KEY, load_rows
from genaug.schedule import USES, Showing, TrainingSchedule, training_use
from genaug.stable_diffusion import StableDiffusionBackbone, load_backbone
from genaug.training_presets import training_preset

SAFETY = Path(__file__).resolve().parent / "safety"
WORK = tempfile.TemporaryDirectory(prefix="genaug-safety-")  # removed when the process ends
SUFFIXES = ("on grass", "in snow")
ROW_FIELDS = ("id", "method", "label", "inputs", "prompts", "seed", "settings", "group", "round", "fitted_on")
FEED_FIELDS = (
    "epoch",
    "slot",
    "real_id",
    "coin",
    "shown",
    "part",
    "weight",
    "view_seed",
    "partner",
    "mix",
    "mix_seed",
    "mix_weight",
)
BUDGETS = {
    "copies": Budget(copies=2),
    "per class": Budget(per_class={"owl": 3, "wren": 1}),
    "fill": Budget(fill=True),
    "total": Budget(total=8),
    "even": Budget(copies=1, even=True),
}

CHANGED = (  # arms as people and tables write them
    "diff-ii@mode=slerp",
    "diff-ii@split_ratio=0.7",
    "diff-ii@split_ratio=1;guidance_scale=3+cutmix",
    "diff-mix+cutmix",
    "diff-mix@naming=tokens",
    "diff-aug@naming=words;guidance_scale=5",
    "dcgan@copies=1+genmix@alpha=1",
    "real-gen+genmix@alpha=1",
    "textual-inversion@copies=1+genmix",
    "real-guidance@use=append;copies=2",
    "real-guidance@use=two_loss;real_share=0.7",
    "da-fusion@replace=0.3+drw",
    "real-gen@use=swap_class+oversampling",
    "real-gen@naming=category",
    "datadream@use=only",
    "loft+mixup@alpha=0.2",
    "smote@neighbours=2;use=append",
    "diagen@use=swap_pool;weigh=sampling",
    "feature-space@copies=1;tail=3;heads=1",
    "real-mix@jitter=0.1:0.2",
    "genie@guidance_until=0.5",
    "mixup@alpha=0.3;probability=1",
    "augmix@jsd=false",
    "real-gen+genmix@partners=synthetic",
    "oversampling+strong-augmentation",
    "cmo+drw",
    "cmo-drw",
    "genmix@alpha=2;per_batch=true",
)


def names_of(kind):
    "The registered methods of a kind, as they stand today."
    return [name for name in method_names() if find_method(name).kind == kind]


def arm_texts():
    "Every registered arm, every mixer behind one that paints, and the changed ones."
    behind = [f"real-gen+{name}" for name in method_names() if find_method(name).part is not None]
    return [*method_names(), *behind, *CHANGED]


# Plain values, and how they are compared


def plain(value):
    "A value as JSON has it, floats to nine significant digits."
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return str(value) if not math.isfinite(value) else 0.0 if value == 0 else float(f"{value:.9g}")
    return plain(json.loads(json.dumps(value, default=plain_value)))


def digest(value):
    "SHA-256 of a plain value."
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def rows_record(rows, fields, shown):
    "The first rows in full, and the digest of all."
    every = [{name: plain(getattr(row, name)) for name in fields} for row in rows]
    return {"count": len(every), "first": every[:shown], "digest": digest(every)}


# Photographs and backbones


@functools.cache
def photographs_for(backbone):
    "Those of the toy world; for the embedded backbone two photographs of each of three digits."
    if backbone != "tiny":
        return photographs()
    pool = scenes()["train"]
    few = pool.select(
        [pool.ids[position] for index in range(3) for position in np.flatnonzero(pool.targets == index)[:2]]
    )
    return LabeledImages([few.image(index) for index in range(6)], few.targets, few.class_names[:3], few.ids)


def whole_weights(module, name):
    "Give a network weights that are whole numbers over a power of two: the same bits everywhere."
    with torch.no_grad():
        for key, value in sorted(module.named_parameters()):
            draw = np.random.default_rng(zlib.crc32(f"{name}.{key}".encode()))
            if value.ndim < 2:
                value.fill_(1.0 if key.endswith("weight") else 0.0)
            else:
                power = 11 + round(math.log2(math.sqrt(math.prod(value.shape[1:]))))
                value.copy_(
                    torch.from_numpy(draw.integers(-3000, 3001, tuple(value.shape)).astype(np.float32))
                    / 2**power
                )


@functools.cache
def backbone(kind):
    """toy: a Gaussian per class; pipeline: Stable Diffusion with weights of whole numbers; tiny: the embedded
    one."""
    if kind == "tiny":
        return load_backbone("tiny")
    if kind == "toy":
        draw = np.random.default_rng(1)
        means, spread = (
            draw.integers(-128, 129, (3, 3, 16, 16)) / 256,
            draw.integers(32, 97, (3, 3, 16, 16)) / 256,
        )
        return ToyBackbone(
            torch.tensor(means, dtype=torch.float32), torch.tensor(spread, dtype=torch.float32), BIRDS
        )
    pipe = random_pipeline()
    for name in ("unet", "vae", "text_encoder"):
        whole_weights(getattr(pipe, name), name)
    folder = Path(tempfile.mkdtemp(dir=WORK.name))
    pipe.save_pretrained(folder)
    return StableDiffusionBackbone.from_folder(folder)


@functools.cache
def fitted(text, kind="toy", task="single"):
    "(augmenter of an arm, fitted; its photographs)"
    real = photographs_for(kind) if task == "single" else photographs(task)
    changes = {"num_inference_steps": 3, "rounds": 1} if kind == "tiny" else {}
    augmenter = cheap(make_arm(text, backbone(kind), suffixes=SUFFIXES).augmenter, task == "multi", **changes)
    return augmenter.fit(real, Path(tempfile.mkdtemp(dir=WORK.name))), real


# Arms and plans


def settings_record(part):
    "What a part of an arm brings into the keys of stored work."
    return None if part is None else plain({"name": part.name, "settings": part.settings()})


def arm_record(text):
    "An arm with the embedded backbone's settings and with the papers'."
    tiny, paper = make_arm(text, suffixes=SUFFIXES), make_arm(text, backbone("toy"), suffixes=SUFFIXES)
    use = None if paper.use is None else plain(paper.use.record())
    return {
        "name": paper.text,
        "augmenter": settings_record(paper.augmenter),
        "tiny": settings_record(tiny.augmenter),
        "mixer": settings_record(paper.mixer),
        "balancer": settings_record(paper.balancer),
        "use": use,
        "budget": plain(dict(paper.budget)),
    }


def plan_record(text):
    """The plan of an arm's augmenter: rows of one budget, digests for others and for photographs with several
    labels."""
    augmenter, real = fitted(text)
    record = {
        "fingerprint": augmenter.fingerprint(),
        **rows_record(augmenter.plan(real, BUDGETS["copies"], 0), ROW_FIELDS, 6),
    }
    record["budgets"] = {
        name: digest_or_error(augmenter, real, budget) for name, budget in BUDGETS.items() if name != "copies"
    }
    several, photos = fitted(text, "toy", "multi")
    record["several labels"] = digest_or_error(several, photos, BUDGETS["copies"])
    return record


def digest_or_error(augmenter, real, budget):
    "The digest of a plan, or that it is refused."
    try:
        return rows_record(augmenter.plan(real, budget, 0), ROW_FIELDS, 0)["digest"]
    except GenaugError:
        return "refused"


@functools.cache
def bench():
    "A comparison on the embedded scenes, and its first split."
    question = Comparison(("original",), shots=1, splits=(0,), repeats=(0,), suffixes=SUFFIXES, updates=20)
    return Run(question, scenes(), backbone("tiny"), Path("OUT"), False)


def unit_key(text):
    "The file in which a comparison keeps the result of an arm."
    run = bench()
    return run.path(run.arm(text), run.first, 0).name


# Feeds and mixtures


def painted_set(real, count=9):
    "A synthetic set for feeding: sources, weights (one is zero), labels of the sources."
    draw = np.random.default_rng(2)
    places = [number * 2 % len(real) for number in range(count)]
    pixels = [draw.integers(0, 256, real.image(0).shape).astype(np.uint8) for _ in places]
    weights = [(1.0, 0.5, 0.25, 0.0)[number % 4] for number in range(count)]
    infos = [
        {"sources": [[real.ids[index], 1.0]], "weight": weight} for index, weight in zip(places, weights)
    ]
    return LabeledImages(
        pixels,
        real.labels[places] if real.task == "multi" else real.targets[places],
        real.class_names,
        [f"made-{number}" for number in range(count)],
        real.task,
        None,
        None,
        infos,
    )


def feeds():
    """What is fed, by name: (text of the mixer and balancer or none, use, weigh and synthetic where they
    matter)."""
    mixers = [
        name
        for name in method_names()
        if find_method(name).part is not None and find_method(name).kind != "balancer"
    ]
    cases = {f"use={use}": ("", {"use": use}) for use in USES if use != "partners"}
    cases |= {
        f"{use}, sampling": ("", {"use": use, "weigh": "sampling"})
        for use in ("swap_class", "only", "two_loss")
    }
    cases |= {f"{name} on {use}": (name, {"use": use}) for name in mixers for use in ("swap_class", "append")}
    cases |= {
        f"{name} on {use}": (name, {"use": use})
        for name in names_of("balancer")
        for use in ("swap_own", "two_stage")
    }
    cases |= {
        f"{name} alone": (name, {"synthetic": None})
        for name in [*mixers, *names_of("balancer"), "cmo+drw", "oversampling+mixup"]
        if name != "genmix"
    }
    cases |= {
        "mixup on two_loss": ("mixup", {"use": "two_loss"}),
        "genmix on partners": ("genmix", {"use": "partners"}),
        "genmix of one class": ("genmix@same_class=true", {"use": "partners"}),
        "genmix of photographs": ("genmix@partners=pool;synthetic_share=0", {"synthetic": None}),
        "oversampling+genmix": ("oversampling+genmix", {"use": "partners"}),
        "genmix of synthetic": ("real-gen+genmix@partners=synthetic", {"use": "partners"}),
        "smote of five": ("real-gen+smote@neighbours=5", {"use": "swap_class"}),
    }
    return cases


def parts_of(text):
    "(mixer, balancer) of a text such as `cmo+drw`."
    if not text:
        return None, None
    head = text.partition("@")[0].partition("+")[0]
    arm = make_arm(
        text if find_method(head).kind in ("mixer", "balancer") or "+" in text else f"original+{text}"
    )
    return arm.mixer, arm.balancer


def showing_of(fields, mixer, balancer):
    "How a case of `feeds` or `trainings` shows its images."
    settings = {name: fields[name] for name in ("weigh",) if name in fields}
    return Showing(training_use(fields.get("use", "swap_class"), **settings), mixer, balancer)


def feed_record(name, task="single"):
    "Two epochs of a training, slot by slot: the first rows in full, the digest of all."
    text, fields = feeds()[name]
    real, (mixer, balancer) = photographs(task), parts_of(text)
    synthetic = fields["synthetic"] if "synthetic" in fields else painted_set(real)
    try:
        schedule = TrainingSchedule(
            real, synthetic, 3, showing_of(fields, mixer, balancer), epochs=2, batch_size=3
        )
        rows = [row for epoch in range(2) for row in schedule.plan(epoch).rows]
    except GenaugError:
        return {"refused": True}
    weights = [schedule.loss_weights(epoch) for epoch in range(2)]
    record = rows_record(rows, FEED_FIELDS, 3 if task == "single" else 0)
    return record | {
        "loss weights": [
            None if weight is None else [round(value, 5) for value in weight.tolist()] for weight in weights
        ]
    }


def mixture_texts():
    return [
        name for name in feeds() if name.endswith(" alone") and parts_of(feeds()[name][0])[0] is not None
    ] + ["genmix of photographs"]


def mixture(name):
    "(strip of four mixed photographs, their labels)"
    mixer, real = parts_of(feeds()[name][0])[0], photographs()
    images, labels = (
        real.batch()[[0, 3, 5, 6]],
        torch.from_numpy(np.asarray(real.labels[[0, 3, 5, 6]], np.float32)),
    )
    mixed, shares = mixer.mix(images, labels, images.roll(1, 0), labels.roll(1, 0), [11, 22, 33, 44])
    return strip(
        [np.asarray(item.mul(255).round().byte().permute(1, 2, 0)) for item in mixed]
    ), shares.double().numpy()


# Pictures


def strip(images):
    "Pictures side by side, as three channels."
    return np.concatenate([np.repeat(image, 3, 2) if image.shape[2] == 1 else image for image in images], 1)


def painted(name, kind):
    "The first two pictures of a method that need no other picture."
    augmenter, real = fitted(name, kind)
    known = set(real.ids)
    rows = [
        row
        for row in augmenter.plan(real, BUDGETS["copies"], 0)
        if all(source in known for source, _ in row.inputs)
    ][:2]
    return strip(augmenter.paint(rows, real))


def picture_names():
    "(method, backbone) of every committed strip."
    pairs = [(name, kind) for kind in ("toy", "pipeline") for name in names_of("augmenter")]
    return pairs + [(name, "tiny") for name in ("round-trip", "real-gen", "real-guidance", "diff-ii")]


def mixture_file(name):
    return SAFETY / "mixtures" / f"{name.replace(' ', '-')}.png"


def read_strip(path):
    return np.asarray(Image.open(path).convert("RGB"))


# Learned words


def learn(kind):
    "What is learned in a few steps on the pipeline, or (fine-tuned) a small object of that kind."
    if kind == "fine-tuned":
        values = torch.arange(-12.0, 12.0).reshape(2, 3, 4) / 8
        return FineTuned(
            {"owl": "sks owl"},
            {"unet.conv_in.weight": values},
            {"_class_name": "UNet2DConditionModel"},
            {"method": "by hand"},
        )
    namings = {
        "tokens": LearnedTokens(steps=4, initial=None, batch_size=2),
        "category": LearnedCategory(steps=3, rank=1, initial=None, batch_size=2, learning_rate=1e-3),
        "shelf": LearnedAdapter(scope="class", steps=2, rank=1, batch_size=1, warmup=0, learning_rate=1e-3),
    }
    real = (
        photographs()
        if kind != "shelf"
        else photographs().select(["single-0.png", "single-3.png", "single-6.png"])
    )
    return namings[kind].learn(backbone("pipeline"), real, ClassPrompt())


def concept_tensors(concept):
    "Every learned tensor by a name."
    if hasattr(concept, "concepts"):
        return {
            f"{key}/{name}": value
            for key, item in concept.concepts.items()
            for name, value in concept_tensors(item).items()
        }
    if isinstance(concept, FineTuned):
        return dict(concept.weights)
    groups = {"tokens": concept.tokens, "lora": concept.lora or {}, "text": concept.text_lora or {}}
    return {f"{group}/{name}": value for group, tensors in groups.items() for name, value in tensors.items()}


CONCEPTS = ("tokens", "category", "shelf", "fine-tuned")


def pack(folder, path):
    "A folder as one zip file with the same bytes whenever it is made."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file() and not file.name.endswith("lock"):
                archive.writestr(
                    zipfile.ZipInfo(file.relative_to(folder).as_posix()),
                    file.read_bytes(),
                    zipfile.ZIP_DEFLATED,
                )


def unpack(name, folder):
    with zipfile.ZipFile(SAFETY / f"{name}.zip") as archive:
        archive.extractall(folder)
    return Path(folder)


# Trainings


@functools.cache
def scenes():
    return load("digit-scenes")


@functools.cache
def lesson():
    """(20 photographs of the ten digits with a short tail, 20 pictures that stand for a synthetic set, 60 to
    be asked about)"""
    sets = scenes()
    pool, test = sets["train"], sets["test"]
    places = [np.flatnonzero(pool.targets == index) for index in range(10)]
    counts = [3, 3, 3, 2, 2, 2, 2, 1, 1, 1]
    real = pool.select([pool.ids[index] for own, count in zip(places, counts) for index in own[:count]])
    other = pool.select([pool.ids[index] for own in places for index in own[10:12]])
    anchors = {int(target): name for name, target in zip(real.ids, real.targets)}
    infos = [{"sources": [[anchors[int(target)], 1.0]], "weight": 1.0} for target in other.targets]
    made = LabeledImages(
        [other.image(index) for index in range(len(other))],
        other.targets,
        real.class_names,
        [f"made-{index}" for index in range(len(other))],
        "single",
        None,
        None,
        infos,
    )
    asked = test.select(
        [test.ids[position] for index in range(10) for position in np.flatnonzero(test.targets == index)[:6]]
    )
    return real, made, asked


def trainings():
    "Ways of training, by name: (text of mixer and balancer, use and synthetic where they matter)."
    ways = {"original": ("", {"synthetic": None})}
    ways |= {use: ("", {"use": use}) for use in USES if use != "partners"}
    ways |= {
        name: (name, {"synthetic": None})
        for name in (
            "mixup",
            "cutmix",
            "strong-augmentation",
            "augmix",
            "smote",
            "cmo",
            "drw",
            "oversampling",
            "cmo+drw",
        )
    }
    return ways | {
        "genmix": ("genmix", {"use": "partners"}),
        "oversampling+genmix": ("oversampling+genmix", {"use": "partners"}),
        "mixup on swap_class": ("mixup", {"use": "swap_class"}),
    }


def answers(name, seed):
    "One digit per test picture: the class that a classifier trained this way answers."
    text, fields = trainings()[name]
    (real, made, asked), (mixer, balancer) = lesson(), parts_of(text)
    trained = train_classifier(
        real,
        preset=training_preset("tiny", updates=15),
        seed=seed,
        synthetic=fields.get("synthetic", made),
        showing=showing_of(fields, mixer, balancer),
    )
    return "".join(str(answer) for answer in trained.predict(asked).argmax(1))


def share_right(text):
    "Accuracy of such answers."
    asked = lesson()[2]
    return sum(int(item) == target for item, target in zip(text, asked.targets.tolist())) / len(text)


# What comes with the library, and work begun by it


def schedule_print():
    """Hash of the noise schedule as this processor's torch computes it, without genaug: it stands in the
    fingerprint of every diffusers backbone, so that keys only hold among processors that agree on it (x86
    with AVX2 or more)."""
    schedule = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2, 0)
    return hashlib.sha256(schedule.numpy().tobytes()).hexdigest()


def embedded_record():
    "Hashes of the embedded weights, of the sets and of the judges found for them."
    sets = {"digit-scenes": scenes(), "digits": load("digits"), "textures": load("textures")}
    judges = {name: train_judge(parts["train"], stored=True) for name, parts in sets.items()}
    return {
        "tiny": load_backbone("tiny").fingerprint(),
        "networks": {name: content_hash(embedded_weights(name)) for name in ("letters", "wide")},
        "sets": {
            name: {part: images.fingerprint() for part, images in parts.items()}
            for name, parts in sets.items()
        },
        "judges": {
            name: None if judge is None else content_hash(judge.network.state_dict())
            for name, judge in judges.items()
        },
    }


COMMANDS = {
    "augment": [
        "augment",
        "digit-scenes",
        "OUT",
        "--method",
        "real-gen@num_inference_steps=3",
        "--shots",
        "1",
        "--total",
        "10",
        "--quiet",
    ],
    "learned": [
        "augment",
        "digit-scenes",
        "OUT",
        "--method",
        "diff-ii@naming.steps=2;naming.rank=1;num_inference_steps=3",
        "--shots",
        "1",
        "--total",
        "10",
        "--quiet",
    ],
    "compare": [
        "compare",
        "digit-scenes",
        "--out",
        "OUT",
        "--methods",
        "original,mixup,cmo+drw,real-guidance@num_inference_steps=4+genmix@alpha=1",
        "--shots",
        "1",
        "--copies",
        "1",
        "--seeds",
        "1",
        "--repeats",
        "2",
        "--updates",
        "5",
        "--no-measure",
        "--quiet",
    ],
}


def command(words, out):
    return [str(out) if word == "OUT" else word for word in words]


def pictures_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(Path(folder).rglob("*.png"))
    }


def finished_record(folder):
    "Ids, labels, file names and what else a finished set says of its pictures."
    images = LabeledImages.open(Path(folder) / "train")
    lines = [
        json.loads(line)
        for line in (Path(folder) / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    files = [line["file_name"] for line in lines]
    return {
        "ids": list(images.ids),
        "labels": plain(images.labels.tolist()),
        "files": files,
        "metadata": [plain({key: value for key, value in line.items() if key != "sha256"}) for line in lines],
    }  # the hash of pixels: a batch of another size may change one by 1


def result_values(folder):
    "The result rows as keys with their values; the seconds say whether a run was made again."
    return {
        tuple(row[name] for name in KEY): (str(row["value"]), row["n"], row["wall_s"])
        for row in load_rows(Path(folder) / "results.csv")
    }


# The files


def stored(name):
    return json.loads((SAFETY / f"{name}.json").read_text(encoding="utf-8"))
