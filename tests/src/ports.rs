//! Finds free ports.
//!
//! Ports are tried by binding them and given back at once, so somebody else can take them in
//! between. Ranges lie below those from which the system gives ports to clients, which makes that
//! unlikely; where the binary can take a port by itself (`--port 0`), tests let it.

use std::net::{Ipv4Addr, TcpListener};

/// Where ranges begin.
const FIRST: u16 = 10_000;
/// From one range to the next.
const STEP: u16 = 20;
/// How many ranges are tried.
const TRIES: u16 = 900;

/// A port from which on all of `offsets` are free.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn base_with_free(offsets: &[u16]) -> u16 {
    let start = u16::try_from(std::process::id() % u32::from(TRIES)).unwrap_or(0);
    let bases = (0..TRIES).map(|step| FIRST + (start + step) % TRIES * STEP);
    let mut free = bases.filter(|base| offsets.iter().all(|offset| is_free(base + offset)));
    free.next().unwrap_or_else(|| panic!("no {} ports are free", offsets.len()))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_with_a_taken_port_is_not_given() {
        let base = base_with_free(&[0, 1]);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, base + 1)).unwrap();
        assert_ne!(base_with_free(&[0, 1]), base);
    }
}
