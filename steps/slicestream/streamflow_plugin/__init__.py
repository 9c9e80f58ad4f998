"""What StreamFlow 0.2.0rc3 lacks for a hybrid run, as a StreamFlow plugin under the connectors' own names.

`streamflow.yml` stays ordinary. docs/upstream.md has each limitation with a reproduction and the repair made here.
"""

from slicestream.streamflow_plugin.plugin import Plugin

__all__ = ["Plugin"]
