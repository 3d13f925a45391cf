"""AVEL (Tian et al. 2018): audio-guided visual attention and a bidirectional LSTM per modality.

Source: paper and repository YapengTian/AVE-ECCV18.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.ave_targets import soft_margin
from pipeline.models.base import Model, Shapes, grid, positions, sequence


class AVEL(Model):
    """Every segment is scored by itself over all classes and background.

    Supervised and weak training differ in the loss alone: the weak one pools the scores over time first.

    Args:
        shapes: of a clip: `visual` (T, H, W, D), `audio` (T, A).
        classes: event classes without background.
        hidden: width of the attention.
        lstm: width of each LSTM direction.
        head: width between the two last layers.
    """

    task = "ave"
    streams: ClassVar = {
        "visual": "spatial map of a frame encoder, (T, H, W, D)",
        "audio": "one vector per segment, (T, A)",
    }
    settings = ("supervised", "weak")

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "supervised", *, hidden: int = 512, lstm: int = 128,
        head: int = 64,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        places, visual = grid(shapes["visual"], "visual")
        audio = sequence(shapes["audio"], "audio")
        self.attend_audio = nn.Linear(audio, hidden)
        self.attend_visual = nn.Linear(visual, hidden)
        self.score_visual = nn.Linear(hidden, places, bias=False)
        self.score_audio = nn.Linear(hidden, places, bias=False)
        self.score = nn.Linear(places, 1, bias=False)
        self.lstm_audio = nn.LSTM(audio, lstm, batch_first=True, bidirectional=True)
        self.lstm_visual = nn.LSTM(visual, lstm, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(4 * lstm, head), nn.ReLU(), nn.Linear(head, classes + 1))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, visual: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """`scores` (B, T, classes + 1), before any softmax."""
        maps = positions(visual)
        # Row i of the scores belongs to position i; the audio adds the same number to a whole row.
        heard = self.score_audio(self.attend_audio(audio).relu())[..., None]
        seen = self.score_visual(self.attend_visual(maps).relu())
        weights = self.score((seen + heard).tanh()).softmax(dim=2)
        attended = (weights.transpose(2, 3) @ maps).squeeze(2)
        both = torch.cat([self.lstm_audio(audio)[0], self.lstm_visual(attended)[0]], dim=2)
        return {"scores": self.head(both)}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Soft margin on softmax probabilities, per segment or on the maximum over time."""
        scores = outputs["scores"]
        if self.setting == "supervised":
            return {"segments": soft_margin(scores.softmax(dim=2), batch["labels"])}
        return {"video": soft_margin(scores.amax(dim=1).softmax(dim=1), batch["video_labels"])}

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """`scores` (B, T, classes + 1), per segment in both settings."""
        return {"scores": outputs["scores"]}
