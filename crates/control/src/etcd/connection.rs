//! Connections to etcd's members, and requests over them: one member after the other, for as long
//! as it is safe to ask again.
//!
//! A connection is opened when it is needed: it says name and password if there are some, and asks
//! for the number of the cluster, which must be the one that all others have. It is used until a
//! request over it fails for a reason that is not etcd's own word.
//!
//! Ensures: a request that must not be repeated is sent again only if it surely had no effect.
//! Limits: every step has a time limit; answers have the size that etcd's own limits give them.

use std::{
    error::Error,
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use prost::Message;
use tokio::time::{sleep, timeout};
use tonic::{
    Code, ConnectError, Request, Status, Streaming,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;

use super::message::{
    AUTHENTICATE, AuthenticateRequest, AuthenticateResponse, RANGE, RangeRequest, RangeResponse,
};
use crate::{
    embedded::client::{AskError, Repeat},
    store::Outage,
};

/// Pause when all members were asked in vain.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// How often an idle connection is tried. etcd ends connections that are tried more often than
/// every five seconds.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// How long such a try may take.
const ALIVE_LIMIT: Duration = Duration::from_secs(5);

/// Asks a member to refuse, instead of waiting, while it knows no leader.
const NEEDS_LEADER: &str = "hasleader";

/// Names the header that carries a token.
const TOKEN: &str = "token";

/// Who we are to etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password must not reach a log.
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Files for encrypted connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of those who may sign etcd's, in PEM.
    pub authority: PathBuf,
    /// Our own certificate and its key, in PEM, if etcd asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Its members: `host:port`.
    pub endpoints: Vec<String>,
    /// `None`: connections are not encrypted.
    pub tls: Option<Tls>,
    /// `None`: etcd asks for nobody's name.
    pub credentials: Option<Credentials>,
    /// The number of the cluster, if it was seen before; another one is refused.
    pub cluster: Option<u64>,
    /// How long a request may take, all attempts together.
    pub request_limit: Duration,
    /// How long one member may take to answer.
    pub attempt_limit: Duration,
}

/// Why etcd cannot be asked with such options.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// There is nobody to ask.
    #[error("no member of etcd is named; name at least one as host:port")]
    NoEndpoint,
    /// An endpoint means nothing.
    #[error("\"{endpoint}\" is no address of etcd; write host:port")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What the library says.
        source: tonic::transport::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {} for connections to etcd", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the machine says.
        source: std::io::Error,
    },
}

/// All ways to etcd.
pub(super) struct Connections {
    members: Vec<Member>,
    /// The member that answered last.
    favourite: AtomicUsize,
    probe: Vec<u8>,
    credentials: Option<Credentials>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    cluster: Mutex<Option<u64>>,
    /// Why the last request got no answer; `None` if it got one.
    outage: Mutex<Option<Outage>>,
    request_limit: Duration,
    attempt_limit: Duration,
}

struct Member {
    address: String,
    endpoint: Endpoint,
    channel: tokio::sync::Mutex<Option<Channel>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<&str> = self.members.iter().map(|it| it.address.as_str()).collect();
        f.debug_struct("Connections").field("members", &addresses).finish_non_exhaustive()
    }
}

/// How far a request has come.
#[derive(Debug, Default)]
struct Progress {
    /// It is with a member that has not answered yet.
    is_out: bool,
    /// Why the last attempt failed.
    last: Option<Outage>,
}

/// Why one member gave no answer that settles a request.
#[derive(Debug)]
struct Failure {
    outage: Outage,
    /// Whether the request may have an effect.
    is_in_doubt: bool,
    /// Whether the connection is still good.
    is_word: bool,
}

impl Connections {
    /// Opens nothing yet, but reads all files. `first` is the member that is asked first.
    /// `probe` is a key that this user may read.
    pub(super) fn new(
        options: ConnectOptions,
        first: usize,
        probe: Vec<u8>,
    ) -> Result<Self, OptionsError> {
        let ConnectOptions { endpoints, tls, credentials, cluster, .. } = options;
        let tls = tls.map(|tls| tls_config(&tls)).transpose()?;
        let member = |address: String| {
            let endpoint = endpoint(&address, tls.clone(), options.attempt_limit);
            let endpoint = endpoint
                .map_err(|source| OptionsError::Endpoint { endpoint: address.clone(), source })?;
            Ok(Member { address, endpoint, channel: tokio::sync::Mutex::new(None) })
        };
        let members: Vec<Member> =
            endpoints.into_iter().map(member).collect::<Result<_, OptionsError>>()?;
        if members.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        Ok(Self {
            favourite: AtomicUsize::new(first % members.len()),
            members,
            probe,
            credentials,
            token: Mutex::new(None),
            cluster: Mutex::new(cluster),
            outage: Mutex::new(None),
            request_limit: options.request_limit,
            attempt_limit: options.attempt_limit,
        })
    }

