//! The first frame of an engine's WebSocket: proof that nothing between us and it swallows the upgrade or the frames.

use std::time::Duration;

use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Message;

/// For the connection and the frame together.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// Connects and waits for a text frame that begins like this. The connection is closed again.
pub(super) async fn probe(url: String, beginning: &str) -> Result<(), String> {
    let look = async {
        let (mut socket, _) =
            tokio_tungstenite::connect_async(url).await.map_err(|error| error.to_string())?;
        match socket.next().await {
            Some(Ok(Message::Text(text))) if text.starts_with(beginning) => Ok(()),
            Some(Ok(_)) => Err("its first frame is not the engine's".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("closed without a frame".to_owned()),
        }
    };
    let timed_out = |_| Err(format!("no frame within {} s", PROBE_TIMEOUT.as_secs()));
    tokio::time::timeout(PROBE_TIMEOUT, look).await.unwrap_or_else(timed_out)
}
