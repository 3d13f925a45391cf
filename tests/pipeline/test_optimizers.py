"""Optimizers of recipes against their papers' formulas, worked out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.optimizers import KINDS, optimizer

GRADIENTS = np.array([[0.5, -2.0, 0.0], [1.0, -1.0, 0.25]])
START = np.array([1.0, -1.0, 3.0])


def _sgd(lr, momentum, weight_decay):
    value, velocity = START.copy(), np.zeros(3)
    for gradient in GRADIENTS:
        velocity = momentum * velocity + gradient + weight_decay * value
        value = value - lr * velocity
    return value


def _adam(lr, weight_decay, decoupled):
    value, first, second = START.copy(), np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(GRADIENTS, start=1):
        gradient = gradient if decoupled else gradient + weight_decay * value
        value = value * (1 - lr * weight_decay) if decoupled else value
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        value = value - lr * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return value


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, _sgd(0.1, 0.9, 0.01)),
        ({"name": "adam", "lr": 0.1, "weight_decay": 0.01}, _adam(0.1, 0.01, decoupled=False)),
        ({"name": "adamw", "lr": 0.1, "weight_decay": 0.01}, _adam(0.1, 0.01, decoupled=True)),
    ],
)
def test_two_steps_are_the_papers(settings, expected):
    parameter = torch.nn.Parameter(torch.from_numpy(START).clone())
    stepper = optimizer(settings, [parameter])
    for gradient in GRADIENTS:
        parameter.grad = torch.from_numpy(gradient).clone()
        stepper.step()
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


def test_every_kind_is_covered():
    assert set(KINDS) == {"sgd", "adam", "adamw"}
