"""What the Python peers share: their arguments, MNIST, and the JSON that they print."""
import argparse
import json
from pathlib import Path

import numpy as np


SAMPLES = 60000


def widths(text):
    """Widths of a model: inputs, hidden.., classes."""
    return [int(width) for width in text.split(",")]


def arguments(*flags, **options):
    """The arguments of every peer, on/off flags of one of them, and its options as argparse takes them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds mnist/")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    for name, default in [("epochs", 10), ("batch", 64), ("hidden", 128), ("seed", 0), ("threads", 1)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    for flag in flags:
        parser.add_argument(f"--{flag}", action="store_true")
    for name, option in options.items():
        parser.add_argument(f"--{name}", **option)
    return parser.parse_args()


def mnist(folder, split):
    """Pixels (samples, 784) u8 and labels (samples) u8 of 'train' or 't10k'."""
    images = np.fromfile(folder / "mnist" / f"{split}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 784)
    labels = np.fromfile(folder / "mnist" / f"{split}-labels-idx1-ubyte", np.uint8)[8:]
    return images, labels


def versions(*packages, **others):
    """Those of packages, NumPy's too, and others by their names."""
    return {package.__name__: package.__version__ for package in (*packages, np)} | others


def report(name, versions, args, setup_seconds, epoch_seconds, epoch_losses, test_accuracy):
    """One JSON object: seconds of training alone, with set-up (compilation too) beside it."""
    steps = len(epoch_seconds) * -(-SAMPLES // args.batch)
    print(json.dumps(dict(name=name, versions=versions, device=args.device, threads=args.threads,
                          setup_seconds=setup_seconds, epoch_seconds=epoch_seconds,
                          us_per_step=sum(epoch_seconds) * 1e6 / steps,
                          epoch_losses=epoch_losses, test_accuracy=test_accuracy)))
