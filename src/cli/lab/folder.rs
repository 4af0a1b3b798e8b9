//! A temporary folder of the lab: 0700, keys in it 0600, removed at the end.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The folder.
pub(in crate::cli) struct Folder(PathBuf);

impl Folder {
    /// Makes one with a name that nobody can guess.
    pub(in crate::cli) fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("gatepost-lab-{}", random_word()?));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// A path in it.
    pub(in crate::cli) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that only we may read.
    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> io::Result<PathBuf> {
        let path = self.path(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        io::Write::write_all(&mut file, text.as_ref())?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let removed = std::fs::remove_dir_all(Path::new(&self.0));
        if let Err(error) = removed {
            tracing::warn!(%error, folder = %self.0.display(), "not removed");
        }
    }
}

/// Twenty hexadecimal digits for passwords and secret values.
pub(super) fn random_word() -> io::Result<String> {
    let mut octets = [0; 10];
    getrandom::fill(&mut octets).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_folder_is_ours_alone_and_goes_with_its_owner() {
        let folder = Folder::make().unwrap();
        let file = folder.write("a.key", "secret").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&file)), (0o700, 0o600));
        assert!(folder.write("a.key", "again").is_err());
        let path = folder.0.clone();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn words_are_not_guessable() {
        assert_ne!(random_word().unwrap(), random_word().unwrap());
        assert_eq!(random_word().unwrap().len(), 20);
    }
}
