//! Writes a session's context down as a short text that a client carries to another connection,
//! process or datacenter, and reads it back.
//!
//! A token is `ct1_` and base64url of: format, the first bytes of the deployment's id, membership
//! epoch, the largest HLC, the logical time of each contributing datacenter, a floor per origin
//! with its lineage, exact dependencies, CRC32C. Stamps are written as the distance below the
//! HLC. To clients it is opaque; merging two is taking both, and taking one twice changes nothing.
//!
//! Assumes: the caller takes tokens only of contexts that hold nothing uncommitted, and checks the
//! HLC of one that it read against its wall clock.
//! Limits: at most `TOKEN_EXACT_MAX` exact dependencies, the others collapse into floors.
#![deny(clippy::indexing_slicing)]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    context::{Context, Dependencies},
    dependency::Dependency,
    ids::{DatacenterId, DeploymentId, Lineage, MembershipEpoch},
};

/// Exact dependencies that a token holds.
pub const TOKEN_EXACT_MAX: usize = 16;
/// The longest text that is looked at.
pub const TOKEN_CHARS_MAX: usize = 4096;

/// What a token begins with.
const PREFIX: &str = "ct1_";
/// The number of the format, the first byte under the base64.
const FORMAT: u8 = 1;
/// How much of the deployment's id a token holds.
const DEPLOYMENT_BYTES: usize = 8;
/// How much the checksum takes, at the end.
const CHECKSUM_BYTES: usize = 4;
/// The line of stamps that floors name as long as none was ever lost.
const LINEAGE: Lineage = Lineage(1);

/// Why a text is not taken as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one at all.
    #[error("this is no session token: pass on unchanged what CAUSAL.TOKEN answered")]
    NotAToken,
    /// It was cut off or changed on its way.
    #[error(
        "the session token is damaged: pass on unchanged what CAUSAL.TOKEN answered, all of it"
    )]
    Damaged(#[source] DecodeError),
    /// It is of a format that this build does not read.
    #[error(
        "the session token is of format {found}, this node reads format {FORMAT}; upgrade this \
         node"
    )]
    UnknownFormat {
        /// The token's.
        found: u8,
    },
    /// It comes from other data.
    #[error(
        "the session token is of deployment {}, this is {}; take a token from this deployment",
        hex(found),
        hex(here)
    )]
    OtherDeployment {
        /// The first bytes of the token's.
        found: [u8; DEPLOYMENT_BYTES],
        /// The first bytes of this one's.
        here: [u8; DEPLOYMENT_BYTES],
    },
    /// It knows datacenters that this node has not heard of yet.
    #[error(
        "the session token is of membership {found}, this node knows membership {here}; retry \
         when it has caught up"
    )]
    NewerMembership {
        /// The token's.
        found: MembershipEpoch,
        /// This node's.
        here: MembershipEpoch,
    },
    /// It names a line of stamps that is not the one in use.
    #[error(
        "the session token names lineage {found} of datacenter {origin}, lineage {LINEAGE} is in \
         use; its past is lost, begin with CAUSAL.RESET"
    )]
    OtherLineage {
        /// Whose line.
        origin: DatacenterId,
        /// The token's.
        found: Lineage,
    },
}

