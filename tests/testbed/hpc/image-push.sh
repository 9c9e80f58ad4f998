#!/bin/bash
# image-push.sh IMAGE.tar...: ship docker-archives to the site; each becomes /scratch/slicestream/images/NAME.sif (apptainer) and, for the
# fallback, a podman image of root. No registry is involved. An image that the site has already is left alone.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
NS=${NS:-hpc} DIR=/scratch/slicestream/images
root() { ssh -F "$TESTBED/hpc/run-$NS/ssh_config" -l root "slicestream-$NS" "$@"; }
for tar in "$@"; do
  name=$(basename "$tar" .tar) sum=$(sha256sum < "$tar" | cut -c1-64)
  [ "$(root "cat $DIR/$name.sha256 2>/dev/null")" = "$sum" ] && continue
  root "cat > $DIR/$name.tar" < "$tar"
  # gzip level 1: the conversion is most of the time, and the file never leaves this machine
  root "cd $DIR && apptainer -q build -F --mksquashfs-args '-comp gzip -Xcompression-level 1' $name.new docker-archive:$name.tar && mv $name.new $name.sif \
    && chown alice: $name.sif && podman load -q -i $name.tar >/dev/null && rm $name.tar && echo $sum > $name.sha256" 2>&1 | grep -v -i cgroups-v1 || true
  root "ls $DIR/$name.sif" >/dev/null
  echo "$(elapsed)  $name: $(root "stat -c %s $DIR/$name.sif" | awk '{print int($1 / 1e6)}') MB on the site"
done
