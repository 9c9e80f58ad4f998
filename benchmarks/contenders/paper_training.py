"""The paper's recipe: a U-Net in eager float32, PNG files through a DataLoader, rotations the only augmentation.

python paper_training.py IMAGES FIRST_WIDTH BATCH EPOCHS

The network is ours (1 × 1 convolution before upsampling), so that both do the same arithmetic.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from stopwatch import timed
from torch.utils.data import DataLoader, Dataset

from slicestream.learning.losses import dice_and_bce
from slicestream.learning.networks import build_unet

WORKERS = 2


class Slices(Dataset):  # type: ignore[type-arg]
    """Images `*.image.png` and their masks `*.mask.png`, turned by any angle."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted(folder.glob("*.image.png"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path, degrees = self.images[index], random.uniform(0, 360)
        image = PIL.Image.open(path).rotate(degrees, PIL.Image.Resampling.BILINEAR)
        mask = PIL.Image.open(path.with_name(path.name.replace("image", "mask"))).rotate(degrees)
        arrays = np.asarray(image, np.float32) / 255, (np.asarray(mask) > 0).astype(np.float32)
        return torch.from_numpy(arrays[0])[None], torch.from_numpy(arrays[1])[None]


folder, width, batch, epochs = Path(sys.argv[1]), *map(int, sys.argv[2:5])
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
network = build_unet([width * 2**level for level in range(5)]).to(device)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
slices = Slices(folder)
loader = DataLoader(slices, batch_size=batch, shuffle=True, num_workers=WORKERS, persistent_workers=True)
with timed(len(slices) * epochs):
    for _ in range(epochs):
        for image, target in loader:
            loss = dice_and_bce(network(image.to(device)), target.to(device), dice_weight=1.0, bce_weight=1.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    float(loss.detach())  # waits for the device
