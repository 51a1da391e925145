//! The snapshot on disk: a head with a version, a length and a checksum, then the table as it travels.
//! It is written beside the old one and moved over it, so there is always a whole one.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use mesh_core::hash::Fnv1a;
use mesh_core::table::{Table, TableUpdate};
use mesh_proto::control;
use prost::Message;

/// Names the format and its version.
const MAGIC: &[u8; 8] = b"PMTABLE1";
const HEAD: usize = 24;

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("it can't be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is of another version, or no snapshot at all")]
    Version,
    #[error("it is cut off or was changed")]
    Checksum,
    #[error("it does not hold a table: {0}")]
    Content(String),
}

/// Makes the folder of the snapshot and tries to write in it.
pub(super) fn check_folder(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = beside(path);
    std::fs::File::create(&beside)?;
    std::fs::remove_file(&beside)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Reads a snapshot; the empty table when there is none.
pub(super) fn load(path: &Path) -> Result<Table, Broken> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::default()),
        Err(error) => return Err(error.into()),
    };
    let (head, payload) = bytes.split_at_checked(HEAD).ok_or(Broken::Checksum)?;
    let (magic, sums) = head.split_at_checked(MAGIC.len()).ok_or(Broken::Version)?;
    if magic != MAGIC {
        return Err(Broken::Version);
    }
    if sums != sums_of(payload) {
        return Err(Broken::Checksum);
    }
    let content = |why: String| Broken::Content(why);
    let wire = control::TableUpdate::decode(payload).map_err(|error| content(error.to_string()))?;
    let update = TableUpdate::try_from(wire).map_err(|error| content(error.to_string()))?;
    Table::default()
        .apply(&update)
        .map_err(|error| content(error.to_string()))
}

/// Length and FNV-1a checksum of the payload.
fn sums_of(payload: &[u8]) -> [u8; 16] {
    let both = u128::from(payload.len() as u64) << 64 | u128::from(Fnv1a::of(payload));
    both.to_be_bytes()
}

/// Writes a snapshot.
pub(super) async fn write(path: &Path, table: &Table) -> io::Result<()> {
    let payload = control::TableUpdate::from(table.to_snapshot()).encode_to_vec();
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.write_all(MAGIC)?;
    bytes.write_all(&sums_of(&payload))?;
    bytes.write_all(&payload)?;
    let beside = beside(path);
    let mut file = tokio::fs::File::create(&beside).await?;
    tokio::io::AsyncWriteExt::write_all(&mut file, &bytes).await?;
    // On disk before it takes the old one's place.
    file.sync_all().await?;
    drop(file);
    tokio::fs::rename(&beside, path).await
}
