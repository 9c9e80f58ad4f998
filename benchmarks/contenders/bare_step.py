"""The bare step: forward, backward and optimiser of our network, precision and loss on one random batch that stays.

python bare_step.py RECIPE SIDE STEPS
"""

from __future__ import annotations

import sys

import torch
from stopwatch import timed

from slicestream.learning.device import choose_device
from slicestream.learning.losses import dice_and_bce
from slicestream.learning.networks import build_unet
from slicestream.learning.recipe import find_recipe

recipe, side, steps = find_recipe(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
device = choose_device("auto")
torch.manual_seed(0)
network = build_unet(recipe.widths).to(device.torch_device, memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, fused=True)
image = torch.rand((recipe.batch_size, 1, side, side), device=device.torch_device)
image, target = image.contiguous(memory_format=torch.channels_last), (image > 0.98).float()
with timed(steps * recipe.batch_size):
    for _ in range(steps):
        with device.autocast():
            logits = network(image)
        loss = dice_and_bce(logits.float(), target, dice_weight=recipe.dice_weight, bce_weight=recipe.bce_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    float(loss.detach())  # waits for the device
