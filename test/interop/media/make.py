"""Makes camera.ivf and microphone.ogg: 4 s that can be played in a loop.

    apt-get install vpx-tools opus-tools
    ../../../.venv/bin/python make.py
"""

import subprocess
import sys
import wave
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "python"))
import media  # noqa: E402
import numpy as np  # noqa: E402

WIDTH, HEIGHT, FPS, SECONDS = 320, 180, 15, 4
HERE = Path(__file__).parent


def picture(count: int, noise: np.random.Generator) -> bytes:
    """The picture of that number as a camera in dim light sees it, so that frames fill packets."""
    clean = np.frombuffer(media.paint_counter(WIDTH, HEIGHT, count), dtype=np.uint8).astype(int)
    return np.clip(clean + noise.integers(-14, 15, clean.size), 0, 255).astype(np.uint8).tobytes()


def main() -> None:
    noise = np.random.default_rng(1)
    pictures = b"".join(picture(count, noise) for count in range(FPS * SECONDS))
    # A keyframe each second; those in between depend on the frame before each.
    flags = [f"--width={WIDTH}", f"--height={HEIGHT}", f"--fps={FPS}/1", "--i420", "--codec=vp8", "--ivf"]
    flags += ["--quiet", "--rt", "--cpu-used=4", "--lag-in-frames=0", "--auto-alt-ref=0", "--error-resilient=1"]
    flags += ["--kf-min-dist=0", f"--kf-max-dist={FPS}", "--end-usage=cbr", "--target-bitrate=250"]
    subprocess.run(["vpxenc", *flags, "-o", HERE / "camera.ivf", "-"], input=pictures, check=True)

    # A whole number of periods, so that the loop has no seam; the player leaves out the ends, in
    # which the encoder begins and fades.
    sound = HERE / "microphone.wav"
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(media.SAMPLE_RATE)
        file.writeframes(media.tone(440, 0, media.SAMPLE_RATE * (SECONDS * 10 + 1) // 10).tobytes())
    opus = ["opusenc", "--quiet", "--bitrate", "32", "--hard-cbr", "--framesize", "20", sound, HERE / "microphone.ogg"]
    subprocess.run(opus, check=True)
    sound.unlink()


main()
