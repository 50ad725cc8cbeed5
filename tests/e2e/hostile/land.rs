//! Creates landing zones.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that contains a landing zone `land`.
pub struct Land {
    root: PathBuf,
}

/// One event, without a line break.
pub fn event(id: &str) -> String {
    event_with(id, "1")
}

pub fn event_with(id: &str, data: &str) -> String {
    event_at(id, "2021-01-14T10:15:30Z", data)
}

pub fn event_at(id: &str, timestamp: &str, data: &str) -> String {
    format!(r#"{{"event_id":"{id}","timestamp":"{timestamp}","domain":"account","event_type":"opened","data":{data}}}"#)
}

/// Domain and type are given in JSON's notation.
pub fn event_of(id: &str, domain: &str, event_type: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30Z","domain":"{domain}","event_type":"{event_type}","data":1}}"#
    )
}

/// `prefix0`, `prefix1`, …
pub fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

pub fn events(prefix: &str, count: usize) -> Vec<String> {
    ids(prefix, count).iter().map(|id| event(id)).collect()
}

/// One event a line.
pub fn lines(prefix: &str, count: usize) -> String {
    events(prefix, count).join("\n") + "\n"
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

pub fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

impl Land {
    pub fn new(root: &Path) -> Self {
        fs::create_dir_all(root.join("land/pending")).unwrap();
        Self { root: root.to_owned() }
    }

    /// A path below the landing zone.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join("land").join(path)
    }

    /// A file below `pending/`.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path("pending").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn event(&self, name: &str, id: &str) {
        self.file(name, event(id) + "\n");
    }

    pub fn link(&self, target: &str, path: &str) {
        symlink(target, self.path(path)).unwrap();
    }

    pub fn fifo(&self, path: &str) {
        assert!(Command::new("mkfifo").arg(self.path(path)).status().unwrap().success());
    }

    /// Creates a folder `depth` levels deep, each from its parent: the system accepts no path of that length.
    pub fn deep(&self, depth: usize) {
        let script = "import os,sys\nfd=os.open(sys.argv[1],os.O_RDONLY)\nfor _ in range(int(sys.argv[2])):\n os.mkdir('a',dir_fd=fd)\n f=os.open('a',os.O_RDONLY,dir_fd=fd)\n os.close(fd)\n fd=f\n";
        let made =
            Command::new("python3").args(["-c", script]).arg(self.path("pending")).arg(depth.to_string()).status();
        assert!(made.unwrap().success());
    }

    pub fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Everything except the entry that `mode` closed, which stays root's.
    pub fn belongs_to_nobody(&self) {
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o755)).unwrap();
        let own = |path: &Path| std::os::unix::fs::lchown(path, Some(65534), Some(65534)).unwrap();
        let mut open = vec![self.root.clone()];
        while let Some(folder) = open.pop() {
            own(&folder);
            for entry in fs::read_dir(&folder).unwrap().flatten() {
                let closed = entry.metadata().unwrap().permissions().mode() & 0o777 == 0;
                match entry.file_type().unwrap() {
                    _ if closed => {}
                    kind if kind.is_dir() => open.push(entry.path()),
                    _ => own(&entry.path()),
                }
            }
        }
    }
}
