"""The kubernetes connector: workers of this run alone, deployed or refused in bounded time, copies that end.

rc3 (deployment/connector/kubernetes.py) takes any running pod of the namespace whose container has the service's name
(:450, :673), looks in `default` whatever the context says (:302), waits 60000 s for an image that is not there (:638),
never runs a command if its location has an environment (:558), and checks nothing of a stream's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator, MutableMapping, MutableSequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiException, AppsV1Api
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.utils import FailToCreateError, create_from_dict
from streamflow.core import utils
from streamflow.core.data import StreamWrapper
from streamflow.core.deployment import ExecutionLocation, Shell
from streamflow.core.scheduling import AvailableLocation
from streamflow.deployment.connector.kubernetes import KubernetesBaseConnector, KubernetesConnector, KubernetesShell

from slicestream.streamflow_plugin.faults import PodGoneError, SiteError, SiteUnreachableError
from slicestream.streamflow_plugin.jobs import DetachedJobs
from slicestream.streamflow_plugin.manifests import LABEL, of_run, read_manifests, workers
from slicestream.streamflow_plugin.pod_exec import LOST, ExecStream
from slicestream.streamflow_plugin.pods import message, ready, stuck, unready
from slicestream.streamflow_plugin.replaced import Redo, Workers, changes
from slicestream.streamflow_plugin.session import current, patiently
from slicestream.streamflow_plugin.transfers import SafeTransfers, closing_streams

PROTOCOL = {"sec-websocket-protocol": "v5.channel.k8s.io"}
POLL_S = 1.0
BUFFER = 1 << 20  # bytes; rc3's default of 32 MiB is joined from pieces of 32 kB, at a cost that grows with its square
EXEC_S = 30.0  # for a websocket to open


class SafeKubernetesConnector(SafeTransfers, DetachedJobs, KubernetesConnector):
    """`kubernetes`, for the objects of one run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.selector = f"{LABEL}={current().id}"
        self._over = False
        self._admitted = False
        self.transferBufferSize: int = min(kwargs.get("transferBufferSize", BUFFER), BUFFER)
        self.workers = Workers(self._ready_names)

    async def deploy(self, external: bool) -> None:
        """Make the manifest's objects under the run's name and wait until all workers are ready.

        Raises
        ------
        SiteError
            One line: what the cluster refuses, or why a worker does not start.
        """
        current().check_open()
        try:
            await self._deploy(external)
        except BaseException:
            await KubernetesBaseConnector.undeploy(self, external)
            raise

    async def _deploy(self, external: bool) -> None:
        from slicestream.sites.cluster import resolved  # its library takes 0.3 s, which runs without pods need not

        try:
            context, namespace = resolved(self.kubeContext or "", self.namespace or "", kubeconfig=self.kubeconfig)
            self.namespace: str = namespace
            await KubernetesBaseConnector.deploy(self, external)
            if external:
                self.selector = ""  # pods that somebody else made for this: by their container's name, as in rc3
                return
            objects = of_run(read_manifests(self.files), current().id, namespace=self.namespace)
            current().reached.add(context)
            for one in objects:
                await create_from_dict(self.client.api_client, one, namespace=self.namespace)
            await self._all_ready(workers(objects))
        except FailToCreateError as error:
            raise self._refused(error.api_exceptions[0]) from error
        except ApiException as error:
            raise self._refused(error) from error
        except ConfigException as error:
            raise SiteError(
                f"kubeconfig: {' '.join(str(error).split())}; set KUBECONFIG, or write ~/.kube/config"
            ) from error
        except LOST as error:
            raise SiteError(
                f"{self.deployment_name}: cluster cannot be reached: {error or type(error).__name__}"
            ) from error

    async def _pods(self) -> list[Any]:
        try:
            found = await self.client.list_namespaced_pod(namespace=self.namespace, label_selector=self.selector)
        except ApiException as error:
            raise self._refused(error) from error
        except LOST as error:
            raise SiteUnreachableError(f"{self.deployment_name}: {error or type(error).__name__}") from error
        return list(found.items)

    async def _all_ready(self, wanted: int) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + (self.timeout or 60000)
        while True:
            current().check_open()
            pods = await patiently(self._pods, what=f"looking at the workers of {self.deployment_name}")
            if sum(map(ready, pods)) >= wanted:
                return
            if problem := next(filter(None, map(stuck, pods)), None) or await self._no_pods(pods):
                raise SiteError(f"deployment {self.deployment_name}: {problem}")
            if loop.time() > give_up:
                why = "; ".join(unready(pod) for pod in pods if not ready(pod)) or "no pod was made"
                raise SiteError(
                    f"deployment {self.deployment_name}: {sum(map(ready, pods))} of {wanted} workers ready after "
                    f"{self.timeout} s (`timeout`): {why}"
                )
            await asyncio.sleep(POLL_S)

    async def _no_pods(self, pods: list[Any]) -> str | None:
        """Return why a controller may not make pods (quota, pod security), which no pod can tell."""
        if pods:
            return None
        made = await AppsV1Api(self.client.api_client).list_namespaced_deployment(
            namespace=self.namespace, label_selector=self.selector
        )
        conditions = [one for deployment in made.items for one in deployment.status.conditions or []]
        failed = [one for one in conditions if one.type == "ReplicaFailure" and one.status == "True"]
        return f"{failed[0].reason}: {' '.join(failed[0].message.split())}" if failed else None

    def _refused(self, error: ApiException) -> SiteError:
        said = message(error)
        if error.status in (429, 500, 502, 503, 504):
            return SiteUnreachableError(f"{self.deployment_name}: API server: {error.status} {said}")
        return SiteError(
            f"deployment {self.deployment_name}: the cluster refuses: {error.status} {error.reason}: {said}"
        )

    async def get_available_locations(self, service: str | None = None) -> MutableMapping[str, AvailableLocation]:
        """Return the run's own ready workers that have a container of the service's name."""
        names = map(self.workers.known_as, await self._ready_names(service))
        return {
            name: AvailableLocation(name, self.deployment_name, name.partition(":")[0], service=service)
            for name in names
        }

    async def _ready_names(self, service: str | None) -> list[str]:
        pods = await patiently(self._pods, what=f"looking at the workers of {self.deployment_name}")
        containers = [(pod.metadata.name, pod.spec.containers) for pod in filter(ready, pods)]
        named = [(pod, [one.name for one in ones if service in (None, one.name)]) for pod, ones in containers]
        return [f"{pod}:{names[0]}" for pod, names in named if names]

    def note(self, location: ExecutionLocation, redo: Redo) -> None:
        """Keep what changed a worker, for the pod that may replace it."""
        self.workers.note(location, redo)

    async def _get_effective_locations(
        self,
        locations: MutableSequence[ExecutionLocation],
        dst_path: str,
        source_location: ExecutionLocation | None = None,
    ) -> MutableSequence[ExecutionLocation]:
        return locations

    async def get_stream_reader(
        self, command: MutableSequence[str], location: ExecutionLocation
    ) -> AbstractAsyncContextManager[StreamWrapper]:
        """Return a reader of the command's stdout."""
        return self._stream(command, location, stdin=False)

    async def get_stream_writer(
        self, command: MutableSequence[str], location: ExecutionLocation
    ) -> AbstractAsyncContextManager[StreamWrapper]:
        """Return a writer to the command's stdin."""
        if command[0] == "tee":  # StreamFlow's own way to write a literal (data/remotepath.py:919)
            self.workers.forbid(location)
        # A command that ends before its input breaks the connection before its status comes: the rest is read away.
        drained = ["{", *command, ";", "}", ";", "rc=$?;", "cat", ">/dev/null;", "exit", "$rc"]
        return self._stream(drained, location, stdin=True)

    @contextlib.asynccontextmanager
    async def _stream(
        self, command: MutableSequence[str], location: ExecutionLocation, *, stdin: bool
    ) -> AsyncIterator[ExecStream]:
        async with self._exec(" ".join(command), location, stdin=stdin) as stream, closing_streams(stream):
            yield stream

    @contextlib.asynccontextmanager
    async def _exec(
        self, command: str, location: ExecutionLocation, *, stdin: bool = False
    ) -> AsyncIterator[ExecStream]:
        socket = await self._open(command, location, stdin=stdin)
        try:
            yield ExecStream(socket, str(location))
        finally:
            await socket.close()

    async def _open(self, command: str, location: ExecutionLocation, *, stdin: bool) -> aiohttp.ClientWebSocketResponse:
        if self._over or self.client_ws is None:
            raise SiteError(f"{location}: the run is ending")
        actual = self.workers.now(location.name)
        pod, container = actual.split(":")
        exports = "".join(f"export {key}={shlex.quote(value)}; " for key, value in location.environment.items())
        try:
            request = await self.client_ws.connect_get_namespaced_pod_exec(
                name=pod,
                namespace=self.namespace,
                container=container,
                command=["sh", "-c", exports + command],
                stderr=True,
                stdin=stdin,
                stdout=True,
                tty=False,
                _headers=PROTOCOL,
                _preload_content=False,
            )
            async with asyncio.timeout(EXEC_S):
                socket = await request.__aenter__()
        except LOST as error:
            raise await self._why(error, location, actual) from error
        self._admitted = True
        return socket

    async def _create_shell(self, command: MutableSequence[str], location: ExecutionLocation) -> Shell:
        socket = await self._open("exec sh", location, stdin=True)
        return KubernetesShell(command=command, buffer_size=self.transferBufferSize, stream=socket)

    async def _in_shell(self, location: ExecutionLocation, text: str, timeout: int | None) -> tuple[str, int]:
        """Run a command in the worker's kept shell, which is 20 times as quick as a websocket for each."""
        actual = self.workers.now(location.name)
        try:
            shell = await self.get_shell(command=["sh"], location=location)
            answer: tuple[str, int] = await shell.execute([f"({text})"], capture_output=True, timeout=timeout)
            return answer
        except BaseException as error:  # the kept shell is of no more use: what it still says belongs to this command
            self._shells.pop(location.name, None)
            if not isinstance(error, Exception):
                raise
            cause = error if isinstance(error, SiteError) else error.__cause__
            if isinstance(cause, SiteError):
                raise cause from None
            raise await self._why(error, location, actual) from error

    async def _why(self, error: BaseException, location: ExecutionLocation, actual: str) -> SiteError:
        """Return what it means that an exec did not open."""
        status = error.status if isinstance(error, aiohttp.WSServerHandshakeError) else 0
        if status in (401, 403) and self._admitted:
            # an API server that has just started knows nobody's rights for a moment
            return SiteUnreachableError(f"{location}: the API server refuses what it allowed before (status {status})")
        if status == 403:
            return SiteError(
                f"deployment {self.deployment_name}: may not run commands in pods; ask the cluster's "
                "administrator for the right `create` and `get` on `pods/exec` (environments/kubernetes/README.md)"
            )
        if status == 401:
            return SiteError(
                f"deployment {self.deployment_name}: the cluster refuses your credentials; make `kubectl get pods` work"
            )
        if await self._gone(actual.partition(":")[0]):
            return PodGoneError(f"{location}: its pod is gone", lambda: self.workers.move(location, actual))
        return SiteUnreachableError(f"{location}: {error or type(error).__name__}")

    async def _gone(self, name: str) -> bool:
        """Whether a pod is known to be no more; False also while that cannot be known."""
        try:
            pod = await self.client.read_namespaced_pod(name=name, namespace=self.namespace)
        except ApiException as error:
            return bool(error.status == 404)
        except LOST:
            return False
        return pod.metadata.deletion_timestamp is not None or pod.status.phase in ("Failed", "Succeeded")

    async def run(  # noqa: PLR0917 - StreamFlow's signature
        self,
        location: ExecutionLocation,
        command: MutableSequence[str],
        environment: MutableMapping[str, str] | None = None,
        workdir: str | None = None,
        stdin: int | str | None = None,
        stdout: int | str = asyncio.subprocess.STDOUT,
        stderr: int | str = asyncio.subprocess.STDOUT,
        capture_output: bool = False,
        timeout: int | None = None,
        job_name: str | None = None,
    ) -> tuple[str, int] | None:
        """Run a command, tried again while the cluster is out of reach; a job runs detached and is polled."""
        if job_name is not None:
            environment = {**(environment or {}), "SLICESTREAM_RUN": current().id}
        text = utils.create_command(type(self).__name__, command, environment, workdir, stdin, stdout, stderr)
        if job_name is not None:
            job = partial(
                self.run_job, command=text, job_name=job_name, workdir=workdir, stdout=stdout, timeout=timeout
            )
            done = await job(location)
            self.note(location, job)
            return done

        answer = await patiently(lambda: self._in_shell(location, text, timeout), what=f"a command on {location}")
        if answer[1] == 0 and changes(command):
            self.note(location, lambda to: self.run(to, command, environment, workdir, capture_output=True))
        return answer

    async def undeploy(self, external: bool) -> None:
        """Close the connections; the run's objects go when the run is removed, by their label."""
        self._over = True
        self.jobs.clear()
        await KubernetesBaseConnector.undeploy(self, external)
