//! The codec: frames in and out, without copying payloads on the way in.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

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
    Out: Message + Send + 'static,
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

impl<Out: Message> Encoder for FrameEncoder<Out> {
    type Item = Out;
    type Error = Status;

    fn encode(&mut self, frame: Out, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(frame.encoded_len());
        frame
            .encode(buffer)
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
