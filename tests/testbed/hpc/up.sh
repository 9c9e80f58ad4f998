#!/bin/bash
# up.sh: an isolated "HPC site" on this machine: own net/mount/pid/uts/ipc/cgroup namespaces and root file system (an overlay
# over the read-only template), with munged + slurmctld + slurmd + sshd inside. Idempotent; needs root.
#   [NS=hpc] [NET=10.77.0] [FRESH=1] up.sh     several sites can run at once (other NS and NET)
# This machine is $NET.1, the site $NET.2:22 (users root and alice, one key). Writes $TESTBED/home/.ssh/config, so:
#   ssh -F $TESTBED/home/.ssh/config slicestream-hpc
# slicestream-occam is the same machine reached without its queue.
# One machine: the link is a veth pair; no latency can be added where the kernel lacks sch_netem (as here).
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
NS=${NS:-hpc} NET=${NET:-10.77.0}
B=$TESTBED/hpc T=$B/rootfs RUN=$B/run-$NS S=$B/sites/$NS R=$B/sites/$NS/root LAP=$NET.1 SITE=$NET.2
[ -f "$T/.done" ] || { echo "run rootfs.sh first" >&2; exit 1; }
[ -d /sys/fs/cgroup/memory ] || { echo "needs cgroup v1 or hybrid" >&2; exit 1; }
if [ -f "$RUN/unshare.pid" ] && ours "$(cat "$RUN/unshare.pid")" unshare "$RUN"; then echo "up already"; exit 0; fi
[ -z "${FRESH:-}" ] || rm -rf "$S"
mkdir -p "$RUN" "$S"/{upper,work,root,containers,scratch}
mountpoint -q "$R" || mount -t overlay -o "lowerdir=$T,upperdir=$S/upper,workdir=$S/work" overlay "$R"
mkdir -p "$R/var/lib/containers" "$R/scratch"
mountpoint -q "$R/var/lib/containers" || mount --bind "$S/containers" "$R/var/lib/containers"   # podman's overlay store cannot live on an overlay
mountpoint -q "$R/scratch" || mount --bind "$S/scratch" "$R/scratch"

