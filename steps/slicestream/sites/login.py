"""What a run needs of a host behind ssh: the way there, folders, disk, clock, link, container runtime, image."""

from __future__ import annotations

import os
import re
import shlex
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import paramiko

from slicestream.sites.findings import Row, Rows, clock, one_line
from slicestream.sites.images import SHOWN_DIGITS, divided, nameless_tag
from slicestream.sites.ssh import Site

NEEDED_GB = 5.0  # a training set, a model and their copies
LINK_BYTES = 4_000_000
SLOW_LINK_MB_S = 1.0
STAGES = {"name": "is known", "port": "answers", "host key": "the known one", "login": ""}
HOME = 'probe=$(mktemp "$HOME/.slicestream-XXXXXX") && echo >> "$probe" && rm -f "$probe" && echo "$HOME"'
# A folder takes 1 MB more: quotas show in writing alone. df says 1024-byte blocks.
WRITABLE = r"""
probe=$(mktemp "$folder/.slicestream-XXXXXX") || exit 1
df -Pk "$folder" | awk 'NR == 2 {print $4}'
dd if=/dev/zero of="$probe" bs=65536 count=16 2>&1 | grep -v records >&2
test "$(wc -c < "$probe")" = 1048576; whole=$?
rm -f "$probe"
[ $whole = 0 ] || exit 3
"""
ENVIRONMENT = '[ ! -f "$folder/site.env" ] || . "$folder/site.env" > /dev/null\n'
RUNTIMES = "for one in $wanted; do command -v $one > /dev/null && $one --version; done; true"
IMAGE = r"""
if [ -n "$sif" ] && [ -f "$sif" ] && command -v apptainer > /dev/null; then
    echo "$sif"
    apptainer -q exec --cleanenv --containall --no-home "$sif" printenv SLICESTREAM_IMAGE
elif [ -n "$tag" ] && command -v podman > /dev/null && podman image exists "$tag"; then
    echo "$tag"
    podman image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$tag" | sed -n 's/^SLICESTREAM_IMAGE=//p'
else exit 1; fi
true
"""
GPU = '[ -e /dev/nvidiactl ] && echo there || echo "${SLICESTREAM_DEVICE-}"'


def reached(site: Site) -> Rows:
    """Say which way a connection went, stage by stage."""
    transport = site.client.get_transport()
    assert transport is not None
    link = transport.sock
    if isinstance(link, paramiko.Channel):
        yield "name", "ok", f"{site.host}, through its jump host"
    elif link.family == socket.AF_UNIX:
        yield "name", "ok", f"{site.host}, through its ProxyCommand"
    else:
        address, port = link.getpeername()[:2]
        yield "name", "ok", f"{site.host} is {address}"
        yield "port", "ok", f"{port} answers"
    yield "host key", "ok", f"the known one ({transport.get_remote_server_key().get_name()})"
    yield "login", "ok", f"as {transport.get_username()}, without a password"


def passed(stage: str) -> Rows:
    """Say what went well before the stage that failed."""
    for before in list(STAGES)[: list(STAGES).index(stage)] if stage in STAGES else []:
        yield before, "ok", STAGES[before]


def folders(site: Site, folder: str) -> Rows:
    """Look at home and work folder: writable, room, quota."""
    answer = site.run(HOME)
    if answer.status:
        yield "home", "to do", f"cannot be written to ({_reason(answer.err)}); make room there, or ask the site's staff"
    else:
        yield "home", "ok", f"{answer.out.strip()} can be written to"
    yield _work_folder(site, folder)
    answer = site.run("if command -v quota > /dev/null; then quota -q; else exit 77; fi")
    if answer.status not in (0, 77):
        yield "quota", "to do", f"exceeded ({one_line(answer.out or answer.err)}); make room"
    elif answer.status == 0:
        yield "quota", "ok", "not exceeded"


def _work_folder(site: Site, folder: str) -> Row:
    answer = site.run(f"folder={shlex.quote(folder)}\n{WRITABLE}")
    if answer.status not in (0, 3):
        line = f"{folder} cannot be written to ({_reason(answer.err)}); make it, or change workdir"
        return "work folder", "to do", line
    free_gb = int(answer.out) * 1024 / 1e9
    if free_gb < NEEDED_GB:
        line = f"{folder} has {free_gb:.1f} GB free; need {NEEDED_GB:.0f} GB. Make room, or change workdir"
        return "work folder", "to do", line
    if answer.status:
        line = f"{folder} takes no file of 1 MB ({one_line(answer.err) or 'it is cut off'}); look at your quota there"
        return "work folder", "to do", line
    return "work folder", "ok", f"{folder} can be written to, {free_gb:.0f} GB free"


def clock_of(site: Site) -> Row:
    """Compare a site's clock with this machine's, between question and answer."""
    asked = time.time()
    there = float(re.sub(r"\D*$", "", site.run("date +%s.%N").out))  # not every date knows %N
    return clock(there - (asked + time.time()) / 2)