    /// The number of the cluster, once it is known.
    pub(super) fn cluster(&self) -> Option<u64> {
        *self.cluster.lock()
    }

    /// Why etcd does not answer; `None` while it does.
    pub(super) fn outage(&self) -> Option<Outage> {
        self.outage.lock().clone()
    }

    /// Asks until a member has answered, for as long as a request may take.
    pub(super) async fn ask<Q, A>(
        &self,
        path: &'static str,
        request: &Q,
        repeat: Repeat,
    ) -> Result<A, AskError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let limit = self.request_limit;
        let mut progress = Progress::default();
        let asking = Box::pin(self.ask_all(path, request, repeat, &mut progress));
        let answer = match timeout(limit, asking).await {
            Ok(answer) => answer,
            Err(_) if progress.is_out && repeat == Repeat::Never => {
                Err(AskError::Unknown(Outage::TimedOut { limit }))
            }
            Err(_) => {
                Err(AskError::Unavailable(progress.last.unwrap_or(Outage::TimedOut { limit })))
            }
        };
        *self.outage.lock() = match &answer {
            Ok(_) => None,
            Err(AskError::Unknown(outage) | AskError::Unavailable(outage)) => Some(outage.clone()),
        };
        answer
    }

    async fn ask_all<Q, A>(
        &self,
        path: &'static str,
        request: &Q,
        repeat: Repeat,
        progress: &mut Progress,
    ) -> Result<A, AskError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        loop {
            for (place, member) in self.in_order() {
                let failure = match self.channel(member).await {
                    Err(failure) => failure,
                    Ok(channel) => {
                        progress.is_out = true;
                        match self.attempt(member, channel, path, request).await {
                            Ok(answer) => {
                                self.favourite.store(place, Ordering::Relaxed);
                                return Ok(answer);
                            }
                            Err(failure) => failure,
                        }
                    }
                };
                if failure.is_in_doubt && repeat == Repeat::Never {
                    return Err(AskError::Unknown(failure.outage));
                }
                progress.is_out = false;
                progress.last = Some(failure.outage);
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    /// Opens a stream at the first member that can be reached; the request is its only message.
    pub(super) async fn stream<Q, A>(&self, path: &'static str, request: Q) -> Option<Streaming<A>>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        for (_, member) in self.in_order() {
            let Ok(channel) = self.channel(member).await else { continue };
            let mut grpc = Grpc::new(channel);
            let words = tokio_stream::StreamExt::chain(
                tokio_stream::once(request.clone()),
                tokio_stream::pending(),
            );
            let words = self.dressed(words);
            let opening = async {
                grpc.ready().await.ok()?;
                let codec = ProstCodec::<Q, A>::default();
                let path = PathAndQuery::from_static(path);
                Some(grpc.streaming(words, path, codec).await.ok()?.into_inner())
            };
            if let Ok(Some(stream)) = timeout(self.attempt_limit, opening).await {
                return Some(stream);
            }
            *member.channel.lock().await = None;
        }
        None
    }

    /// All members, beginning with the one that answered last.
    fn in_order(&self) -> impl Iterator<Item = (usize, &Member)> {
        let first = self.favourite.load(Ordering::Relaxed);
        let behind = self.members.iter().enumerate().skip(first);
        behind.chain(self.members.iter().enumerate().take(first))
    }

    /// The connection to a member, opened if there is none.
    async fn channel(&self, member: &Member) -> Result<Channel, Failure> {
        let opening = async {
            let mut place = member.channel.lock().await;
            if let Some(channel) = &*place {
                return Ok(channel.clone());
            }
            let channel = self.open(member).await?;
            *place = Some(channel.clone());
            Ok(channel)
        };
        let opened = timeout(self.attempt_limit, opening).await;
        let reason = || format!("no connection came about within {:?}", self.attempt_limit);
        opened.unwrap_or_else(|_| Err(self.unreachable(member, &reason())))
    }

    async fn open(&self, member: &Member) -> Result<Channel, Failure> {
        let connected = member.endpoint.connect().await;
        let channel = connected.map_err(|error| self.unreachable(member, &reason_of(&error)))?;
        if let Some(Credentials { user, password }) = self.credentials.clone()
            && self.token.lock().is_none()
        {
            let request = AuthenticateRequest { name: user, password };
            let request = Request::new(request);
            let answer = send::<_, AuthenticateResponse>(&channel, AUTHENTICATE, request).await;
            let answer = answer.map_err(|status| self.judge(member, &status))?;
            let token = answer.token.parse();
            let unfit = |_| member.refuses("it gave a token that is no text".to_owned());
            *self.token.lock() = Some(token.map_err(unfit)?);
        }
        // Any member answers this by itself, also one that is alone; the header is of interest.
        let probe = RangeRequest { key: self.probe.clone(), is_serializable: true };
        let answer = send::<_, RangeResponse>(&channel, RANGE, self.with_token(probe)).await;
        let answer = answer.map_err(|status| self.judge(member, &status))?;
        let found = answer.header.map_or(0, |header| header.cluster);
        self.check_cluster(member, found)?;
        Ok(channel)
    }

    /// Refuses a member of another cluster than the first one that answered.
    fn check_cluster(&self, member: &Member, found: u64) -> Result<(), Failure> {
        let wanted = *self.cluster.lock().get_or_insert(found);
        if found == wanted {
            return Ok(());
        }
        let reason = format!(
            "it is of the cluster {found:x}, this node belongs to {wanted:x}; name members of one \
             cluster only"
        );
        Err(member.refuses(reason))
    }

    async fn attempt<Q, A>(
        &self,
        member: &Member,
        channel: Channel,
        path: &'static str,
        request: &Q,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let sent = send(&channel, path, self.dressed(request.clone()));
        let failure = match timeout(self.attempt_limit, sent).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => self.judge(member, &status),
            Err(_) => {
                let reason = format!("nothing came within {:?}", self.attempt_limit);
                let address = member.address.clone();
                let outage = Outage::ConnectionLost { address, reason };
                Failure { outage, is_in_doubt: true, is_word: false }
            }
        };
        if !failure.is_word {
            *member.channel.lock().await = None;
        }
        Err(failure)
    }

    /// A request with what every one carries.
    fn dressed<Q>(&self, request: Q) -> Request<Q> {
        let mut request = self.with_token(request);
        request.metadata_mut().insert(NEEDS_LEADER, MetadataValue::from_static("true"));
        request
    }

    fn with_token<Q>(&self, request: Q) -> Request<Q> {
        let mut request = Request::new(request);
        if let Some(token) = &*self.token.lock() {
            request.metadata_mut().insert(TOKEN, token.clone());
        }
        request
    }

    /// What a status means for the request that it answers.
    fn judge(&self, member: &Member, status: &Status) -> Failure {
        let address = member.address.clone();
        let message = status.message();
        if is_unsent(status) {
            return self.unreachable(member, &reason_of(status));
        }
        // etcd refuses these before it proposes anything.
        if message.contains("etcdserver: no leader") || message.contains("proposal dropped") {
            return Failure { outage: Outage::NoLeader, is_in_doubt: false, is_word: true };
        }
        match status.code() {
            Code::Unauthenticated | Code::InvalidArgument => {
                *self.token.lock() = None; // It may have ended; the next connection asks for one.
                member.refuses(message.to_owned())
            }
            Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Unimplemented => member.refuses(message.to_owned()),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => {
                let is_word = message.starts_with("etcdserver: ");
                let reason = if is_word { message.to_owned() } else { reason_of(status) };
                let outage = if message.contains("leader changed") {
                    Outage::LeaderChanged
                } else {
                    Outage::ConnectionLost { address, reason }
                };
                Failure { outage, is_in_doubt: true, is_word }
            }
        }
    }

    fn unreachable(&self, member: &Member, reason: &str) -> Failure {
        let last = format!("{}: {reason}", member.address);
        let outage = Outage::Unreachable { members: self.members.len(), last };
        Failure { outage, is_in_doubt: false, is_word: false }
    }
}

