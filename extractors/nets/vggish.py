"""VGGish: VGG configuration A without its last group, on one-second log-mel patches.

Source: Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017; key format of
torchvggish release v0.1 (`vggish-10086976.pth`).
"""

from __future__ import annotations

import torch
from torch import nn

#: The 8-bit post-processing clips the whitened embedding here before scaling it to 0..255.
_CLIP = 2.0


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.ReLU(inplace=True)]


class Whitening(nn.Module):
    """PCA whitening and 8-bit quantisation of the AudioSet release.

    Parameters are named as in `vggish_pca_params.npz`: `pca_eigen_vectors` (128, 128), one component a row, and
    `pca_means` (128,).  Both are float64, as in the file: a truncation shows the smallest difference.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pca_eigen_vectors = nn.Parameter(torch.zeros(128, 128, dtype=torch.float64))
        self.pca_means = nn.Parameter(torch.zeros(128, dtype=torch.float64))

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """(B, 128) before the last ReLU -> (B, 128) uint8, truncated as TensorFlow does; the torch port rounds."""
        whitened = (embedding.double() - self.pca_means) @ self.pca_eigen_vectors.T
        return ((whitened.clamp(-_CLIP, _CLIP) + _CLIP) * (255.0 / (2 * _CLIP))).to(torch.uint8)


class VGGishNetwork(nn.Module):
    """Log-mel patches to the 128 units of the last layer, before its ReLU.

    Args:
        whitening: also hold the release's post-processing; the caller applies it.
    """

    def __init__(self, whitening: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 64),
            nn.MaxPool2d(2),
            *_convolution(64, 128),
            nn.MaxPool2d(2),
            *_convolution(128, 256),
            *_convolution(256, 256),
            nn.MaxPool2d(2),
            *_convolution(256, 512),
            *_convolution(512, 512),
            nn.MaxPool2d(2),
        )
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 128),
        )
        self.whitening = Whitening() if whitening else None

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, 1, 96, 64) float32 log-mel -> (B, 128) before the last ReLU."""
        maps = self.features(patches)
        # The fully connected weights were trained in TensorFlow, which flattens height, width, channel.
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
