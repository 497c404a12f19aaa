//! Asks admin ports over HTTP: one request, one answer, the connection ends.
//!
//! HTTP 1.0, so that the answer is never cut into chunks. Only what an admin port needs: no TLS, no
//! redirects.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::connection::connect;

/// How long an admin port may take; some answers have to come from other datacenters.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The body of `path` at the admin port `url`.
///
/// # Errors
/// When the port cannot be reached or answers with another status than 200.
pub(crate) async fn get(url: &str, path: &str) -> anyhow::Result<String> {
    let address = address_of(url);
    let (status, body) = ask(address, &format!("GET {path}"), "").await?;
    if status != 200 {
        bail!("{address}{path} answered {status}: {}", body.trim());
    }
    Ok(body)
}

/// Sends JSON to `path` at the admin port `url`; its status and what it says.
///
/// # Errors
/// When the port cannot be reached.
pub(crate) async fn post(url: &str, path: &str, json: &str) -> anyhow::Result<(u16, String)> {
    ask(address_of(url), &format!("POST {path}"), json).await
}

async fn ask(address: &str, what: &str, json: &str) -> anyhow::Result<(u16, String)> {
    let answer = tokio::time::timeout(TIMEOUT, exchange(address, what, json))
        .await
        .with_context(|| format!("{address} did not answer within {}s", TIMEOUT.as_secs()))?
        .with_context(|| format!("cannot ask the admin port at {address}; is it running?"))?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let parts = answer.split_once("\r\n\r\n").filter(|_| answer.starts_with("HTTP/"));
    let (Some((_, body)), Some(status)) = (parts, status) else {
        bail!("{address} does not speak HTTP; is it the admin port?");
    };
    Ok((status, body.to_owned()))
}

async fn exchange(address: &str, what: &str, json: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = connect(address, TIMEOUT).await?;
    let content = match json.len() {
        0 => String::new(),
        count => format!("Content-Type: application/json\r\nContent-Length: {count}\r\n"),
    };
    let head = format!("{what} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n{content}\r\n");
    stream.write_all(format!("{head}{json}").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Host and port of a URL; what is no URL is taken as that.
fn address_of(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /metrics HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        format!("http://{address}/")
    }

    #[tokio::test]
    async fn the_body_of_an_answer_is_given() {
        let url = answering("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\na 1\n").await;
        assert_eq!(get(&url, "/metrics").await.unwrap(), "a 1\n");
    }

    #[tokio::test]
    async fn another_status_is_an_error_that_shows_it() {
        let url = answering("HTTP/1.0 404 Not Found\r\n\r\nno such page").await;
        let error = get(&url, "/metrics").await.unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("no such page"), "{error}");
        let url = answering("-ERR what is GET\r\n").await;
        let error = get(&url, "/metrics").await.unwrap_err().to_string();
        assert!(error.contains("does not speak HTTP"), "{error}");
    }

    #[test]
    fn a_url_or_an_address_names_the_port() {
        for url in ["127.0.0.1:80", "http://127.0.0.1:80", "http://127.0.0.1:80/v1/"] {
            assert_eq!(address_of(url), "127.0.0.1:80");
        }
    }
}
