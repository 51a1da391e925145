//! gRPC codecs that pass bytes as they are, so that a frame can be anything.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Bytes in, bytes out.
#[derive(Clone, Copy, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A number and bytes: the least that tells many calls on one stream apart.
#[derive(Clone, Copy, Default)]
pub struct IdCodec;

impl Codec for IdCodec {
    type Encode = (u64, Bytes);
    type Decode = (u64, Bytes);
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for IdCodec {
    type Item = (u64, Bytes);
    type Error = Status;
    fn encode(
        &mut self,
        (id, payload): (u64, Bytes),
        buffer: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        buffer.put_u64(id);
        buffer.put(payload);
        Ok(())
    }
}

impl Decoder for IdCodec {
    type Item = (u64, Bytes);
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<(u64, Bytes)>, Status> {
        let id = buffer
            .try_get_u64()
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some((id, buffer.copy_to_bytes(buffer.remaining()))))
    }
}
