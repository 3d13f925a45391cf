"""Makes `cnn14.npz`: outputs of the published Cnn14 for two real clips, with the seeded weights of `test_cnn14.py`.

In an environment with torch, librosa, soxr and torchlibrosa, beside a checkout of qiuqiangkong/audioset_tagging_cnn
(commit d2f4b8c), from the project's root:

    PYTHONPATH=.:CHECKOUT/pytorch python tests/extractors/golden/make_cnn14.py ../shared/data/clips

The clips are loaded by librosa at 32 kHz; seconds 2 and 5 go through the published forward pass one by one.
"""

import sys
from pathlib import Path

import librosa
import numpy as np
import torch
from models import Cnn14

from tests.extractors.test_cnn14 import published_state


def main(clips: Path) -> None:
    network = Cnn14(32_000, 1024, 320, 64, 50, 14_000, 527)
    network.load_state_dict(published_state(0), strict=True)
    network.eval()
    arrays = {}
    for file in ("---1_cCGK4M.wav", "R9_ZSCveAHg_7s.wav"):
        wave, _ = librosa.load(clips / file, sr=32_000, mono=True)
        embeddings, log_mels = [], []
        for second in (2, 5):
            piece = torch.from_numpy(wave[second * 32_000 : (second + 1) * 32_000])[None]
            with torch.no_grad():
                embeddings.append(network(piece)["embedding"][0, ::16])
                log_mel = network.logmel_extractor(network.spectrogram_extractor(piece))
                log_mels.append(log_mel[0, 0, ::10, ::4])
        arrays[f"{file}_embedding"] = torch.stack(embeddings).numpy()
        arrays[f"{file}_log_mel"] = torch.stack(log_mels).numpy()
    np.savez_compressed(Path(__file__).parent / "cnn14.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
