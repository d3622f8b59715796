//! A disk whose power can be cut: ext4 in a file, mounted over a loop device. Shutting it down
//! without flushing takes away what was not synced, as a power cut does. Needs root.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{delta, process::Server};

const SIZE_BYTES: u64 = 512 << 20;
/// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, then SIGKILL, so that the process sees as
/// little as possible of a disk that is gone.
const CUT: &str = "import fcntl, os, signal, struct, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(folder, 0x8004587D, struct.pack('I', 2))
os.kill(int(sys.argv[2]), signal.SIGKILL)
";

pub(super) struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    pub(super) fn make(scratch: &Path) -> Self {
        let disk = Self { image: scratch.join("disk.img"), folder: scratch.join("disk") };
        File::create(&disk.image).unwrap().set_len(SIZE_BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image));
        fs::create_dir(&disk.folder).unwrap();
        disk.mount();
        disk
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.folder));
    }

    /// The power goes, and comes back.
    pub(super) fn cut(&self, server: Server) {
        run(Command::new(delta::python()).args(["-c", CUT]).arg(&self.folder).arg(server.pid().to_string()));
        server.kill();
        run(Command::new("umount").arg(&self.folder));
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.folder).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
