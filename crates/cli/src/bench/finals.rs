//! After a run: waits until all endpoints hold the same, and takes down what they hold.
//!
//! Every key that the run asked for is read from every endpoint, again and again, until all agree
//! or the time is over. The last round is the final state, whether it agrees or not: judging it is
//! the checkers' part. Who is asked to end meanwhile takes nothing down.

use std::future::Future;
use std::time::Duration;

use antecede_check::history::FinalRecord;
use antecede_server::clock;

use super::keys::name_of_value;
use super::plan::{Endpoint, Plan};
use crate::client::{Connection, connection::Answer};
use crate::screen;

/// Reads that are sent at once.
const BATCH: usize = 256;

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_millis(200);

/// How long one batch of reads may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the endpoints held in the end.
#[derive(Debug)]
pub(crate) struct Finals {
    /// One record for each key and endpoint.
    pub(crate) records: Vec<FinalRecord>,
    /// Whether all endpoints answered and held the same.
    pub(crate) have_agreed: bool,
    /// If not, why, in words.
    pub(crate) difference: Option<String>,
    /// Seconds from the end of the run until they agreed.
    pub(crate) seconds: f64,
}

/// Values of all keys at one endpoint.
type Holdings = Vec<Option<String>>;

/// Reads `keys` from all endpoints until they agree, at most for `timeout`, or until `end`: then
/// nothing is known of the final state.
pub(crate) async fn take(
    plan: &Plan,
    keys: &[u64],
    timeout: Duration,
    end: impl Future<Output = ()>,
) -> Finals {
    let start = clock::steady().0;
    tokio::select! {
        finals = until_agreed(plan, keys, timeout, start) => finals,
        () = end => Finals {
            records: Vec::new(),
            have_agreed: false,
            difference: Some("it was asked to end before they did".to_owned()),
            seconds: clock::steady().0.saturating_sub(start).as_secs_f64(),
        },
    }
}

async fn until_agreed(plan: &Plan, keys: &[u64], timeout: Duration, start: Duration) -> Finals {
    loop {
        let (records, difference) = round(plan, keys).await;
        let since = clock::steady().0.saturating_sub(start);
        let have_agreed = difference.is_none();
        if have_agreed || timeout <= since {
            return Finals { records, have_agreed, difference, seconds: since.as_secs_f64() };
        }
        let rest = timeout.as_secs_f64() - since.as_secs_f64();
        screen::progress(&format!("waiting until all agree, {rest:.0}s at most"));
        tokio::time::sleep(PAUSE).await;
    }
}

async fn round(plan: &Plan, keys: &[u64]) -> (Vec<FinalRecord>, Option<String>) {
    let mut records = Vec::new();
    let mut difference = None;
    let mut first: Option<(&Endpoint, Holdings)> = None;
    for endpoint in &plan.endpoints {
        let holdings = match holdings(plan, endpoint, keys).await {
            Ok(holdings) => holdings,
            Err(error) => {
                difference.get_or_insert_with(|| format!("{error:#}"));
                continue;
            }
        };
        for (key, value) in keys.iter().zip(&holdings) {
            records.push(FinalRecord {
                dc: endpoint.dc,
                node: endpoint.address.clone(),
                key: plan.keys.name(*key),
                value: value.clone(),
                version: None,
            });
        }
        match &first {
            None => first = Some((endpoint, holdings)),
            Some((other, known)) => {
                let mut pairs = keys.iter().zip(known.iter().zip(&holdings));
                if let Some((key, (one, two))) = pairs.find(|(_, (one, two))| one != two) {
                    difference.get_or_insert_with(|| {
                        let absent = "nothing".to_owned();
                        format!(
                            "{} holds {} for {}, {} holds {}",
                            other.address,
                            one.as_ref().unwrap_or(&absent),
                            plan.keys.name(*key),
                            endpoint.address,
                            two.as_ref().unwrap_or(&absent),
                        )
                    });
                }
            }
        }
    }
    (records, difference)
}

async fn holdings(plan: &Plan, endpoint: &Endpoint, keys: &[u64]) -> anyhow::Result<Holdings> {
    let password = plan.password.as_deref();
    let mut connection = Connection::open(&endpoint.address, password, TIMEOUT).await?;
    let mut holdings = Vec::with_capacity(keys.len());
    for batch in keys.chunks(BATCH) {
        let names: Vec<String> = batch.iter().map(|key| plan.keys.name(*key)).collect();
        let requests: Vec<[&[u8]; 2]> =
            names.iter().map(|name| [&b"GET"[..], name.as_bytes()]).collect();
        let requests: Vec<&[&[u8]]> = requests.iter().map(|request| &request[..]).collect();
        for answer in connection.call_all(&requests).await? {
            holdings.push(match answer {
                Answer::Text(value) => Some(name_of_value(&value, plan.value_bytes)),
                Answer::Nil => None,
                Answer::Error(text) => {
                    anyhow::bail!("{} refused a read: {text}", endpoint.address)
                }
                Answer::Integer(_) | Answer::List(_) => {
                    anyhow::bail!("{} answered a GET with no string", endpoint.address)
                }
            });
        }
    }
    Ok(holdings)
}
