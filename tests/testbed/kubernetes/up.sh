#!/bin/bash
# up.sh: one-node Kubernetes 1.20.2 (etcd, apiserver, controller-manager, scheduler, kubelet, kube-proxy; containerd + runc).
# State under $TESTBED/kubernetes, listeners on loopback or on the address of a private bridge. Idempotent; needs root.
#   KUBECONFIG=$TESTBED/home/.kube/config kubectl ...      (kubectl: $TESTBED/kubernetes/root/usr/bin/kubectl); the administrator's is $TESTBED/kubernetes/kubeconfig
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
K=$TESTBED/kubernetes ROOT=$K/root RUN=$K/run VAR=$K/var LOG=$K/log PKI=$K/pki
BR=${BR:-kbr0} NET=${NET:-10.244.99} NODE=${NODE:-k8s-node} SVC=${SVC:-10.96.0} PROXY=${PROXY:-1}
IP=$NET.1 API=${API:-16443} ETCD=${ETCD:-12379}
export PATH=$K/bin:$ROOT/usr/bin:$ROOT/usr/sbin:$PATH KUBECONFIG=$K/kubeconfig
[ -d /sys/fs/cgroup/memory ] || { echo "needs cgroup v1 or hybrid (kubelet 1.20 and containerd.toml below are set up for it)" >&2; exit 1; }
mkdir -p "$RUN" "$LOG" "$PKI" "$K/cni" "$VAR"/{etcd,containerd,kubelet,cni,opt,volumeplugins}; chmod 700 "$VAR/etcd"

