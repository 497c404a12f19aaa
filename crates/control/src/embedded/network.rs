//! Carries requests between members over TCP, one at a time on a connection.
//!
//! A frame is its length, its checksum and its bytes. A connection begins with a hello that names
//! the version, the group, who calls and who is meant; a member that is not meant says so. Idle
//! connections are kept for the next request. A connection that broke is never used again, and a
//! request is not sent twice: whoever asked is told whether it may have arrived.
//!
//! Limits: frames have a largest size and are read as they arrive, so that a length alone costs no
//! memory; every step has a time limit.
#![deny(clippy::indexing_slicing)]

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use antecede_model::{codec::DecodeError, ids::NodeId};
use openraft::{
    AnyError, BasicNode, RaftNetwork, RaftNetworkFactory, Snapshot,
    error::{
        Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    Backing, GroupId,
    message::{Hello, Reply, Request, VERSION, Welcome},
    raft::{Types, Vote, node_of},
};
use crate::store::{STATE_BYTES_MAX, VALUE_BYTES_MAX};

/// Bytes of a frame. A longer one ends the connection. A whole state must fit.
const FRAME_BYTES_MAX: usize = 2 * STATE_BYTES_MAX;
const _: () = assert!(STATE_BYTES_MAX + VALUE_BYTES_MAX < FRAME_BYTES_MAX, "a state must fit");

/// Bytes of a hello or of its answer: nobody who has not said it may send more.
pub(super) const HELLO_BYTES_MAX: usize = 128;

/// Idle connections to a member. One more is closed.
const IDLE_MAX: usize = 8;

/// Bytes of a frame that are read at a time.
const READ_BYTES: u64 = 64 * 1024;

/// How long it may take to open a connection and to be welcome.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// How long the library waits before it tries again to reach a member.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// Why a frame was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The frame is longer than it may be.
    #[error("a frame of {bytes} bytes came, the limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    /// The bytes changed on their way, or are no frame at all.
    #[error("a frame came damaged: {0}")]
    Damaged(DecodeError),
}

/// Writes a frame.
pub(super) async fn write_frame(stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame).await
}

/// Reads a frame of at most `limit` bytes.
pub(super) async fn read_frame(
    stream: &mut TcpStream,
    limit: usize,
) -> Result<Vec<u8>, FrameError> {
    let length = stream.read_u32_le().await?;
    let found = stream.read_u32_le().await?;
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if limit < bytes {
        return Err(FrameError::TooLong { bytes, limit });
    }
    let mut body = Vec::new();
    let mut rest = u64::from(length);
    while 0 < rest {
        let read = (&mut *stream).take(rest.min(READ_BYTES)).read_to_end(&mut body).await? as u64;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        rest -= read;
    }
    let computed = crc32c::crc32c(&body);
    if found != computed {
        return Err(FrameError::Damaged(DecodeError::Checksum { found, computed }));
    }
    Ok(body)
}

/// Reads a request or a reply.
pub(super) async fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>, FrameError> {
    read_frame(stream, FRAME_BYTES_MAX).await
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It was not sent, so it has no effect.
    #[error("{address} cannot be reached: {reason}")]
    NotSent { address: String, reason: String },
    /// It was sent, and no answer came.
    #[error("{address} did not answer: {reason}")]
    Lost { address: String, reason: String },
    /// It was not sent, since the other side agrees by something else.
    #[error("{address} cannot be asked: {reason}")]
    OtherBacking { address: String, reason: String },
}

/// Why a connection is of no use.
#[derive(Debug)]
enum Unusable {
    /// Whatever it is.
    Because(String),
    /// The other side agrees by something else.
    OtherBacking(String),
}

impl<E: std::error::Error> From<E> for Unusable {
    fn from(error: E) -> Self {
        Self::Because(error.to_string())
    }
}

/// Who is called, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    pub(crate) address: String,
}

/// Opens connections, and keeps those that are idle.
#[derive(Debug)]
pub(crate) struct Pool {
    group: GroupId,
    /// Who calls.
    node: NodeId,
    backing: Backing,
    idle: Mutex<BTreeMap<Target, Vec<TcpStream>>>,
}

impl Pool {
    pub(crate) const fn new(group: GroupId, node: NodeId, backing: Backing) -> Self {
        Self { group, node, backing, idle: Mutex::new(BTreeMap::new()) }
    }

    /// Asks and waits for the answer; the caller limits the time.
    pub(crate) async fn call(
        &self,
        target: &Target,
        request: &Request,
    ) -> Result<Reply, CallError> {
        let address = || target.address.clone();
        let mut stream = match self.take_idle(target) {
            Some(stream) => stream,
            None => timeout(CONNECT_LIMIT, self.open(target))
                .await
                .unwrap_or_else(|_| {
                    Err(Unusable::Because(format!("no welcome came within {CONNECT_LIMIT:?}")))
                })
                .map_err(|unusable| match unusable {
                    Unusable::Because(reason) => CallError::NotSent { address: address(), reason },
                    Unusable::OtherBacking(reason) => {
                        CallError::OtherBacking { address: address(), reason }
                    }
                })?,
        };
        let lost = |reason: String| CallError::Lost { address: address(), reason };
        let sent = write_frame(&mut stream, &request.encode()).await;
        sent.map_err(|error| lost(error.to_string()))?;
        let body = read_message(&mut stream).await.map_err(|error| lost(error.to_string()))?;
        let reply = Reply::decode(&body).map_err(|error| lost(error.to_string()))?;
        self.keep_idle(target, stream);
        Ok(reply)
    }

