//! A call whose payload comes in several frames.

use bytes::{Bytes, BytesMut};

use crate::code::ErrorCode;
use crate::error::CallError;
use crate::wire::common;

pub(crate) struct Assembly {
    pub call: Box<common::Call>,
    payload: BytesMut,
    sequence: u64,
    /// Parts that came since credit was given.
    owed: u32,
}

/// What a part leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More is to come, so much credit is to be given (or 0).
    More(u32),
    /// The payload is whole.
    Whole(Bytes),
}

impl Assembly {
    pub(crate) fn new(mut call: Box<common::Call>) -> Self {
        let first = std::mem::take(&mut call.payload);
        Self {
            call,
            payload: BytesMut::from(first),
            sequence: 0,
            owed: 0,
        }
    }

    /// Parts that came.
    pub(crate) fn parts(&self) -> u64 {
        self.sequence
    }

    /// Parts that no credit was given for.
    pub(crate) fn owed(&self) -> u32 {
        self.owed
    }

    /// Adds a part; an error ends the call.
    pub(crate) fn add(
        &mut self,
        chunk: &common::Chunk,
        max_payload: u64,
        window: u32,
    ) -> Result<Step, CallError> {
        if chunk.sequence != self.sequence {
            let (due, came) = (self.sequence, chunk.sequence);
            return Err(CallError::new(
                ErrorCode::ProtocolViolation,
                format!("chunk {came} of the payload came where chunk {due} was due"),
            ));
        }
        self.sequence += 1;
        self.payload.extend_from_slice(&chunk.payload);
        if self.payload.len() as u64 > max_payload {
            return Err(CallError::new(
                ErrorCode::TooLarge,
                format!("the payload is larger than the {max_payload} bytes that it may have"),
            ));
        }
        self.owed += 1;
        if chunk.last {
            return Ok(Step::Whole(self.payload.split().freeze()));
        }
        if self.owed < window.div_ceil(2) {
            return Ok(Step::More(0));
        }
        Ok(Step::More(std::mem::take(&mut self.owed)))
    }
}

#[cfg(test)]
mod tests {
    //! Parts in and out of order.

    use super::*;

    fn part(sequence: u64, last: bool) -> common::Chunk {
        common::Chunk {
            payload: Bytes::from_static(b"ab"),
            last,
            sequence,
            fragment: false,
        }
    }

    fn begun() -> Assembly {
        Assembly::new(Box::new(common::Call {
            payload: Bytes::from_static(b"x"),
            more: true,
            ..common::Call::default()
        }))
    }

    #[test]
    fn parts_are_joined_and_credit_is_given_on_the_way() {
        let mut assembly = begun();
        assert_eq!(assembly.add(&part(0, false), 100, 4), Ok(Step::More(0)));
        assert_eq!(assembly.add(&part(1, false), 100, 4), Ok(Step::More(2)));
        let whole = assembly.add(&part(2, true), 100, 4);
        assert_eq!(whole, Ok(Step::Whole(Bytes::from_static(b"xababab"))));
    }

    #[test]
    fn a_gap_and_too_much_end_the_call() {
        let gap = begun().add(&part(1, false), 100, 4);
        assert_eq!(
            gap.map_err(|error| error.code),
            Err(ErrorCode::ProtocolViolation)
        );
        let large = begun().add(&part(0, false), 2, 4);
        assert_eq!(large.map_err(|error| error.code), Err(ErrorCode::TooLarge));
    }
}