impl Member {
    fn refuses(&self, reason: String) -> Failure {
        let outage = Outage::Refused { address: self.address.clone(), reason };
        Failure { outage, is_in_doubt: false, is_word: false }
    }
}

async fn send<Q, A>(channel: &Channel, path: &'static str, request: Request<Q>) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let path = PathAndQuery::from_static(path);
    Ok(grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
}

fn tls_config(tls: &Tls) -> Result<ClientTlsConfig, OptionsError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| OptionsError::File { path: path.clone(), source })
    };
    let config =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&tls.authority)?));
    Ok(match &tls.identity {
        None => config,
        Some((certificate, key)) => {
            config.identity(Identity::from_pem(read(certificate)?, read(key)?))
        }
    })
}

fn endpoint(
    address: &str,
    tls: Option<ClientTlsConfig>,
    limit: Duration,
) -> Result<Endpoint, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .connect_timeout(limit)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_LIMIT)
        .keep_alive_while_idle(true);
    match tls {
        Some(tls) => endpoint.tls_config(tls),
        None => Ok(endpoint),
    }
}

/// Whether a status tells that no connection could be opened, so that nothing was sent.
fn is_unsent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What an error says, and what it rests on.
fn reason_of(error: &dyn Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if said != "transport error" && words.iter().all(|word| !word.contains(&said)) {
            words.push(said);
        }
        cause = error.source();
    }
    words.join(": ")
}
