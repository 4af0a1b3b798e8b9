//! The folder of a rendering: 0700, each file as a whole or not at all, and nothing of anybody else's touched.

use crate::cli::Trouble;
use crate::connector::{
    File, Rendering, SECRETS_FILE, SUMS_FILE, VALUES, is_ours, read_secrets, read_sums, sum,
    value_file,
};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) name: String,
    /// `written`, `unchanged` or `removed`.
    pub(super) state: &'static str,
    /// Its SHA-256; none of a secret, and none where it was removed.
    pub(super) sum: Option<String>,
}

/// The folder as it was given, without a slash at its end, behind which a link could not be seen.
///
/// # Errors
/// It is a link: whoever made it would choose where the secrets go.
pub(super) fn no_link(folder: &Path) -> Result<PathBuf, Trouble> {
    let bare = folder.components().as_path();
    match fs::read_link(bare) {
        Ok(target) => Err(Trouble::Use(format!(
            "{}: is a link: give the folder that it leads to, {}",
            bare.display(),
            target.display()
        ))),
        Err(_) => Ok(bare.to_owned()),
    }
}

/// Writes the rendering into `folder`.
///
/// A new folder appears whole; in an earlier rendering each file is replaced as a whole, the sums last. Refused without
/// `force`: a folder that holds something else, or another tenant's rendering, or files that were changed since.
pub(super) fn place(
    folder: &Path,
    rendering: &Rendering,
    tenant_id: &str,
    force: bool,
) -> Result<Vec<Placed>, Trouble> {
    let cannot = |error: io::Error| Trouble::Use(format!("{}: {error}", folder.display()));
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fresh(folder, rendering).map_err(cannot)?;
            return Ok(rendering
                .files
                .iter()
                .map(|file| placed(file, "written"))
                .collect());
        }
        Err(error) => return Err(cannot(error)),
        Ok(_) => {}
    }
    let mut entries = fs::read_dir(folder).map_err(cannot)?;
    let before = if entries.next().is_none() {
        Some(Vec::new())
    } else {
        earlier(folder, rendering, tenant_id, force)?
    };
    if before.is_some() {
        // A folder of somebody else's keeps the mode that it has.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(cannot)?;
    }
    again(folder, rendering, &before.unwrap_or_default()).map_err(cannot)
}

fn placed(file: &File, state: &'static str) -> Placed {
    Placed {
        name: file.name.clone(),
        state,
        sum: (!file.secret).then(|| sum(&file.bytes)),
    }
}

/// A folder that is not there yet is made beside its place and moved.
fn fresh(folder: &Path, rendering: &Rendering) -> io::Result<()> {
    let name = folder.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}", std::process::id()));
    let aside = folder.with_file_name(aside);
    fs::DirBuilder::new().mode(0o700).create(&aside)?;
    let written = rendering
        .files
        .iter()
        .try_for_each(|file| write(&aside, file))
        .and_then(|()| fs::rename(&aside, folder));
    if written.is_err() {
        // What failed is told; what is left aside would only puzzle.
        drop(fs::remove_dir_all(&aside));
    }
    written
}

/// The names and sums of the rendering that the folder holds; none where it holds something else, and `force` allows that.
fn earlier(
    folder: &Path,
    rendering: &Rendering,
    tenant_id: &str,
    force: bool,
) -> Result<Option<Vec<(String, String)>>, Trouble> {
    let shown = folder.display();
    let sums = fs::read_to_string(folder.join(SUMS_FILE)).ok();
    let sums = sums.as_deref().and_then(read_sums).unwrap_or_default();
    let kept = fs::read(folder.join(SECRETS_FILE)).ok();
    let kept = kept.as_deref().and_then(read_secrets);
    let (Some(kept), false) = (kept, sums.is_empty()) else {
        return if force {
            Ok(None)
        } else {
            Err(Trouble::Use(format!(
                "{shown}: holds something else than an earlier rendering: give a new folder, or --force"
            )))
        };
    };
    if !kept.tenant_id.eq_ignore_ascii_case(tenant_id) && !force {
        let whose = crate::mail::shown(kept.tenant_id.as_bytes());
        return Err(Trouble::Use(format!(
            "{shown}: holds the rendering of another tenant ({whose}): give a folder for each, or --force"
        )));
    }
    // A list that names more was not written by us.
    let sums: Vec<(String, String)> = sums.into_iter().filter(|(name, _)| is_ours(name)).collect();
    let new = |name: &str| rendering.files.iter().find(|file| file.name == name);
    let changed: Vec<&str> = sums
        .iter()
        .filter(|(name, old)| {
            let path = folder.join(name);
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                return false;
            };
            !metadata.is_file()
                || fs::read(&path).is_ok_and(|bytes| {
                    sum(&bytes) != *old && new(name).is_none_or(|file| file.bytes != bytes)
                })
        })
        .map(|(name, _)| name.as_str())
        .collect();
    if !changed.is_empty() && !force {
        return Err(Trouble::Use(format!(
            "{shown}: changed since it was rendered: {}; give a new folder, or --force to write over it",
            changed.join(", ")
        )));
    }
    Ok(Some(sums))
}

/// Brings the folder to the rendering, file by file.
fn again(
    folder: &Path,
    rendering: &Rendering,
    before: &[(String, String)],
) -> io::Result<Vec<Placed>> {
    let mut done = Vec::new();
    for file in &rendering.files {
        if is_there(folder, file)? {
            done.push(placed(file, "unchanged"));
        } else {
            write(folder, file)?;
            done.push(placed(file, "written"));
        }
    }
    let values = VALUES.map(value_file);
    let stale = before.iter().map(|(name, _)| name).chain(&values);
    for name in stale.filter(|name| rendering.files.iter().all(|file| file.name != **name)) {
        let path = folder.join(name);
        // A link or a folder by that name is not ours.
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => done.push(Placed {
                name: name.clone(),
                state: "removed",
                sum: None,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn mode(file: &File) -> u32 {
    if file.secret { 0o600 } else { 0o644 }
}

/// Whether the file stands there as it should.
fn is_there(folder: &Path, file: &File) -> io::Result<bool> {
    let path = folder.join(&file.name);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let permitted = !file.secret || metadata.permissions().mode() & 0o077 == 0;
    Ok(metadata.is_file() && permitted && fs::read(&path)? == file.bytes)
}

/// Writes a file aside and moves it into its place.
fn write(folder: &Path, file: &File) -> io::Result<()> {
    let aside = folder.join(format!(".{}.{}", file.name, std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode(file))
        .open(&aside)
        .and_then(|mut out| {
            out.write_all(&file.bytes)?;
            out.sync_all()
        })
        .and_then(|()| fs::rename(&aside, folder.join(&file.name)));
    if written.is_err() {
        // What failed is told.
        drop(fs::remove_file(&aside));
    }
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.name)))
}
