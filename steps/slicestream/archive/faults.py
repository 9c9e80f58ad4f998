"""What a connection's failure comes to: what may pass by itself, and what the user can mend."""

from __future__ import annotations

import socket
import ssl

from slicestream.archive.address import Address
from slicestream.archive.patience import TransientError
from slicestream.errors import ArchiveError


def told(error: BaseException, address: Address) -> Exception:
    """Return what to raise for an error of the network, of TLS, or of the libraries on top of them."""
    cause, where = _deepest(error), address
    if isinstance(cause, socket.gaierror):
        return ArchiveError(f"{where}: no host of the name {where.host}. Check the address.")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ArchiveError(
            f"{where}: its certificate is not trusted ({cause.verify_message}); need one for {where.host} by an "
            "authority that this machine knows. Give the archive's authority with --ca."
        )
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ArchiveError(
            f"{where}: no TLS with it ({cause.reason or 'failed'}). Check that the port speaks TLS, and --cert if the "
            "archive asks for a certificate."
        )
    return TransientError(_reason(cause))


def _reason(cause: BaseException) -> str:
    if isinstance(cause, ConnectionRefusedError):
        return "refuses the connection"
    if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
        return f"connection lost ({cause.strerror})"
    return f"connection lost ({type(cause).__name__})"


def _deepest(error: BaseException) -> BaseException:
    """Return what the system or OpenSSL said, under the layers around it."""
    seen = {id(error)}
    while True:
        around = (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__)
        below = next((one for one in around if isinstance(one, BaseException) and id(one) not in seen), None)
        if below is None:
            return error
        seen.add(id(below))
        error = below
