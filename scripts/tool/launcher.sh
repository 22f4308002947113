#!/bin/sh
# Starts Sealift with the Node that lies beside it: no other one is needed or looked for. Nothing but the shell runs until
# then: what could be wrong with the machine is guessed from names of files, and asked of Node itself only where the guess
# says so.
arch=@ARCH@
machine=@MACHINE@
loader=@LOADER@
glibc=@GLIBC@

fail() {
  printf 'error[TOOL_CANNOT_RUN]: %s\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

self=$0
case $self in
  */*) ;;
  *) if [ -e "./$self" ]; then self=./$self; else self=$(command -v "$self"); fi ;;
esac
while [ -L "$self" ]; do
  link=$(readlink "$self") || fail "$self is a link, and without readlink nothing says where it leads" 'start Sealift by the path of its own folder'
  case $link in
    /*) self=$link ;;
    *) self=${self%/*}/$link ;;
  esac
done
home=${self%/*}
case $home in -*) home=./$home ;; esac
node=$home/runtime/node
places="/lib/$machine-linux-gnu /usr/lib/$machine-linux-gnu /lib64 /usr/lib64 /lib /usr/lib"

# has LIBRARY: whether it lies where glibc looks first.
has() {
  for place in $places; do
    if [ -e "$place/$1" ]; then return 0; fi
  done
  return 1
}

# Until 2.33 the version of glibc stands in the name of its file, /lib64/libc-2.28.so; later it has no number.
is_old() {
  old=
  for place in $places; do
    for file in "$place"/libc-2.*.so; do
      if [ ! -e "$file" ]; then continue; fi
      version=${file##*/libc-}
      version=${version%.so}
      minor=${version#2.}
      minor=${minor%%[!0-9]*}
      if [ "${minor:-0}" -ge "${glibc#2.}" ]; then return 1; fi
      old=$version
    done
  done
  [ -n "$old" ]
}

# Not by >/dev/null, which a bare system may lack.
runs() { said=$("$node" --version 2>&1); }

# Says what is wrong; returns where nothing is.
look_closer() {
  if runs; then return; fi
  if [ -e "$home/runtime/libstdc++.so.6" ]; then
    LD_LIBRARY_PATH=$home/runtime${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    if runs; then return; fi
  fi
  here=$(uname -m 2>&1) || here=
  if [ ! -f "$node" ]; then
    fail "$node is missing" 'unpack the whole tarball again, and keep its files together'
  elif [ -n "$here" ] && [ "$here" != "$machine" ]; then
    fail "this is Sealift for $arch ($machine), this machine is $here" 'take the tarball for this machine: its name ends in -x64 (x86_64) or -arm64 (aarch64)'
  elif [ ! -x "$node" ]; then
    fail "$node may not be executed" 'unpack the tarball to a disk that is not mounted noexec, and keep the modes of its files'
  elif [ -e "/lib/ld-musl-$machine.so.1" ] && ! has libc.so.6; then
    fail "this system has musl, not glibc (Alpine Linux does)" "run Sealift on a system with glibc $glibc or newer, or in a container of one"
  elif is_old; then
    fail "this system has glibc $old, Sealift needs $glibc or newer" 'REQUIREMENTS.txt names systems that are new enough'
  elif [ ! -e "$loader" ]; then
    fail "$loader is missing: this system has no glibc for $machine" "run Sealift on a system with glibc $glibc or newer, or in a container of one"
  elif ! has libstdc++.so.6 || ! has libgcc_s.so.1; then
    fail 'libstdc++.so.6 or libgcc_s.so.1 is missing' "install the package libstdc++6 (Debian, Ubuntu, SUSE) or libstdc++ (Red Hat, Fedora), or copy both files from a machine with the same system into $home/runtime/"
  fi
  fail "the Node inside does not start: $said" 'REQUIREMENTS.txt says what it needs; nothing runs on a disk that is mounted noexec'
}

if [ ! -e "$loader" ] || [ ! -x "$node" ] || is_old || ! has libstdc++.so.6 || ! has libgcc_s.so.1; then look_closer; fi
# To root some shells say that a file may be executed where nothing may: then this finds out, and the trap tells it.
trap look_closer EXIT
exec "$node" "$home/program/bin/sealift.js" "$@"
