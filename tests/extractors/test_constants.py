"""Constants lie on the device after the first batch: a second one copies none from the host."""

import pytest
import torch

from extractors import clap_mel, frames, mel, resampling
from extractors.constants import kept

PICTURES = torch.zeros((2, 30, 41, 3), dtype=torch.uint8)
BATCHES = {
    "pillow": lambda: resampling.pillow(PICTURES, 17, 19, "bicubic"),
    "opencv": lambda: resampling.opencv_bilinear(PICTURES, 17, 19),
    "standardize": lambda: frames.apply(("unit", "standardize by=clip"), PICTURES),
    "subtract": lambda: frames.apply(("subtract mean=caffe",), PICTURES),
    "vggish": lambda: mel.vggish_log_mel_tensor(torch.zeros((1, mel.VGGISH_SAMPLES))),
    "clap": lambda: clap_mel.log_mel_tensor(torch.zeros((1, 480_000)), 48_000, 480, "slaney"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_second_batch_copies_nothing(name, monkeypatch):
    with torch.inference_mode():
        first = BATCHES[name]()
    for source in ("tensor", "from_numpy", "as_tensor"):

        def refuse(*_, **__):
            raise AssertionError("a constant was made again")

        monkeypatch.setattr(torch, source, refuse)
    assert torch.equal(BATCHES[name](), first)


def test_what_is_kept_can_be_trained_with():
    made = kept(lambda device: torch.ones(3, device=device))
    with torch.inference_mode():
        constant = made(torch.device("cpu"))
    weight = torch.nn.Parameter(torch.ones(3))
    (weight * constant).sum().backward()  # saves the constant, which an inference tensor does not allow
    assert weight.grad.tolist() == [1, 1, 1]
    assert made(torch.device("cpu")) is constant
