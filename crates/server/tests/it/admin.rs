//! The admin port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::{Client, alone, block};

/// A request over HTTP; status line and body.
fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("a test's surroundings work");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a test's surroundings work");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a test's surroundings work");
    let (head, body) = text.split_once("\r\n\r\n").expect("a test's surroundings work");
    (head.lines().next().expect("a test's surroundings work").to_owned(), body.to_owned())
}

#[test]
fn health_metrics_and_status_are_told() {
    let server = alone(&[]);
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&["SET", "k", "v"]), "OK");
    let admin = server.admin_address().unwrap();
    assert!(http(admin, "GET", "/healthz", "").0.contains("200"));
    assert!(http(admin, "GET", "/readyz", "").0.contains("200"));
    let (_, metrics) = http(admin, "GET", "/metrics", "");
    for name in
        ["antecede_build_info", "antecede_keys 1", "antecede_commands_total{command=\"set\"} 1"]
    {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    let (_, status) = http(admin, "GET", "/v1/status", "");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["verdict"], "healthy");
    assert_eq!(status["keys"], 1);
    assert_eq!(status["shards"], 256);
    block(server.shutdown());
}

#[test]
fn faults_are_there_only_where_they_are_enabled() {
    let cut = r#"{"from": "local", "to": "local", "delay_ms": 1.5, "cut": true}"#;
    let server = alone(&[]);
    let admin = server.admin_address().unwrap();
    assert!(http(admin, "PUT", "/v1/faults", cut).0.contains("404"));
    block(server.shutdown());
    let server = alone(&[("faults.enabled", "true")]);
    let admin = server.admin_address().unwrap();
    assert!(http(admin, "PUT", "/v1/faults", cut).0.contains("204"));
    let (_, list) = http(admin, "GET", "/v1/faults", "");
    assert!(list.contains("\"delay_ms\":1.5") && list.contains("\"cut\":true"), "{list}");
    assert!(http(admin, "POST", "/v1/faults/heal", "").0.contains("204"));
    let (_, list) = http(admin, "GET", "/v1/faults", "");
    assert!(list.contains("\"cut\":false"), "{list}");
    let elsewhere = cut.replacen("local", "moon", 1);
    assert!(http(admin, "PUT", "/v1/faults", &elsewhere).0.contains("404"));
    block(server.shutdown());
}
