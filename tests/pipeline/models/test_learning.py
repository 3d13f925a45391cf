"""Every network of the table, tiny: it learns one batch by heart, stays finite, and treats clips one by one."""

import pytest
import torch

from pipeline.predictions import decide, measure
from tests.pipeline.models import networks as n


@pytest.mark.parametrize(("name", "setting"), n.EVERY)
def test_one_batch_is_learnt_by_heart(name, setting):
    network, made = n.tiny(name, setting)
    steps, lr = (150, 1e-2) if name == "avel" else (60, 5e-3)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    before = None
    for _ in range(steps):
        optimizer.zero_grad()
        loss = n.total_loss(network, made)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        before = loss.item() if before is None else before
    assert torch.isfinite(loss)
    assert loss.item() < before
    network.eval()
    with torch.no_grad():
        said = network.predictions(network(**n.inputs(network, made)))
    arrays = {key: value.numpy() for key, value in said.items()}
    truth = {key: value.numpy() for key, value in made.items()}
    if network.task == "avvp":
        assert ((said["video"] > 0.5) == (made["video_labels"] > 0.5)).float().mean() > 0.9
    elif setting == "supervised":
        assert measure("ave", arrays, truth, network.gate_is)["accuracy"] > 75
    else:
        scores = said["scores"].amax(dim=1) if "scores" in said else said["category"]
        assert (scores.argmax(dim=1) == made["video_labels"].argmax(dim=1)).float().mean() > 0.8


@pytest.mark.parametrize(("name", "setting"), n.EVERY)
def test_every_live_parameter_gets_a_finite_gradient(name, setting):
    network, made = n.tiny(name, setting)
    network.train()
    n.total_loss(network, made).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize(("name", "setting"), n.EVERY)
def test_a_clip_does_not_depend_on_its_batch(name, setting):
    network, made = n.tiny(name, setting)
    network.eval()
    with torch.no_grad():
        together = network.predictions(network(**n.inputs(network, made)))
        alone = network.predictions(network(**{key: value[2:3] for key, value in n.inputs(network, made).items()}))
    for key, value in alone.items():
        torch.testing.assert_close(value, together[key][2:3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "setting"), n.EVERY)
def test_large_and_silent_inputs_stay_finite(name, setting):
    network, made = n.tiny(name, setting)
    for scale in (0.0, 50.0):
        scaled = made | {key: scale * made[key] for key in network.streams}
        network.zero_grad()
        loss = n.total_loss(network, scaled)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(("name", "setting"), n.EVERY)
def test_predictions_can_be_decided(name, setting):
    network, made = n.tiny(name, setting)
    network.eval()
    with torch.no_grad():
        said = network.predictions(network(**n.inputs(network, made)))
    arrays = {key: value.numpy() for key, value in said.items()}
    for grid in decide(network.task, arrays, 3, network.gate_is).values():
        assert grid.shape[:2] == (6, 6)
