# Sourced by ./demo and ./check: makes sure that the project can be built here.
#
# Only what the build needs is installed on the machine. What the nodes of the lab need (a kernel,
# file system tools, ...) is unpacked under target/ by the lab itself and never installed.

die() {
    echo "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "not root and no sudo here; run as root: $*"
    fi
}

# prepare build|all: what the programs need to be built, or what all crates and their tests need.
prepare() {
    command -v cargo >/dev/null ||
        die "no Rust toolchain here (cargo): install Rust 1.88 or newer, for example with rustup"

    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    [ -n "$(find /usr/lib -name libc.a -print -quit 2>/dev/null)" ] || missing+=(libc6-dev)
    if [ "$1" = all ]; then
        command -v pkg-config >/dev/null || missing+=(pkg-config)
        pkg-config --exists 'lxc >= 4.0.5' 2>/dev/null || missing+=(lxc-dev)
        # Compiles libFuzzer for the fuzz targets.
        command -v c++ >/dev/null || missing+=(g++)
        # Looks through the systemd units.
        command -v systemd-analyze >/dev/null || missing+=(systemd)
        if [ "${deep:-false}" = true ]; then
            # Debian 13 as a node, containers and file systems on this machine, memory checks.
            command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
            command -v valgrind >/dev/null || missing+=(valgrind)
            command -v mkfs.btrfs >/dev/null || missing+=(btrfs-progs)
            command -v busybox >/dev/null || missing+=(busybox-static)
        fi
    fi
    [ ${#missing[@]} = 0 ] && return

    command -v apt-get >/dev/null ||
        die "no apt-get here; these Debian packages, or what stands for them, are missing: ${missing[*]}"
    echo "installing Debian packages that the build needs: ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}" ||
        die "could not install: ${missing[*]}"
}
