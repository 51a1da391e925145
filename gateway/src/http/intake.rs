//! Reading the body of a request, within bounds of size and time.
//!
//! A body that is not wanted is taken all the same, within bounds: a client that is still sending when
//! the connection closes never reads the answer that says why.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::timeout;

use super::room::{NoRoom, Share};

/// The most that is taken of a body that is not wanted.
const MOST_UNWANTED: usize = 32 << 20;

/// Time that taking it may cost.
const UNWANTED: Duration = Duration::from_secs(2);

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// It is larger than this many bytes.
    #[error("the request body is larger than {0} bytes: send less, or raise gateway.max_body")]
    TooLarge(usize),
    /// It did not come in time.
    #[error("the request body did not arrive within {0:?} (gateway.request_timeout)")]
    TooSlow(Duration),
    /// The gateway holds so much already that there is no room for it.
    #[error(
        "the gateway holds {0} bytes of requests and answers, and has no room for this one \
         (gateway.max_bytes_in_flight): try again later"
    )]
    Full(usize),
    /// The connection broke.
    #[error("the request body could not be read: {0}")]
    Broken(String),
}

impl From<NoRoom> for IntakeError {
    fn from(NoRoom(held): NoRoom) -> Self {
        Self::Full(held)
    }
}

/// Reads a body; `share` holds what has come of it.
///
/// # Errors
/// [`IntakeError`], which names the setting.
pub async fn read<B>(
    body: B,
    most: usize,
    time: Duration,
    share: &Share,
) -> Result<Bytes, IntakeError>
where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > most {
        discard(body).await;
        return Err(IntakeError::TooLarge(most));
    }
    let mut body = std::pin::pin!(body);
    let reading = async {
        let mut first: Option<Bytes> = None;
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| IntakeError::Broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let size = whole.len() + first.as_ref().map_or(0, Bytes::len) + data.len();
            if size > most {
                return Err(IntakeError::TooLarge(most));
            }
            share.try_add(data.len())?;
            // Most requests come in one piece, which need not be copied.
            if first.is_none() && whole.is_empty() {
                first = Some(data);
                continue;
            }
            whole.extend_from_slice(&first.take().unwrap_or_default());
            whole.extend_from_slice(&data);
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    };
    let read = timeout(time, reading).await;
    let read = read.unwrap_or(Err(IntakeError::TooSlow(time)));
    if matches!(read, Err(IntakeError::TooLarge(_) | IntakeError::Full(_))) {
        discard(body).await;
    }
    read
}

/// Takes a body that is not wanted.
pub async fn discard<B: Body<Data = Bytes>>(body: B) {
    if body.is_end_stream() {
        return;
    }
    let mut body = std::pin::pin!(body);
    let taking = async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > MOST_UNWANTED {
                return;
            }
        }
    };
    let _ = timeout(UNWANTED, taking).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use prometheus_client::metrics::gauge::Gauge;

    use super::super::room::Room;
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn room(most: usize) -> Share {
        Room::new(most, Gauge::default()).share()
    }

    fn parts(parts: &'static [&'static str]) -> impl Body<Data = Bytes, Error = Infallible> {
        let frames = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_is_put_together_within_the_bound() {
        let share = room(100);
        let read = async |parts_of| read(parts(parts_of), 5, SOON, &share).await;
        assert_eq!(read(&["ab", "cd", "e"]).await.unwrap(), "abcde");
        assert_eq!(read(&["ab"]).await.unwrap(), "ab");
        assert_eq!(read(&[]).await.unwrap(), "");
        let too_large = Err(IntakeError::TooLarge(5));
        assert_eq!(read(&["abc", "def"]).await, too_large);
        let known = Full::new(Bytes::from_static(b"abcdef"));
        assert_eq!(super::read(known, 5, SOON, &share).await, too_large);
    }

    #[tokio::test]
    async fn a_body_that_finds_no_room_is_given_up() {
        let error = read(parts(&["abc", "def"]), 100, SOON, &room(5)).await;
        assert_eq!(error, Err(IntakeError::Full(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert_eq!(
            read(never, 5, SOON, &room(5)).await,
            Err(IntakeError::TooSlow(SOON))
        );
    }
}
