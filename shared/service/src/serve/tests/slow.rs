//! Who takes an answer slowly keeps it; what counts is what leaves the kernel's buffer.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_10_kb_a_second_is_not_dropped() {
    let large = Router::new().route("/", get(async || vec![0u8; 64 << 20]));
    let (address, life) = start(large, ServerLimits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let started = Instant::now();
    let mut piece = vec![0; 10 << 10];
    while started.elapsed() < Duration::from_mins(5) {
        stream.read_exact(&mut piece).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(life.inflight(), 1, "cut after {} s", started.elapsed().as_secs());
    }
}
