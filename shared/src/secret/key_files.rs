//! The key file and the two files that stand beside it during a rotation: `<file>.new` and `<file>.old`.
//!
//! Every key that is found may open what is sealed. Which one seals is not told by a file's name but by the database,
//! so a rotation that dies between two steps leaves nothing that a start would read wrongly.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::encryption_key::sync_directory_of;
use super::{EncryptionKey, EncryptionKeyError};

/// Where an installation's keys lie.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    main: PathBuf,
    new: PathBuf,
    old: PathBuf,
    unfinished: PathBuf,
}

impl KeyFiles {
    /// The key file at `main`, and what lies beside it.
    pub fn new(main: &Path) -> Self {
        let beside = |ending: &str| {
            let mut path = main.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        Self { main: main.to_owned(), new: beside(".new"), old: beside(".old"), unfinished: beside(".unfinished") }
    }

    /// The key file.
    pub fn main_path(&self) -> &Path {
        &self.main
    }

    /// Where the key lies that a rotation moves to.
    pub fn new_path(&self) -> &Path {
        &self.new
    }

    /// Where the key lies that a rotation moved away from.
    pub fn old_path(&self) -> &Path {
        &self.old
    }

    /// The right to change the files, until the returned file is dropped; `None` while somebody else has it.
    ///
    /// # Errors
    /// When the main file cannot be opened or locked.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let main = File::open(&self.main)?;
        match main.try_lock() {
            Ok(()) => Ok(Some(main)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// All keys, the main file's first. Makes the main file with a new key if none of the files exists.
    ///
    /// # Errors
    /// As [`Self::load`], or when the file cannot be made.
    pub fn load_or_create(&self) -> Result<(EncryptionKey, Vec<EncryptionKey>), EncryptionKeyError> {
        // A key made beside others would hide that the one that belongs here is lost.
        if !self.new.exists() && !self.old.exists() {
            EncryptionKey::load_or_create(&self.main)?;
        }
        self.load()
    }

    /// All keys, the main file's first.
    ///
    /// # Errors
    /// When the main file is missing, or one of them cannot be read, holds no key, or is open to every user.
    pub fn load(&self) -> Result<(EncryptionKey, Vec<EncryptionKey>), EncryptionKeyError> {
        // In this order: a rotation may rename new to main meanwhile, and then main is read after it holds the new key.
        let new = EncryptionKey::load_if_there(&self.new)?;
        let mut main = EncryptionKey::load(&self.main)?;
        let old = EncryptionKey::load_if_there(&self.old)?;
        let first = main.remove(0);
        Ok((first, main.into_iter().chain(new.into_iter().flatten()).chain(old.into_iter().flatten()).collect()))
    }

    /// Makes a new key in the new file, for whoever may read the main file.
    ///
    /// # Errors
    /// When it cannot be made so. There is no new file then.
    pub fn create_new(&self) -> Result<EncryptionKey, EncryptionKeyError> {
        let failed = |source| EncryptionKeyError::Create { path: self.new.clone(), source };
        let key = EncryptionKey::generate().map_err(failed)?;
        self.write_beside(&key, &self.new).map_err(failed)?;
        Ok(key)
    }

    /// Makes the new key the main one and keeps `old`, the one before, in the old file. Returns once that would survive
    /// a power loss. Doing it again after it died halfway is safe.
    ///
    /// # Errors
    /// When a file cannot be written or renamed. Both keys are still there.
    pub fn promote_new(&self, old: &EncryptionKey) -> Result<(), EncryptionKeyError> {
        let failed = |source| EncryptionKeyError::Create { path: self.old.clone(), source };
        self.remove_unfinished().map_err(failed)?;
        if EncryptionKey::load_if_there(&self.old)?.is_none() {
            self.write_beside(old, &self.old).map_err(failed)?;
        }
        let renamed = fs::rename(&self.new, &self.main).and_then(|()| sync_directory_of(&self.main));
        renamed.map_err(|source| EncryptionKeyError::Create { path: self.main.clone(), source })
    }

    /// Removes the old key.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard_old(&self) -> Result<(), EncryptionKeyError> {
        let removed = fs::remove_file(&self.old).and_then(|()| sync_directory_of(&self.old));
        removed.map_err(|source| EncryptionKeyError::Remove { path: self.old.clone(), source })
    }

    /// Writes a key file that the same users may read as the main one: the command may run as another user than the
    /// server. It appears under its name only when it is whole. One writer at a time; see [`Self::lock`].
    fn write_beside(&self, key: &EncryptionKey, path: &Path) -> io::Result<()> {
        let main = fs::metadata(&self.main)?;
        self.remove_unfinished()?;
        let written = key
            .write_new(&self.unfinished)
            .and_then(|()| share_like(&main, &self.unfinished))
            .and_then(|()| fs::rename(&self.unfinished, path));
        if written.is_err() {
            drop(fs::remove_file(&self.unfinished));
        }
        written.and_then(|()| sync_directory_of(path))
    }

    /// Removes what a rotation left that died while it wrote: it may hold a key.
    fn remove_unfinished(&self) -> io::Result<()> {
        match fs::remove_file(&self.unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(unix)]
fn share_like(main: &fs::Metadata, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let made = fs::metadata(path)?;
    if (made.uid(), made.gid()) != (main.uid(), main.gid()) {
        chown(path, Some(main.uid()), Some(main.gid()))?;
    }
    fs::set_permissions(path, main.permissions())?;
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn share_like(_: &fs::Metadata, _: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use secrecy::{ExposeSecret as _, SecretString};

    use super::*;
    use crate::secret::{SealError, SealPurpose, Sealer};

    const ACCESS: SealPurpose = SealPurpose::AccountAccessToken;

    struct Place {
        files: KeyFiles,
        _directory: tempfile::TempDir,
    }

    impl Place {
        /// With a main key.
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let files = KeyFiles::new(&directory.path().join("gateway.key"));
            files.load_or_create().unwrap();
            Self { files, _directory: directory }
        }

        fn sealer(&self) -> Sealer {
            Sealer::from_files(self.files.clone()).unwrap()
        }

        fn main_key(&self) -> EncryptionKey {
            self.files.load().unwrap().0
        }

        /// Fingerprints of all keys, the main one's first.
        fn fingerprints(&self) -> Vec<String> {
            let (main, others) = self.files.load().unwrap();
            [main].iter().chain(&others).map(EncryptionKey::fingerprint).collect()
        }
    }

    fn seal(sealer: &Sealer) -> String {
        sealer.seal(ACCESS, "a", &SecretString::from("eyJ.token")).unwrap()
    }

    fn opens(sealer: &Sealer, sealed: &str) -> bool {
        sealer.open(ACCESS, "a", sealed).is_ok_and(|opened| opened.expose_secret() == "eyJ.token")
    }

    #[test]
    fn a_new_key_is_found_by_who_runs_already_and_does_not_seal_until_it_is_told_to() {
        let place = Place::new();
        let running = place.sealer();
        let before = running.key_id();
        let new = place.files.create_new().unwrap();
        let sealed = seal(&Sealer::new(&new));
        assert!(opens(&running, &sealed));
        assert_eq!(running.key_id(), before);
        assert!(running.seal_with(&new.fingerprint()));
        assert_ne!(running.key_id(), before);
        assert!(opens(&Sealer::new(&new), &seal(&running)));
    }

    #[test]
    fn who_is_told_of_a_key_that_lies_nowhere_seals_as_before() {
        let place = Place::new();
        let running = place.sealer();
        let other = EncryptionKey::generate().unwrap();
        assert!(!running.seal_with(&other.fingerprint()));
        assert_eq!(running.fingerprint(), place.main_key().fingerprint());
        let error = running.open(ACCESS, "a", &seal(&Sealer::new(&other))).unwrap_err();
        assert!(matches!(error, SealError::OtherKey { .. }), "{error:?}");
    }

    #[test]
    fn after_a_promotion_every_key_opens_what_it_sealed() {
        let place = Place::new();
        let (running, old) = (place.sealer(), place.main_key());
        let sealed_before = seal(&running);
        let new = place.files.create_new().unwrap();
        place.files.promote_new(&old).unwrap();
        assert_eq!(place.fingerprints(), [new.fingerprint(), old.fingerprint()]);
        let started_later = place.sealer();
        for sealer in [&running, &started_later] {
            assert!(opens(sealer, &sealed_before) && opens(sealer, &seal(&Sealer::new(&new))));
        }
        // Who reads the files again goes on with the key it sealed with.
        assert_eq!(running.fingerprint(), old.fingerprint());
        place.files.discard_old().unwrap();
        assert_eq!(place.fingerprints(), [new.fingerprint()]);
        assert!(!opens(&place.sealer(), &sealed_before));
    }

    #[test]
    fn a_promotion_that_died_at_any_step_can_be_done_again() {
        // Nothing done yet; a key half written; the old key kept; the old key kept and the next one half written.
        for (has_old, has_unfinished) in [(false, false), (false, true), (true, false), (true, true)] {
            let place = Place::new();
            let old = place.main_key();
            let new = place.files.create_new().unwrap();
            if has_old {
                fs::copy(&place.files.main, &place.files.old).unwrap();
            }
            if has_unfinished {
                fs::write(&place.files.unfinished, "AAAA").unwrap();
            }
            assert!(place.fingerprints().contains(&new.fingerprint()));
            place.files.promote_new(&old).unwrap();
            assert_eq!(place.fingerprints(), [new.fingerprint(), old.fingerprint()]);
            assert!(!place.files.unfinished.exists());
        }
    }

    #[test]
    fn a_lost_main_key_is_not_replaced_by_a_made_up_one() {
        let place = Place::new();
        let old = place.main_key();
        place.files.create_new().unwrap();
        place.files.promote_new(&old).unwrap();
        fs::remove_file(&place.files.main).unwrap();
        let error = place.files.load_or_create().unwrap_err();
        assert!(matches!(error, EncryptionKeyError::Read { .. }), "{error:?}");
        assert!(!place.files.main.exists());
    }

    #[test]
    fn one_at_a_time_changes_the_files() {
        let place = Place::new();
        let lock = place.files.lock().unwrap();
        assert!(lock.is_some() && place.files.lock().unwrap().is_none());
        drop(lock);
        assert!(place.files.lock().unwrap().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn whoever_may_read_the_main_key_may_read_the_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = Place::new();
        fs::set_permissions(&place.files.main, fs::Permissions::from_mode(0o640)).unwrap();
        let old = place.main_key();
        place.files.create_new().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&place.files.new), 0o640);
        place.files.promote_new(&old).unwrap();
        assert_eq!((mode(&place.files.main), mode(&place.files.old)), (0o640, 0o640));
    }
}
