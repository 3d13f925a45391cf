"""Operations counted as PyTorch counts them, without its compiler."""

import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from extractors import flop

ROOT = Path(__file__).resolve().parents[2]


class Block(torch.nn.Module):
    """Convolution, recurrence, attention, a product without a layer, and operators that come down to others."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, groups=1, stride=2, padding=1)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.linear = torch.nn.Linear(8, 5)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        tokens = self.convolution(pictures).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        scores = torch.einsum("bnd,bmd->bnm", tokens, tokens).softmax(-1)
        return self.linear(torch.nn.functional.scaled_dot_product_attention(scores @ tokens, tokens, tokens))


def test_the_count_is_that_of_pytorch_and_the_rows_are_untouched():
    torch.manual_seed(0)
    block, pictures = Block().eval(), torch.rand(2, 3, 16, 16)
    for context in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with context():
            rows, operations = flop.count(lambda: block(pictures))
            with FlopCounterMode(display=False) as theirs:
                expected = block(pictures)
        assert torch.equal(rows, expected)
        assert operations == theirs.get_total_flops() > 0
    layer = torch.nn.Linear(7, 3)
    assert flop.count(lambda: layer(torch.rand(5, 7)))[1] == 2 * 5 * 7 * 3


def test_it_does_not_load_the_compiler():
    code = """
import sys, torch
from extractors import flop
layer = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
with torch.inference_mode():
    assert flop.count(lambda: layer(torch.rand(1, 3, 3, 3)))[1] == 2 * 27 * 8 + 2 * 8 * 2
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
