//! The messages of etcd's interface that are used here, as Protocol Buffers.
//!
//! Each struct has the fields that are read or written, under the numbers that etcd's version 3
//! gives them; what it does not name is skipped when it is read. A choice of one among several is
//! a struct with optional fields, which has the same bytes. So no compiler of such files is needed
//! to build this.
//!
//! Limits: only what is asked here; a field that is not named keeps etcd's default.

use prost::Message;

/// Reads keys.
pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
/// Compares, then writes or reads.
pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";
/// Follows keys.
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// Trades a name and a password for a token.
pub(super) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// What a comparison looks at: how often a key was written since it was made, 0 if it is not there.
pub(super) const COMPARE_VERSION: i32 = 0;
/// How it compares.
pub(super) const COMPARE_EQUAL: i32 = 0;
/// An event: a key was written.
pub(super) const EVENT_PUT: i32 = 0;

/// Where an answer comes from.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Header {
    #[prost(uint64, tag = "1")]
    pub(super) cluster: u64,
    #[prost(uint64, tag = "2")]
    pub(super) member: u64,
    /// Counts the changes of all keys.
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
}

/// A key and what it holds.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub(super) version: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    /// Whether the member may answer by itself, with something old.
    #[prost(bool, tag = "7")]
    pub(super) is_serializable: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub(super) found: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Compare {
    #[prost(int32, tag = "1")]
    pub(super) how: i32,
    #[prost(int32, tag = "2")]
    pub(super) what: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key: Vec<u8>,
    #[prost(int64, optional, tag = "4")]
    pub(super) version: Option<i64>,
}

/// One of these.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Operation {
    #[prost(message, optional, tag = "1")]
    pub(super) range: Option<RangeRequest>,
    #[prost(message, optional, tag = "2")]
    pub(super) put: Option<PutRequest>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<Operation>,
    #[prost(message, repeated, tag = "3")]
    pub(super) failure: Vec<Operation>,
}

/// What an operation of a transaction gave.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Result {
    #[prost(message, optional, tag = "1")]
    pub(super) range: Option<RangeResponse>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub(super) has_succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(super) results: Vec<Result>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    /// The first revision that is wanted.
    #[prost(int64, tag = "3")]
    pub(super) start: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Event {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) written: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(bool, tag = "4")]
    pub(super) is_canceled: bool,
    /// The oldest revision that is still there, if the wanted one is not.
    #[prost(int64, tag = "5")]
    pub(super) compacted: i64,
    #[prost(string, tag = "6")]
    pub(super) reason: String,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<Event>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) password: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AuthenticateResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(string, tag = "2")]
    pub(super) token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_has_the_bytes_that_etcd_reads() {
        let request = TxnRequest {
            compare: vec![Compare {
                how: COMPARE_EQUAL,
                what: COMPARE_VERSION,
                key: b"k".to_vec(),
                version: Some(0),
            }],
            success: vec![Operation {
                put: Some(PutRequest { key: b"k".to_vec(), value: b"v".to_vec() }),
                range: None,
            }],
            failure: vec![Operation {
                range: Some(RangeRequest { key: b"k".to_vec(), is_serializable: false }),
                put: None,
            }],
        };
        let text: String =
            request.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
        // compare: key "k", version 0 though it is the default; put: k, v; range: k.
        assert_eq!(text, "0a051a016b2000120812060a016b1201761a050a030a016b");
    }
}
