# sourced by every script of the test bed. All state lives under $TESTBED; nothing outside it is kept.
set -euo pipefail
TESTBED=${TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/slicestream/testbed}
LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$TESTBED"; TESTBED=$(cd "$TESTBED" && pwd)
IMG=$TESTBED/img                      # images as docker-archive tars, for both sites
FAKEHOME=$TESTBED/home                # HOME for StreamFlow: .ssh/config (hpc/up.sh) and .kube/config (kubernetes/up.sh)
mkdir -p "$IMG" "$FAKEHOME"

T0=$(date +%s%N)
elapsed() { local d=$(( ($(date +%s%N) - T0) / 100000000 )); echo "$((d / 10)).$((d % 10)) s"; }

# the Debian mirror this machine already uses, as apt knows it (no host name is written down here)
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' | sed -n '1s|/*$||p'; }

# fetch POOL-PATH SHA256: one file of the mirror into the current directory, through apt's own transport (proxy, TLS, hash)
fetch() {
  local f=${1##*/}
  if [ -f "$f" ] && echo "$2  $f" | sha256sum -c --status; then return 0; fi
  /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "$(mirror)/$1" "$f" "SHA256:$2" >/dev/null
}

# apt_suite SUITE ARGS...: apt-get over another suite of the same mirror, with its own lists (the system's are untouched)
apt_suite() {
  local d=$TESTBED/apt-$1
  mkdir -p "$d"/{lists/partial,cache/archives/partial,preferences.d}; : >> "$d/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $1 main" > "$d/sources.list"; shift
  apt-get -qq -o Dir::State="$d" -o Dir::State::status="$d/status" -o Dir::Cache="$d/cache" -o Dir::Etc::SourceList="$d/sources.list" \
    -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::PreferencesParts="$d/preferences.d" -o APT::Sandbox::User=root "$@"
}

# ours PID WORD...: is PID alive with all WORDs in its command line? (false for a zombie: its command line is empty)
ours() {
  local p=$1 w c; shift
  c=$(tr '\0' ' ' 2>/dev/null < "/proc/$p/cmdline") || return 1
  [ -n "$c" ] || return 1
  for w; do case $c in *"$w"*) ;; *) return 1;; esac; done
}

# can_host: may this machine host the sites? If not, say in one line why
can_host() {
  local no=
  [ "$(id -u)" = 0 ] || no="needs root"
  [ -d /sys/fs/cgroup/memory ] || no="needs cgroup v1 or hybrid (kubelet 1.20 and crun are set up for it)"
  unshare -m -p -n --fork true 2>/dev/null || no="needs the right to make namespaces"
  command -v mmdebstrap >/dev/null || no="needs mmdebstrap (debian-packages.txt)"
  [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || no="needs Debian on amd64"
  [ -z "$no" ] || { echo "testbed: this machine cannot host the sites: $no. Use sites of your own: SITES=own." >&2; return 1; }
}