/// A token as a client carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    /// Writes a context down.
    #[must_use]
    pub fn encode(
        context: &Context,
        deployment: DeploymentId,
        membership: MembershipEpoch,
    ) -> Self {
        let mut shortened = context.clone();
        shortened.collapse_to(TOKEN_EXACT_MAX);
        let mut bytes = Vec::with_capacity(96);
        write(&shortened, deployment, membership, &mut Writer::new(&mut bytes));
        let checksum = crc32c::crc32c(&bytes);
        Writer::new(&mut bytes).fixed32(checksum);
        let mut text = PREFIX.to_owned();
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        Self(text)
    }

    /// Reads a token back into the context that it was made of.
    ///
    /// # Errors
    /// [`TokenError`] when it is none, is damaged, or is of another deployment or a later
    /// membership.
    pub fn decode(
        text: &str,
        deployment: DeploymentId,
        membership: MembershipEpoch,
    ) -> Result<Context, TokenError> {
        if TOKEN_CHARS_MAX < text.len() {
            return Err(TokenError::NotAToken);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::NotAToken)?;
        let found = bytes.first().copied().ok_or(TokenError::NotAToken)?;
        if found != FORMAT {
            return Err(TokenError::UnknownFormat { found });
        }
        let content = checked(&bytes).map_err(TokenError::Damaged)?;
        let mut reader = Reader::new(content);
        let parts = read(&mut reader).map_err(TokenError::Damaged)?;
        reader.finish().map_err(TokenError::Damaged)?;
        let here = shortened(deployment);
        if parts.deployment != here {
            return Err(TokenError::OtherDeployment { found: parts.deployment, here });
        }
        if membership < parts.membership {
            return Err(TokenError::NewerMembership { found: parts.membership, here: membership });
        }
        for (origin, found, _) in &parts.floor {
            if *found != LINEAGE {
                return Err(TokenError::OtherLineage { origin: *origin, found: *found });
            }
        }
        let floor = parts.floor.into_iter().map(|(origin, _, stamp)| (origin, stamp)).collect();
        let dependencies = Dependencies { exact: parts.exact, floor };
        Ok(Context::from_parts(dependencies, parts.time, parts.contributed))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl std::fmt::Display for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the bytes of a token say.
struct Parts {
    deployment: [u8; DEPLOYMENT_BYTES],
    membership: MembershipEpoch,
    time: Timestamp,
    contributed: Vec<(DatacenterId, Timestamp)>,
    floor: Vec<(DatacenterId, Lineage, Timestamp)>,
    exact: Vec<Dependency>,
}

fn write(
    context: &Context,
    deployment: DeploymentId,
    membership: MembershipEpoch,
    to: &mut Writer<'_>,
) {
    to.u8(FORMAT);
    for byte in shortened(deployment) {
        to.u8(byte);
    }
    to.number(membership.0);
    let time = context.time();
    to.timestamp(time);
    to.length(context.contributed().len());
    for (datacenter, at) in context.contributed() {
        to.datacenter(*datacenter);
        to.signed(distance(time, *at));
    }
    let dependencies = context.dependencies();
    to.length(dependencies.floor.len());
    for (origin, stamp) in &dependencies.floor {
        to.datacenter(*origin);
        to.number(u64::from(LINEAGE.0));
        to.signed(distance(time, *stamp));
    }
    to.length(dependencies.exact.len());
    for dependency in &dependencies.exact {
        to.datacenter(dependency.origin);
        to.shard(dependency.shard);
        to.signed(distance(time, dependency.stamp));
    }
}

fn read(from: &mut Reader<'_>) -> Result<Parts, DecodeError> {
    from.u8()?;
    let mut deployment = [0; DEPLOYMENT_BYTES];
    for byte in &mut deployment {
        *byte = from.u8()?;
    }
    let membership = MembershipEpoch(from.number()?);
    let time = from.timestamp()?;
    let contributed =
        from.list("contributing datacenters", |from| Ok((from.datacenter()?, below(time, from)?)))?;
    let floor = from.list("floors", |from| {
        let origin = from.datacenter()?;
        let found = from.number()?;
        let lineage = u32::try_from(found).map_err(|_| DecodeError::OverLimit {
            what: "a lineage",
            found,
            limit: u64::from(u32::MAX),
        })?;
        Ok((origin, Lineage(lineage), below(time, from)?))
    })?;
    let exact = from.list("dependencies", |from| {
        let (origin, shard) = (from.datacenter()?, from.shard()?);
        Ok(Dependency { origin, shard, stamp: below(time, from)? })
    })?;
    if TOKEN_EXACT_MAX < exact.len() {
        return Err(DecodeError::OverLimit {
            what: "dependencies in a token",
            found: exact.len() as u64,
            limit: TOKEN_EXACT_MAX as u64,
        });
    }
    // Without this, a token with a past would pass for one that this datacenter showed itself.
    if contributed.is_empty() && !(floor.is_empty() && exact.is_empty()) {
        return Err(DecodeError::OverLimit {
            what: "dependencies that no datacenter showed",
            found: exact.len().max(floor.len()) as u64,
            limit: 0,
        });
    }
    Ok(Parts { deployment, membership, time, contributed, floor, exact })
}

/// The bytes before the checksum, if it fits.
fn checked(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let (content, checksum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(|| DecodeError::Short { wanted: CHECKSUM_BYTES - bytes.len() })?;
    let found = u32::from_le_bytes(*checksum);
    let computed = crc32c::crc32c(content);
    if found == computed { Ok(content) } else { Err(DecodeError::Checksum { found, computed }) }
}

/// How far below the time a stamp lies; negative above, which no context has but bytes may.
const fn distance(time: Timestamp, stamp: Timestamp) -> i64 {
    time.0.wrapping_sub(stamp.0).cast_signed()
}

fn below(time: Timestamp, from: &mut Reader<'_>) -> Result<Timestamp, DecodeError> {
    Ok(Timestamp(time.0.wrapping_sub(from.signed()?.cast_unsigned())))
}

fn shortened(deployment: DeploymentId) -> [u8; DEPLOYMENT_BYTES] {
    *deployment.0.first_chunk().expect("sixteen bytes have eight")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{cut::Cut, ids::ShardId};

    const HERE: DeploymentId = DeploymentId(*b"0123456789abcdef");
    const MEMBERSHIP: MembershipEpoch = MembershipEpoch(1);
    const NOW: u64 = 1_800_000_000_000 << 16;

    fn dependency(origin: u16, shard: u16, ago: u64) -> Dependency {
        Dependency {
            origin: DatacenterId(origin),
            shard: ShardId(shard),
            stamp: Timestamp(NOW - ago),
        }
    }

    fn context(exact: Vec<Dependency>, contributed: &[(u16, u64)]) -> Context {
        Context::from_parts(
            Dependencies { exact, floor: Vec::new() },
            Timestamp(NOW),
            contributed.iter().map(|(id, ago)| (DatacenterId(*id), Timestamp(NOW - ago))),
        )
    }

    fn decoded(text: &str) -> Result<Context, TokenError> {
        SessionToken::decode(text, HERE, MEMBERSHIP)
    }

    fn encoded(context: &Context) -> String {
        SessionToken::encode(context, HERE, MEMBERSHIP).into_string()
    }

    #[test]
    fn a_token_keeps_its_bytes() {
        let second = 1_000 << 16;
        let past = context(
            vec![dependency(1, 17, 0), dependency(2, 200, second)],
            &[(1, 0), (3, 5 * second)],
        );
        let text = encoded(&past);
        assert_eq!(
            text, "ct1_ATAxMjM0NTY3AQAAAFBcGKMBAgEAA4CAwLgCAAIBEQACyAGAgMA-MPPG2w",
            "clients hold tokens of this form"
        );
        assert_eq!(decoded(&text), Ok(past));
    }

    #[test]
    fn usual_tokens_are_short() {
        let minute = 60_000 << 16;
        let small = encoded(&context(vec![dependency(1, 3, 0)], &[(1, 0)]));
        let usual = (0..8).map(|at| dependency(1 + at % 3, 31 * at, minute)).collect();
        let usual = encoded(&context(usual, &[(1, 0), (2, minute), (3, minute)]));
        for text in [small, usual] {
            assert!((40..=160).contains(&text.len()), "{} characters: {text}", text.len());
        }
    }

    #[test]
    fn many_dependencies_collapse_into_floors() {
        let many =
            context((0..40).map(|at| dependency(1, at, 40 - u64::from(at))).collect(), &[(1, 0)]);
        let read = decoded(&encoded(&many)).unwrap();
        assert_eq!(read.dependencies().exact.len(), TOKEN_EXACT_MAX);
        assert_eq!(read.dependencies().floor, vec![(DatacenterId(1), Timestamp(NOW - 17))]);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let text = encoded(&context(vec![dependency(1, 3, 0)], &[(1, 0)]));
        assert_eq!(decoded("hello"), Err(TokenError::NotAToken));
        assert_eq!(decoded("ct1_"), Err(TokenError::NotAToken));
        assert_eq!(decoded("ct1_%%%%"), Err(TokenError::NotAToken));
        assert_eq!(decoded("ct1_AgAA"), Err(TokenError::UnknownFormat { found: 2 }));
        let cut = &text[..text.len() - 4];
        assert!(matches!(decoded(cut), Err(TokenError::Damaged(_))));
        let other = DeploymentId([7; 16]);
        let error = SessionToken::decode(&text, other, MEMBERSHIP).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the session token is of deployment 3031323334353637, this is 0707070707070707; take \
             a token from this deployment"
        );
        let newer = SessionToken::encode(&Context::default(), HERE, MembershipEpoch(2));
        assert_eq!(
            decoded(newer.as_str()),
            Err(TokenError::NewerMembership { found: MembershipEpoch(2), here: MEMBERSHIP })
        );
    }

    #[test]
    fn a_past_that_no_datacenter_showed_is_refused() {
        let made_up = context(vec![dependency(1, 3, 0)], &[]);
        assert!(matches!(decoded(&encoded(&made_up)), Err(TokenError::Damaged(_))));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let past = context(vec![dependency(1, 3, 0), dependency(2, 9, 77)], &[(1, 0), (2, 1)]);
        let text = encoded(&past);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(decoded(&changed).is_err(), "{changed} passes for {text}");
        }
    }

    fn any_context() -> impl Strategy<Value = Context> {
        let datacenter = || any::<u16>().prop_map(DatacenterId);
        let stamp = || any::<u64>().prop_map(Timestamp);
        let exact = (datacenter(), any::<u16>(), stamp())
            .prop_map(|(origin, shard, stamp)| Dependency { origin, shard: ShardId(shard), stamp });
        let exact = proptest::collection::vec(exact, 0..=TOKEN_EXACT_MAX);
        let floor = proptest::collection::vec((datacenter(), stamp()), 0..4);
        let contributed = proptest::collection::vec((datacenter(), stamp()), 1..4);
        (exact, floor, stamp(), contributed).prop_map(|(exact, floor, time, contributed)| {
            Context::from_parts(Dependencies { exact, floor }, time, contributed)
        })
    }

    proptest! {
        #[test]
        fn tokens_come_back(context in any_context()) {
            prop_assert_eq!(decoded(&encoded(&context)), Ok(context));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text: String, bytes: Vec<u8>) {
            prop_assert!(decoded(&text).is_err());
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert!(decoded(&text).is_err());
        }

        #[test]
        fn any_content_under_a_sound_checksum_is_read_or_refused_without_a_panic(
            mut bytes: Vec<u8>,
        ) {
            bytes.insert(0, FORMAT);
            let checksum = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            let read = decoded(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes)));
            prop_assert!(read.is_ok() || read.is_err());
        }

        #[test]
        fn taking_a_token_twice_changes_nothing(own in any_context(), carried in any_context()) {
            let carried = decoded(&encoded(&carried)).unwrap();
            let mut own = own;
            own.merge(&carried, &Cut::default());
            let once = own.clone();
            own.merge(&carried, &Cut::default());
            prop_assert_eq!(own, once);
        }
    }
}
