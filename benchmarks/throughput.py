"""Seconds per row of an encoder, for `python -m pipeline.plan`: prints entries for workflows/config/throughput.yaml.

A ten-second clip with picture and sound is written, decoded and prepared as `extract` does it, then its rows are
encoded in batches of the encoder's own size.  On a CPU both are the process's CPU seconds with one thread, so that a
busy machine does not change them; on a GPU encoding is wall time.

    python benchmarks/throughput.py --encoders vggish,vgg19
    python benchmarks/throughput.py --encoders clip-l14 --device cuda
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def clip(path: Path) -> Path:
    """Ten seconds of 320x240 at 25 frames a second with stereo sound: a moving texture, so that decoding has work."""
    import numpy as np

    from tests.media_factory import tone, write_media

    texture = np.random.default_rng(0).integers(0, 255, (240, 640, 3), dtype=np.uint8)
    images = (np.ascontiguousarray(texture[:, number : number + 320]) for number in range(250))
    return write_media(path, images=images, samples=tone(10.0, 44_100, 2))


def measure(name: str, media_file: Path, device: str, precision: str, repeats: int) -> dict[str, float | int | str]:
    """Prepare and encode one clip's rows; the best of `repeats`."""
    import torch

    from extractors.base import load
    from pipeline.media import Media

    encoder = load(name, "random:0", device, precision)
    clock = time.process_time if device == "cpu" else time.perf_counter
    prepared: list[float] = []
    encoded: list[float] = []
    with torch.inference_mode():
        for _ in range(repeats + 1):  # the first warms up
            begun = time.process_time()
            with Media(media_file) as media:
                segments = encoder.spec.grid.segments(10.0)
                batch = encoder.prepare(media, segments)
            prepared.append((time.process_time() - begun) / len(batch))
            rows = batch[torch.arange(encoder.batch_rows) % len(batch)]
            begun = clock()
            out = encoder.encode(rows.to(device))
            if device != "cpu":
                torch.cuda.synchronize()
            encoded.append((clock() - begun) / len(out))
    return {
        "device": device.split(":")[0],
        "precision": precision,
        "prepare_s": float(f"{min(prepared[1:]):.3g}"),
        "encode_s": float(f"{min(encoded[1:]):.3g}"),
        "batch_rows": encoder.batch_rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        media_file = clip(Path(folder) / "clip.mp4")
        for name in options.encoders.split(","):
            found = measure(name, media_file, options.device, options.precision, options.repeats)
            fields = ", ".join(f"{key}: {value}" for key, value in found.items())
            print(f'  "{name}": [{{{fields}}}]', flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
