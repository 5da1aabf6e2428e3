# In new user, mount, pid, network and ipc namespaces, as their root: makes $1 the root directory, unpacked from $2/base.tar,
# with $2 at /clean and the package's directory $3 at /package. Says so, and then stays, as the process whose end is that
# of all others, for as long as its input is open.
set -e
root=$1
tar --extract --no-same-owner --numeric-owner --file "$2/base.tar" --directory "$root"
mount --bind "$root" "$root"
cd "$root"
mkdir -p clean package old dev
mount --bind "$2" clean
mount --bind "$3" package
mount --rbind /proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=0755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
echo 'person:x:1000:1000::/home/person:/bin/bash' >>etc/passwd
echo 'person:x:1000:' >>etc/group
mkdir home/person
# Nothing here outlives the test, so that nothing need wait for a disk.
echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/cove-test
pivot_root . old
umount --lazy /old
rmdir /old
echo ready
read -r _ || true
