//! How messages become bytes on a stream.
//!
//! A message is written into room made for exactly its length. Left to grow by itself, the buffer of a large message would
//! end with twice the room, be copied on the way, and stay that large for as long as the peer does not read. Large fields are not written
//! into it at all where [`gather`] reads what becomes of it.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::gather;

/// Room that a stream is given when it begins, in each direction, and keeps while nothing is sent: most streams wait most of the time.
/// It is also the least that is allocated at a time for messages after it; of less, [`bytes::BytesMut`] would make room message by message.
const IDLE_BYTES: usize = 1 << 10;
/// Encoded bytes that are enough for one write.
const YIELD_BYTES: usize = 32 << 10;

/// How the buffers of a stream grow.
fn buffers() -> BufferSettings {
    BufferSettings::new(IDLE_BYTES, YIELD_BYTES)
}

/// The codec of every service here.
#[derive(Debug)]
pub struct ExactCodec<T, U>(PhantomData<(T, U)>);

/// Encodes messages of type `T`.
#[derive(Debug)]
pub struct ExactEncoder<T>(PhantomData<T>);

impl<T, U> Default for ExactCodec<T, U> {
    fn default() -> Self {
        ExactCodec(PhantomData)
    }
}

impl<T, U> Codec for ExactCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(buffers())
    }
}

impl<T: Message> Encoder for ExactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        gather::encode(&item, buf);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
