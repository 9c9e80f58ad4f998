"""Who we are to an archive, and whom we trust: credentials from the environment or a private file, and TLS."""

from __future__ import annotations

import base64
import netrc
import os
import ssl
import stat
from pathlib import Path

from slicestream.archive.address import Address
from slicestream.errors import OptionError

USER, PASSWORD, TOKEN = (f"SLICESTREAM_ARCHIVE_{name}" for name in ("USER", "PASSWORD", "TOKEN"))


def authorization(address: Address, credentials: Path | None) -> str:
    """Return the value of the Authorization header, "" for none. Never to be printed.

    Asked in this order: a bearer token in the environment, user and password in the environment, the file
    `credentials` (in the form of ~/.netrc), ~/.netrc.

    Raises
    ------
    OptionError
        Half of a pair, a file that others can read or that is not of the form, or characters that no header may have.
    """
    token, user, password = (os.environ.get(name, "") for name in (TOKEN, USER, PASSWORD))
    if token:
        if not token.isascii() or not token.isprintable() or " " in token:
            raise OptionError(f"{TOKEN}: holds a space, a line end or a sign beyond ASCII; need the bare token.")
        return f"Bearer {token}"
    if bool(user) != bool(password):
        raise OptionError(f"{USER if user else PASSWORD} is set, the other is not; need both, or a token in {TOKEN}.")
    if not user:
        path = credentials or Path.home() / ".netrc"
        if credentials is None and not path.is_file():
            return ""
        user, password = _entry(path, address.host, asked=credentials is not None)
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""


def _entry(path: Path, host: str, *, asked: bool) -> tuple[str, str]:
    try:
        found = netrc.netrc(path).authenticators(host)
    except netrc.NetrcParseError as error:  # its text may quote the password
        raise OptionError(
            f"{path}: line {error.lineno}: not of the form 'machine {host} login NAME password SECRET'. Correct it."
        ) from None
    except (OSError, UnicodeError) as error:
        raise OptionError(f"{path}: cannot be read ({type(error).__name__}). Check the name.") from None
    if found is None:
        if asked:
            raise OptionError(f"{path}: nothing for {host}. Add 'machine {host} login NAME password SECRET'.")
        return "", ""
    check_private(path)
    return found[0], found[2] or ""


def check_private(path: Path) -> None:
    """Raise OptionError where others than the owner may read a file with a secret."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise OptionError(f"{path}: mode {mode:04o}, others can read the secret in it; need 0600. chmod 600 {path}")


def tls_context(address: Address, *, ca: Path | None, certificate: Path | None) -> ssl.SSLContext | None:
    """Return how to encrypt: the archive must show a certificate for its name, of `ca` (else one the system trusts).

    `certificate` is a PEM file with our own certificate and key. None where the address is not encrypted.

    Raises
    ------
    OptionError
        A file is missing, of another form, readable by others, or its key needs a passphrase.
    """
    if not address.tls:
        if ca or certificate:
            raise OptionError(f"{address}: --ca and --cert are of TLS; need https:// or dicoms:// with them.")
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"--ca {ca}: no certificate in PEM form ({_reason(error)}). Check the file.") from None
    if certificate:
        try:
            check_private(certificate)
            context.load_cert_chain(certificate, password=_no_passphrase)
        except (OSError, ssl.SSLError) as error:
            raise OptionError(
                f"--cert {certificate}: {_reason(error)}; need a PEM file with a certificate and its key, without a "
                "passphrase. Check the file."
            ) from None
    return context


def _no_passphrase() -> str:
    raise ssl.SSLError("the key has a passphrase")


def _reason(error: OSError) -> str:
    return " ".join(str(error.strerror or error).split())
