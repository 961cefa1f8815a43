#!/bin/sh
# Usage: need.sh required|optional WHAT:PACKAGE...
PATH=$PATH:/usr/sbin:/sbin
# WHAT is a command, a library (lib*) or a file. Installs what is missing where it may (root, apt), otherwise prints
# the line to type; exits 1 only for what is required.
level=$1
shift
missing=
for pair in "$@"; do
  what=${pair%%:*}
  package=${pair##*:}
  case $what in
    lib*) ldconfig -p 2>/dev/null | grep -q "$what" || missing="$missing $package" ;;
    /*) ls $what >/dev/null 2>&1 || missing="$missing $package" ;;
    *) command -v "$what" >/dev/null 2>&1 || missing="$missing $package" ;;
  esac
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing:$missing" >&2
  export DEBIAN_FRONTEND=noninteractive
  if apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
    exit 0
  fi
fi
echo "missing ($level): sudo apt-get install -y$missing" >&2
[ "$level" = optional ]