    /// A connection on which the other side has said nothing, not even that it closes it.
    fn take_idle(&self, target: &Target) -> Option<TcpStream> {
        let mut idle = self.idle.lock();
        let streams = idle.get_mut(target)?;
        while let Some(stream) = streams.pop() {
            let said = stream.try_read(&mut [0; 1]);
            if said.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
        None
    }

    fn keep_idle(&self, target: &Target, stream: TcpStream) {
        let mut idle = self.idle.lock();
        let streams = idle.entry(target.clone()).or_default();
        if streams.len() < IDLE_MAX {
            streams.push(stream);
        }
    }

    async fn open(&self, target: &Target) -> Result<TcpStream, Unusable> {
        let mut stream = TcpStream::connect(&target.address).await?;
        stream.set_nodelay(true)?;
        let (from, to) = (self.node, target.node);
        let (group, backing) = (self.group, self.backing);
        let hello = Hello { version: VERSION, group, from, to, backing };
        write_frame(&mut stream, &hello.encode()).await?;
        let body = read_frame(&mut stream, HELLO_BYTES_MAX).await?;
        Err(match Welcome::decode(&body)? {
            Welcome::Accepted => return Ok(stream),
            Welcome::OtherVersion(version) => Unusable::Because(format!(
                "it speaks version {version} of the protocol, this build {VERSION}"
            )),
            Welcome::OtherMember(node) => {
                Unusable::Because(format!("it is member {node}, not {to}"))
            }
            Welcome::OtherGroup(other) => {
                Unusable::Because(format!("it is of {other}, not of {group}"))
            }
            Welcome::OtherBacking(other) => Unusable::OtherBacking(format!(
                "node {to} has control.store = \"{other}\", node {from} has \"{backing}\"; give all \
                 nodes of a datacenter the same"
            )),
        })
    }
}

/// The library's way to the other members.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pool: Arc<Pool>,
}

impl Network {
    pub(crate) const fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, member: u64, node: &BasicNode) -> Peer {
        let address = node.addr.clone();
        let target = node_of(member).map(|node| Target { node, address });
        Peer { pool: Arc::clone(&self.pool), target }
    }
}

/// The library's way to one member.
#[derive(Debug)]
pub(crate) struct Peer {
    pool: Arc<Pool>,
    /// `None` if the member's number is no node's.
    target: Option<Target>,
}

/// Why the library got no answer from a member.
#[derive(Debug)]
enum PeerError {
    Unreachable(AnyError),
    Failed(AnyError),
}

impl<E: std::error::Error> From<PeerError> for RPCError<u64, BasicNode, E> {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Unreachable(error) => Self::Unreachable(Unreachable::new(&error)),
            PeerError::Failed(error) => Self::Network(NetworkError::new(&error)),
        }
    }
}

impl Peer {
    async fn call(&self, request: Request, limit: Duration) -> Result<Reply, PeerError> {
        let Some(target) = &self.target else {
            return Err(PeerError::Unreachable(AnyError::error("no node has this number")));
        };
        match timeout(limit, self.pool.call(target, &request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error @ (CallError::NotSent { .. } | CallError::OtherBacking { .. }))) => {
                Err(PeerError::Unreachable(AnyError::new(&error)))
            }
            Ok(Err(error @ CallError::Lost { .. })) => {
                Err(PeerError::Failed(AnyError::new(&error)))
            }
            Err(_) => Err(PeerError::Unreachable(AnyError::error(format!(
                "{} did not answer within {limit:?}",
                target.address
            )))),
        }
    }
}

fn unfit() -> PeerError {
    PeerError::Failed(AnyError::error("the member has stopped, or its answer fits no request"))
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let own = rpc.vote;
        let reply = self.call(Request::Append(rpc), option.hard_ttl()).await?;
        let Reply::Append(response) = reply else { return Err(unfit().into()) };
        if let AppendEntriesResponse::HigherVote(vote) = &response
            && *vote <= own
        {
            // The library relies on it that a vote said to be higher is higher.
            return Err(unfit().into());
        }
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let reply = self.call(Request::Vote(rpc), option.hard_ttl()).await?;
        let Reply::Vote(response) = reply else { return Err(unfit().into()) };
        Ok(response)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let request = Request::Snapshot { vote, meta: snapshot.meta, image: *snapshot.snapshot };
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = self.call(request, option.hard_ttl()) => answer,
        };
        match answer {
            Ok(Reply::Snapshot(vote)) => Ok(SnapshotResponse::new(vote)),
            Ok(_) => Err(StreamingError::Network(NetworkError::new(&AnyError::error(
                "the member has stopped, or its answer fits no request",
            )))),
            Err(PeerError::Unreachable(error)) => {
                Err(StreamingError::Unreachable(Unreachable::new(&error)))
            }
            Err(PeerError::Failed(error)) => {
                Err(StreamingError::Network(NetworkError::new(&error)))
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}
