//! The installation's encryption key: given as text, or kept in a file that is made at the first start.
//!
//! Where one key is expected there may be several, while an installation moves from one to another.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::Generate as _;
use zeroize::{Zeroize as _, Zeroizing};

const KEY_BYTES: usize = 32;
/// A key file is a short line or a few; what is longer is something else.
const FILE_BYTES_MAX: u64 = 1024;
/// How long to wait for another process that made the file and has not written it yet.
const OTHER_WRITER_WAITS: u32 = 20;
const OTHER_WRITER_WAIT: Duration = Duration::from_millis(50);

/// 32 secret bytes. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why there is no key. Never holds a part of one.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionKeyError {
    /// The text is not a key.
    #[error("not an encryption key: expected 32 bytes as base64 (44 characters) or as 64 hexadecimal digits")]
    NotAKey,
    /// The file holds something else.
    #[error(
        "{} does not hold an encryption key: expected a line with 32 bytes as base64. Restore it from a backup; only \
         if nothing was stored with it yet, delete it and a new one is made", path.display()
    )]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// Anybody on the machine may read or change the file.
    #[error("{} is open to every user of this machine: run `chmod 600 {}`", path.display(), path.display())]
    OpenToAll {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("read the encryption key from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("make a new encryption key in {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file cannot be removed.
    #[error("remove the encryption key in {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl EncryptionKey {
    /// The key made of these bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Makes a new random key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> io::Result<Self> {
        <[u8; KEY_BYTES]>::try_generate().map(Self::from_bytes).map_err(io::Error::other)
    }

    /// Reads a key from text: 64 hexadecimal digits, or base64 in either alphabet, padded or not.
    ///
    /// # Errors
    /// When it is neither, or not 32 bytes.
    pub fn parse(text: &str) -> Result<Self, EncryptionKeyError> {
        let text = text.trim();
        if text.len() == 2 * KEY_BYTES {
            return from_hex(text).ok_or(EncryptionKeyError::NotAKey);
        }
        let text = text.trim_end_matches('=');
        let decoded = STANDARD_NO_PAD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text));
        let bytes = Zeroizing::new(decoded.map_err(|_| EncryptionKeyError::NotAKey)?);
        let bytes = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| EncryptionKeyError::NotAKey)?;
        Ok(Self::from_bytes(bytes))
    }

    /// Reads keys from a text that holds one or several, with blanks, commas or line ends between them.
    ///
    /// # Errors
    /// When there is none, or one of them is no key.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, EncryptionKeyError> {
        let keys: Result<Vec<Self>, _> =
            text.split([' ', ',', '\t', '\r', '\n']).filter(|part| !part.is_empty()).map(Self::parse).collect();
        keys.and_then(|keys| if keys.is_empty() { Err(EncryptionKeyError::NotAKey) } else { Ok(keys) })
    }

    /// Names the key without telling it: 32 hex characters.
    pub fn fingerprint(&self) -> String {
        super::hex_of_hash::<16>("codex-lb encryption key fingerprint", self)
    }

    /// Reads the keys from their file, or makes the file with a new key if there is none. A file that exists is never
    /// written to, whatever it holds. Of several processes that start at once, one makes the key and all use it.
    ///
    /// # Errors
    /// When the file cannot be read or made, holds no key, or is open to every user of the machine.
    pub fn load_or_create(path: &Path) -> Result<Vec<Self>, EncryptionKeyError> {
        match Self::load_if_there(path)? {
            Some(keys) => Ok(keys),
            None => Self::create(path),
        }
    }

    /// Reads the keys from their file.
    ///
    /// # Errors
    /// When the file cannot be read, holds no key, or is open to every user of the machine.
    pub fn load(path: &Path) -> Result<Vec<Self>, EncryptionKeyError> {
        Self::read(File::open(path), path)
    }

    /// Reads the keys from their file, if there is one.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_if_there(path: &Path) -> Result<Option<Vec<Self>>, EncryptionKeyError> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Self::read(opened, path).map(Some),
        }
    }

    fn create(path: &Path) -> Result<Vec<Self>, EncryptionKeyError> {
        let failed = |source| EncryptionKeyError::Create { path: path.to_owned(), source };
        let key = Self::generate().map_err(failed)?;
        match key.write_new(path) {
            Ok(()) => Ok(vec![key]),
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(source) => Err(failed(source)),
        }
    }

    /// Writes the key to a file that must not exist yet, and returns once it would survive a power loss.
    pub(super) fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let line = Zeroizing::new(format!("{}=\n", STANDARD_NO_PAD.encode(*self.0)));
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Ours and useless: a next start must not trip over it.
            drop(std::fs::remove_file(path));
            return Err(error);
        }
        sync_directory_of(path)
    }

    fn read(opened: io::Result<File>, path: &Path) -> Result<Vec<Self>, EncryptionKeyError> {
        let failed = |source| EncryptionKeyError::Read { path: path.to_owned(), source };
        let mut file = opened.map_err(failed)?;
        if is_open_to_all(&file).map_err(failed)? {
            return Err(EncryptionKeyError::OpenToAll { path: path.to_owned() });
        }
        let mut text = Zeroizing::new(String::new());
        for _ in 0..OTHER_WRITER_WAITS {
            (&mut file).take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
            if !text.is_empty() {
                break;
            }
            wait_for_other_writer();
        }
        Self::parse_all(&text).map_err(|_| EncryptionKeyError::NotAKeyFile { path: path.to_owned() })
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(..)")
    }
}

