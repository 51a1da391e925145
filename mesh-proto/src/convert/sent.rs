//! An update of the table as it travels: plain, or packed when that is worth it.
//!
//! Every agent gets the whole table. So what is large travels compressed, to all who say that they take
//! it so; it is packed once, however many they are. What a packed update says of itself is not believed:
//! it may be no larger than a plain one, and must be what it says when it is unpacked.

use bytes::Bytes;
use mesh_core::table::{Table, TableUpdate};
use prost::Message;

use super::WireError;
use super::table::table_update;
use crate::control::{self, coordinator_frame};

/// The most that one update of the table may have, in bytes, packed or not.
pub const MAX_UPDATE: usize = 256 << 20;

/// Updates of at least so many bytes are packed. Smaller ones go out in a few segments either way, so
/// that packing would only delay them: what one change of one plugin tells has some hundred bytes. From
/// here on a whole table is a fifth of its size or less, and takes 15 µs to pack.
const WORTH_IT: usize = 4096;

/// The level of compression: of tables, higher ones take longer and make nothing smaller. A table of
/// 10,000 plugins has 9.9 MB, which become 0.8 to 1.2 in some 10 ms, and the same again in 4.
const LEVEL: i32 = 1;

/// How many times larger than its packed bytes an update may be, beside so many bytes. Tables are 8 to 15
/// times; rows of nothing would be some thousand times, and a hundred times more in memory.
const MOST_TIMES: usize = 500;
const FREE: usize = 1 << 20;

/// An update as it goes to one who follows the table. Cheap to clone: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentUpdate {
    /// A `TableUpdate`.
    Plain(Bytes),
    /// A `PackedTableUpdate`.
    Packed(Bytes),
}

impl SentUpdate {
    /// Writes an update for those who take packed ones. It is packed if it is large, at some
    /// 1 GB/s of what it has unpacked.
    #[must_use]
    pub fn packed(update: TableUpdate) -> Self {
        let (from, to) = (update.from, update.to);
        let plain = encoded(update);
        if plain.len() < WORTH_IT {
            return Self::Plain(plain);
        }
        match zstd::bulk::compress(&plain, LEVEL) {
            Ok(data) => {
                let packed = control::PackedTableUpdate {
                    from: from.map(Into::into),
                    to: Some(to.into()),
                    size: plain.len() as u64,
                    data: data.into(),
                };
                Self::Packed(packed.encode_to_vec().into())
            }
            // There is no memory to make it smaller in.
            Err(_) => Self::Plain(plain),
        }
    }

    /// Writes an update for those who do not take packed ones.
    #[must_use]
    pub fn plain(update: TableUpdate) -> Self {
        Self::Plain(encoded(update))
    }

    /// Reads it for somebody who has a table already: see [`table_update`].
    ///
    /// # Errors
    /// [`WireError`] that names the first field which is wrong.
    pub fn read(self, known: &Table) -> Result<TableUpdate, WireError> {
        table_update(self.wire()?, known)
    }

    /// The update as a message of the wire, unpacked.
    ///
    /// # Errors
    /// [`WireError`]: it is no update, or not what it says.
    pub fn wire(self) -> Result<control::TableUpdate, WireError> {
        match self {
            Self::Plain(bytes) => decoded("table", &bytes),
            Self::Packed(bytes) => {
                let packed = control::PackedTableUpdate::decode(bytes);
                let packed = packed.map_err(|error| WireError::new("packed_table", error))?;
                unpacked(&packed).map_err(|error| error.within("packed_table"))
            }
        }
    }
}

fn encoded(update: TableUpdate) -> Bytes {
    control::TableUpdate::from(update).encode_to_vec().into()
}

/// Decodes an update. From a slice: what is decoded out of `Bytes` would hold all of them as long as one
/// manifest of it lives.
fn decoded(field: &str, bytes: &[u8]) -> Result<control::TableUpdate, WireError> {
    control::TableUpdate::decode(bytes).map_err(|error| WireError::new(field, error))
}

