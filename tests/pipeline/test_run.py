"""What every command writes."""

import os

import torch

from pipeline.run import write_torch


def test_the_bytes_of_weights_do_not_depend_on_file_or_process(tmp_path, monkeypatch):
    weights = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
    for number in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        write_torch(tmp_path / f"{number}.pt", weights)
        torch.save(weights, tmp_path / f"plain-{number}.pt")
    assert (tmp_path / "1.pt").read_bytes() == (tmp_path / "2.pt").read_bytes()
    assert (tmp_path / "plain-1.pt").read_bytes() != (tmp_path / "plain-2.pt").read_bytes()  # so the name has to go
    read = torch.load(tmp_path / "1.pt", weights_only=True)
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert not list(tmp_path.glob("*.partial"))