/// Returns once the names in the directory of `path` would survive a power loss.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Another process made the file a moment ago and has not written it yet.
#[expect(clippy::disallowed_methods, reason = "keys are read at the start, before the runtime has other work")]
fn wait_for_other_writer() {
    std::thread::sleep(OTHER_WRITER_WAIT);
}

fn from_hex(text: &str) -> Option<EncryptionKey> {
    let mut bytes = [0_u8; KEY_BYTES];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(index * 2..index * 2 + 2).filter(|digits| !digits.contains(['+', '-']));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => *byte = value,
            None => {
                bytes.zeroize();
                return None;
            }
        }
    }
    Some(EncryptionKey::from_bytes(bytes))
}

/// Whether others than the file's owner and group may read or write it. A group is fine: Kubernetes mounts secrets so.
#[cfg(unix)]
fn is_open_to_all(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(file.metadata()?.permissions().mode() & 0o006 != 0)
}

#[cfg(not(unix))]
fn is_open_to_all(_: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    /// Bytes whose base64 differs between the alphabets.
    const BYTES: [u8; KEY_BYTES] = [0xfb; KEY_BYTES];

    #[test]
    fn a_key_reads_from_every_usual_spelling() {
        let hex: String = BYTES.iter().map(|byte| format!("{byte:02x}")).collect();
        let spellings = [
            STANDARD.encode(BYTES),
            STANDARD_NO_PAD.encode(BYTES),
            URL_SAFE.encode(BYTES),
            URL_SAFE_NO_PAD.encode(BYTES),
            hex.to_uppercase(),
            format!(" {hex}\n"),
            hex,
        ];
        for text in spellings {
            assert_eq!(EncryptionKey::parse(&text).unwrap().bytes(), &BYTES, "{text}");
        }
    }

    #[test]
    fn several_keys_may_stand_together() {
        let (first, second) = (STANDARD.encode(BYTES), STANDARD.encode([2; KEY_BYTES]));
        for text in [format!("{first}\n{second}\n"), format!("{first}, {second}"), format!(" {first}\r\n\r\n{second}")]
        {
            let keys = EncryptionKey::parse_all(&text).unwrap();
            let bytes: Vec<_> = keys.iter().map(EncryptionKey::bytes).collect();
            assert_eq!(bytes, [&BYTES, &[2; KEY_BYTES]], "{text}");
        }
        for text in ["", " \n", &format!("{first} nonsense")] {
            assert!(matches!(EncryptionKey::parse_all(text), Err(EncryptionKeyError::NotAKey)), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        let short = STANDARD.encode([1; 16]);
        let long = STANDARD.encode([1; 48]);
        let signs = "+1".repeat(32);
        let umlauts = "ä".repeat(32);
        for text in ["", "correct horse battery staple", &short, &long, &signs, &umlauts, &"zz".repeat(32)] {
            let error = EncryptionKey::parse(text).unwrap_err();
            assert!(matches!(error, EncryptionKeyError::NotAKey), "{text}");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }

    #[test]
    fn a_key_file_is_made_once_and_read_ever_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.key");
        let made = EncryptionKey::load_or_create(&path).unwrap().remove(0);
        let line = std::fs::read_to_string(&path).unwrap();
        assert_eq!(line.len(), 45);
        assert_eq!(EncryptionKey::load_or_create(&path).unwrap()[0].bytes(), made.bytes());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line);
    }

    #[test]
    fn processes_that_start_at_once_use_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| EncryptionKey::load_or_create(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap().remove(0)).collect()
        });
        assert!(keys.iter().all(|key| key.bytes() == keys[0].bytes()));
    }

    #[test]
    fn a_file_without_a_key_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.key");
        let too_long = format!("{}{}", " ".repeat(2000), STANDARD.encode(BYTES));
        for content in ["", "not a key\n", &too_long] {
            std::fs::write(&path, content).unwrap();
            make_private(&path);
            let error = EncryptionKey::load_or_create(&path).unwrap_err();
            assert!(matches!(error, EncryptionKeyError::NotAKeyFile { .. }), "{error:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_key_file_that_cannot_be_made_or_read_says_which() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("no/such/directory/encryption.key");
        let error = EncryptionKey::load_or_create(&missing).unwrap_err();
        assert!(error.to_string().contains("no/such/directory"), "{error}");
        assert!(matches!(error, EncryptionKeyError::Create { .. }));
        make_private(directory.path());
        let error = EncryptionKey::load_or_create(directory.path()).unwrap_err();
        assert!(matches!(error, EncryptionKeyError::Read { .. }), "{error:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nowhere_is_an_error_and_no_key_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.key");
        std::os::unix::fs::symlink(directory.path().join("not mounted"), &path).unwrap();
        let error = EncryptionKey::load_or_create(&path).unwrap_err();
        assert!(matches!(error, EncryptionKeyError::Read { .. }), "{error:?}");
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_is_for_its_owner_and_group_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.key");
        EncryptionKey::load_or_create(&path).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        for (mode, is_refused) in [(0o400, false), (0o440, false), (0o660, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let outcome = EncryptionKey::load_or_create(&path);
            assert_eq!(matches!(outcome, Err(EncryptionKeyError::OpenToAll { .. })), is_refused, "{mode:o}");
        }
    }

    fn make_private(path: &Path) {
        #[cfg(unix)]
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        #[cfg(not(unix))]
        let _ = path;
    }
}