fn unpacked(packed: &control::PackedTableUpdate) -> Result<control::TableUpdate, WireError> {
    let size = usize::try_from(packed.size).unwrap_or(usize::MAX);
    if size > MAX_UPDATE {
        let text = format!("is {} bytes: the most is {MAX_UPDATE}", packed.size);
        return Err(WireError::new("size", text));
    }
    if size > FREE + packed.data.len().saturating_mul(MOST_TIMES) {
        let text = format!(
            "is {size} bytes, packed into {}: no table packs so well",
            packed.data.len()
        );
        return Err(WireError::new("size", text));
    }
    // It makes a buffer of no more than that size, and writes no more than that.
    let plain = zstd::bulk::decompress(&packed.data, size);
    let plain = plain.map_err(|error| WireError::new("data", error))?;
    if plain.len() != size {
        let text = format!(
            "has {} bytes unpacked, not the {size} of its size",
            plain.len()
        );
        return Err(WireError::new("data", text));
    }
    let update = decoded("data", &plain)?;
    if update.from != packed.from {
        return Err(WireError::new("from", "is not that of the update"));
    }
    if update.to != packed.to {
        return Err(WireError::new("to", "is not that of the update"));
    }
    Ok(update)
}

impl From<SentUpdate> for coordinator_frame::Body {
    fn from(sent: SentUpdate) -> Self {
        match sent {
            SentUpdate::Plain(bytes) => Self::Table(bytes),
            SentUpdate::Packed(bytes) => Self::PackedTable(bytes),
        }
    }
}

impl From<SentUpdate> for control::TableFeedResponse {
    fn from(sent: SentUpdate) -> Self {
        let (table, packed_table) = match sent {
            SentUpdate::Plain(bytes) => (bytes, Bytes::new()),
            SentUpdate::Packed(bytes) => (Bytes::new(), bytes),
        };
        Self {
            table,
            packed_table,
        }
    }
}

