//! The codec: frames in and out, without copying payloads on the way in.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::host::Outbound;

/// Largest frame in bytes, in both directions.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;

/// Small frames that are ready together go out together, up to this many bytes.
const YIELD_THRESHOLD: usize = 32 * 1024;

/// Room for a whole batch and the frame that goes beyond the threshold, if it is small.
const BUFFER_BYTES: usize = 40 * 1024;

/// What arrived as one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound<T> {
    /// A frame. A body that is not known here is absent.
    Frame(T),
    /// Bytes that are no frame.
    Malformed {
        /// The id that the message begins with; 0 when it begins with none.
        id: u64,
        /// What the decoder says.
        reason: String,
    },
    /// A message of more than [`MAX_FRAME_BYTES`]; its content is thrown away.
    Oversize {
        /// The id that the message begins with; 0 when it begins with none.
        id: u64,
        /// How large it is.
        bytes: usize,
    },
}

/// A codec that receives `In` and sends `Out`.
#[derive(Debug)]
pub struct FrameCodec<In, Out> {
    types: PhantomData<fn() -> (In, Out)>,
}

impl<In, Out> Default for FrameCodec<In, Out> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

impl<In, Out> Codec for FrameCodec<In, Out>
where
    In: Message + Default + Send + 'static,
    Out: Outbound,
{
    type Encode = Out;
    type Decode = Inbound<In>;
    type Encoder = FrameEncoder<Out>;
    type Decoder = FrameDecoder<In>;

    fn encoder(&mut self) -> FrameEncoder<Out> {
        FrameEncoder { types: PhantomData }
    }

    fn decoder(&mut self) -> FrameDecoder<In> {
        FrameDecoder { types: PhantomData }
    }
}

fn buffer_settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_THRESHOLD)
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameEncoder<Out> {
    types: PhantomData<fn() -> Out>,
}

impl<Out: Outbound> Encoder for FrameEncoder<Out> {
    type Item = Out;
    type Error = Status;

    fn encode(&mut self, frame: Out, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame
            .write(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

/// Reads frames, and says what was wrong with what is none.
#[derive(Debug)]
pub struct FrameDecoder<In> {
    types: PhantomData<fn() -> In>,
}

impl<In: Message + Default> Decoder for FrameDecoder<In> {
    type Item = Inbound<In>;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Inbound<In>>, Status> {
        Ok(Some(read(message)))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

/// Reads one message and always takes all of it, or the next one would begin in its middle.
fn read<In: Message + Default>(message: &mut impl Buf) -> Inbound<In> {
    let bytes = message.remaining();
    let id = first_id(message.chunk());
    if bytes > MAX_FRAME_BYTES {
        message.advance(bytes);
        return Inbound::Oversize { id, bytes };
    }
    match In::decode(&mut *message) {
        Ok(frame) => Inbound::Frame(frame),
        Err(error) => {
            message.advance(message.remaining());
            Inbound::Malformed {
                id,
                reason: error.to_string(),
            }
        }
    }
}

/// The id of a frame, which always begins with it: tag 1, a varint (absent for id 0).
fn first_id(message: &[u8]) -> u64 {
    match message.split_first() {
        Some((&0x08, mut rest)) => prost::encoding::decode_varint(&mut rest).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::common::{Chunk, Error};
    use crate::plugin::{HostFrame, PluginFrame, plugin_frame::Body};

    fn inbound(bytes: impl Into<Bytes>) -> Inbound<PluginFrame> {
        let mut bytes = bytes.into();
        let read = read(&mut bytes);
        assert!(
            bytes.is_empty(),
            "the next message begins where this one ends"
        );
        read
    }

    fn chunk(id: u64, payload: Vec<u8>) -> PluginFrame {
        PluginFrame {
            id,
            body: Some(Body::Chunk(Chunk {
                payload: payload.into(),
                ..Chunk::default()
            })),
        }
    }

    #[test]
    fn a_frame_is_small_enough_to_be_moved() {
        // What is larger goes into a box: see BOXED in xtask/src/codegen.rs.
        assert!(
            size_of::<PluginFrame>() <= 96,
            "{}",
            size_of::<PluginFrame>()
        );
        assert!(size_of::<HostFrame>() <= 96, "{}", size_of::<HostFrame>());
    }

    #[test]
    fn a_frame_is_read_without_copying_its_payload() {
        let frame = chunk(7, vec![5; 100_000]);
        let bytes = Bytes::from(frame.encode_to_vec());
        let range = bytes.as_ptr_range();
        let Inbound::Frame(read) = inbound(bytes.clone()) else {
            panic!("not a frame");
        };
        assert_eq!(read, frame);
        let Some(Body::Chunk(chunk)) = read.body else {
            panic!("not a chunk");
        };
        assert!(range.contains(&chunk.payload.as_ptr()));
    }

    #[test]
    fn what_is_no_frame_has_the_id_that_it_begins_with() {
        let mut cut = chunk(300, vec![5; 100]).encode_to_vec();
        cut.truncate(50);
        let cases: [(&[u8], u64); 7] = [
            (&cut, 300),
            // Field 11 as a number, where a message belongs.
            (&[0x08, 5, 0x58, 1], 5),
            // A text that is not UTF-8, deep inside: Error.message.
            (&[0x08, 9, 0x62, 3, 0x12, 1, 0xff], 9),
            // A group that never ends.
            (&[0x08, 4, 0x0b], 4),
            // No id in front.
            (&[0xff, 0xff], 0),
            // An id that never ends.
            (&[0x08, 0xff], 0),
            (
                &[
                    0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ],
                0,
            ),
        ];
        for (bytes, expected) in cases {
            match inbound(bytes.to_vec()) {
                Inbound::Malformed { id, reason } => {
                    assert_eq!(id, expected, "{bytes:?}");
                    assert!(!reason.is_empty());
                }
                other => panic!("{bytes:?} became {other:?}"),
            }
        }
    }

    #[test]
    fn a_body_that_is_not_known_is_absent() {
        // Field 99 of a newer protocol, and then a field that is a plain number.
        let bytes = vec![0x08, 3, 0x9a, 0x06, 2, 1, 2, 0xa0, 0x06, 1];
        assert_eq!(
            inbound(bytes),
            Inbound::Frame(PluginFrame { id: 3, body: None })
        );
        assert_eq!(inbound(vec![]), Inbound::Frame(PluginFrame::default()));
    }

    #[test]
    fn a_message_over_the_limit_is_thrown_away_with_its_id() {
        let most = chunk(1, vec![0; MAX_FRAME_BYTES - 20]).encode_to_vec();
        assert!(matches!(inbound(most), Inbound::Frame(_)));
        let over = chunk(8, vec![0; MAX_FRAME_BYTES]).encode_to_vec();
        let bytes = over.len();
        assert_eq!(inbound(over), Inbound::Oversize { id: 8, bytes });
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            inbound(bytes);
        }

        #[test]
        fn bent_frames_never_panic(id: u64, text in ".{0,20}", at: prop::sample::Index, byte: u8) {
            let error = Error { message: text, ..Error::default() };
            let mut bytes = PluginFrame { id, body: Some(Body::Error(error.into())) }.encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            inbound(bytes);
        }
    }
}
