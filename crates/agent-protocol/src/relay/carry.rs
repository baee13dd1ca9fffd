use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::frame::{Frame, FrameReader, HEADER_BYTES, Header, send};

/// Bytes that are read of a connection at once.
const BUFFER_BYTES: usize = 16 << 10;

/// Carries a connection over frames, both ways, until both are at their end and each side knows it
/// of the other. The end of one direction leaves the other one open.
///
/// After an error, some of what was sent is lost: whoever is at the other end of `connection` should
/// see a reset, and not an end.
///
/// # Errors
///
/// Those of the two, `UnexpectedEof` when the frames stop before their end, and `InvalidData` for
/// what is no frame.
pub async fn carry<R, W>(reader: R, writer: W, connection: &mut TcpStream) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut from, mut to) = connection.split();
    let writer = Mutex::new(writer);
    let mut reader = FrameReader::new(reader);
    let sending = async {
        let mut buffer = vec![0; HEADER_BYTES + BUFFER_BYTES];
        loop {
            let bytes = from.read(&mut buffer[HEADER_BYTES..]).await?;
            if bytes == 0 {
                return send(&mut *writer.lock().await, &Frame::End).await;
            }
            let frame = &mut buffer[..HEADER_BYTES + bytes];
            let header = Header::data(&frame[HEADER_BYTES..]).map_err(io::Error::other)?;
            frame[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
            writer.lock().await.write_all(frame).await?;
        }
    };
    let receiving = async {
        let (mut ended, mut acknowledged) = (false, false);
        while !(ended && acknowledged) {
            match reader.next().await? {
                Some(Frame::Data(bytes)) if !ended => to.write_all(bytes).await?,
                Some(Frame::End) if !ended => {
                    ended = true;
                    to.shutdown().await?;
                    // The other side has sent all it has, so it reads what is sent here.
                    send(&mut *writer.lock().await, &Frame::EndAck).await?;
                }
                Some(Frame::EndAck) => acknowledged = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(_) => {
                    let reason = "a frame that no relay sends";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
            }
        }
        Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UnixStream};
    use tokio::task::JoinHandle;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    fn side(stream: UnixStream, mut connection: TcpStream) -> JoinHandle<io::Result<()>> {
        tokio::spawn(async move {
            let (reader, writer) = stream.into_split();
            carry(reader, writer, &mut connection).await
        })
    }

    #[tokio::test]
    async fn each_direction_ends_for_itself() {
        let (host, guest) = UnixStream::pair().unwrap();
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let sides = [side(host, near), side(guest, far)];
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        server.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"question");
        let long = vec![7; 3 << 20];
        let answering = async {
            server.write_all(&long).await.unwrap();
            drop(server);
        };
        let mut answered = Vec::new();
        let (_, read) = tokio::join!(answering, client.read_to_end(&mut answered));
        read.unwrap();
        assert!(answered == long);
        for side in sides {
            side.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn both_directions_at_once_do_not_wait_for_each_other() {
        let (host, guest) = UnixStream::pair().unwrap();
        let ((client, near), (far, server)) = (pair().await, pair().await);
        let sides = [side(host, near), side(guest, far)];
        let talk = async |stream: TcpStream| {
            let (mut from, mut to) = stream.into_split();
            let writing = tokio::spawn(async move { to.write_all(&vec![7; 4 << 20]).await });
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).await.unwrap();
            writing.await.unwrap().unwrap();
            bytes.len()
        };
        let (one, other) = tokio::join!(talk(client), talk(server));
        assert_eq!((one, other), (4 << 20, 4 << 20));
        for side in sides {
            side.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn frames_that_stop_are_no_end() {
        let (host, guest) = UnixStream::pair().unwrap();
        let (_client, near) = pair().await;
        let carrying = side(host, near);
        drop(guest);
        let error = carrying.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