impl From<control::TableFeedResponse> for SentUpdate {
    fn from(wire: control::TableFeedResponse) -> Self {
        if wire.packed_table.is_empty() {
            Self::Plain(wire.table)
        } else {
            Self::Packed(wire.packed_table)
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::id::Generation;
    use mesh_core::revision::Revision;
    use mesh_core::table::NodeRoute;

    use super::*;

    fn update(nodes: usize) -> TableUpdate {
        let node = |number| NodeRoute {
            node: format!("node-{number}").parse().unwrap(),
            generation: Generation(3),
            zone: String::new(),
            labels: std::collections::BTreeMap::new(),
            software: "0.1.0".into(),
        };
        let at = |sequence| Revision { epoch: 7, sequence };
        TableUpdate {
            from: Some(at(8)),
            to: at(9),
            nodes: (0..nodes).map(node).collect(),
            ..TableUpdate::default()
        }
    }

    #[test]
    fn a_large_update_is_packed_and_is_the_same_when_it_is_read() {
        let own = update(1000);
        let plain = encoded(own.clone());
        let sent = SentUpdate::packed(own.clone());
        let SentUpdate::Packed(bytes) = &sent else {
            panic!("{sent:?}");
        };
        assert!(bytes.len() * 3 < plain.len(), "{}", bytes.len());
        let packed = control::PackedTableUpdate::decode(bytes.clone()).unwrap();
        assert_eq!(packed.from, Some(own.from.unwrap().into()));
        assert_eq!(packed.to, Some(own.to.into()));
        assert_eq!(packed.size, plain.len() as u64);
        let back = sent.clone().read(&Table::default()).unwrap();
        assert_eq!((back.from, back.to), (own.from, own.to));
        assert_eq!(back.nodes, own.nodes);
        // So it does over the wire, to either kind of follower.
        let response = control::TableFeedResponse::from(sent.clone());
        assert!(response.table.is_empty());
        assert_eq!(SentUpdate::from(response), sent);
        assert_eq!(
            coordinator_frame::Body::from(sent.clone()),
            coordinator_frame::Body::PackedTable(bytes.clone())
        );
    }

    #[test]
    fn a_small_update_is_plain_and_so_is_a_large_one_for_those_who_take_no_other() {
        let small = SentUpdate::packed(update(1));
        assert_eq!(small, SentUpdate::Plain(encoded(update(1))));
        let large = SentUpdate::plain(update(1000));
        assert_eq!(large, SentUpdate::Plain(encoded(update(1000))));
        let response = control::TableFeedResponse::from(large.clone());
        assert!(response.packed_table.is_empty());
        assert_eq!(SentUpdate::from(response), large);
    }

    /// Breaks one thing in a packed update.
    type Break = fn(&mut control::PackedTableUpdate);

    #[test]
    fn a_packed_update_that_is_not_what_it_says_is_refused() {
        let cases: [(Break, &str); 10] = [
            (
                |it| {
                    let nothing = vec![0; 16 << 20];
                    it.data = zstd::bulk::compress(&nothing, LEVEL).unwrap().into();
                    it.size = nothing.len() as u64;
                },
                "packed_table.size: is 16777216 bytes, packed into 531: no table packs so well",
            ),
            (
                |it| it.size = MAX_UPDATE as u64 + 1,
                "packed_table.size: is 268435457 bytes: the most is 268435456",
            ),
            (
                |it| it.size += 1,
                "packed_table.data: has 20902 bytes unpacked, not the 20903 of its size",
            ),
            (
                |it| it.size -= 1,
                "packed_table.data: Destination buffer is too small: 20902 bytes needed, 20901 given",
            ),
            (
                |it| it.data.truncate(it.data.len() / 2),
                "packed_table.data: Src size is incorrect",
            ),
            (
                |it| it.data = b"this was packed by nobody".as_slice().into(),
                "packed_table.data: Unknown frame descriptor",
            ),
            (
                |it| it.data = Bytes::new(),
                "packed_table.data: has 0 bytes unpacked, not the 20902 of its size",
            ),
            (
                |it| {
                    let text = b"this is no update";
                    it.data = zstd::bulk::compress(text, LEVEL).unwrap().into();
                    it.size = text.len() as u64;
                },
                "packed_table.data: failed to decode Protobuf message: unexpected end group tag",
            ),
            (
                |it| it.from = None,
                "packed_table.from: is not that of the update",
            ),
            (
                |it| it.to.as_mut().unwrap().sequence += 1,
                "packed_table.to: is not that of the update",
            ),
        ];
        for (break_it, line) in cases {
            let SentUpdate::Packed(bytes) = SentUpdate::packed(update(1000)) else {
                panic!("it is large");
            };
            let mut packed = control::PackedTableUpdate::decode(bytes).unwrap();
            break_it(&mut packed);
            let sent = SentUpdate::Packed(packed.encode_to_vec().into());
            let error = sent.wire().expect_err(line);
            assert_eq!(error.to_string(), line);
        }
        let garbage = || Bytes::from_static(b"\xff\xff");
        let error = SentUpdate::Packed(garbage()).wire().unwrap_err();
        assert_eq!(error.field, "packed_table");
        let error = SentUpdate::Plain(garbage()).wire().unwrap_err();
        assert_eq!(error.field, "table");
    }

    #[test]
    fn a_packed_update_that_is_cut_off_anywhere_is_refused_and_a_changed_one_harms_nobody() {
        let SentUpdate::Packed(bytes) = SentUpdate::packed(update(300)) else {
            panic!("it is large");
        };
        for place in 0..bytes.len() {
            let cut = SentUpdate::Packed(bytes.slice(..place));
            assert!(cut.read(&Table::default()).is_err());
            let mut changed = bytes.to_vec();
            changed[place] ^= 0x41;
            // It may be another update: nothing here vouches for what the connection carries.
            let _ = SentUpdate::Packed(changed.into()).wire();
        }
    }
}
