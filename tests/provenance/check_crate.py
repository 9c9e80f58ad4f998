"""Validate a crate without a network; run by the interpreter of the checkers. Prints JSON: conforms, issues, profiles.

Usage: check_crate.py CRATE PROFILE CACHE
"""

import json
import sys
from io import BytesIO
from pathlib import Path

import rocrate
from requests.adapters import BaseAdapter
from requests.models import Response
from requests_cache import CachedSession
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings
from rocrate_validator.utils.uri import URI
from urllib3 import HTTPResponse

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
FILE = Path(rocrate.__file__).parent / "data/ro-crate.jsonld"  # CC0, as it says in itself


class Shelf(BaseAdapter):
    """Answers with the context file, and only to who asks for it."""

    def send(self, request, **_):
        assert request.url == CONTEXT, request.url
        headers = {"Content-Type": "application/ld+json"}
        response = Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.raw = HTTPResponse(
            BytesIO(FILE.read_bytes()), headers, 200, preload_content=False, request_url=request.url
        )
        response.headers.update(headers)
        return response

    def close(self):
        """Nothing is open."""


def fill(cache):
    """Put the context into the cache that the validator reads in its offline mode."""
    with CachedSession(cache_name=cache, backend="sqlite", expire_after=-1) as session:
        session.mount("https://", Shelf())
        assert session.get(CONTEXT).json()["@id"] == CONTEXT


def main(crate, profile, cache):
    fill(cache)
    settings = ValidationSettings(
        rocrate_uri=URI(crate),
        profile_identifier=profile,
        requirement_severity=Severity.REQUIRED,
        cache_path=cache,
        offline=True,
    )
    result = services.validate(settings)
    issues = [f"{issue.check.identifier}: {issue.message}" for issue in result.get_issues()]
    checked = sorted({check.requirement.profile.identifier for check in result.executed_checks})
    print(json.dumps({"conforms": result.passed(), "issues": issues, "profiles": checked}))


if __name__ == "__main__":
    main(*sys.argv[1:])
