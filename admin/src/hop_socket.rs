//! The private Unix socket on which the data plane hands on what is not its own: where it is, and that it goes again.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// Longest path; the operating systems allow 104 to 108 bytes.
const PATH_BYTES_MAX: usize = 100;

/// A socket that listens, and its file.
pub(crate) struct HopSocket {
    pub(crate) listener: UnixListener,
    pub(crate) file: SocketFile,
}

/// The file of a socket. [`SocketFile::remove`] takes it away again.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Which file it is, so that nobody else's is removed.
    identity: (u64, u64),
    /// The directory that was made for it.
    own_directory: Option<PathBuf>,
}

impl HopSocket {
    /// Listens in the data directory, or in a private temporary one if the path there would be too long or another
    /// process listens on it.
    pub(crate) async fn bind(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("dashboard.sock");
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
            if remove_stale(&path).await? {
                return Self::bind_at(path, None);
            }
        }
        let directory = std::env::temp_dir().join(format!("codex-lb-{:016x}", rand::random::<u64>()));
        // Fails if there is one already, so nobody can have prepared it for us.
        DirBuilder::new().mode(0o700).create(&directory)?;
        Self::bind_at(directory.join("dashboard.sock"), Some(directory))
    }

    fn bind_at(path: PathBuf, own_directory: Option<PathBuf>) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        // Who connects before this line gets nowhere either: every request needs a signed header.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let identity = identity(&fs::symlink_metadata(&path)?);
        Ok(Self { listener, file: SocketFile { path, identity, own_directory } })
    }
}

impl SocketFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file away, unless another process has put its own there.
    pub(crate) fn remove(self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        let removed = if is_ours { fs::remove_file(&self.path) } else { Ok(()) };
        if let Err(error) = removed.and_then(|()| self.own_directory.as_ref().map_or(Ok(()), fs::remove_dir)) {
            warn!(path = %self.path.display(), %error, "the socket of the dashboard could not be removed");
        }
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Removes the socket of a process that was killed. Whether the path is free now: not if somebody answers there.
async fn remove_stale(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket; remove it"))
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => Ok(false),
        Ok(_) => fs::remove_file(path).map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_private_and_goes_with_its_process() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let socket = HopSocket::bind(&data_dir).await.unwrap();
        let path = data_dir.join("dashboard.sock");
        assert_eq!(socket.file.path(), path);
        assert_eq!((mode(&path), mode(&data_dir)), (0o600, 0o700));
        socket.file.remove();
        assert!(!path.exists() && data_dir.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let first = HopSocket::bind(directory.path()).await.unwrap();
        let second = HopSocket::bind(directory.path()).await.unwrap();
        assert_ne!(first.file.path(), second.file.path());
        second.file.remove();
        let (path, stale) = (first.file.path().to_owned(), first.file);
        drop(first.listener);
        assert!(path.exists());
        let third = HopSocket::bind(directory.path()).await.unwrap();
        assert_eq!(third.file.path(), path);
        drop(stale);
        third.file.remove();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_moves_to_a_private_directory_that_goes_too() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("x".repeat(100));
        let socket = HopSocket::bind(&data_dir).await.unwrap();
        let own = socket.file.path().parent().unwrap().to_owned();
        assert!(own.starts_with(std::env::temp_dir()) && socket.file.path().as_os_str().len() <= PATH_BYTES_MAX);
        assert_eq!(mode(&own), 0o700);
        UnixStream::connect(socket.file.path()).await.unwrap();
        socket.file.remove();
        assert!(!own.exists() && !data_dir.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dashboard.sock");
        fs::write(&path, "precious").unwrap();
        assert!(HopSocket::bind(directory.path()).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
