//! Finds ports for the demo's nodes, and keeps them by binding them at once.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use antecede_server::Listeners;
use anyhow::{Context, bail};

use super::regions::NAMES;
use crate::deployment::{DatacenterPlace, NodePlace};

/// The first port of the first datacenter if nobody says another: that of Redis.
const PORT_USUAL: u16 = 6379;

/// Between the first ports of two datacenters.
const PORT_STEP: u16 = 1000;

/// How many nodes a datacenter has.
const NODES: u16 = 3;

/// Where each node is, and its sockets in the same order.
pub(crate) struct Places {
    /// By datacenter.
    pub(crate) datacenters: Vec<DatacenterPlace>,
    /// By datacenter and node.
    pub(crate) sockets: Vec<Vec<Listeners>>,
}

/// Binds everything; with `base` exactly those ports, else the usual ones or any.
///
/// # Errors
/// When a port that was asked for is taken, or there are none.
pub(crate) fn take(base: Option<u16>) -> anyhow::Result<Places> {
    let first = base.unwrap_or(PORT_USUAL);
    let count = u16::try_from(NAMES.len()).context("there are too many datacenters")?;
    if first.checked_add((count - 1) * PORT_STEP + NODES).is_none() {
        bail!("ports from {first} on are too few; give a lower --base-port");
    }
    let mut places = Places { datacenters: Vec::new(), sockets: Vec::new() };
    for (dc, name) in (0..count).zip(NAMES) {
        let mut nodes = Vec::new();
        let mut sockets = Vec::new();
        for node in 0..NODES {
            let wanted = first + dc * PORT_STEP + node;
            let client = bind(wanted).or_else(|error| match (base, error.kind()) {
                (None, ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => bind(0),
                _ => Err(error),
            });
            let client = client.with_context(|| {
                format!("cannot listen on port {wanted}; give another --base-port, or none")
            })?;
            let peer = bind(0).context("there is no free port")?;
            let admin = bind(0).context("there is no free port")?;
            nodes.push(NodePlace {
                client: client.local_addr()?.to_string(),
                peer: peer.local_addr()?.to_string(),
                admin: admin.local_addr()?.to_string(),
                control: None,
            });
            sockets.push(Listeners { client, peer: Some(peer), admin: Some(admin), control: None });
        }
        let (name, is_added) = (name.to_owned(), false);
        places.datacenters.push(DatacenterPlace { name, nodes, is_added });
        places.sockets.push(sockets);
    }
    Ok(places)
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_the_usual_ports_or_free_ones_and_never_the_same() {
        let one = take(None).unwrap();
        let other = take(None).unwrap();
        let addresses = |places: &Places| -> Vec<String> {
            let nodes = places.datacenters.iter().flat_map(|datacenter| &datacenter.nodes);
            nodes.flat_map(|node| [node.client.clone(), node.peer.clone()]).collect()
        };
        let mut all = addresses(&one);
        all.extend(addresses(&other));
        assert_eq!(all.len(), 36);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 36);
    }

    #[test]
    fn a_port_that_was_asked_for_and_is_taken_is_an_error() {
        let taken = bind(0).unwrap();
        let port = taken.local_addr().unwrap().port();
        if port < u16::MAX - 2 * PORT_STEP - NODES {
            let error = format!("{:#}", take(Some(port)).err().unwrap());
            assert!(error.contains(&port.to_string()), "{error}");
        }
        assert!(take(Some(u16::MAX)).is_err());
    }
}
