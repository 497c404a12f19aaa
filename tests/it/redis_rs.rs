//! The Redis client that many use from Rust works unchanged, in both versions of the protocol.

use redis::{Commands, RedisError, RedisResult, pipe, transaction};
use tests::{Dev, Stage};

/// What an application does: values, pipelines, optimistic transactions, iteration, errors.
fn use_everything(address: &str, parameters: &str) -> RedisResult<()> {
    let client = redis::Client::open(format!("redis://{address}/{parameters}"))?;
    let mut connection = client.get_connection()?;
    let () = connection.set("{rs}:a", 1)?;
    let value: i64 = connection.get("{rs}:a")?;
    assert_eq!(value, 1);
    let missing: Option<String> = connection.get("{rs}:none")?;
    assert_eq!(missing, None);
    let (set, read): (String, i64) =
        pipe().cmd("SET").arg("{rs}:b").arg(2).cmd("GET").arg("{rs}:b").query(&mut connection)?;
    assert_eq!((set.as_str(), read), ("OK", 2));
    let (read,): (i64,) = transaction(&mut connection, &["{rs}:b"], |connection, pipe| {
        let old: i64 = connection.get("{rs}:b")?;
        pipe.set("{rs}:b", old + 1).ignore().get("{rs}:b").query(connection)
    })?;
    assert_eq!(read, 3);
    let mut keys: Vec<String> =
        connection.scan_match("{rs}:*")?.collect::<RedisResult<Vec<String>>>()?;
    keys.sort_unstable();
    assert_eq!(keys, ["{rs}:a", "{rs}:b"]);
    let refused: Result<(), RedisError> = redis::cmd("NOSUCH").query(&mut connection);
    let message = refused.expect_err("there is no such command").to_string();
    assert!(message.contains("NOSUCH"), "{message}");
    let gone: i64 = connection.del(&["{rs}:a", "{rs}:b"])?;
    assert_eq!(gone, 2);
    Ok(())
}

fn check(parameters: &str) {
    let stage = Stage::shared();
    let dev = Dev::start(&stage, &[]);
    let done = use_everything(&dev.address, parameters);
    assert!(done.is_ok(), "{done:?}");
}

#[test]
fn redis_rs_speaks_resp2_with_it() {
    check("");
}

#[test]
fn redis_rs_speaks_resp3_with_it() {
    check("?protocol=resp3");
}
