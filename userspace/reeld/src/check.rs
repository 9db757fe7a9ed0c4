// SPDX-License-Identifier: GPL-2.0-or-later

//! What of a configuration needs a look at the machine.
//!
//! The rule behind most of it: the daemon must never wait for itself. What it reads or writes may not lie in a mount of
//! reelfs, not even in another one than its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use reelfs_spool::{Spool, SpoolError, META_NAME};

use crate::config::{Config, MediaKind, SEGMENTS_MIN};
use crate::state::State;
use crate::units::Bytes;
use reelfs_mount::mounts;

/// What [`check`] found that does not keep the daemon from running.
pub type Warnings = Vec<String>;

/// Looks at everything that `config` names. Changes nothing. An error says what is wrong and what to do about it.
///
/// `starting`: media that are not there are no error, because the spool holds the log until they come.
pub fn check(config: &Config, starting: bool) -> Result<Warnings> {
    let mut warnings = Vec::new();
    let socket = config.socket();
    let paths = [("the configuration file", &config.path), ("spool.directory", &config.spool.directory)]
        .into_iter()
        .chain([("daemon.socket", &socket)])
        .chain(config.media.path.as_ref().map(|path| ("media.path", path)));
    for (what, path) in paths {
        outside(config, what, path)?;
    }
    spool(config, &mut warnings)?;
    media(config, starting, &mut warnings)?;
    Ok(warnings)
}

/// Refuses a path that lies in a mount of reelfs, or will once `config.mount` is mounted.
fn outside(config: &Config, what: &str, path: &Path) -> Result<()> {
    let inside =
        mounts::containing_ours(path).with_context(|| format!("cannot find out where {} lies", path.display()))?;
    let mount = match inside {
        Some(mount) => mount.point,
        None if resolved(path).starts_with(resolved(&config.mount)) => config.mount.clone(),
        None => return Ok(()),
    };
    bail!(
        "{what}: {} lies in the reelfs mount {}; the daemon would wait for itself. Move it to another filesystem.",
        path.display(),
        mount.display()
    )
}

/// `path` with all links followed, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = fs::canonicalize(ancestor) {
            return real.join(path.strip_prefix(ancestor).unwrap_or(Path::new("")));
        }
    }
    path.to_path_buf()
}

fn spool(config: &Config, warnings: &mut Warnings) -> Result<()> {
    let directory = &config.spool.directory;
    let existing = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let metadata = fs::metadata(existing).with_context(|| format!("cannot look at {}", existing.display()))?;
    if !metadata.is_dir() {
        bail!("spool.directory: {} is not a directory", existing.display());
    }
    if lower_device(config)? == Some(metadata.dev()) {
        let why = format!(
            "spool.directory: {} is on the same filesystem as the tree it is to protect: losing that disk would lose \
             what is not on media yet",
            directory.display()
        );
        match config.spool.same_filesystem {
            true => warnings.push(why),
            false => bail!("{why}. Put it on another disk, or accept it with spool.same_filesystem = true."),
        }
    }
    if let Some(size) = physical_block_size(metadata.dev()).filter(|&size| size > 4096) {
        warnings.push(format!(
            "spool.directory: the disk's physical blocks have {size} bytes; that an interrupted rewrite of 4096 bytes \
             leaves them readable is for its maker to promise"
        ));
    }
    if directory.join(META_NAME).exists() {
        let spool = Spool::open_read_only(directory)?;
        let segment = spool.geometry().segment_size;
        if segment != config.spool.segment.0 {
            warnings.push(format!(
                "spool.segment: the spool has segments of {} and keeps them; {} would be for a new one",
                Bytes(segment),
                config.spool.segment
            ));
        }
        if config.segments_max(segment) < SEGMENTS_MIN {
            bail!("spool.limit: {} is less than {SEGMENTS_MIN} segments of {}", config.spool.limit, Bytes(segment));
        }
        let recovered = spool.inspect().map_err(advice)?;
        let state = State::load(directory)?;
        if let Some(state) = state {
            behind(&state, recovered.end)?;
            if state.pool != config.media.pool {
                bail!(
                    "media.pool: the log has been going to pool '{}'; changing pools is not possible yet",
                    state.pool
                );
            }
        }
    }
    let space = rustix::fs::statvfs(existing).with_context(|| format!("cannot look at {}", existing.display()))?;
    let used = fs::read_dir(directory).map_or(0, |entries| {
        entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
    });
    let room = space.f_bavail.saturating_mul(space.f_frsize).saturating_add(used);
    if room < config.spool.limit.0 {
        warnings.push(format!(
            "spool.limit: {} is more than the {} that {} has room for",
            config.spool.limit,
            Bytes(room),
            existing.display()
        ));
    }
    Ok(())
}

