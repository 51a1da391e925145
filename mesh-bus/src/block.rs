//! Memory of frames that go out. Each is shared with the client library while it is on its way, and a block
//! for many small frames costs less than memory, and a count of those who share it, for each.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use prost::Message;

/// A block. It is freed once the last frame in it is.
const BLOCK_BYTES: usize = 16 << 10;

/// Frames over this size have memory of their own.
const SMALL: usize = 1 << 10;

thread_local! {
    static BLOCK: RefCell<BytesMut> = RefCell::default();
}

/// A frame of so many bytes, as it is written.
pub(crate) fn frame(bytes: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    if bytes > SMALL {
        let mut own = BytesMut::with_capacity(bytes);
        write(&mut own);
        return own.freeze();
    }
    BLOCK.with_borrow_mut(|block| {
        if block.capacity() < bytes {
            *block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        write(block);
        block.split().freeze()
    })
}

/// A frame with a message.
pub(crate) fn message(message: &impl Message) -> Bytes {
    frame(message.encoded_len(), |to| message.encode_raw(to))
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    #[test]
    fn frames_are_what_was_written_whatever_their_sizes() {
        let sizes = [0, 1, 700, 900, SMALL, SMALL + 1, 300_000];
        let frames: Vec<_> = (0..200)
            .map(|place| {
                let bytes = sizes[place % sizes.len()];
                (
                    place,
                    bytes,
                    frame(bytes, |to| to.put_bytes(place as u8, bytes)),
                )
            })
            .collect();
        for (place, bytes, frame) in frames {
            assert_eq!(frame, vec![place as u8; bytes]);
        }
    }
}
