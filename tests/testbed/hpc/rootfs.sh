#!/bin/bash
# rootfs.sh: template root file system of an HPC site, once: Debian trixie with Slurm 24.11, sshd, podman 5, and apptainer from sid.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
R=$TESTBED/hpc/rootfs
[ -f "$R/.done" ] && { echo "there already: $R"; exit 0; }
pk=slurmctld,slurmd,slurm-client,munge,openssh-server,openssh-sftp-server,podman,crun,conmon,python3,iproute2,procps,ca-certificates
pk=$pk,catatonit,squashfs-tools,squashfuse,fuse3,tar,gzip,uidmap,libsqlite3-0,libseccomp2,containernetworking-plugins,netavark
mkdir -p "$TESTBED/hpc"; rm -rf "$R"
mmdebstrap -q --variant=minbase --skip=cleanup/apt --include=$pk trixie "$R" "$(mirror)"
echo "$(elapsed)  trixie"
apt_suite sid update          # apptainer is in no stable release: sid's installs on trixie
(cd "$R/root" && apt_suite sid download apptainer)
chroot "$R" sh -c 'dpkg -i /root/apptainer_*.deb' >/dev/null; rm -f "$R"/root/apptainer_*.deb
echo "$(elapsed)  $(chroot "$R" apptainer --version 2>/dev/null)"
touch "$R/.done"
