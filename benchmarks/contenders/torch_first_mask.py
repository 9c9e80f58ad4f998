"""What a container with PyTorch would do first: start, load the weights, answer slice by slice, write the mask.

python torch_first_mask.py WEIGHTS SCAN THRESHOLD OUT
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch_inference import eager, network_of, windowed

weights, scan, threshold, out = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
with torch.inference_mode():
    np.save(f"{out}/mask.npy", eager(network_of(weights))(windowed(np.load(scan)))[:, 0].numpy() >= threshold)
