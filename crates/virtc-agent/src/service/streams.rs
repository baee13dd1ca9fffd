//! Streams by single calls, as hosts use them that have no other way.

use agent_protocol::agent::{ReadStreamRequest, ReadStreamResponse};
use agent_protocol::frame::Stream;

use crate::error::{Attempt as _, Result};
use crate::process::{Process, read_pipe, write_pipe};

/// Bytes of one answer.
const READ_BYTES_MAX: usize = 64 << 10;

/// What Kata's hosts take as the end of a stream: it is an error there.
const END_OF_STREAM: &str = "read meet eof";

/// Writes to a process's input.
pub(super) async fn write_stdin(process: &Process, data: &[u8]) -> Result<u32> {
    let pipe = process.io.borrow(Stream::Stdin)?;
    write_pipe(&pipe, data)
        .await
        .attempt(|| format!("write the input of {}", process.name()))?;
    Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
}

/// Reads what a process wrote, at least one byte.
pub(super) async fn read_output(
    process: &Process,
    stream: Stream,
    request: &ReadStreamRequest,
) -> ttrpc::Result<ReadStreamResponse> {
    let pipe = process.io.borrow(stream)?;
    let mut data = vec![0; READ_BYTES_MAX.min(request.len as usize)];
    let bytes = read_pipe(&pipe, &mut data)
        .await
        .attempt(|| format!("read {stream:?} of {}", process.name()))?;
    if bytes == 0 && request.len > 0 {
        let status = ttrpc::get_status(ttrpc::Code::INVALID_ARGUMENT, END_OF_STREAM);
        return Err(ttrpc::Error::RpcStatus(status));
    }
    data.truncate(bytes);
    Ok(ReadStreamResponse {
        data,
        ..ReadStreamResponse::default()
    })
}
