#!/bin/sh
# Builds a root tree with Debian's Python for functions with layout = "dir": the same Python on every host, whatever the
# host itself has in /usr.
#
#     debian-python.sh TARGET_DIR [PACKAGE...]
#
# TARGET_DIR is made, or is an empty directory. More packages, such as python3-numpy or tzdata, may be named. Run it as
# root, with network; it takes a few seconds and 65 MB. SUITE (default bookworm) and MIRROR may be set.
#
# Packages are unpacked, not installed: no install script of a package runs as root on this host, and nothing that only
# such a script would make is there (the links in /etc/alternatives, for example). In the tree that results
#   - everything belongs to root, may be read by all and written by nobody else: a worker's ids own nothing outside,
#   - no file is set-uid or set-gid and none is a device,
#   - /proc, /dev, /tmp, /function and /run/sublet are empty plain directories: sublet mounts there, and refuses links,
#   - Python's library is compiled: the tree is read-only, so each cold start would do it again.
# It appears under its name when it is complete, or not at all. To update it, build another and change `root` in the
# configuration, which makes a new revision of the function; workers of the old one keep the old tree.
set -eu

fail() {
    echo "debian-python.sh: $1" >&2
    exit 1
}

case ${1:-} in
'' | / | -*) fail "usage: debian-python.sh TARGET_DIR [PACKAGE...]" ;;
esac
target=${1%/}
shift
suite=${SUITE:-bookworm}
mirror=${MIRROR:-}

[ "$(id -u)" = 0 ] || fail "must run as root: the tree has to belong to root"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: apt-get install mmdebstrap"
if [ -L "$target" ]; then
    fail "$target is a symbolic link, and sublet follows none: name the directory itself"
elif [ -e "$target" ] && [ ! -d "$target" ]; then
    fail "$target is there and is not a directory"
elif [ -d "$target" ] && [ -n "$(ls -A "$target")" ]; then
    fail "$target is not empty: name a new directory, or remove it first"
fi

packages=base-files,python3,dash
for package; do
    packages=$packages,$package
done

# Beside the target, so that the last step is one rename.
mkdir -p "$(dirname "$target")"
tree=$(mktemp -d "$(dirname "$target")/.debian-python.XXXXXX")
trap 'rm -rf --one-file-system "$tree"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# With an empty MIRROR mmdebstrap takes deb.debian.org, with the suite's updates and security.
mmdebstrap --quiet --mode=root --variant=extract --include="$packages" "$suite" "$tree" ${mirror:+"$mirror"} ||
    fail "mmdebstrap failed, see above: suite and packages must exist, and the mirror (set MIRROR) must be reachable"

# Of the host, not of the tree: mmdebstrap copies them for its own use.
rm -f "$tree/etc/resolv.conf" "$tree/etc/hostname"
# What only a running system, a person or a package manager reads.
for path in var etc/apt etc/cron.daily etc/cron.d etc/dpkg etc/fstab etc/logrotate.d etc/motd etc/systemd \
    root home boot mnt media opt srv run sys usr/games usr/include usr/local usr/src \
    usr/share/doc usr/share/info usr/share/lintian usr/share/locale usr/share/man usr/share/bug \
    usr/share/bash-completion usr/share/common-licenses; do
    rm -rf --one-file-system "${tree:?}/$path"
done

for point in proc sys dev tmp function run/sublet; do
    rm -rf --one-file-system "${tree:?}/$point"
    mkdir -p "$tree/$point"
done

# As in the layouts that sublet prepares itself: whom a worker is, and nothing of the host's accounts.
cat >"$tree/etc/passwd" <<'EOF'
root:x:0:0:root:/:/usr/sbin/nologin
init:x:999:999:init:/:/usr/sbin/nologin
worker:x:1000:1000:worker:/tmp:/bin/sh
EOF
printf 'root:x:0:\ninit:x:999:\nworker:x:1000:\n' >"$tree/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files\n' >"$tree/etc/nsswitch.conf"
printf '127.0.0.1 localhost worker\n::1 localhost\n' >"$tree/etc/hosts"

# By the tree's own Python. Compiled files are taken as they are (unchecked), so that a copy of the tree with other
# times is as fast. Test files of the library that are wrong on purpose do not count.
chroot "$tree" /usr/bin/python3 -I -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3* >/dev/null ||
    echo "debian-python.sh: some files of the library were not compiled" >&2

find "$tree" '(' -type b -o -type c -o -type p -o -type s ')' -delete
chown -R -h 0:0 "$tree"
find "$tree" ! -type l -perm /6000 -exec chmod a-s {} +
chmod -R u=rwX,go=rX "$tree"

# What sublet relies on is looked at, not assumed.
wrong=$(find "$tree" ! -type l '(' -perm /7022 -o ! -perm -0444 -o ! -uid 0 -o ! -gid 0 ')' -print -quit)
[ -z "$wrong" ] || fail "$wrong has the wrong owner or mode"
for point in proc sys dev tmp function run/sublet; do
    { [ -d "$tree/$point" ] && [ ! -L "$tree/$point" ]; } || fail "/$point is not a plain directory"
done
chroot "$tree" /usr/bin/python3 -I -B -c 'import ctypes, json, socket, sqlite3, ssl' ||
    fail "the tree's Python does not work"

mv -T "$tree" "$target"
trap - EXIT
# As the configuration wants it: no link on the way.
target=$(readlink -f "$target")
echo "root = \"$target\"  # $(chroot "$target" /usr/bin/python3 -I -B --version), $(du -sh "$target" | cut -f1)"
