import json, math, os, shutil
from pathlib import Path
import torch
from torch import nn
try:
    from genaug.core import GenaugError, seed_from, progress_bar
except ImportError:
    import hashlib
    class GenaugError(ValueError): pass
    def seed_from(*parts): return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
    def progress_bar(it, total, description, enabled): return it

def generator_at(seed, step, purpose="step"):
    return torch.Generator().manual_seed(seed_from(seed, step, purpose))

def learning_rate_factor(step, steps, schedule="constant", warmup=0):
    ramp = min(1.0, (step + 1) / (warmup + 1))
    done = min(1.0, max(0.0, (step - warmup) / max(1, steps - warmup)))
    if schedule == "constant": return ramp
    if schedule == "trapezoid": return ramp * min(1.0, (steps - step) / (0.3 * steps))
    if schedule == "linear": return ramp * (1 - done)
    if schedule == "cosine": return ramp * 0.5 * (1 + math.cos(math.pi * done))
    raise GenaugError(f"schedule {schedule!r} is not known; use 'constant', 'linear' or 'cosine'")

def named_tensors(parameters):
    trained, state = {}, {}
    for name, part in parameters.items():
        if isinstance(part, nn.Module):
            state |= {f"{name}.{key}": value for key, value in part.state_dict(keep_vars=True).items()}
            trained |= {f"{name}.{key}": value for key, value in part.named_parameters() if value.requires_grad}
        else:
            state[name] = trained[name] = part
    return trained, state

def make_optimizer(trained, lr, optimizer="adamw", weight_decay=0.0):
    rates = lr if isinstance(lr, dict) else {}
    groups = {}
    for name, parameter in trained.items():
        rate = next((rates[key] for key in rates if name == key or name.startswith(key + ".")), lr if not rates else None)
        groups.setdefault(rate, []).append(parameter)
    groups = [{"params": members, "lr": rate, "initial_lr": rate} for rate, members in groups.items()]
    if optimizer == "adamw": return torch.optim.AdamW(groups, weight_decay=weight_decay)
    if optimizer == "sgd": return torch.optim.SGD(groups, momentum=0.9, weight_decay=weight_decay, nesterov=True)
    raise GenaugError(optimizer)

def save_checkpoint(folder, step, state, optimizer, losses, ema, settings):
    from safetensors.torch import save_file
    folder = Path(folder); target = folder / f"step-{step:08d}"; partial = folder / f"step-{step:08d}.partial"
    shutil.rmtree(partial, ignore_errors=True); partial.mkdir(parents=True)
    tensors = {f"parameter.{name}": value.detach().cpu().clone() for name, value in state.items()}
    if ema is not None:
        tensors |= {f"ema.{i}": value.detach().cpu().clone() for i, value in enumerate(ema.shadow_params)}
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    save_file(tensors, partial / "state.safetensors")
    torch.save(optimizer.state_dict(), partial / "optimizer.pt")
    (partial / "progress.json").write_text(json.dumps({"step": step, "settings": settings, "ema_step": getattr(ema, "optimization_step", None)}))
    for path in partial.iterdir():
        with open(path, "rb") as handle: os.fsync(handle.fileno())
    shutil.rmtree(target, ignore_errors=True); os.replace(partial, target)
    for old in folder.glob("step-*"):
        if old != target: shutil.rmtree(old, ignore_errors=True)

def load_checkpoint(folder, state, optimizer, ema, settings):
    from safetensors.torch import load_file
    found = sorted(path for path in Path(folder).glob("step-????????")) if folder else []
    if not found: return 0, []
    newest = found[-1]; progress = json.loads((newest / "progress.json").read_text())
    if progress["settings"] != settings: raise GenaugError(f"checkpoint {folder} was made with other settings {progress['settings']} vs {settings}")
    tensors = load_file(newest / "state.safetensors")
    with torch.no_grad():
        for name, value in state.items(): value.copy_(tensors[f"parameter.{name}"])
        if ema is not None:
            for i, value in enumerate(ema.shadow_params): value.copy_(tensors[f"ema.{i}"])
            ema.optimization_step = progress["ema_step"]
    optimizer.load_state_dict(torch.load(newest / "optimizer.pt", weights_only=True))
    return progress["step"], tensors["losses"].tolist()

def one_step(loss_at, step, trained, optimizer, factor, seed, grad_clip, accelerator):
    for group in optimizer.param_groups: group["lr"] = group["initial_lr"] * factor
    with torch.random.fork_rng():
        torch.manual_seed(seed_from(seed, step, "global"))
        loss = loss_at(step)
    value = float(loss.detach())
    if not math.isfinite(value): raise GenaugError(f"the loss became {value} at step {step}: lower the learning rate or check the data")
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    if accelerator.num_processes > 1:
        for parameter in trained.values():
            if parameter.grad is not None: parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")
    if grad_clip: torch.nn.utils.clip_grad_norm_(list(trained.values()), grad_clip)
    optimizer.step()
    return value

def train_loop(loss_at, parameters, steps, lr, *, optimizer="adamw", schedule="constant", warmup=0, weight_decay=0.0, grad_clip=1.0,
               checkpoint=None, checkpoint_every=500, seed=0, ema=None, progress=False, callback=None, accelerator=None):
    from accelerate import Accelerator
    accelerator = accelerator or Accelerator()
    trained, state = named_tensors(parameters)
    maker = make_optimizer(trained, lr, optimizer, weight_decay)
    settings = {"lr": lr, "optimizer": optimizer, "schedule": schedule, "warmup": warmup, "weight_decay": weight_decay, "grad_clip": grad_clip, "seed": seed}
    start, losses = load_checkpoint(checkpoint, state, maker, ema, settings)
    for step in range(start, steps):
        factor = learning_rate_factor(step, steps, schedule, warmup)
        losses.append(one_step(loss_at, step, trained, maker, factor, seed, grad_clip, accelerator))
        if ema is not None: ema.step(list(trained.values()))
        if callback: callback(step, losses[-1])
        if checkpoint and ((step + 1) % checkpoint_every == 0 or step + 1 == steps) and accelerator.is_main_process:
            save_checkpoint(checkpoint, step + 1, state, maker, losses, ema, settings)
    return losses
