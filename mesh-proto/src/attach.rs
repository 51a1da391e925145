//! The server's side of the plugin protocol, tolerant of what a plugin sends.
//!
//! Where tonic's own codec ends the whole stream at the first message that can't be decoded, this one
//! hands the trouble on as an [`Inbound`] value with the id that it belongs to, so that the host can
//! answer with an error and go on with all else. It must not know what frames mean.

mod codec;
mod greeting;
mod host;
mod server;

pub use self::codec::{FrameCodec, FrameDecoder, FrameEncoder, Inbound, MAX_FRAME_BYTES};
pub use self::greeting::{Greeting, MAX_STRANGER_BYTES};
pub use self::host::{CallHead, HostMessage, Outbound, PassedCall};
pub use self::server::{
    AttachFrames, AttachHandler, AttachServer, MAX_MESSAGE_BYTES, PeerInfo, attach_server,
};

#[cfg(test)]
mod tests;