/// Refuses a spool that ends before what it is proven to have put on media.
pub fn behind(state: &State, end: u64) -> Result<()> {
    if end < state.proven {
        bail!(
            "the spool ends at LSN {end:#x}, but {:#x} is on media already: the spool has lost what was acknowledged. \
             Do not go on with it; restore from the media, or begin a new spool.",
            state.proven
        );
    }
    Ok(())
}

/// Says what to do about an error of the spool.
pub fn advice(error: SpoolError) -> anyhow::Error {
    let advice = match &error {
        SpoolError::Damaged { .. } | SpoolError::Foreign { .. } => {
            "acknowledged changes may be missing, so it is not gone on with. Keep a copy of the directory; `reel verify` \
             shows what can be read; if what is damaged is on media, restore from there and begin a new spool"
        }
        SpoolError::Locked(_) => "is another reeld running for this mount?",
        SpoolError::NotEmpty(_) => "name an empty directory, or one that does not exist, in spool.directory",
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(advice)
}

/// Device number of the lower filesystem, if the mount is there.
fn lower_device(config: &Config) -> Result<Option<u64>> {
    let point = resolved(&config.mount);
    let Some(mount) = mounts::ours_at(&point).context("cannot list the mounts")? else { return Ok(None) };
    if mount.source != mount.point {
        return Ok(fs::metadata(&mount.source).map(|metadata| metadata.dev()).ok());
    }
    // Mounted over itself: the lower directory is below, a mount itself or part of its parent's.
    let below = mounts::list()?.into_iter().rfind(|other| other.point == point && other.id != mount.id);
    Ok(match below {
        Some(below) => Some(below.device),
        None => point.parent().and_then(|parent| fs::metadata(parent).map(|metadata| metadata.dev()).ok()),
    })
}

/// The physical block size of the disk with this device number, if the kernel tells.
fn physical_block_size(device: u64) -> Option<u64> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition's queue is its disk's.
    ["queue/physical_block_size", "../queue/physical_block_size"]
        .iter()
        .find_map(|name| fs::read_to_string(block.join(name)).ok()?.trim().parse().ok())
}

fn media(config: &Config, starting: bool, warnings: &mut Warnings) -> Result<()> {
    match (config.media.kind, &config.media.path) {
        (MediaKind::Directory, Some(path)) => {
            if !path.is_dir() {
                let why = format!(
                    "media.path: {} is not there or is no directory; make it, or mount what belongs there",
                    path.display()
                );
                match starting {
                    true => warnings.push(why),
                    false => bail!("{why}"),
                }
            }
            let device = fs::metadata(path).map(|metadata| metadata.dev()).ok();
            if device.is_some() && lower_device(config)? == device {
                warnings.push(format!(
                    "media.path: {} is on the same filesystem as the tree it is to protect",
                    path.display()
                ));
            }
        }
        (MediaKind::Directory, None) => bail!("media.path is missing"),
        (MediaKind::Tape, _) => {
            for device in &config.media.devices {
                use std::os::unix::fs::FileTypeExt;
                match fs::metadata(device) {
                    Ok(metadata) if metadata.file_type().is_char_device() => {}
                    Ok(_) => bail!("media.devices: {} is no character device", device.display()),
                    // Drives may be switched on later.
                    Err(error) => warnings.push(format!("media.devices: {}: {error}", device.display())),
                }
                let name = device.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if name.starts_with("st") {
                    bail!("media.devices: {} rewinds when it is closed; name the non-rewinding device, as in /dev/n{name}", device.display());
                }
            }
        }
    }
    Ok(())
}
