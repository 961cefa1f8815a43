#!/bin/sh
# Build docker/Dockerfile without Docker, on a Debian 12 that debootstrap makes in place of Ubuntu 24.04, and use it as
# docker/compose.json does: another user, a read-only root file system, a run, its health check. As root:
#   apt-get install buildah debootstrap && sh scripts/image.sh
# CA_FILE=FILE: certificates that pip is to trust instead of its own, behind a proxy that has one.
set -eu
cd "$(dirname "$0")/.."
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
made=$(mktemp -d)
root=""
undo() {
  if [ -n "$root" ]; then
    for part in dev proc tmp run/mmedge var/lib/mmedge ""; do umount --lazy "$root/$part" 2>/dev/null || true; done
  fi
  rm -rf "$made"
}
trap undo EXIT

debootstrap --variant=minbase bookworm "$made/base" >"$made/log"
if [ -n "${CA_FILE:-}" ]; then
  cp "$CA_FILE" "$made/base/etc/own-ca.crt"
  printf '[global]\ncert = /etc/own-ca.crt\n' >"$made/base/etc/pip.conf"
fi
base=$(buildah from scratch)
buildah copy --quiet "$base" "$made/base" / >/dev/null
buildah commit --quiet "$base" localhost/mmedge-base:bookworm >/dev/null
buildah build --format docker --build-arg BASE=localhost/mmedge-base:bookworm -f docker/Dockerfile -t mmedge:cpu .

root=$(buildah mount "$(buildah from localhost/mmedge:cpu)")
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
for part in run/mmedge var/lib/mmedge; do mount -t tmpfs -o uid=10001,mode=700 tmpfs "$root/$part"; done
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"
cp mmedge/assets/digits/digits.mmedge "$root/tmp"
chmod 644 "$root/tmp/digits.mmedge"
inside() {
  chroot --userspec=10001:10001 "$root" env -i PATH=/opt/mmedge/bin:/usr/bin:/bin HOME=/var/lib/mmedge \
    MMEDGE_CACHE=/var/lib/mmedge/engines ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 "$@"
}
inside mmedge doctor
inside timeout 25 mmedge run /tmp/digits.mmedge --image 'test://?fps=30' --audio 'test://?fps=30' \
  --attach /run/mmedge/run.sock >"$made/run" 2>&1 &
sleep 10
inside mmedge health /run/mmedge/run.sock --within 15
wait
echo "built and run: $(du -sm "$root" 2>/dev/null | cut -f1) MB"
