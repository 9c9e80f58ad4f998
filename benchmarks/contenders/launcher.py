"""Run a command and write what the kernel says of it: python -S launcher.py ANSWER COMMAND...

In a process of its own, since Linux counts the memory of the process that starts a command to the command's peak.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

begin = time.perf_counter()
process = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
outside = {
    "wall_s": time.perf_counter() - begin,
    "cpu_s": used.ru_utime + used.ru_stime,
    "peak_mb": used.ru_maxrss / 1e3,
}
process.returncode = os.waitstatus_to_exitcode(status)
pathlib.Path(sys.argv[1]).write_text(json.dumps(outside))
sys.exit(process.returncode != 0)
