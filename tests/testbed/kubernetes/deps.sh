#!/bin/bash
# deps.sh: the other parts of the cluster as Debian packages, unpacked (not installed, so no service starts), and two
# images: pause, busybox.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
K=$TESTBED/kubernetes ROOT=$K/root
mkdir -p "$K/debs" "$ROOT"
if [ ! -f "$ROOT/.done" ]; then
  cd "$K/debs"
  # containerd must be < 2.0 (bookworm: 1.6): kubelet 1.20 speaks only CRI v1alpha2, which 2.0 dropped
  apt-get download -qq -o APT::Sandbox::User=root etcd-server containerd runc containernetworking-plugins kubernetes-client busybox-static \
    iptables libip4tc2 libip6tc2 libxtables12 libnftnl11 libmnl0 libnetfilter-conntrack3 libnfnetlink0 conntrack
  for d in *.deb; do dpkg-deb -x "$d" "$ROOT"; done
  touch "$ROOT/.done"
  echo "$(elapsed)  packages"
fi
cd "$K"
if [ ! -f "$IMG/pause.tar" ]; then
  mkdir -p pause-root
  gcc -Os -static -s -o pause-root/pause -xc - <<'C'
#include <signal.h>
#include <unistd.h>
#include <sys/wait.h>
static void down(int s){ (void)s; _exit(0); }
static void reap(int s){ (void)s; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void){ struct sigaction a = {0}; a.sa_handler = down; sigaction(SIGINT,&a,0); sigaction(SIGTERM,&a,0); a.sa_handler = reap; a.sa_flags = SA_NOCLDSTOP; sigaction(SIGCHLD,&a,0); for(;;) pause(); }
C
  python3 "$LIB/kubernetes/mkimage.py" "$IMG/pause.tar" localhost/pause:1 pause-root --entrypoint /pause
fi
if [ ! -f "$IMG/busybox.tar" ]; then
  rm -rf bb-root; mkdir -p bb-root/{bin,tmp,etc,root,proc,sys,dev,var}
  cp "$ROOT/bin/busybox" bb-root/bin/
  for x in $("$ROOT/bin/busybox" --list); do [ "$x" = busybox ] || ln -sf busybox "bb-root/bin/$x"; done
  echo root:x:0:0:root:/root:/bin/sh > bb-root/etc/passwd; echo root:x:0: > bb-root/etc/group; chmod 1777 bb-root/tmp
  python3 "$LIB/kubernetes/mkimage.py" "$IMG/busybox.tar" localhost/busybox:1 bb-root --cmd sh
fi
echo "$(elapsed)  images: $(cd "$IMG" && ls ./*.tar | xargs)"
