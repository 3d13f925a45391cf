"""Golden arrays of AudioCLIP: what the authors' code computes from seeded weights, sound, picture and prompts.

    python tests/extractors/golden/make_audioclip.py --reference AUDIOCLIP --clip WW8Scmk5YsM.wav \
        --out tests/extractors/golden/audioclip.npz

AUDIOCLIP is a checkout of AndreyGuzhov/AudioCLIP at 45327aa with openai's `bpe_simple_vocab_16e6.txt.gz` in `assets/`
(SHA-256 924691ac288e5440...).  Its training framework is replaced by empty classes.  The clip is the real one of
`../shared/data/clips`, read with librosa 0.11 as the authors' data sets do.  Nothing of clave is imported but the
seeds.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path

import librosa
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import seeded

RATE_HZ = 44_100
#: Second of the real clip.
ROW = 3
PROMPTS = ("a church bell", "Two men talking, and a DOG barking!")


def build(reference: Path) -> tuple[torch.nn.Module, types.ModuleType]:
    """The authors' network with seeded weights in evaluation mode, and their CLIP helpers."""
    framework = types.ModuleType("ignite_trainer")
    framework.AbstractNet = type("AbstractNet", (torch.nn.Module,), {})
    framework.AbstractTransform = type("AbstractTransform", (), {})
    colours = types.ModuleType("termcolor")
    colours.colored = lambda text, _: text
    sys.modules.update(ignite_trainer=framework, termcolor=colours)
    sys.path.insert(0, str(reference))
    from model.audioclip import AudioCLIP
    from model.clip import clip

    network = AudioCLIP(pretrained=False, multilabel=False)
    filled = {
        name: value
        if name.endswith(("num_batches_tracked", "audio.window")) or value.numel() == 0
        else torch.from_numpy(np.asarray(seeded.tensor(name, tuple(value.shape), seed=0), dtype=np.float32))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(filled)
    return network.eval(), clip


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    network, clip = build(arguments.reference)
    samples = torch.from_numpy(seeded.sound(RATE_HZ, RATE_HZ, seed=3) * np.float32(32768.0))[None, None]
    wave, _ = librosa.load(arguments.clip, sr=RATE_HZ)
    second = torch.from_numpy(wave[ROW * RATE_HZ : (ROW + 1) * RATE_HZ] * np.float32(32768.0))[None, None]
    picture = clip._transform(224)(Image.fromarray(seeded.picture(240, 320, seed=4)))[None]
    state = network.state_dict()
    np.savez_compressed(
        arguments.out,
        names=np.array(list(state)),
        shapes=np.array([",".join(map(str, value.shape)) for value in state.values()]),
        decibels=network.audio._forward_pre_processing(samples)[0, 0, :, ::20, ::8].numpy(),
        sound=network.encode_audio(samples)[0].numpy(),
        clip_sound=network.encode_audio(second)[0].numpy(),
        picture=network.encode_image(picture)[0].numpy(),
        text=network.encode_text([[prompt] for prompt in PROMPTS]).numpy(),
        audio_text=network(audio=samples, text=[[prompt] for prompt in PROMPTS[:1]])[0][1][1].numpy(),
    )
    print(arguments.out, arguments.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
