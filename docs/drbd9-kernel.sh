#!/bin/sh
# Builds a user-mode kernel with DRBD 9 for the lab: docs/drbd9-kernel.md.
#
#   docs/drbd9-kernel.sh DIR DRBD
#
# DIR becomes the place of all that is built (about 2 GB). DRBD is the unpacked source of DRBD 9,
# with the headers in drbd/drbd-headers; it is built in place.
set -eu

dir=$(mkdir -p "$1" && cd "$1" && pwd)
drbd=$(cd "$2/drbd" && pwd)
linux=$dir/linux-source-6.1
build=$dir/build
jobs=${JOBS:-$(nproc)}

cd "$dir"
[ -d "$linux" ] || tar -xf /usr/src/linux-source-6.1.tar.xz

# What is kept of the modules of Debian's configuration; all others would only cost time.
keep="BINFMT_MISC PACKET_DIAG UNIX_DIAG NETLINK_DIAG IPV6 STP LLC BRIDGE VLAN_8021Q VETH NLMON TUN
DUMMY MACVLAN NET_SCH_HTB NET_SCH_NETEM NET_SCH_FQ_CODEL BLK_DEV_LOOP BLK_DEV_NBD BLK_DEV_DM DM_BUFIO
DM_BIO_PRISON DM_PERSISTENT_DATA DM_CRYPT DM_SNAPSHOT DM_THIN_PROVISIONING DM_MIRROR DM_ZERO DM_DELAY
DM_DUST DM_FLAKEY DM_LOG_WRITES SOFT_WATCHDOG AUTOFS_FS FUSE_FS OVERLAY_FS CONFIGFS_FS CRYPTO_AEAD
CRYPTO_SKCIPHER CRYPTO_NULL CRYPTO_CBC CRYPTO_SHA512 CRYPTO_CRC32 CRYPTO_USER_API_HASH"
# What is switched off besides: other networks than the one the lab uses, what asks for policies,
# hardware, and the DRBD 8.4 of this kernel.
off="BLK_DEV_DRBD DEBUG_INFO DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT MODULE_SIG SECURITY SECURITYFS
SECURITY_SELINUX SECURITY_SMACK SECURITY_TOMOYO SECURITY_APPARMOR AUDIT REISERFS_FS JFS_FS XFS_FS QUOTA
UML_NET_ETHERTAP UML_NET_TUNTAP UML_NET_SLIP UML_NET_DAEMON UML_NET_VDE UML_NET_MCAST UML_NET_SLIRP
UML_SOUND VIRTIO_UML VIRTIO_MENU PORT_CHAN XTERM_CHAN INPUT SERIO HID HID_SUPPORT USB IIO PWM ISDN
SCSI MD_RAID ATM DECNET MPLS NETLABEL NETFILTER WIRELESS ETHERNET INFINIBAND NETWORK_FILESYSTEMS
IOMMU_SUPPORT SUSPEND IKCONFIG"
on="SSL DEBUG_INFO_NONE HOSTFS UML_NET_VECTOR BTRFS_FS MODULES MODULE_UNLOAD LIBCRC32C CRYPTO_HMAC CRYPTO_SHA1"

if ! [ -f "$build/.config" ]; then
    mkdir -p "$build" "$dir/debian"
    (cd "$dir/debian" && apt-get download user-mode-linux && dpkg -x user-mode-linux_*.deb .)
    zcat "$dir/debian/usr/share/doc/user-mode-linux/config.gz" |
        awk -v keep="$keep" 'BEGIN { split(keep, names); for (i in names) kept["CONFIG_" names[i]] = 1 }
            /=m$/ { split($0, item, "="); if (!(item[1] in kept)) { print "# " item[1] " is not set"; next } }
            { print }' >"$build/.config"
    for name in $off; do "$linux/scripts/config" --file "$build/.config" --disable "$name"; done
    for name in $on; do "$linux/scripts/config" --file "$build/.config" --enable "$name"; done
    make -C "$linux" O="$build" ARCH=um olddefconfig
fi
make -C "$linux" O="$build" ARCH=um -j"$jobs" linux modules
make -C "$linux" O="$build" ARCH=um INSTALL_MOD_PATH="$dir/root" modules_install

# DRBD's own make finds out what this kernel has, and patches its source with coccinelle.
make -C "$drbd" KDIR="$linux" O="$build" ARCH_UM=ARCH=um SPAAS=false -j"$jobs"
release=$(cat "$build/include/config/kernel.release")
mkdir -p "$dir/root/lib/modules/$release/updates"
cp "$drbd"/build-current/*.ko "$dir/root/lib/modules/$release/updates/"
/sbin/depmod -b "$dir/root" "$release"

echo "export LAB_KERNEL=$build/linux LAB_MODULES=$dir/root/lib/modules"
