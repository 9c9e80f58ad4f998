"""The deployment manager: begins a run when a remote deployment is first used, and removes all of it at the end.

rc3 removes no work directory, leaves everything behind on SIGTERM, and leaves what is still being deployed on Ctrl-C
(deployment/future.py:222, main.py:188).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import psutil
from streamflow.core.context import StreamFlowContext
from streamflow.core.deployment import DeploymentConfig
from streamflow.deployment.manager import DefaultDeploymentManager
from streamflow.log_handler import logger

from slicestream.errors import SliceStreamError
from slicestream.sites.bindings import check_bindings
from slicestream.sites.deployments import WORK_FOLDER, wrapped
from slicestream.sites.runs import Place, abandoned_runs, start_run
from slicestream.streamflow_plugin.repairs import OneLine, after_the_end
from slicestream.streamflow_plugin.session import current

REMOTE = ("ssh", "slurm", "kubernetes")
END_S = 90.0  # for each of: ending what runs, removing what is left
OTHERS_S = 30.0  # for what killed runs have left


class RunManager(DefaultDeploymentManager):
    """StreamFlow's own manager for an all-local run; for a hybrid one also the beginning and the end of the run."""

    def __init__(self, context: StreamFlowContext) -> None:
        super().__init__(context)
        deployments = context.config.get("deployments") or {}
        self.remote = {name: one for name, one in deployments.items() if one.get("type") in REMOTE}
        current().record.known_as = {inner: name for name, one in self.remote.items() if (inner := wrapped(one))}
        self._beginning = asyncio.Lock()
        if self.remote:
            current().teller.tell("run", current().id)
            one_line_errors()
            check_bindings(context.config, where=context.config["path"])
            self._name_folders(context.config)

    def _name_folders(self, config: Any) -> None:
        """Give every remote work folder the run's id, so that two runs never meet and all of a run can be removed."""
        run = current().id
        bases = {name: self._base(name) for name in self.remote}
        for name, base in bases.items():
            self.remote[name]["workdir"] = f"{base}/{run}"
        for workflow in (config.get("workflows") or {}).values():
            for binding in workflow.get("bindings") or []:
                targets = binding.get("target", [])
                for target in targets if isinstance(targets, list) else [targets]:
                    if target.get("deployment") in bases and "workdir" in target:
                        target["workdir"] = f"{target['workdir'].rstrip('/')}/{run}"

    def _base(self, name: str) -> str:
        deployment: Any = self.remote[name]
        if workdir := deployment.get("workdir"):
            return str(workdir).rstrip("/")
        inner = wrapped(deployment) or ""
        return self._base(inner) if inner in self.remote else WORK_FOLDER

    async def _deploy(self, deployment_config: DeploymentConfig) -> None:
        if deployment_config.name in self.remote:
            await self._begin()
            for place in self._places(deployment_config.name):
                current().register(place)
        await super()._deploy(deployment_config)

    async def _begin(self) -> None:
        """Register the run, then remove what killed runs left."""
        session = current()
        async with self._beginning:
            session.check_open()
            if session.run is not None:
                return
            session.run = start_run(session.id)
            os.environ["SLICESTREAM_RUN"] = session.id
            _catch_signals()
            logger.info(f"run {session.id}")
            try:
                await asyncio.wait_for(asyncio.to_thread(remove_abandoned), OTHERS_S)
            except TimeoutError:
                logger.warning(f"what killed runs left: not removed within {OTHERS_S:.0f} s; run slicestream clean")

    def _places(self, name: str) -> list[Place]:
        deployment: Any = self.remote[name]
        config, kind = deployment.get("config") or {}, deployment["type"]
        if kind == "kubernetes":
            from slicestream.sites.cluster import resolved  # its library takes 0.3 s, which runs without pods need not

            # by name: the current context may be another one when this run is cleaned up
            context, namespace = resolved(
                config.get("kubeContext") or "", config.get("namespace") or "", kubeconfig=config.get("kubeconfig")
            )
            return [Place(kind=kind, host=context, namespace=namespace)]
        inner = name if kind == "ssh" else wrapped(deployment)
        nodes = (self.remote.get(inner or "", {}).get("config") or {}).get("nodes", [])
        hosts = [node if isinstance(node, str) else node["hostname"] for node in nodes]
        return [Place(kind=kind, host=host, folder=deployment["workdir"]) for host in hosts]

    async def close(self) -> None:
        """End what runs, then remove the run from every site; what cannot be removed stays registered."""
        session = current()
        session.ending = True
        asyncio.get_running_loop().set_exception_handler(after_the_end)
        try:
            await asyncio.wait_for(super().close(), END_S)
        except Exception as error:  # the removal below goes on in any case
            logger.warning(f"ending the run: {error or type(error).__name__}")
        if session.run is not None:
            _end_children()
            await self._remove()
        session.record.write()
        if session.stopped:
            raise KeyboardInterrupt  # as asyncio does after Ctrl-C

    async def _remove(self) -> None:
        run = current().run
        assert run is not None
        run.places = tuple(place for place in run.places if place.host in current().reached)  # elsewhere is nothing
        try:
            await asyncio.wait_for(asyncio.to_thread(remove, run), END_S)
            run.close()
            logger.info(f"run {run.id}: nothing of it is left on any site")
        except (Exception, asyncio.CancelledError) as error:
            run.release()
            logger.warning(
                f"run {run.id}: may be left on a site ({error or type(error).__name__}); run slicestream clean"
            )


def remove(run: Any) -> None:
    """Remove everything of a run from its sites."""
    from slicestream.sites.leftovers import remove_leftovers

    for line in remove_leftovers(run):
        logger.info(line)


def remove_abandoned() -> None:
    """Remove what killed runs left; a site out of reach is a warning, and its run stays registered."""
    try:
        runs = abandoned_runs()
    except SliceStreamError as error:
        logger.warning(str(error))
        return
    for run in runs:
        try:
            remove(run)
            run.close()
        except Exception as error:
            run.release()
            logger.warning(f"run {run.id}, killed earlier: not removed: {error}")


def one_line_errors() -> None:
    """Show a foreseen error as one line."""
    if not any(isinstance(one, OneLine) for one in logger.filters):
        logger.addFilter(OneLine())


def _catch_signals() -> None:
    """SIGTERM and SIGHUP end the run as Ctrl-C does, also where SIGINT is ignored, as in a job in the background."""
    running = asyncio.all_tasks()
    main = next(one for one in running if getattr(one.get_coro(), "__name__", "") == "_async_run")
    loop = asyncio.get_running_loop()

    def stop(*_: Any) -> None:
        current().stopped = True
        loop.call_soon_threadsafe(main.cancel)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    before = sys.excepthook

    def hook(kind: Any, error: Any, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            logger.error("interrupted")
        else:
            before(kind, error, trace)

    sys.excepthook = hook


def _end_children() -> None:
    """End local steps that still run: StreamFlow leaves them to themselves."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        child.terminate()
    for child in psutil.wait_procs(children, timeout=5)[1]:
        child.kill()
