//! A context written down for a client to carry to another connection, process or datacenter.
