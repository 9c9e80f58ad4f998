"""A Kubernetes cluster, reached as kubectl would: $KUBECONFIG or ~/.kube/config, one of its contexts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
import urllib3

from slicestream.errors import SiteError

REQUEST_S = (10, 30)  # to connect, to answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A cluster's API and the namespace that is ours. `name` is its context."""

    name: str
    namespace: str
    api: Any  # kubernetes.client.ApiClient; the library has no types


@contextmanager
def cluster(context: str, *, namespace: str = "", kubeconfig: str | None = None) -> Iterator[Cluster]:
    """Yield the cluster of a context, "" for the current one; its namespace is the context's if none is named.

    Raises
    ------
    SiteError
        No such context (stage "context"). Inside the block also: the API does not answer ("server"), does not know us
        ("credentials"), or refuses.
    """
    # The library looks at $KUBECONFIG only once, when it is imported.
    kubeconfig = str(Path(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config").expanduser())
    try:
        every, current = kubernetes.config.list_kube_config_contexts(kubeconfig)
        chosen = next((one for one in every if one["name"] == context), None) if context else current
        if chosen is None:
            known = ", ".join(one["name"] for one in every)
            raise SiteError(f"kubeconfig has no context {context!r}; it has: {known}", stage="context")
        settings = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(kubeconfig, context=chosen["name"], client_configuration=settings)
    except kubernetes.config.ConfigException as error:
        advice = "set KUBECONFIG, or write ~/.kube/config"
        raise SiteError(f"kubeconfig: {_line(error)}; {advice}", stage="context") from error
    settings.retries = False  # a cluster that does not answer is said to be so after 10 s, not after 40
    name = chosen["name"]
    with kubernetes.client.ApiClient(settings) as api:
        try:
            yield Cluster(name=name, namespace=namespace or chosen["context"].get("namespace", "default"), api=api)
        except kubernetes.client.ApiException as error:
            stage = "credentials" if error.status == 401 else "rights"
            raise SiteError(f"cluster {name}: {refusal(error)}", stage=stage) from error
        except urllib3.exceptions.HTTPError as error:
            raise _unreached(name, error) from error
        except AttributeError as error:
            # The library's own, of a certificate that it does not trust: it decodes a body that is not there.
            if not isinstance(error.__context__, kubernetes.client.ApiException):
                raise
            raise _unreached(name, error.__context__.reason) from error


def resolved(context: str, namespace: str, *, kubeconfig: str | None = None) -> tuple[str, str]:
    """Return both by name, where "" stands for the current context and for its namespace. Raises SiteError."""
    with cluster(context, namespace=namespace, kubeconfig=kubeconfig) as found:
        return found.name, found.namespace


def refusal(error: Any) -> str:
    """Return in one line what an API server answered to a request that it did not grant."""
    if error.status == 401:
        return "refuses your credentials; make 'kubectl get pods' work"
    try:
        said = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        said = error.body or error.reason
    return f"answers {error.status}: {_line(said)[:300]}"


def _unreached(name: str, why: object) -> SiteError:
    return SiteError(f"cluster {name}: cannot be reached ({_line(why)}); make 'kubectl get pods' work", stage="server")


def _line(error: object) -> str:
    return " ".join(str(error).split())