start() { # name args...   (name is the binary's)
  local n=$1; shift
  if [ -f "$RUN/$n.pid" ] && ours "$(cat "$RUN/$n.pid")" "$n" "$K"; then return 0; fi
  setsid nohup "$n" "$@" >> "$LOG/$n.log" 2>&1 < /dev/null &
  echo $! > "$RUN/$n.pid"
}
wait_for() { # seconds description command...
  local end=$(($(date +%s) + $1)) d=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || { echo "timed out: $d" >&2; tail -n 5 "$LOG"/*.log >&2; exit 1; }
    sleep 0.1
  done
  echo "$(elapsed)  $d"
}

# --- sysctls that the kubelet and the bridge plugin change: down.sh puts them back
[ -f "$K/sysctl.saved" ] || for s in vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes net.ipv4.ip_forward; do
  echo "$s=$(cat "/proc/sys/${s//./\/}")"; done > "$K/sysctl.saved"

# --- the node's address: a bridge of our own (also the pods' bridge)
ip link show "$BR" >/dev/null 2>&1 || ip link add "$BR" type bridge
ip addr replace "$IP/24" dev "$BR"; ip link set "$BR" up

# --- PKI
if [ ! -f "$PKI/done" ]; then ( cd "$PKI"
  key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
  key ca.key
  openssl req -x509 -new -key ca.key -subj /CN=kube-ca -days 3650 -out ca.crt -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
  leaf() { # name subject [san]
    key "$1.key"
    printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}" > "$1.ext"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -sha256 -extfile "$1.ext" -out "$1.crt" 2>/dev/null; }
  leaf apiserver /CN=kube-apiserver "IP:$IP,IP:127.0.0.1,IP:$SVC.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  leaf admin /O=system:masters/CN=admin
  leaf expert /CN=expert
  leaf kubelet "/O=system:nodes/CN=system:node:$NODE" "IP:$IP,DNS:$NODE"
  openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  touch done )
fi
kubeconf() { # file user [namespace]
  cat > "$1" <<Y
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://$IP:$API", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}}]
users: [{name: $2, user: {client-certificate-data: $(base64 -w0 "$PKI/$2.crt"), client-key-data: $(base64 -w0 "$PKI/$2.key")}}]
contexts: [{name: local, context: {cluster: local, user: $2, namespace: ${3:-default}}}]
current-context: local
Y
  chmod 600 "$1"; }
kubeconf "$KUBECONFIG" admin; kubeconf "$K/kubelet.kubeconfig" kubelet
mkdir -p "$FAKEHOME/.kube"; kubeconf "$FAKEHOME/.kube/config" expert slicestream   # an ordinary user: environments/kubernetes/site.yaml gives the rights

# --- containerd
cat > "$K/cni/10-bridge.conflist" <<Y
{"cniVersion": "0.4.0", "name": "k8spod", "plugins": [
  {"type": "bridge", "bridge": "$BR", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$VAR/cni", "ranges": [[{"subnet": "$NET.0/24", "rangeStart": "$NET.10", "gateway": "$IP"}]], "routes": [{"dst": "$SVC.0/24"}]}}]}
Y
cat > "$K/containerd.toml" <<Y
version = 2
root = "$VAR/containerd"
state = "$RUN/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "$RUN/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$VAR/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true   # without CAP_SYS_RESOURCE an oom_score_adj below one's own is refused, and no pod starts
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$ROOT/usr/lib/cni"
    conf_dir = "$K/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$(command -v runc)"
        Root = "$RUN/runc"
        SystemdCgroup = false
Y
start containerd --config "$K/containerd.toml"

# --- control plane
start etcd --name k --data-dir "$VAR/etcd" --listen-client-urls "http://127.0.0.1:$ETCD" --advertise-client-urls "http://127.0.0.1:$ETCD" \
  --listen-peer-urls "http://127.0.0.1:$((ETCD+1))" --initial-advertise-peer-urls "http://127.0.0.1:$((ETCD+1))" --initial-cluster "k=http://127.0.0.1:$((ETCD+1))" --logger zap
# shellcheck disable=SC2086
start kube-apiserver --etcd-servers="http://127.0.0.1:$ETCD" --bind-address="$IP" --advertise-address="$IP" --secure-port="$API" \
  --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" --cert-dir="$PKI" \
  --kubelet-client-certificate="$PKI/admin.crt" --kubelet-client-key="$PKI/admin.key" --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
  --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" --service-account-issuer=https://kubernetes.default.svc \
  --authorization-mode=Node,RBAC --service-cluster-ip-range="$SVC.0/24" --allow-privileged=true --endpoint-reconciler-type=lease --profiling=false ${APISERVER_ARGS:-}
wait_for 60 "containerd answers" ctr -a "$RUN/containerd.sock" version
import() { # every $IMG/*.tar not yet imported in this version
  local t m
  load() { ctr -a "$RUN/containerd.sock" -n k8s.io images import "$t" >/dev/null; }
  for t in "$IMG"/*.tar; do
    m=$VAR/.imported.$(basename "$t").$(stat -L -c %Y "$t")
    # Where an older image goes, containerd may collect a layer that the new one was about to share: the second try unpacks it anew.
    [ -f "$m" ] || { load || { sleep 1; load; }; touch "$m"; }
  done; }
import & IMPORT=$!
wait_for 120 "apiserver ready" kubectl get --raw /readyz
start kube-controller-manager --kubeconfig="$KUBECONFIG" --authentication-kubeconfig="$KUBECONFIG" --authorization-kubeconfig="$KUBECONFIG" \
  --bind-address=127.0.0.1 --port=0 --secure-port=20257 --cert-dir="$RUN/cm" --leader-elect=false --kube-api-qps=200 --kube-api-burst=400 --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/sa.key" \
  --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" --enable-hostpath-provisioner=true --flex-volume-plugin-dir="$VAR/volumeplugins" --profiling=false
start kube-scheduler --kubeconfig="$KUBECONFIG" --authentication-kubeconfig="$KUBECONFIG" --authorization-kubeconfig="$KUBECONFIG" \
  --bind-address=127.0.0.1 --port=0 --secure-port=20259 --cert-dir="$RUN/sched" --leader-elect=false --kube-api-qps=200 --kube-api-burst=400 --profiling=false

# --- kubelet (oomScoreAdj 0: see CAP_SYS_RESOURCE above)
echo "# none" > "$K/resolv.conf"
cat > "$K/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $IP
port: 20250
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
healthzPort: 20248
tlsCertFile: $PKI/kubelet.crt
tlsPrivateKeyFile: $PKI/kubelet.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
oomScoreAdj: 0
failSwapOn: false
resolvConf: $K/resolv.conf
clusterDomain: cluster.local
makeIPTablesUtilChains: false
volumePluginDir: $VAR/volumeplugins
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
imageMinimumGCAge: 9999h
nodeStatusUpdateFrequency: 1s
kubeAPIQPS: 100
kubeAPIBurst: 200
eventRecordQPS: 100
Y
start kubelet --config="$K/kubelet.yaml" --kubeconfig="$K/kubelet.kubeconfig" --hostname-override="$NODE" --node-ip="$IP" --root-dir="$VAR/kubelet" --cert-dir="$PKI" \
  --container-runtime=remote --container-runtime-endpoint="unix://$RUN/containerd.sock" --image-service-endpoint="unix://$RUN/containerd.sock" --pod-infra-container-image=localhost/pause:1

# --- service addresses (KUBE-* chains in the host's nat table; down.sh removes them). PROXY=0 leaves them out.
if ! command -v iptables >/dev/null; then   # unpacked, not installed: the links that update-alternatives would make
  mkdir -p "$K/xt"; for c in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do ln -sfn "$ROOT/usr/sbin/xtables-nft-multi" "$K/xt/$c"; done
  export PATH=$K/xt:$PATH XTABLES_LIBDIR=$ROOT/usr/lib/x86_64-linux-gnu/xtables LD_LIBRARY_PATH=$ROOT/usr/lib/x86_64-linux-gnu
fi
[ "$PROXY" = 0 ] || start kube-proxy --kubeconfig="$KUBECONFIG" --hostname-override="$NODE" --proxy-mode=iptables --cluster-cidr="$NET.0/24" \
  --bind-address="$IP" --healthz-bind-address=127.0.0.1:20256 --oom-score-adj=0 --metrics-bind-address=127.0.0.1:20249 \
  --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
wait_for 60 "node registered" kubectl get node "$NODE"
wait_for 90 "node Ready" sh -c "kubectl get node $NODE -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}{.spec.taints}' | grep -qx True"
kubectl apply -f - >/dev/null <<Y
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/host-path
reclaimPolicy: Delete
Y
kubectl apply -f "$LIB/../../environments/kubernetes/site.yaml" >/dev/null
wait "$IMPORT"; echo "$(elapsed)  images imported"
wait_for 60 "default service account" kubectl get sa default -n slicestream
echo "up: KUBECONFIG=$FAKEHOME/.kube/config  ($(elapsed))"
