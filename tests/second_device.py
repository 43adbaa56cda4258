"""A second device on a machine that has one: tensors that live "elsewhere" and refuse to meet those that do
not.

A tensor on the device `ELSEWHERE` keeps its numbers in a tensor of the CPU, so everything can be computed,
and behaves as one on a GPU does: it meets no tensor of another device but single numbers, has no numpy array,
takes no random numbers from a generator of the CPU, and comes back by `.cpu()`. Inside `second_device()` such
tensors can be made by name.
"""

import contextlib

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

# a device that every torch has, and on which nothing of the library computes
ELSEWHERE = torch.device("meta")


def is_elsewhere(device):
    return device is not None and torch.device(device).type == ELSEWHERE.type


class Elsewhere(torch.Tensor):
    "A tensor of the second device."

    @staticmethod
    def __new__(cls, held, requires_grad=False):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=ELSEWHERE,
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    def __repr__(self):
        return f"Elsewhere({self.held})"

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert a tensor of another device to numpy; use .cpu()")

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        "A list as an index becomes a tensor of the CPU; torch itself would make one on the device, unseen."
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):

            def listed(value):
                return torch.as_tensor(value) if isinstance(value, (list, np.ndarray)) else value

            index = tuple(map(listed, args[1])) if isinstance(args[1], tuple) else listed(args[1])
            args = (args[0], index, *args[2:])
        if function == torch.Tensor.data.__get__:  # torch's own goes past this class
            return args[0].detach()
        if function == torch.Tensor.data.__set__:
            args[0].held = args[1].held
            return None
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


MOVES = ("aten::_to_copy", "aten::copy_", "aten::copy", "aten::lift_fresh", "aten::_local_scalar_dense")


def check_meeting(name, function, args, kwargs):
    "What a GPU refuses; and what must not happen here: a tensor of the device that lost its numbers."
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    assert not any(tensor.is_meta and not isinstance(tensor, Elsewhere) for tensor in tensors), function
    large = [tensor for tensor in tensors if tensor.ndim]
    here = [tensor for tensor in large if not isinstance(tensor, Elsewhere)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    indexing = "index" in name and all(tensor.dtype in (torch.int64, torch.bool) for tensor in here)
    if name not in MOVES and there and here and not (indexing and isinstance(args[0], Elsewhere)):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found two devices in {function}"
        )
    if isinstance(kwargs.get("generator"), torch.Generator) and (there or is_elsewhere(kwargs.get("device"))):
        raise RuntimeError(f"Expected a generator of the second device in {function}, found one of the CPU")


def compute(function, args, kwargs):
    "The function on the numbers that are held, its results on the device where they belong."
    name = function._schema.name
    check_meeting(name, function, args, kwargs)
    named = kwargs.get("device")
    inside = any(isinstance(value, Elsewhere) for value in tree_flatten((args, kwargs))[0])
    stays = is_elsewhere(named) or (named is None and inside)
    if name == "aten::copy_":
        stays = isinstance(args[0], Elsewhere)

    def held(value):
        return value.held if isinstance(value, Elsewhere) else value

    known = {
        key: torch.device("cpu") if key == "device" and is_elsewhere(value) else value
        for key, value in kwargs.items()
    }
    actual = function(*tree_map(held, args), **tree_map(held, known))
    wrapped = tree_map(
        lambda value: Elsewhere(value) if stays and isinstance(value, torch.Tensor) else value, actual
    )
    return return_and_correct_aliasing(function, args, kwargs, wrapped) if inside and stays else wrapped


class _Placing(TorchDispatchMode):
    "Tensors that are made by the name of the device, or sent to it, get there."

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


@contextlib.contextmanager
def second_device():
    "While inside, `torch.zeros(2, device=ELSEWHERE)` and `tensor.to(ELSEWHERE)` work."
    with _Placing():
        yield ELSEWHERE
