"""Makes `moviepy_map.npz`: which decoded sample the real moviepy 1.0.3 writes, for sounds that carry their numbers.

In an environment of its own: `pip install moviepy==1.0.3 soundfile`, then `python make_moviepy_map.py`.
Each case is (seconds of audio, seconds of video) in a mov file with 16-bit PCM; channel 0 holds the sample number
modulo 20011, channel 1 the quotient.  Stored is where the written number leaves round(k * 44100 / 16000), and by how
much, which is a handful of integers.

With the LLP clip `BjCEufrlXm4.mp4` as argument it also makes `moviepy_clip.npz`: every 97th frame of what moviepy
writes for it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
from moviepy.editor import VideoFileClip

CASES = [(10.0, 10.0), (9.3, 10.04), (7.0, 10.0), (3.0, 10.0), (4.0, 4.4), (25.2, 25.2)]


def run(folder: Path, audio_s: float, video_s: float) -> tuple[float, int, np.ndarray]:
    number = np.arange(round(audio_s * 44_100))
    wav, mov, out = folder / "a.wav", folder / "a.mov", folder / "o.wav"
    soundfile.write(wav, np.stack([number % 20_011, number // 20_011], axis=1).astype(np.int16), 44_100)
    black = f"color=c=black:s=64x64:r=25:d={video_s}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-f", "lavfi", "-i", black, "-i", str(wav)]
    subprocess.run([*command, "-c:a", "pcm_s16le", str(mov)], check=True)
    audio = VideoFileClip(str(mov)).audio
    audio.write_audiofile(str(out), fps=16_000, logger=None)
    written, _ = soundfile.read(out, dtype="int16", always_2d=True)
    return audio.duration, len(number), written[:, 0].astype(np.int64) + 20_011 * written[:, 1].astype(np.int64)


def run_clip(folder: Path, clip: str) -> None:
    out = folder / "clip.wav"
    VideoFileClip(clip).audio.write_audiofile(str(out), fps=16_000, logger=None)
    written, _ = soundfile.read(out, dtype="int16", always_2d=True)
    np.savez_compressed(Path(__file__).parent / "moviepy_clip.npz", every_97th=written[::97])


def main() -> None:
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, (audio_s, video_s) in enumerate(CASES):
            duration_s, available, written = run(Path(folder), audio_s, video_s)
            nearest = np.rint(44_100 * ((1.0 / 16_000) * np.arange(len(written)))).astype(np.int64)
            change = np.concatenate([[0], np.nonzero(np.diff(written - nearest))[0] + 1])
            arrays[f"{case}_facts"] = np.array([duration_s, available, len(written)])
            arrays[f"{case}_runs"] = np.stack([change, (written - nearest)[change]]).astype(np.int32)
        for clip in sys.argv[1:]:
            run_clip(Path(folder), clip)
    np.savez_compressed(Path(__file__).parent / "moviepy_map.npz", **arrays)


if __name__ == "__main__":
    main()