def link_rate(site: Site) -> Row:
    """Measure a link with a few MB that nothing can make smaller, both ways; nothing is kept there."""
    data = os.urandom(LINK_BYTES)
    begun = time.perf_counter()
    site.feed("cat > /dev/null", data)
    turned = time.perf_counter()
    _, back, _ = site.feed(f"head -c {LINK_BYTES} /dev/urandom", b"")
    up, down = len(data) / (turned - begun) / 1e6, len(back) / (time.perf_counter() - turned) / 1e6
    line = f"{up:.1f} MB/s there, {down:.1f} MB/s back, measured with {LINK_BYTES / 1e6:.0f} MB"
    if min(up, down) < SLOW_LINK_MB_S:
        return "link", "note", f"{line}; a run moves tens of MB to GB over it"
    return "link", "ok", line


def container(site: Site, folder: str, name: str, template: str, builds: Mapping[str, tuple[Path, str]]) -> Rows:
    """Look for what starts a service's container, and for the image that its template names."""
    wanted = [one for one in ("apptainer", "singularity", "podman", "docker") if re.search(rf"\b{one}\b", template)]
    if not wanted:
        return
    there = f"folder={shlex.quote(folder)}\nwanted='{' '.join(wanted)}'\n{ENVIRONMENT}{RUNTIMES}"
    versions = ", ".join(line.replace(" version", "") for line in site.run(there).out.splitlines())
    if not versions:
        needed = " nor ".join(wanted)
        yield "container", "to do", f"service {name}: neither {needed} is there; load one in {folder}/site.env"
        return
    yield "container", "ok", f"service {name}: {versions}"
    yield _image(site, folder, name, template, builds)


def _image(site: Site, folder: str, name: str, template: str, builds: Mapping[str, tuple[Path, str]]) -> Row:
    """Look for the image that a template starts: a .sif for apptainer, else one of podman's."""
    found = re.search(r"[\w./${}-]+\.sif\b", template)
    sif = re.sub(r"\$\{?project\}?(?=/)", folder, found[0]) if found else ""
    found = re.search(r"\b(?:localhost|[\w-]+(?:\.[\w-]+)+)(?::\d+)?/[\w./-]+:[\w.-]+", template)
    tag = found[0] if found else ""
    if (not sif and not tag) or "$" in sif:
        return "image", "note", f"service {name}: its template names no image that can be looked for"
    values = {"folder": folder, "sif": sif, "tag": tag}
    set_values = "\n".join(f"{key}={shlex.quote(value)}" for key, value in values.items())
    answer = site.run(f"{set_values}\n{ENVIRONMENT}{IMAGE}")
    if answer.status:
        wanted = " nor ".join(filter(None, (sif and f"{sif} for apptainer", tag and f"{tag} for podman")))
        line = f"service {name}: no image, neither {wanted}; put one there: containers/README.md"
        return "image", "to do", line
    image, _, said = answer.out.strip().partition("\n")
    return _same_build(f"service {name}: image {image}", said, tag, builds)


def _same_build(what: str, said: str, tag: str, builds: Mapping[str, tuple[Path, str]]) -> Row:
    """Compare what an image says of its build with ours; `tag` is the name that it should have."""
    name, build = divided(said)
    archive, ours = builds.get(nameless_tag(tag)) or builds.get(name) or (None, "")
    if build and build == ours:
        return "image", "ok", f"{what}, build {build[:SHOWN_DIGITS]}, as here"
    if archive and ours:
        other = f"build {build[:SHOWN_DIGITS]}" if build else "of no known build"
        line = f"{what} is {other}, {archive.name} here is {ours[:SHOWN_DIGITS]}; put that there: containers/README.md"
        return "image", "to do", line
    known = f"build {build[:SHOWN_DIGITS]}" if build else "of no known build"
    return "image", "ok", f"{what}, {known}; none here to compare with"


def gpu(site: Site, folder: str, name: str) -> Row:
    """Look for the GPU that a training without a queue takes."""
    said = site.run(f"folder={shlex.quote(folder)}\n{ENVIRONMENT}{GPU}").out.strip()
    if said == "there":
        return "GPU", "ok", f"service {name}: there is one"
    if said in ("cpu", "auto"):
        return "GPU", "ok", f"service {name}: none is needed, site.env says SLICESTREAM_DEVICE={said}"
    advice = f"choose another host, or say SLICESTREAM_DEVICE=cpu in {folder}/site.env"
    return "GPU", "to do", f"service {name}: training needs a GPU, and there is none; {advice}"


def device_of(site: Site, folder: str) -> str:
    """Return what the site's site.env says that training takes: cpu, auto, cuda, or "" for nothing."""
    return site.run(f'folder={shlex.quote(folder)}\n{ENVIRONMENT}echo "${{SLICESTREAM_DEVICE-}}"').out.strip()


def _reason(said: str) -> str:
    """Return why, of what a program said: what stands after its name and the file's."""
    return one_line(said).rpartition(": ")[2]
