"""A file to the Slurm site and back, by `streamflow run` with our plugin or by scp (see ../site_transfers.py).

python transfer.py streamflow|scp FILE OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import site_transfers
from stopwatch import tell

how, original, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
there, back = (
    site_transfers.streamflow(out, original, "hpc") if how == "streamflow" else site_transfers.scp(out, original)
)
tell(there + back, 2 * original.stat().st_size / 1e6)
