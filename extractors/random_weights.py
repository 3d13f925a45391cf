"""Seeded weights, for trying everything without a published checkpoint."""

from __future__ import annotations

import hashlib

import torch


def random_state_dict(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A seeded state dict of the same keys and shapes, scaled so that activations keep their size.

    Each tensor has its own generator, seeded by `seed` and its name, so the values do not depend on the order or
    number of the other tensors.  Norm statistics and biases are not trivial, so that a mapping error cannot hide.
    """
    filled = {}
    parameters = dict(network.named_parameters())
    for name, tensor in network.state_dict().items():
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if not tensor.is_floating_point() or (name not in parameters and not name.endswith(("_mean", "_var"))):
            filled[name] = tensor.clone()  # counters, index tables, fixed filters
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            value = 1.0 + 0.2 * noise.abs()
        elif tensor.ndim >= 2:
            value = noise * (2.0 / max(tensor[0].numel(), 1)) ** 0.5
        elif name.endswith(("weight", "gamma")):
            value = 1.0 + 0.05 * noise
        elif tensor.ndim == 0:
            value = tensor.float()
        else:
            value = 0.05 * noise
        filled[name] = value.to(tensor.dtype)
    return filled
