//! Reading the body of a request, within bounds of size and time.
//!
//! A body that is not wanted is taken all the same, within bounds: a client that is still sending when
//! the connection closes never reads the answer that says why.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::timeout;

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
    /// The connection broke.
    #[error("the request body could not be read: {0}")]
    Broken(String),
}

/// Reads a body.
///
/// # Errors
/// [`IntakeError`], which names the setting.
pub async fn read<B>(body: B, most: usize, time: Duration) -> Result<Bytes, IntakeError>
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
    if matches!(read, Err(IntakeError::TooLarge(_))) {
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

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn parts(parts: &'static [&'static str]) -> impl Body<Data = Bytes, Error = Infallible> {
        let frames = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_is_put_together_within_the_bound() {
        assert_eq!(
            read(parts(&["ab", "cd", "e"]), 5, SOON).await.unwrap(),
            "abcde"
        );
        assert_eq!(read(parts(&["ab"]), 5, SOON).await.unwrap(), "ab");
        assert_eq!(read(parts(&[]), 5, SOON).await.unwrap(), "");
        assert_eq!(
            read(parts(&["abc", "def"]), 5, SOON).await,
            Err(IntakeError::TooLarge(5))
        );
        let known = Full::new(Bytes::from_static(b"abcdef"));
        assert_eq!(read(known, 5, SOON).await, Err(IntakeError::TooLarge(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert_eq!(read(never, 5, SOON).await, Err(IntakeError::TooSlow(SOON)));
    }
}
