"""Methods of the registry with settings that cost little, for tests that paint."""

import dataclasses

from genaug.choices import ClassName
from genaug.generators.common import GeneratorAugmenter


def cheap(augmenter, several=False, **changes):
    "The same method, but two learning steps, four sampler steps, two rounds."
    fields = {field.name for field in dataclasses.fields(augmenter)}
    learned = "naming" in fields and not isinstance(augmenter.naming, ClassName)
    quick = {
        "steps": 2,
        "rank": 2,
        "initial": None,
        "batch_size": 2,
        "warmup": 0,
        "expert_network": "letters",
        "expert_weights": None,
        "expert_size": 32,
        "expert_updates": 2,
    }
    settings = {
        "num_inference_steps": 4,
        "rounds": 2,
        "generations": 2,
        "interaction_updates": 2,
        "imitation_updates": 2,
        "width": 8,
        "denoising_steps": 2,
    }
    if learned:
        settings["naming"] = dataclasses.replace(
            augmenter.naming, **{key: value for key, value in quick.items() if hasattr(augmenter.naming, key)}
        )
    if isinstance(augmenter, GeneratorAugmenter):
        settings |= {
            "size": 32,
            "steps": 2,
            "batch_size": 2,
            "width": 8,
            "latent_dim": 8,
            "widths": (8, 8),
            "pretrained": None,
            "per_class": not several,
        }
    known = fields | set(augmenter.own_identity().aliases)
    return augmenter.having(**{key: value for key, value in {**settings, **changes}.items() if key in known})
