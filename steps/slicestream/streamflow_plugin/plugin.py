"""The entry point: puts our connectors and our deployment manager in the place of StreamFlow's."""

from streamflow.ext.plugin import StreamFlowPlugin
from streamflow.log_handler import logger

from slicestream.streamflow_plugin import repairs
from slicestream.streamflow_plugin.kubernetes import SafeKubernetesConnector
from slicestream.streamflow_plugin.manager import RunManager
from slicestream.streamflow_plugin.slurm import SafeSlurmConnector
from slicestream.streamflow_plugin.ssh import SafeSSHConnector


class Plugin(StreamFlowPlugin):
    """Registered by the entry point `slicestream` of the group `unito.streamflow.plugin`."""

    def register(self) -> None:
        """Take the names of StreamFlow's own classes, without the warning that each takeover prints."""
        repairs.apply()
        disabled, logger.disabled = logger.disabled, True
        try:
            self.register_connector("ssh", SafeSSHConnector)
            self.register_connector("slurm", SafeSlurmConnector)
            self.register_connector("kubernetes", SafeKubernetesConnector)
            self.register_deployment_manager("default", RunManager)
        finally:
            logger.disabled = disabled