# --- keys and users
[ -f "$RUN/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C laptop -f "$RUN/id_ed25519"
[ -f "$R/etc/ssh/ssh_host_ed25519_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$R/etc/ssh/ssh_host_ed25519_key"
chroot "$R" sh -c 'id alice >/dev/null 2>&1 || useradd -m -s /bin/bash -u 2000 alice; usermod -p "*" alice'
grep -q ^alice: "$R/etc/subuid" || { echo alice:100000:65536 >> "$R/etc/subuid"; echo alice:100000:65536 >> "$R/etc/subgid"; }
for h in root home/alice; do mkdir -p "$R/$h/.ssh"; chmod 700 "$R/$h/.ssh"; install -m 600 "$RUN/id_ed25519.pub" "$R/$h/.ssh/authorized_keys"; done
chroot "$R" chown -R alice: /home/alice/.ssh
# the project's scratch; site.env is what a site's templates source: this one has no GPU that computes
P=$S/scratch/slicestream; mkdir -p "$P/images" "$P/checkpoints"; chmod 755 "$S/scratch"; echo "SLICESTREAM_DEVICE=cpu" > "$P/site.env"
chmod 700 "$P"; chown -R 2000:2000 "$P"
printf '%s %s\n' "$SITE" "$(cut -d' ' -f1,2 "$R/etc/ssh/ssh_host_ed25519_key.pub")" > "$RUN/known_hosts"
cat > "$RUN/ssh_config" <<C
Host slicestream-$NS slicestream-${OCCAM:-occam}
  HostName $SITE
  User alice
  IdentityFile $RUN/id_ed25519
  UserKnownHostsFile $RUN/known_hosts
  BatchMode yes
C
mkdir -p "$FAKEHOME/.ssh"; chmod 700 "$FAKEHOME" "$FAKEHOME/.ssh"
cat "$B"/run-*/ssh_config > "$FAKEHOME/.ssh/config"; chmod 600 "$FAKEHOME/.ssh/config"

# --- configuration inside the site
cat > "$R/etc/ssh/sshd_config" <<C
Port 22
ListenAddress $SITE
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
MaxSessions 64
MaxStartups 64
Subsystem sftp /usr/lib/openssh/sftp-server
C
mkdir -p "$R/etc/slurm"
cat > "$R/etc/slurm/slurm.conf" <<C
ClusterName=hpc
SlurmctldHost=hpc-login(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=/var/lib/slurm/ctld
SlurmdSpoolDir=/var/lib/slurm/d
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=/var/log/slurm-jobcomp.log
MpiDefault=none
PropagateResourceLimits=NONE
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
KillWait=5
MinJobAge=3600
GresTypes=gpu
NodeName=gpu01 NodeHostname=hpc-login NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=16000 Gres=gpu:a100:1 State=UNKNOWN
PartitionName=gpu Nodes=gpu01 Default=YES MaxTime=24:00:00 DefaultTime=01:00:00 State=UP
C
echo 'NodeName=gpu01 Name=gpu Type=a100 Count=1 File=/dev/nvidia0' > "$R/etc/slurm/gres.conf"
printf "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nConstrainSwapSpace=no\n" > "$R/etc/slurm/cgroup.conf"
mkdir -p "$R/etc/containers"
cat > "$R/etc/containers/containers.conf" <<C
[containers]
netns="host"
log_driver="k8s-file"
# without CAP_SYS_RESOURCE the hard nofile limit cannot be raised: podman's default 1048576 gives EPERM
default_ulimits=["nofile=$(ulimit -Hn):$(ulimit -Hn)","nproc=30000:30000"]
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
runtime="crun"
C
printf '[storage]\ndriver="overlay"\ngraphroot="/var/lib/containers/storage"\nrunroot="/run/containers/storage"\n' > "$R/etc/containers/storage.conf"
[ -f "$R/etc/containers/policy.json" ] || echo '{"default":[{"type":"insecureAcceptAnything"}]}' > "$R/etc/containers/policy.json"
# without CAP_SYS_RESOURCE root's apptainer must not ask for the full capability set
[ ! -f "$R/etc/apptainer/apptainer.conf" ] || sed -i 's/^root default capabilities.*/root default capabilities = no/' "$R/etc/apptainer/apptainer.conf"
echo "127.0.0.1 localhost hpc-login gpu01" > "$R/etc/hosts"; echo hpc-login > "$R/etc/hostname"
cat > "$R/sbin/site-init" <<'C'
#!/bin/bash
# PID 1 of the site
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /run/munge /run/sshd /run/lock /var/lib/slurm/ctld /var/lib/slurm/d /var/log/munge /var/lib/munge
chown -R munge:munge /run/munge /etc/munge /var/log/munge /var/lib/munge
[ -f /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=128 count=1 status=none; chown munge:munge /etc/munge/munge.key; chmod 400 /etc/munge/munge.key; }
setpriv --reuid munge --regid munge --clear-groups munged
slurmctld -i >/dev/null 2>&1
slurmd -N gpu01 >/dev/null 2>&1
/usr/sbin/sshd
trap 'exit 0' TERM INT
while :; do sleep 3600 & wait $!; done
C
chmod +x "$R/sbin/site-init"

# --- network namespace and veth pair
ip netns list | grep -qw "$NS" || ip netns add "$NS"
ip link show "veth-$NS" >/dev/null 2>&1 || ip link add "veth-$NS" type veth peer name eth0 netns "$NS"
ip addr replace "$LAP/24" dev "veth-$NS"; ip link set "veth-$NS" up
ip -n "$NS" addr replace "$SITE/24" dev eth0; ip -n "$NS" link set eth0 up; ip -n "$NS" link set lo up

# --- own cgroup (v1) subtree
CTL="cpu cpuacct cpuset memory devices freezer blkio pids systemd"
for c in $CTL; do
  d=/sys/fs/cgroup/$c; [ -d "$d" ] || continue; mkdir -p "$d/site-$NS"
  if [ "$c" = cpuset ]; then cat $d/cpuset.cpus > "$d/site-$NS/cpuset.cpus"; cat $d/cpuset.mems > "$d/site-$NS/cpuset.mems"; fi
done

cat > "$RUN/outer.sh" <<C
set -e
R=$R
hostname hpc-login
mount --rbind \$R \$R
mount -t proc proc \$R/proc
mount -t sysfs sysfs \$R/sys
mount -t tmpfs -o mode=755 tmpfs \$R/sys/fs/cgroup
for c in $CTL; do [ -d /sys/fs/cgroup/\$c ] || continue; mkdir \$R/sys/fs/cgroup/\$c
  [ \$c = systemd ] && o=none,name=systemd || o=\$c
  mount -t cgroup -o \$o cgroup \$R/sys/fs/cgroup/\$c; done      # no "unified" here: crun refuses hybrid mode
mount -t tmpfs -o mode=755 tmpfs \$R/dev
for n in null zero full random urandom tty; do [ -e /dev/\$n ] || continue; touch \$R/dev/\$n; mount --bind /dev/\$n \$R/dev/\$n; done
mknod -m 666 \$R/dev/nvidia0 c 1 3                                # fake GPU device (acts as /dev/null)
mknod -m 666 \$R/dev/fuse c 10 229                               # 0666: an ordinary user's apptainer mounts the .sif with squashfuse
mkdir \$R/dev/pts \$R/dev/shm \$R/dev/mqueue; mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts \$R/dev/pts; ln -s pts/ptmx \$R/dev/ptmx
ln -s /proc/self/fd \$R/dev/fd; ln -s /proc/self/fd/0 \$R/dev/stdin; ln -s /proc/self/fd/1 \$R/dev/stdout; ln -s /proc/self/fd/2 \$R/dev/stderr
mount -t tmpfs -o mode=1777 tmpfs \$R/dev/shm; mount -t tmpfs -o mode=755 tmpfs \$R/run
mkdir -p \$R/.old; cd \$R; pivot_root . .old; cd /; umount -l /.old
exec /sbin/site-init
C
# join the site's cgroups, then new namespaces; when its PID 1 dies, everything in the site dies
( for c in $CTL; do if [ -d /sys/fs/cgroup/$c ]; then echo "$BASHPID" > "/sys/fs/cgroup/$c/site-$NS/cgroup.procs"; fi; done
  exec setsid nsenter --net="/run/netns/$NS" unshare -m -p -u -i -C --fork --kill-child --propagation private bash "$RUN/outer.sh" ) > "$RUN/init.log" 2>&1 < /dev/null &
U=$!; echo $U > "$RUN/unshare.pid"
for _ in $(seq 100); do P=$(cat /proc/$U/task/*/children 2>/dev/null | awk '{print $1}') || true; [ -z "$P" ] || break; sleep 0.02; done
echo "$P" > "$RUN/init.pid"
root() { ssh -F "$RUN/ssh_config" -o ConnectTimeout=1 -l root "slicestream-$NS" "$@"; }
state=; for _ in $(seq 150); do state=$(root sinfo -h -o %T 2>/dev/null) || true; [ "$state" != idle ] || break; sleep 0.1; done
[ "$state" = idle ] || { echo "site did not come up: $(tail -n 3 "$RUN/init.log")" >&2; exit 1; }
echo "up: ssh -F $FAKEHOME/.ssh/config slicestream-$NS   node $(root sinfo -h -N -o '%N:%T:%G')  ($(elapsed))"
